import numpy as np
import pytest

from san_jax.scoring import camera_pairs, ranking


def random_sets(seed=0):
    rng = np.random.default_rng(seed)
    return dict(
        query_feats=rng.normal(size=(40, 6)).astype(np.float32),
        gallery_feats=rng.normal(size=(90, 6)).astype(np.float32),
        query_pids=rng.integers(0, 8, 40),
        gallery_pids=rng.integers(0, 8, 90),
        query_camids=rng.choice([0, 2, 5], 40),
        gallery_camids=rng.choice([0, 2, 3], 90),
    )


def score(sets):
    feats = sets["query_feats"], sets["gallery_feats"]
    return camera_pairs.score(*feats, **{name: value for name, value in sets.items() if not name.endswith("feats")})


def part(sets, query_camid, gallery_camid):
    """The queries and gallery pictures of one camera pair, as arguments of `ranking.rank`."""
    camids = {"query": query_camid, "gallery": gallery_camid}
    chosen = {side: sets[f"{side}_camids"] == camid for side, camid in camids.items()}
    return {name: value[chosen[name.split("_")[0]]] for name, value in sets.items()}


@pytest.mark.parametrize("tile_bytes", [camera_pairs.TILE_BYTES, 7 * 4 * 90])
def test_scores_of_a_camera_pair_are_those_of_its_part_of_the_test_set(monkeypatch, tile_bytes):
    monkeypatch.setattr(camera_pairs, "TILE_BYTES", tile_bytes)
    sets = random_sets()
    pairs = score(sets)
    assert (pairs.query_camids.tolist(), pairs.gallery_camids.tolist()) == ([0, 2, 5], [0, 2, 3])
    for row, column in [(0, 1), (0, 2), (1, 0), (2, 1)]:
        inputs = part(sets, pairs.query_camids[row], pairs.gallery_camids[column])
        feats = inputs.pop("query_feats"), inputs.pop("gallery_feats")
        expected = ranking.scores(ranking.rank(*feats, **inputs))
        assert pairs.rank1[row, column] == pytest.approx(expected.cmc[0])
        assert pairs.mAP[row, column] == pytest.approx(expected.mAP)


def test_scores_within_one_camera_are_nan():
    pairs = score(random_sets())
    assert np.isnan([pairs.rank1[0, 0], pairs.mAP[0, 0], pairs.rank1[1, 1], pairs.mAP[1, 1]]).all()
    assert not np.isnan(pairs.mAP[2]).any()


def test_queries_without_a_correct_picture_under_a_camera_are_left_out():
    sets = random_sets()
    feats = np.float32([[0, 0], [0, 0]]), np.float32([[1, 0], [2, 0], [3, 0]])
    sets = dict(zip(("query_feats", "gallery_feats"), feats, strict=True)) | dict(
        query_pids=np.array([0, 1]),
        gallery_pids=np.array([2, 1, 2]),
        query_camids=np.array([0, 0]),
        gallery_camids=np.array([1, 1, 1]),
    )
    pairs = score(sets)
    assert (pairs.rank1.item(), pairs.mAP.item()) == (0, 0.5)


def test_equally_far_pictures_rank_in_gallery_order():
    sets = dict(
        query_feats=np.zeros((1, 2), np.float32),
        gallery_feats=np.ones((3, 2), np.float32),
        query_pids=np.array([1]),
        gallery_pids=np.array([0, 0, 1]),
        query_camids=np.array([0]),
        gallery_camids=np.array([1, 1, 1]),
    )
    assert score(sets).mAP.item() == pytest.approx(1 / 3)
