
import jax
import numpy as np
import pytest
from commands import call_on_devices

from san_jax.errors import UserError
from san_jax.scoring import distances, nearest


def random_feats(seed, num_query, num_gallery, *, ties):
    """Query and gallery features; with `ties`, small whole numbers, so that distances are exact and many are equal."""
    rng = np.random.default_rng(seed)
    draw = (lambda n: rng.integers(-2, 3, (n, 3))) if ties else (lambda n: rng.standard_normal((n, 16)))
    return tuple(draw(num).astype(np.float32) for num in (num_query, num_gallery))


def plain_nearest(query_feats, gallery_feats, k):
    """Sorts the whole gallery for every query, in float64."""
    distmat = np.sum((query_feats[:, None].astype(np.float64) - gallery_feats) ** 2, axis=2)
    rows = np.argsort(distmat, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distmat, rows, axis=1), rows


def check(feats, k, **options):
    found = nearest.nearest(*feats, k=k, **options)
    expected, rows = plain_nearest(*feats, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("num_query", "num_gallery", "k"), [(1, 1, 1), (5, 3, 2), (9, 8, 8), (23, 150, 7), (40, 2001, 3), (3, 3000, 40)]
)
def test_nearest_are_the_first_of_a_stable_sort(num_query, num_gallery, k, ties):
    check(random_feats(k, num_query, num_gallery, ties=ties), k)


def test_equal_distances_are_returned_in_gallery_order():
    gallery_feats = np.ones((2000, 4), np.float32)
    gallery_feats[[1999, 1200, 1201, 3]] = 0
    found = nearest.nearest(np.zeros((2, 4), np.float32), gallery_feats, k=7)
    np.testing.assert_array_equal(found.rows, [[3, 1200, 1201, 1999, 0, 1, 2]] * 2)
    np.testing.assert_array_equal(found.distances, [[0, 0, 0, 0, 4, 4, 4]] * 2)


@pytest.mark.parametrize("tile", [1, 7, 100])
def test_tile_does_not_change_the_result(tile):
    check(random_feats(0, 23, 150, ties=True), 7, tile=tile)


def test_only_a_tile_of_distances_is_computed_at_a_time(monkeypatch, traced_anew):
    real, shapes = distances.distmat, []

    def recorded(*args, **kwargs):
        shapes.append(real(*args, **kwargs).shape)
        return real(*args, **kwargs)

    monkeypatch.setattr(distances, "distmat", recorded)
    check(random_feats(0, 41, 1111, ties=False), 4, tile=10)
    assert set(shapes) == {(9, 1111)}


def test_cosine_neighbours_are_those_of_unit_vectors():
    feats = random_feats(1, 20, 700, ties=False)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in feats]
    expected, rows = plain_nearest(*unit, 5)
    found = nearest.nearest(*feats, k=5, distance="cosine")
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, expected / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("feats", "k", "message"),
    [
        ((np.zeros((2, 4)), np.zeros((3, 4))), 10, "k is 10, but the gallery has only 3 pictures"),
        ((np.zeros((2, 4)), np.zeros((0, 4))), 1, "k is 1, but the gallery has only 0 pictures"),
        ((np.zeros((2, 4)), np.zeros((3, 4))), 0, "k is 0; ask for 1"),
        ((np.zeros((0, 4)), np.zeros((3, 4))), 1, "no query pictures"),
        ((np.zeros((2, 4)), np.zeros((3, 5))), 1, "query features have 4 numbers, gallery features 5; "),
        ((np.zeros((2, 4)), np.full((3, 4), np.nan)), 1, "^gallery features hold NaN"),
    ],
)
def test_invalid_input_is_an_error(feats, k, message):
    with pytest.raises(UserError, match=message):
        nearest.nearest(*(x.astype(np.float32) for x in feats), k=k)


def check_meshes():
    """Runs in a process with eight devices: they find what one device finds, also with fewer than k rows on each."""
    devices = np.array(jax.devices())
    assert len(devices) == 8
    line, grid = jax.sharding.Mesh(devices, ("data",)), jax.sharding.Mesh(devices.reshape(4, 2), ("data", "fsdp"))
    for num_gallery, k, mesh in [(3, 3, line), (61, 10, grid), (1601, 3, grid)]:
        check(random_feats(0, 23, num_gallery, ties=True), k, mesh=mesh, tile=10)


def test_gallery_sharded_over_eight_devices_gives_the_same_result():
    call_on_devices(8, "test_nearest", "check_meshes")
