import numpy as np
import pytest

from san_jax.scoring import nearest
from san_jax.serving import neighbours
from san_jax.serving.neighbours import Neighbours


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 64)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("length", [7, 64, 200])
def test_finds_what_a_search_of_the_whole_gallery_finds(distance, length):
    gallery, query = random(length, 16), random(3, 16, seed=1)
    found = Neighbours(gallery, distance=distance).nearest(query, k=5)
    expected = nearest.nearest(query, gallery, k=5, distance=distance)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-5)


def test_only_allowed_pictures_are_found():
    gallery, query = random(200, 16), random(1, 16, seed=1)
    allowed = np.random.default_rng(2).random(200) < 0.1
    found = Neighbours(gallery).nearest(query, k=8, allowed=allowed)
    rows = np.flatnonzero(allowed)
    far = np.square(gallery[rows] - query).sum(axis=1)
    np.testing.assert_array_equal(found.rows[0], rows[np.argsort(far)][:8])


def test_places_for_which_no_picture_is_left_are_infinitely_far():
    allowed = np.zeros(100, bool)
    allowed[[3, 80]] = True
    found = Neighbours(random(100, 16)).nearest(random(1, 16, seed=1), k=4, allowed=allowed)
    assert sorted(found.rows[0, :2].tolist()) == [3, 80]
    assert np.isinf(found.distances[0, 2:]).all()


def test_equal_pictures_are_found_in_the_order_of_the_gallery():
    found = Neighbours(np.ones((150, 16), np.float32)).nearest(np.zeros((1, 16)), k=5)
    assert found.rows[0].tolist() == [0, 1, 2, 3, 4]


def test_pictures_whose_features_are_no_numbers_are_not_found():
    gallery = random(10, 16)
    gallery[4] = np.nan
    found = Neighbours(gallery).nearest(random(1, 16), k=10)
    assert 4 not in found.rows[0, :9]
    assert np.isinf(found.distances[0, 9])


def test_gallery_without_pictures_has_no_neighbours():
    empty = Neighbours(np.empty((0, 16), np.float32))
    assert len(empty) == 0
    assert np.isinf(empty.nearest(random(2, 16), k=3).distances).all()
