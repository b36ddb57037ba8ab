import itertools

import jax
import numpy as np
import pytest

from san_jax.errors import UserError
from san_jax.scoring import ranking
from san_jax.scoring.chance import chance_scores, expected_scores


def labels():
    """Pid 0 has a gallery picture under the queries' camera, which is removed; pid 3 is only in the gallery."""
    return {
        "query_pids": np.array([0, 1, 2, 4]),
        "gallery_pids": np.array([0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3]),
        "query_camids": np.zeros(4, int),
        "gallery_camids": np.array([0, 1, 2, 1, 1, 2, 2, 1, 0, 1, 1]),
    }


def random_feats(seed):
    rng = np.random.default_rng(seed)
    return rng.random((4, 3), np.float32), rng.random((11, 3), np.float32)


def check_alike(found, expected, **tolerance):
    np.testing.assert_allclose(found.cmc, expected.cmc, **tolerance)
    np.testing.assert_allclose([found.mAP, found.mINP], [expected.mAP, expected.mINP], **tolerance)


@pytest.mark.parametrize(("num_correct", "num_ranked"), [(1, 1), (3, 3), (1, 7), (2, 7), (5, 9), (8, 9)])
def test_expectation_is_the_mean_over_all_orders(num_correct, num_ranked):
    ranks = np.array(list(itertools.combinations(range(1, num_ranked + 1), num_correct)))
    check_alike(expected_scores(num_correct, num_ranked, max_rank=8), ranking.scores(ranks, max_rank=8), rtol=1e-12)


def test_queries_have_equal_weight_and_those_without_a_match_are_left_out():
    found = chance_scores(**labels(), max_rank=12)
    each = [expected_scores(*case, max_rank=12) for case in ((2, 10), (4, 11), (1, 11))]
    check_alike(found, ranking.mean_and_spread(each)[0], rtol=1e-12)
    assert found.num_queries == 3


def test_random_features_score_as_expected():
    runs = [ranking.scores(ranking.rank(*random_feats(seed), **labels()), max_rank=5) for seed in range(600)]
    check_alike(ranking.mean_and_spread(runs)[0], chance_scores(**labels(), max_rank=5), atol=0.04)


def test_single_shot_scores_of_random_features_are_as_expected():
    ranks = [ranking.draw_ranks(*random_feats(seed), **labels(), key=jax.random.key(seed)) for seed in range(150)]
    runs = [ranking.scores(drawn[:, None], max_rank=5) for drawn in np.concatenate(ranks)]
    found = chance_scores(**labels(), single_shot=True, max_rank=5)
    np.testing.assert_allclose(found.cmc, [0.25, 0.5, 0.75, 1, 1])
    assert found.mAP == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    check_alike(ranking.mean_and_spread(runs)[0], found, atol=0.05)


def test_queries_without_any_match_are_an_error():
    with pytest.raises(UserError, match="no query has a gallery picture of its person"):
        chance_scores(**labels() | {"query_pids": np.full(4, 9)})
