import jax
import numpy as np
import pytest

from san_jax.errors import UserError
from san_jax.scoring import query_expansion


@pytest.mark.parametrize(("num_query", "num_gallery", "k"), [(1, 1, 1), (9, 40, 5), (5, 3, 3)])
def test_query_becomes_the_mean_of_itself_and_its_nearest(num_query, num_gallery, k):
    rng = np.random.default_rng(k)
    query_feats, gallery_feats = (rng.standard_normal((n, 6)).astype(np.float32) for n in (num_query, num_gallery))
    expected = []
    for feats in query_feats:
        nearest = np.argsort(np.sum((gallery_feats - feats) ** 2, axis=1))[:k]
        expected.append(np.mean([feats, *gallery_feats[nearest]], axis=0))
    np.testing.assert_allclose(query_expansion.expand(query_feats, gallery_feats, k=k), expected, atol=1e-6)


def test_neighbours_are_found_by_the_given_distance():
    """The first gallery vector is nearer to the query, the second has the same direction."""
    query_feats, gallery_feats = np.float32([[1, 1]]), np.float32([[1, 0], [5, 5]])
    expand = query_expansion.expand
    np.testing.assert_allclose(expand(query_feats, gallery_feats, k=1), [[1, 0.5]])
    np.testing.assert_allclose(expand(query_feats, gallery_feats, k=1, distance="cosine"), [[3, 3]])


def test_query_moves_to_the_mean_of_its_identity():
    """Two identities far apart: each query moves to the mean of itself and its identity's pictures."""
    rng = np.random.default_rng(0)
    centres = 100 * np.eye(2, 4)
    gallery_feats = np.repeat(centres, 5, axis=0) + rng.uniform(-1, 1, (10, 4))
    query_feats = centres + rng.uniform(-1, 1, (2, 4))
    expanded = query_expansion.expand(query_feats.astype(np.float32), jax.numpy.float32(gallery_feats))
    whole = np.concatenate([query_feats[:, None], gallery_feats.reshape(2, 5, 4)], axis=1)
    np.testing.assert_allclose(expanded, whole.mean(axis=1), rtol=1e-5, atol=1e-5)


def test_more_neighbours_than_the_gallery_has_are_an_error():
    with pytest.raises(UserError, match="k is 5, but the gallery has only 3 pictures"):
        query_expansion.expand(np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32))
