import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from san_jax.errors import UserError
from san_jax.scoring import distances


def distmat(query_feats, gallery_feats, distance="euclidean"):
    query_feats, gallery_feats = jnp.asarray(query_feats), jnp.asarray(gallery_feats)
    norms = {
        "query_norms": distances.squared_norms(query_feats),
        "gallery_norms": distances.squared_norms(gallery_feats),
    }
    compute = jax.jit(distances.distmat, static_argnames="distance")
    return np.asarray(compute(query_feats, gallery_feats, **norms, distance=distance))


def random_feats(num, dim, seed=0):
    return np.random.default_rng([seed, num, dim]).standard_normal((num, dim)).astype(np.float32)


def test_euclidean_is_the_squared_distance():
    query, gallery = random_feats(7, 512), random_feats(90, 512, seed=1)
    exact = np.sum((query.astype(np.float64)[:, None] - gallery[None]) ** 2, axis=2)
    np.testing.assert_allclose(distmat(query, gallery), exact, rtol=2e-6)


def test_cosine_is_one_minus_the_cosine():
    query, gallery = random_feats(7, 512), random_feats(90, 512, seed=1)
    exact = 1 - query.astype(np.float64) @ gallery.T / np.outer(
        np.linalg.norm(query, axis=1), np.linalg.norm(gallery, axis=1)
    )
    np.testing.assert_allclose(distmat(query, 3 * gallery, "cosine"), exact, atol=1e-6)


def test_cosine_of_zero_features_is_one():
    found = distmat(np.float32([[0, 0], [1, 0]]), np.float32([[0, 0], [2, 0], [0, 3], [-1, 0]]), "cosine")
    np.testing.assert_array_equal(found, [[1, 1, 1, 1], [1, 0, 1, 2]])


def random_histograms(num, dim, seed=0):
    """Histograms with about 40 % of the bins empty."""
    counts = np.maximum(np.random.default_rng([seed, num, dim]).integers(-5, 10, (num, dim)), 0)
    return (counts / max(1, counts.sum(axis=1).max())).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 8, 9, 288])
def test_chi_square_is_half_the_sum_over_bins_that_are_not_empty(dim):
    query, gallery = random_histograms(7, dim), random_histograms(90, dim, seed=1)
    difference, total = query.astype(np.float64)[:, None] - gallery, query.astype(np.float64)[:, None] + gallery
    exact = np.sum(difference**2 / np.where(total == 0, 1, total), axis=2) / 2
    np.testing.assert_allclose(distmat(query, gallery, "chi_square"), exact, rtol=1e-5, atol=1e-9)


def test_chi_square_of_histograms_goes_from_zero_to_one():
    found = distmat(np.float32([[0.5, 0.5, 0, 0]]), np.float32([[0.5, 0.5, 0, 0], [0, 0, 1, 0]]), "chi_square")
    np.testing.assert_array_equal(found, [[0, 1]])


def test_chi_square_holds_no_array_larger_than_features_and_distances():
    feats, norms = jnp.ones((24, 960)), jnp.ones(24)
    compute = functools.partial(distances.distmat, query_norms=norms, gallery_norms=norms, distance="chi_square")
    assert max(sizes(jax.make_jaxpr(compute)(feats, feats).jaxpr)) == 24 * 960


def sizes(jaxpr):
    """Sizes of all arrays in a jaxpr, including those inside its loops."""
    for equation in jaxpr.eqns:
        yield from (var.aval.size for var in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.parametrize("distance", distances.DISTANCES)
def test_distances_are_never_negative(distance):
    feats = 100 + random_feats(50, 512)
    found = distmat(feats, feats, distance)
    assert np.min(found) == 0
    assert np.max(np.diag(found)) < 1e-5 * 512 * 100**2


@pytest.mark.parametrize("distance", distances.DISTANCES)
@pytest.mark.parametrize("shape", [(1, 3, 512), (3, 37, 16), (64, 257, 512), (130, 100, 33)])
def test_equal_features_have_equal_distances(distance, shape):
    num_query, num_gallery, dim = shape
    found = distmat(random_feats(num_query, dim), np.repeat(random_feats(1, dim), num_gallery, axis=0), distance)
    assert np.all(found == found[:, :1])


def test_product_has_full_float32_precision_even_for_bfloat16_features():
    feats, norms = jnp.ones((4, 8), jnp.bfloat16), jnp.ones(4)
    equations = jax.make_jaxpr(lambda x, n: distances.distmat(x, x, query_norms=n, gallery_norms=n))(feats, norms).eqns
    (product,) = (equation for equation in equations if equation.primitive.name == "dot_general")
    assert product.params["precision"] == (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    assert {operand.aval.dtype for operand in product.invars} == {jnp.dtype("float32")}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e19])
def test_error_for_non_finite_or_too_large_features_names_the_first_row(value):
    feats = random_feats(9, 4)
    distances.check_finite(distances.squared_norms(feats), name="gallery")
    feats[[3, 7], 1] = value
    with pytest.raises(UserError, match=r"^gallery features hold .* in 2 rows, first in row 3;"):
        distances.check_finite(distances.squared_norms(feats), name="gallery")


def test_error_for_an_unknown_distance_names_the_known_ones():
    with pytest.raises(UserError, match="'manhattan' is none of euclidean, cosine, chi_square"):
        distmat(random_feats(2, 4), random_feats(2, 4), "manhattan")
