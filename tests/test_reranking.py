
import jax
import numpy as np
import pytest
from commands import call_on_devices
from ranking_cases import GOLDEN, golden_case, listed

from san_jax.errors import UserError
from san_jax.scoring import distances, ranking, reranking


def random_feats(seed, num_query, num_gallery, *, num_pids=8):
    """Identities with a few pictures each, close enough to each other that sets of neighbours overlap."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_pids, 8))
    draw = lambda n: centres[rng.integers(0, num_pids, n)] + 0.7 * rng.standard_normal((n, 8))  # noqa: E731
    return draw(num_query).astype(np.float32), draw(num_gallery).astype(np.float32)


def some_labels(num_query, num_gallery):
    rng = np.random.default_rng(0)
    return {
        "query_pids": rng.integers(0, 6, num_query),
        "gallery_pids": rng.integers(0, 6, num_gallery),
        "query_camids": rng.integers(0, 3, num_query),
        "gallery_camids": rng.integers(0, 3, num_gallery),
    }


def plain_distmat(feats, k1, k2, weight):
    """The paper's steps with whole [N N] arrays, sets and loops, in float64."""
    points = np.concatenate(feats).astype(np.float64)
    num_points, num_queries = len(points), len(feats[0])
    relative = np.sum((points[:, None] - points) ** 2, axis=2)
    relative /= np.maximum(relative.max(axis=1, keepdims=True), 1e-30)
    order = np.argsort(relative, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    described = np.zeros((num_points, num_points))
    for i in range(num_points):
        own = reciprocal(i, k1)
        halves = [reciprocal(j, round(k1 / 2)) for j in own]
        members = sorted(own.union(*(half for half in halves if len(half & own) > 2 / 3 * len(half))))
        closeness = np.exp(-relative[i, members])
        described[i, members] = closeness / closeness.sum()
    if k2 > 1:
        described = np.stack([described[order[i, :k2]].mean(axis=0) for i in range(num_points)])
    overlap = np.minimum(described[:num_queries, None], described[None, num_queries:]).sum(axis=2)
    return (1 - weight) * (1 - overlap / (2 - overlap)) + weight * relative[:num_queries, num_queries:]


@pytest.mark.parametrize("case", range(4))
def test_scores_are_those_of_other_implementations(case):
    feats, labels = golden_case(case)
    found = ranking.scores(reranking.rank(*feats, **labels))
    np.testing.assert_allclose(found.cmc, GOLDEN[f"{case}/reranked_cmc"], atol=1e-6)
    assert found.mAP == pytest.approx(float(GOLDEN[f"{case}/reranked_map"]), abs=1e-6)


@pytest.mark.parametrize("case", [0, 2])
def test_distances_are_those_of_other_implementations(case):
    feats, _ = golden_case(case)
    np.testing.assert_allclose(reranking.distmat(*feats), GOLDEN[f"{case}/reranked"], atol=1e-6)


@pytest.mark.parametrize(
    ("num_query", "num_gallery", "options"),
    [
        (20, 130, dict(k1=20, k2=6, weight=0.3)),
        (13, 70, dict(k1=5, k2=3, weight=0.5)),
        (7, 60, dict(k1=7, k2=1, weight=0.0)),
        (10, 45, dict(k1=4, k2=9, weight=0.1)),
        (1, 30, dict(k1=1, k2=2, weight=0.3)),
    ],
)
def test_distances_are_those_of_the_plain_computation(num_query, num_gallery, options):
    feats = random_feats(num_query, num_query, num_gallery)
    np.testing.assert_allclose(reranking.distmat(*feats, **options), plain_distmat(feats, **options), atol=2e-6)


@pytest.mark.parametrize(("num_query", "num_gallery"), [(1, 1), (1, 5), (4, 2), (8, 12)])
def test_sets_smaller_than_k1_take_all_points(num_query, num_gallery):
    feats = random_feats(3, num_query, num_gallery)
    expected = plain_distmat(feats, 20, 6, 0.3)
    np.testing.assert_allclose(reranking.distmat(*feats), expected, atol=2e-6)


def test_order_of_the_gallery_does_not_change_the_distances():
    query_feats, gallery_feats = random_feats(0, 20, 130)
    order = np.random.default_rng(0).permutation(130)
    one, other = (reranking.distmat(query_feats, feats) for feats in (gallery_feats, gallery_feats[order]))
    np.testing.assert_allclose(np.asarray(one)[:, order], other, atol=1e-6)


def test_equal_pictures_rank_in_gallery_order():
    """With so few points, every point is a neighbour of every other, so equal features mean equal neighbour vectors."""
    query_feats, gallery_feats = random_feats(1, 3, 4)
    gallery_feats = np.tile(gallery_feats, (3, 1))
    distmat = np.asarray(reranking.distmat(query_feats, gallery_feats))
    np.testing.assert_array_equal(distmat[:, :4], distmat[:, 4:8])
    np.testing.assert_array_equal(distmat[:, :4], distmat[:, 8:])
    labels = dict(
        query_pids=np.zeros(3, int),
        query_camids=np.zeros(3, int),
        gallery_pids=np.tile([0, 1, 2, 3], 3),
        gallery_camids=np.ones(12, int),
    )
    order = np.argsort(distmat, axis=1, kind="stable")
    expected = [[int(np.flatnonzero(row == picture)[0]) + 1 for picture in (0, 4, 8)] for row in order]
    assert listed(reranking.rank(query_feats, gallery_feats, **labels)) == expected


def test_identical_pictures_have_distance_zero():
    """More than k1 of them: the first ones are neighbours of every picture, and every picture has a distance."""
    distmat = np.asarray(reranking.distmat(np.ones((20, 8), np.float32), np.ones((130, 8), np.float32)))
    np.testing.assert_array_equal(distmat, np.zeros_like(distmat))


def test_weight_one_keeps_the_euclidean_order():
    feats, labels = random_feats(4, 20, 130), some_labels(20, 130)
    assert listed(reranking.rank(*feats, **labels, weight=1.0)) == listed(ranking.rank(*feats, **labels))


@pytest.mark.parametrize("tile", [1, 7, 1000])
def test_tile_does_not_change_the_ranks(tile):
    feats, labels = random_feats(4, 20, 130), some_labels(20, 130)
    np.testing.assert_array_equal(reranking.rank(*feats, **labels, tile=tile), reranking.rank(*feats, **labels))


def test_long_lists_are_read_in_runs(monkeypatch, traced_anew):
    monkeypatch.setattr(reranking, "RUN", 3)
    monkeypatch.setattr(reranking, "RUNS", 7)
    feats = random_feats(6, 11, 97)
    np.testing.assert_allclose(reranking.distmat(*feats), plain_distmat(feats, 20, 6, 0.3), atol=2e-6)


def test_only_tiles_of_distances_are_computed(monkeypatch, traced_anew):
    real, shapes = distances.distmat, set()

    def recorded(*args, **kwargs):
        shapes.add(real(*args, **kwargs).shape)
        return real(*args, **kwargs)

    monkeypatch.setattr(distances, "distmat", recorded)
    reranking.rank(*random_feats(4, 20, 123), **some_labels(20, 123), tile=10)
    assert shapes == {(10, 143), (10, 123)}


def test_single_shot_with_one_picture_per_pid_ranks_the_whole_gallery():
    feats, labels = random_feats(5, 20, 130), some_labels(20, 130)
    labels["gallery_pids"] = np.random.default_rng(3).permutation(130)
    refinement = reranking.refinement(*feats)
    drawn = ranking.draw_ranks(*feats, **labels, refinement=refinement, key=jax.random.key(0), draws=2)
    expected = ranking.rank(*feats, **labels, refinement=refinement)
    np.testing.assert_array_equal(drawn, np.tile(np.asarray(expected)[:, 0], (2, 1)))


@pytest.mark.parametrize("options", [dict(k1=0), dict(k2=0), dict(weight=-0.1), dict(weight=1.5)])
def test_parameters_out_of_range_are_an_error(options):
    with pytest.raises(UserError, match="k1 and k2 must be 1 or more, the weight must be from 0 to 1"):
        reranking.distmat(*random_feats(0, 2, 3), **options)


@pytest.mark.parametrize(("broken", "name"), [(0, "query"), (1, "gallery")])
def test_non_finite_features_are_an_error(broken, name):
    feats = random_feats(0, 8, 12)
    feats[broken][5, 2] = np.nan
    with pytest.raises(UserError, match=rf"^{name} features .* row 5;"):
        reranking.distmat(*feats)


@pytest.mark.parametrize(("num_query", "num_gallery"), [(0, 3), (3, 0)])
def test_empty_query_or_gallery_is_an_error(num_query, num_gallery):
    with pytest.raises(UserError, match="nothing to rank"):
        reranking.distmat(np.ones((num_query, 8), np.float32), np.ones((num_gallery, 8), np.float32))


def check_meshes():
    """Runs in a process with eight devices: distances are those of one device, whether or not the points divide."""
    devices = np.array(jax.devices())
    assert len(devices) == 8
    line, grid = jax.sharding.Mesh(devices, ("data",)), jax.sharding.Mesh(devices.reshape(4, 2), ("data", "fsdp"))
    for num_gallery, mesh in [(3, line), (131, grid)]:
        feats = random_feats(2, 20, num_gallery)
        expected = plain_distmat(feats, 20, 6, 0.3)
        np.testing.assert_allclose(reranking.distmat(*feats, mesh=mesh), expected, atol=2e-6)
    labels = some_labels(20, 131)
    assert listed(reranking.rank(*feats, **labels, mesh=grid)) == listed(reranking.rank(*feats, **labels))


def test_points_sharded_over_eight_devices_have_the_same_ranks():
    call_on_devices(8, "test_reranking", "check_meshes")
