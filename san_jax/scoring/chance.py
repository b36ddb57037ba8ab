"""Expected scores of a gallery in random order, computed exactly, without sampling."""

import numpy as np
from jaxtyping import Int

from san_jax.errors import UserError
from san_jax.scoring import ranking
from san_jax.scoring.ranking import Scores


def chance_scores(
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    single_shot: bool = False,
    max_rank: int = 50,
) -> Scores:
    """Expected scores of uninformative features.

    As in `ranking.rank`, pictures of the query's person by the query's own camera are removed first. With
    `single_shot`, CUHK03's metric, the gallery holds one picture of each person, so one picture is correct.

    Raises:
      UserError: no query has a correct picture.
    """
    correct, removed = ranking.same_person(query_pids, gallery_pids, query_camids, gallery_camids)
    num_correct = np.sum(correct >= 0, axis=1)
    num_ranked = len(gallery_pids) - np.sum(removed >= 0, axis=1)
    if single_shot:
        num_correct = np.minimum(num_correct, 1)
        num_ranked = np.full_like(num_correct, len(np.unique(gallery_pids)))
    counts = np.stack([num_correct, num_ranked], axis=1)[num_correct > 0]
    if not len(counts):
        raise UserError(ranking.NOTHING_CORRECT)
    cases, num_queries = np.unique(counts, axis=0, return_counts=True)
    expected = [expected_scores(int(correct), int(ranked), max_rank=max_rank) for correct, ranked in cases]
    mean = np.average([[*scores.cmc, scores.mAP, scores.mINP] for scores in expected], axis=0, weights=num_queries)
    return Scores(cmc=mean[:-2], mAP=float(mean[-2]), mINP=float(mean[-1]), num_queries=float(len(counts)))


def expected_scores(num_correct: int, num_ranked: int, *, max_rank: int = 50) -> Scores:
    """Expected scores of one query over all orders of `num_ranked` pictures, `num_correct` > 0 of which are correct."""
    ranks = np.arange(1, num_ranked + 1)
    wrong_left = np.maximum(num_ranked - num_correct - ranks + 1, 0)
    # all_wrong[k]: probability that none of the first k pictures is correct, equal to that for the last k.
    all_wrong = np.cumprod(np.append(1, wrong_left / (num_ranked - ranks + 1)))
    first_k = np.minimum(np.arange(1, max_rank + 1), num_ranked)
    last_is_at = (all_wrong[:-1] - all_wrong[1:])[::-1]

    # The picture at a rank is correct with probability num_correct / num_ranked; given that it is, each picture before
    # it is correct with probability `another`.
    another = (num_correct - 1) / max(num_ranked - 1, 1)
    return Scores(
        cmc=1 - all_wrong[first_k],
        mAP=float(np.mean((1 + (ranks - 1) * another) / ranks)),
        mINP=float(np.sum(last_is_at * num_correct / ranks)),
        num_queries=1.0,
    )
