
import jax
import numpy as np
import pytest
from commands import call_on_devices
from ranking_cases import GOLDEN, golden_case, listed

from san_jax.devices import split_rows
from san_jax.errors import UserError
from san_jax.scoring import distances, ranking, tiles


def random_case(seed, *, num_query=23, num_gallery=150, num_pids=12, num_camids=3):
    """Small whole numbers, so that distances are exact and many tie; some pids are only in query or only in gallery."""
    rng = np.random.default_rng(seed)
    feats = tuple(rng.integers(-2, 3, (num, 4)).astype(np.float32) for num in (num_query, num_gallery))
    labels = {
        "query_pids": rng.integers(0, num_pids, num_query),
        "gallery_pids": rng.integers(2, num_pids + 2, num_gallery),
        "query_camids": rng.integers(0, num_camids, num_query),
        "gallery_camids": rng.integers(0, num_camids, num_gallery),
    }
    return feats, labels


def binary_case(seed, **options):
    feats, labels = random_case(seed, **options)
    return tuple((x > 0).astype(np.float32) for x in feats), labels


def plain_ranks(feats, labels):
    """Sorts the whole gallery for every query, in float64: the ranks of the correct pictures, in gallery order."""
    query_feats, gallery_feats = (x.astype(np.float64) for x in feats)
    all_ranks = []
    for i in range(len(query_feats)):
        order = np.argsort(np.sum((gallery_feats - query_feats[i]) ** 2, axis=1), kind="stable")
        same_person = labels["gallery_pids"][order] == labels["query_pids"][i]
        same_camera = labels["gallery_camids"][order] == labels["query_camids"][i]
        order, correct = order[~(same_person & same_camera)], same_person[~(same_person & same_camera)]
        rank_of = {picture: rank for rank, picture in enumerate(order, start=1)}
        all_ranks.append([rank_of[picture] for picture in sorted(order[correct])])
    return all_ranks


def plain_scores(all_ranks, max_rank):
    cmc, precisions, penalties = np.zeros(max_rank), [], []
    all_ranks = [sorted(ranks) for ranks in all_ranks if ranks]
    for ranks in all_ranks:
        cmc += [ranks[0] <= k for k in range(1, max_rank + 1)]
        precisions.append(np.mean([hits / rank for hits, rank in enumerate(ranks, start=1)]))
        penalties.append(len(ranks) / ranks[-1])
    return cmc / len(all_ranks), np.mean(precisions), np.mean(penalties)


def expected_single_shot_scores(feats, labels, max_rank):
    """Expected CMC and mAP over all draws: every other pid is nearer with a probability of its own."""
    query_feats, gallery_feats = (x.astype(np.float64) for x in feats)
    rank_odds = []
    for i in range(len(query_feats)):
        distance = np.sum((gallery_feats - query_feats[i]) ** 2, axis=1)
        same_person = labels["gallery_pids"] == labels["query_pids"][i]
        correct = distance[same_person & (labels["gallery_camids"] != labels["query_camids"][i])]
        people = np.setdiff1d(labels["gallery_pids"], labels["query_pids"][i])
        odds = np.zeros((len(correct), len(people) + 2))  # [:, k]: probability of rank k
        odds[:, 1] = 1
        for pid in people:
            nearer = np.mean(distance[labels["gallery_pids"] == pid] < correct[:, None], axis=1, keepdims=True)
            odds = odds * (1 - nearer) + np.roll(odds, 1, axis=1) * nearer
        if len(correct):
            rank_odds.append(np.pad(np.mean(odds, axis=0)[1:], (0, len(gallery_feats) - len(people))))
    rank_odds = np.mean(rank_odds, axis=0)
    return np.cumsum(rank_odds)[:max_rank], np.sum(rank_odds / np.arange(1, len(rank_odds) + 1))


@pytest.mark.parametrize("case", range(4))
def test_scores_are_those_of_other_implementations(case):
    feats, labels = golden_case(case)
    found = ranking.scores(ranking.rank(*feats, **labels))
    np.testing.assert_allclose(found.cmc, GOLDEN[f"{case}/cmc"], atol=1e-6)
    assert found.mAP == pytest.approx(float(GOLDEN[f"{case}/map"]), abs=1e-6)


@pytest.mark.parametrize("case", range(4))
def test_single_shot_scores_are_the_expected_ones_and_those_of_other_implementations(case):
    """The golden numbers are means of 200 draws, whose standard error is up to 0.006 in the two small cases."""
    feats, labels = golden_case(case)
    ranks = np.asarray(ranking.draw_ranks(*feats, **labels, key=jax.random.key(case), draws=2000))
    mean, _ = ranking.mean_and_spread([ranking.scores(draw[:, None], max_rank=10) for draw in ranks])

    cmc, mean_ap = expected_single_shot_scores(feats, labels, max_rank=10)
    np.testing.assert_allclose(mean.cmc, cmc, atol=0.006)
    assert mean.mAP == pytest.approx(mean_ap, abs=0.003)
    np.testing.assert_allclose(mean.cmc, GOLDEN[f"{case}/single_shot_cmc_mean"], atol=0.015)
    assert mean.mAP == pytest.approx(float(GOLDEN[f"{case}/single_shot_map_mean"]), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_scores_are_those_of_a_stable_sort(seed):
    feats, labels = random_case(seed)
    expected = plain_ranks(feats, labels)
    ranks = ranking.rank(*feats, **labels)
    assert listed(ranks) == expected
    cmc, mean_ap, mean_inp = plain_scores(expected, max_rank=20)
    found = ranking.scores(ranks, max_rank=20)
    np.testing.assert_allclose(found.cmc, cmc, atol=1e-12)
    assert (found.mAP, found.mINP) == pytest.approx((mean_ap, mean_inp), abs=1e-12)
    assert found.num_queries == sum(1 for ranks in expected if ranks)


def test_cosine_ranks_are_those_of_unit_vectors():
    feats, labels = golden_case(1)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in feats]
    assert listed(ranking.rank(*feats, **labels, distance="cosine")) == plain_ranks(unit, labels)


def test_chi_square_ranks_of_binary_features_are_those_of_the_euclidean_distance():
    """For zeros and ones, it is half the squared Euclidean distance."""
    feats, labels = binary_case(0)
    assert listed(ranking.rank(*feats, **labels, distance="chi_square")) == plain_ranks(feats, labels)


@pytest.mark.parametrize("tile", [1, 7, 22, 1000])
def test_tile_does_not_change_the_ranks(tile):
    feats, labels = random_case(0)
    np.testing.assert_array_equal(ranking.rank(*feats, **labels, tile=tile), ranking.rank(*feats, **labels))


def test_tile_does_not_change_the_draws():
    feats, labels = random_case(0)
    in_one, in_many = (ranking.draw_ranks(*feats, **labels, key=jax.random.key(0), tile=tile) for tile in (None, 7))
    np.testing.assert_array_equal(in_one, in_many)


@pytest.mark.parametrize(
    ("options", "num_gallery", "shape"),
    [({"tile": 20}, 301, (17, 301)), ({"tile": None}, 302, (11, 302)), ({"tile": None}, 3000, (1, 3000))],
)
def test_only_a_tile_of_distances_is_computed_at_a_time(options, num_gallery, shape, monkeypatch, traced_anew):
    """101 queries make six tiles for tile=20, and ten where TILE_BYTES is 4 * 302 * 11."""
    real, shapes = distances.distmat, []

    def recorded(*args, **kwargs):
        shapes.append(real(*args, **kwargs).shape)
        return real(*args, **kwargs)

    monkeypatch.setattr(distances, "distmat", recorded)
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 302 * 11)
    feats, labels = random_case(0, num_query=101, num_gallery=num_gallery)
    ranking.rank(*feats, **labels, **options)
    assert set(shapes) == {shape}


@pytest.mark.parametrize(("num_query", "num_gallery", "num_pids"), [(1, 1, 1), (1, 2, 1), (2, 9, 3), (9, 2, 3)])
def test_smallest_sets_are_ranked(num_query, num_gallery, num_pids):
    feats, labels = random_case(1, num_query=num_query, num_gallery=num_gallery, num_pids=num_pids)
    labels["gallery_pids"] = labels["gallery_pids"] - 2
    assert listed(ranking.rank(*feats, **labels)) == plain_ranks(feats, labels)


def test_cmc_of_a_gallery_smaller_than_max_rank_stays_at_its_last_value():
    found = ranking.scores(np.array([[3, 1], [2, 0]]), max_rank=6)
    np.testing.assert_array_equal(found.cmc, [0.5, 1, 1, 1, 1, 1])
    assert found.mAP == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert found.mINP == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_queries_without_a_hit_do_not_count():
    with_miss = ranking.scores(np.array([[3, 1], [0, 0], [2, 0]]))
    without = ranking.scores(np.array([[3, 1], [2, 0]]))
    np.testing.assert_array_equal(with_miss.cmc, without.cmc)
    assert (with_miss.mAP, with_miss.mINP, with_miss.num_queries) == (without.mAP, without.mINP, 2)


def test_no_query_with_a_hit_is_an_error():
    feats, labels = random_case(0)
    labels["gallery_pids"] = labels["gallery_pids"] + 100
    with pytest.raises(UserError, match="no query has a gallery picture of its person"):
        ranking.scores(ranking.rank(*feats, **labels))


@pytest.mark.parametrize(("broken", "name"), [(0, "query"), (1, "gallery")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_features_are_an_error(broken, name, value):
    feats, labels = random_case(0)
    feats[broken][5, 2] = value
    for ranks in (ranking.rank, lambda *a, **k: ranking.draw_ranks(*a, **k, key=jax.random.key(0))):
        with pytest.raises(UserError, match=rf"^{name} features .* row 5;"):
            ranks(*feats, **labels)


@pytest.mark.parametrize("empty", ["query", "gallery"])
def test_empty_query_or_gallery_is_an_error(empty):
    (query_feats, gallery_feats), labels = random_case(0)
    labels[f"{empty}_pids"], labels[f"{empty}_camids"] = labels[f"{empty}_pids"][:0], labels[f"{empty}_camids"][:0]
    feats = (query_feats[:0], gallery_feats) if empty == "query" else (query_feats, gallery_feats[:0])
    with pytest.raises(UserError, match="nothing to rank"):
        ranking.rank(*feats, **labels)


def test_single_shot_with_one_picture_per_pid_ranks_the_whole_gallery():
    feats, labels = random_case(3, num_query=40, num_gallery=30)
    labels["gallery_pids"] = np.random.default_rng(3).permutation(30)
    expected = [ranks[0] if ranks else 0 for ranks in plain_ranks(feats, labels)]
    assert 0 < expected.count(0) < 40
    found = ranking.draw_ranks(*feats, **labels, key=jax.random.key(0), draws=3)
    np.testing.assert_array_equal(found, [expected] * 3)


def test_single_shot_draws_each_picture_equally_often():
    """Person 0 has a removed picture at 0 and correct ones at 1 and 3; person 1 has pictures at 3, 2, 3 and 9.

    Ties go to person 0, whose pictures come first. So the rank is 2 when 3 meets 2, once in eight draws.
    """
    found = ranking.draw_ranks(
        np.zeros((1, 1), np.float32),
        np.float32([[0], [1], [3], [3], [2], [3], [9]]),
        query_pids=np.array([0]),
        gallery_pids=np.array([0, 0, 0, 1, 1, 1, 1]),
        query_camids=np.array([0]),
        gallery_camids=np.array([0, 1, 1, 0, 0, 0, 1]),
        key=jax.random.key(0),
        draws=4000,
    )
    assert set(np.unique(found)) == {1, 2}
    assert np.mean(np.asarray(found) == 2) == pytest.approx(1 / 8, abs=4 * np.sqrt(1 / 8 * 7 / 8 / 4000))


def test_draws_differ_between_keys_draws_and_queries():
    feats, labels = golden_case(1)
    same_query = np.repeat(feats[0][:1], 60, axis=0)
    for field in ("query_pids", "query_camids"):
        labels[field] = np.repeat(labels[field][:1], 60)
    one, other = (
        np.asarray(ranking.draw_ranks(same_query, feats[1], **labels, key=jax.random.key(seed))) for seed in (0, 1)
    )
    assert len(np.unique(one, axis=0)) == 10
    assert len(np.unique(one, axis=1).T) > 50
    assert np.any(one != other)


def test_mean_and_spread_are_computed_field_by_field():
    runs = [ranking.scores(np.array([[rank], [4]]), max_rank=3) for rank in (1, 2)]
    mean, spread = ranking.mean_and_spread(runs)
    np.testing.assert_allclose(mean.cmc, [0.25, 0.5, 0.5])
    np.testing.assert_allclose(spread.cmc, [0.25, 0, 0])
    assert (mean.mAP, spread.mAP) == pytest.approx(((1 / 4 + (1 + 1 / 2) / 2) / 2, 1 / 8))
    assert (mean.num_queries, spread.num_queries) == (2, 0)


def check_meshes():
    """Runs in a process with eight devices: a sharded gallery has the ranks of one device, divisible or not."""
    devices = np.array(jax.devices())
    assert len(devices) == 8
    line, grid = jax.sharding.Mesh(devices, ("data",)), jax.sharding.Mesh(devices.reshape(4, 2), ("data", "fsdp"))
    for num_gallery, mesh in [(3, line), (61, grid), (2100, line)]:  # less and more than a block on each device
        feats, labels = random_case(0, num_gallery=num_gallery, num_pids=4)
        assert listed(ranking.rank(*feats, **labels, mesh=mesh, tile=10)) == plain_ranks(feats, labels)
        feats, labels = binary_case(0, num_gallery=num_gallery, num_pids=4)
        found = ranking.rank(*feats, **labels, mesh=mesh, tile=10, distance="chi_square")
        assert listed(found) == plain_ranks(feats, labels)

    (query_feats, gallery_feats), labels = random_case(0, num_gallery=61, num_pids=4)
    split = split_rows(grid, gallery_feats)
    assert (len(split), split.shape) == (61, gallery_feats.shape)
    np.testing.assert_array_equal(split.array, np.pad(gallery_feats, ((0, 3), (0, 0))))
    assert {shard.data.shape for shard in split.array.addressable_shards} == {(8, gallery_feats.shape[1])}
    assert split_rows(grid, split) is split
    expected = plain_ranks((query_feats, gallery_feats), labels)
    assert listed(ranking.rank(query_feats, split, **labels, mesh=grid)) == expected

    (query_feats, gallery_feats), labels = random_case(0, num_gallery=64, num_pids=4)
    spread = jax.device_put(gallery_feats, jax.sharding.NamedSharding(line, jax.sharding.PartitionSpec("data")))
    options = {**labels, "key": jax.random.key(0), "draws": 2, "distance": "cosine"}
    np.testing.assert_array_equal(
        ranking.draw_ranks(query_feats, spread, **options, mesh=line),
        ranking.draw_ranks(query_feats, gallery_feats, **options),
    )


def test_gallery_sharded_over_eight_devices_has_the_same_ranks():
    call_on_devices(8, "test_ranking", "check_meshes")
