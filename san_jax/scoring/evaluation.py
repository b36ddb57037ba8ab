"""Features to distances to ranks to scores: one encoder on one or several test sets."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from san_jax.batch import Source
from san_jax.errors import UserError
from san_jax.scoring import query_expansion, ranking, reranking
from san_jax.scoring.feature_extraction import Extractor
from san_jax.scoring.verification import tpr_at_fpr

METRICS = ("market1501", "cuhk03")
SHOWN_RANKS = (1, 5, 10, 20)
DRAWS = 10  # of the single-gallery-shot metric
DRAW_SEED = 0  # one seed for all, so that two runs are compared on the same draws
EXPANDED_BY = 5  # gallery pictures that are averaged with a query
SPREAD = "_std"


@dataclasses.dataclass(frozen=True)
class TestSet:
    """What is searched for in what."""

    name: str
    query: Source
    gallery: Source


@dataclasses.dataclass(frozen=True)
class Search:
    """How features become distances.

    Attributes:
      distance: one of `distances.DISTANCES`.
      expand: whether a query is asked again together with its five nearest gallery pictures.
      rerank: whether distances are re-ranked by k-reciprocal neighbours, which takes the Euclidean one.
    """

    distance: str = "euclidean"
    expand: bool = False
    rerank: bool = False


PLAIN = Search()


def evaluate(
    encoder: PyTree,
    stats: PyTree,
    test_sets: Sequence[TestSet],
    *,
    extractor: Extractor,
    metric: str,
    search: Search = PLAIN,
    tpr: bool = False,
) -> dict[str, dict[str, float]]:
    """Scores of an encoder by test set: rank1, rank5, rank10, rank20, mAP and mINP, as fractions.

    Args:
      encoder: parameters.
      stats: running statistics.
      test_sets: each is scored by itself.
      extractor: computes the features.
      metric: one of METRICS; of "cuhk03" the deviations over its draws are given too, as rank1_std and so on.
      search: what is made of the features.
      tpr: whether to give the TPR of all pairs, by the plain features, at each of `verification.FPRS` as TPR@1e-2.
    """
    check_metric(metric)
    options = dict(extractor=extractor, metric=metric, search=search, tpr=tpr)
    return {test.name: score(encoder, stats, test, **options) for test in test_sets}


def check_metric(metric: str) -> None:
    """Raises a UserError for an unknown metric."""
    if metric not in METRICS:
        raise UserError(f"metric is {metric!r} (--metric, scoring.metric); there are {', '.join(METRICS)}")


def score(
    encoder: PyTree,
    stats: PyTree,
    test: TestSet,
    *,
    extractor: Extractor,
    metric: str,
    search: Search = PLAIN,
    tpr: bool = False,
) -> dict[str, float]:
    """Scores of an encoder on one test set."""
    feats = [extractor(encoder, stats, source) for source in (test.query, test.gallery)]
    repeats = score_repeats(*feats, test, metric=metric, mesh=extractor.mesh, search=search)
    mean, spread = ranking.mean_and_spread(repeats)
    numbers = in_numbers(mean) | (with_suffix(in_numbers(spread)) if len(repeats) > 1 else {})
    if tpr:
        found = tpr_at_fpr(*feats, **labels(test), distance=search.distance, mesh=extractor.mesh)
        numbers |= {f"TPR@1e{round(np.log10(accepted.fpr))}": accepted.tpr for accepted in found}
    return numbers


def score_feats(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    test: TestSet,
    *,
    metric: str,
    mesh: Mesh,
    search: Search = PLAIN,
) -> ranking.Scores:
    """Scores of features of a test set's pictures; of the single-gallery-shot metric the mean over its draws.

    Args:
      query_feats, gallery_feats: in the order of the splits.
      test: gives people and cameras.
      metric: one of METRICS.
      mesh: over whose devices the gallery is cut.
      search: what is made of the features.
    """
    repeats = score_repeats(query_feats, gallery_feats, test, metric=metric, mesh=mesh, search=search)
    return ranking.mean_and_spread(repeats)[0]


def score_repeats(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    test: TestSet,
    *,
    metric: str,
    mesh: Mesh,
    search: Search,
) -> list[ranking.Scores]:
    """The scores, or of the single-gallery-shot metric those of every draw; arguments as of `score_feats`."""
    if search.expand:
        found = min(EXPANDED_BY, len(gallery_feats))
        query_feats = query_expansion.expand(query_feats, gallery_feats, k=found, distance=search.distance, mesh=mesh)
    refinement = reranking.refinement(query_feats, gallery_feats, mesh=mesh) if search.rerank else None
    inputs = dict(**labels(test), distance=search.distance, refinement=refinement, mesh=mesh)
    if metric == "market1501":
        return [ranking.scores(ranking.rank(query_feats, gallery_feats, **inputs))]
    ranks = ranking.draw_ranks(query_feats, gallery_feats, key=jax.random.key(DRAW_SEED), draws=DRAWS, **inputs)
    return [ranking.scores(drawn[:, None]) for drawn in np.asarray(ranks)]


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


def with_suffix(spread: Mapping[str, float]) -> dict[str, float]:
    """Standard deviations under names of their own."""
    return {f"{name}{SPREAD}": number for name, number in spread.items()}


def means_of_variants(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over sets that differ in what follows the colon, as CUHK03's 20 classic ones do."""
    groups = {}
    for name, numbers in scores.items():
        groups.setdefault(name.partition(":")[0], []).append(numbers)
    return {f"{name}, mean of {len(sets)}": _over_sets(sets) for name, sets in groups.items() if len(sets) > 1}


def _over_sets(sets):
    values = {name: [numbers[name] for numbers in sets] for name in _names(sets[0])}
    means = {name: float(np.mean(found)) for name, found in values.items()}
    return means | with_suffix({name: float(np.std(found)) for name, found in values.items()})


def as_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores by test set in percent, for people; behind a ± the standard deviation of what has one."""
    shown = {data: [_cell(name, numbers) for name in _names(numbers)] for data, numbers in scores.items()}
    width = max(map(len, scores), default=0)
    rows = [("", _names(next(iter(scores.values())))), *shown.items()]
    cell = max([7, *(len(text) for _, cells in rows for text in cells)])
    return "\n".join(" ".join([f"{row:{width}}", *(f"{text:>{cell}}" for text in cells)]) for row, cells in rows)


def _names(numbers):
    return [name for name in numbers if not name.endswith(SPREAD)]


def _cell(name, numbers):
    spread = numbers.get(f"{name}{SPREAD}")
    return f"{100 * numbers[name]:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
