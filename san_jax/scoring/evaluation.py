"""Features to distances to ranks to scores: one encoder on one or several test sets."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from san_jax.batch import Source
from san_jax.errors import UserError
from san_jax.scoring import ranking
from san_jax.scoring.feature_extraction import Extractor

METRICS = ("market1501", "cuhk03")
SHOWN_RANKS = (1, 5, 10, 20)
DRAWS = 10  # of the single-gallery-shot metric
DRAW_SEED = 0  # one seed for all, so that two runs are compared on the same draws


@dataclasses.dataclass(frozen=True)
class TestSet:
    """What is searched for in what."""

    name: str
    query: Source
    gallery: Source


def evaluate(
    encoder: PyTree, stats: PyTree, test_sets: Sequence[TestSet], *, extractor: Extractor, metric: str
) -> dict[str, dict[str, float]]:
    """Scores of an encoder by test set: rank1, rank5, rank10, rank20, mAP and mINP, as fractions.

    Args:
      encoder: parameters.
      stats: running statistics.
      test_sets: each is scored by itself.
      extractor: computes the features.
      metric: one of METRICS.
    """
    check_metric(metric)
    return {test.name: score(encoder, stats, test, extractor=extractor, metric=metric) for test in test_sets}


def check_metric(metric: str) -> None:
    """Raises a UserError for an unknown metric."""
    if metric not in METRICS:
        raise UserError(f"metric is {metric!r} (--metric, scoring.metric); there are {', '.join(METRICS)}")


def score(encoder: PyTree, stats: PyTree, test: TestSet, *, extractor: Extractor, metric: str) -> dict[str, float]:
    """Scores of an encoder on one test set."""
    query_feats, gallery_feats = (extractor(encoder, stats, source) for source in (test.query, test.gallery))
    return in_numbers(score_feats(query_feats, gallery_feats, test, metric=metric, mesh=extractor.mesh))


def score_feats(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    test: TestSet,
    *,
    metric: str,
    mesh: Mesh,
    distance: str = "euclidean",
) -> ranking.Scores:
    """Scores of features of a test set's pictures; of the single-gallery-shot metric the mean over its draws.

    Args:
      query_feats, gallery_feats: in the order of the splits.
      test: gives people and cameras.
      metric: one of METRICS.
      mesh: over whose devices the gallery is cut.
      distance: one of `distances.DISTANCES`.
    """
    inputs = dict(**labels(test), distance=distance, mesh=mesh)
    if metric == "market1501":
        return ranking.scores(ranking.rank(query_feats, gallery_feats, **inputs))
    ranks = ranking.draw_ranks(query_feats, gallery_feats, key=jax.random.key(DRAW_SEED), draws=DRAWS, **inputs)
    return ranking.mean_and_spread([ranking.scores(drawn[:, None]) for drawn in np.asarray(ranks)])[0]


def labels(test: TestSet) -> dict[str, np.ndarray]:
    """People and cameras of a test set, as `ranking` takes them."""
    return dict(
        query_pids=test.query.pids,
        gallery_pids=test.gallery.pids,
        query_camids=test.query.camids,
        gallery_camids=test.gallery.camids,
    )


def in_numbers(scores: ranking.Scores) -> dict[str, float]:
    """The scores that tables show."""
    cmc = {f"rank{rank}": float(scores.cmc[rank - 1]) for rank in SHOWN_RANKS}
    return {**cmc, "mAP": scores.mAP, "mINP": scores.mINP}


def as_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores by test set in percent, for people."""
    width = max(map(len, scores), default=0)
    names = next(iter(scores.values()))
    lines = [" ".join([" " * width, *(f"{name:>7}" for name in names)])]
    for data, numbers in scores.items():
        lines.append(" ".join([f"{data:{width}}", *(f"{100 * number:7.2f}" for number in numbers.values())]))
    return "\n".join(lines)
