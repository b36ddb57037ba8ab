"""Features to distances to ranks to scores: one encoder on one or several test sets."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from san_jax.batch import Source
from san_jax.devices import SplitRows
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.scoring import feature_extraction, query_expansion, ranking, reranking
from san_jax.scoring.verification import tpr_at_fpr

METRICS = ("market1501", "cuhk03")
SAME_CAMERA = ("remove", "keep")
SHOWN_RANKS = (1, 5, 10, 20)
DRAWS = 10  # of the single-gallery-shot metric
DRAW_SEED = 0  # one seed for all runs, so that they are compared on the same draws
EXPANDED_BY = 5  # gallery pictures that are averaged with a query
SPREAD = "_std"


@dataclasses.dataclass(frozen=True)
class RetrievalSet:
    """A query set and the gallery it is searched in.

    Attributes:
      name: as users write it.
      query: pictures to search for.
      gallery: pictures to search in.
      same_camera: "remove" removes the gallery pictures of the query's person by the query's own camera from that
        query's gallery, as benchmarks do; "keep" removes only the query itself, which is recognised by its name.
    """

    name: str
    query: Source
    gallery: Source
    same_camera: str = "remove"


@dataclasses.dataclass(frozen=True)
class Search:
    """How features become distances.

    Attributes:
      distance: one of `distances.DISTANCES`.
      expand: whether the search is repeated with each query averaged with its five nearest gallery pictures.
      rerank: whether distances are re-ranked by k-reciprocal neighbours, which requires the Euclidean distance.
    """

    distance: str = "euclidean"
    expand: bool = False
    rerank: bool = False

    def __post_init__(self):
        if self.rerank and self.distance != "euclidean":
            raise UserError(f"re-ranking requires the Euclidean distance, not {self.distance}; leave out one of them")


PLAIN = Search()


class RetrievalFeats(NamedTuple):
    """Features of both splits of a test set, in their order."""

    query: Float32[np.ndarray, "Q D"]
    gallery: Float32[np.ndarray, "G D"] | SplitRows


def evaluate(
    model: Model, test_sets: Sequence[RetrievalSet], *, metric: str, batch_size: int = 100, workers: int | None = None
) -> dict[str, dict[str, float]]:
    """Scores of a network by test set: rank1, rank5, rank10, rank20, mAP and mINP, as fractions.

    Args:
      model: computes the features.
      test_sets: each is scored by itself.
      metric: one of METRICS; with "cuhk03" the deviations over its draws are returned too, as rank1_std and so on.
      batch_size, workers: as for `feature_extraction.features`.
    """
    check_metric(metric)
    model.check_learnt_people()
    for test in test_sets:
        check_matches(test)
    options = dict(batch_size=batch_size, workers=workers)
    return {
        test.name: score(split_features(model, test, **options), test, metric=metric, mesh=model.mesh)
        for test in test_sets
    }


def features(model: Model, test: RetrievalSet, **options) -> RetrievalFeats:
    """Features of query and gallery; options as for `feature_extraction.features`."""
    splits = (test.query, test.gallery)
    return RetrievalFeats(*(feature_extraction.features(model, source, **options) for source in splits))


def split_features(model: Model, test: RetrievalSet, **options) -> RetrievalFeats:
    """As `features`; but of several processes, each holds only its part of the gallery's, as scores need it."""
    if jax.process_count() == 1:
        return features(model, test, **options)
    query = feature_extraction.features(model, test.query, **options)
    return RetrievalFeats(query, feature_extraction.split_features(model, test.gallery, **options))


def check_metric(metric: str) -> None:
    """Raises a UserError for an unknown metric."""
    if metric not in METRICS:
        raise UserError(f"metric is {metric!r} (--metric, scoring.metric); there are {', '.join(METRICS)}")


def check_same_camera(same_camera: str) -> None:
    """Raises a UserError for an unknown way to treat pictures by the query's camera."""
    if same_camera not in SAME_CAMERA:
        ways = ", ".join(SAME_CAMERA)
        raise UserError(f"same_camera is {same_camera!r} (--same_camera, scoring.same_camera); there are {ways}")


def queries_without_match(test: RetrievalSet) -> int:
    """Number of queries that have no correct picture in the gallery; scores leave them out."""
    correct, _ = ranking.same_person(**labels(test))
    return int(np.sum(np.all(correct < 0, axis=1)))


def check_matches(test: RetrievalSet) -> None:
    """Raises a UserError that says why, and what to do, if no query of a set has a correct gallery picture."""
    if queries_without_match(test) < len(test.query):
        return
    if test.same_camera == "keep":
        raise UserError(f"{test.name} cannot be scored: no query has another picture of its person in the gallery")
    cameras = len(np.unique(np.concatenate([test.query.camids, test.gallery.camids])))
    reason = "it has only one camera" if cameras == 1 else "no query has its person in the gallery by another camera"
    kept = dataclasses.replace(test, same_camera="keep")
    remedy = "check pids and camids"
    if queries_without_match(kept) < len(test.query):
        remedy = "set scoring.same_camera to keep (eval.py --same_camera=keep), which removes only the query itself"
    raise UserError(
        f"{test.name} cannot be scored: {reason}, and pictures of the query's person by its own camera do not count; "
        + remedy
    )


def remarks(test_sets: Sequence[RetrievalSet]) -> list[str]:
    """A line for every set in which queries are left out, for display."""
    counts = {test.name: (queries_without_match(test), len(test.query)) for test in test_sets}
    return [
        f"{name}: {count} of {total} queries have no match in the gallery and are left out"
        for name, (count, total) in counts.items()
        if count
    ]


def with_counts(
    scores: Mapping[str, Mapping[str, float]], test_sets: Sequence[RetrievalSet]
) -> dict[str, dict[str, float]]:
    """Scores by set with `queries_without_match` added; for `means_of_variants`, the sum over all variants."""
    counts = {test.name: queries_without_match(test) for test in test_sets}
    found = {}
    for name, numbers in scores.items():
        of_mean = [count for one, count in counts.items() if one.partition(":")[0] == name.partition(",")[0]]
        found[name] = {**numbers, "queries_without_match": counts.get(name, sum(of_mean))}
    return found


def score(
    feats: RetrievalFeats, test: RetrievalSet, *, metric: str, mesh: Mesh, search: Search = PLAIN
) -> dict[str, float]:
    """Scores of features on their test set, as `evaluate` returns them; `search` says how features become distances."""
    repeats = score_repeats(*feats, test, metric=metric, mesh=mesh, search=search)
    mean, spread = ranking.mean_and_spread(repeats)
    return in_numbers(mean) | (with_suffix(in_numbers(spread)) if len(repeats) > 1 else {})


class Verified(NamedTuple):
    """How well a distance tells whether two pictures show the same person.

    Attributes:
      scores: the TPR of all pairs at each of `verification.FPRS`, as TPR@1e-2.
      thresholds: the distance below which pairs are accepted for each FPR, as fpr_1e-2.
    """

    scores: dict[str, float]
    thresholds: dict[str, float]


def verify(feats: RetrievalFeats, test: RetrievalSet, *, mesh: Mesh, distance: str = "euclidean") -> Verified:
    """TPR at FPR over all pairs of query and gallery, by unrefined distances."""
    found = tpr_at_fpr(*feats, **labels(test), distance=distance, mesh=mesh)
    by_fpr = {f"1e{round(np.log10(accepted.fpr))}": accepted for accepted in found}
    scores = {f"TPR@{fpr}": accepted.tpr for fpr, accepted in by_fpr.items()}
    return Verified(scores, {f"fpr_{fpr}": float(accepted.threshold) for fpr, accepted in by_fpr.items()})


def score_feats(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    test: RetrievalSet,
    *,
    metric: str,
    mesh: Mesh,
    search: Search = PLAIN,
) -> ranking.Scores:
    """Scores of features of a test set's pictures; for the single-gallery-shot metric, the mean over its draws.

    Args:
      query_feats, gallery_feats: in the order of the splits.
      test: gives pids and camids.
      metric: one of METRICS.
      mesh: the devices that share the gallery.
      search: how features become distances.
    """
    repeats = score_repeats(query_feats, gallery_feats, test, metric=metric, mesh=mesh, search=search)
    return ranking.mean_and_spread(repeats)[0]


def score_repeats(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    test: RetrievalSet,
    *,
    metric: str,
    mesh: Mesh,
    search: Search,
) -> list[ranking.Scores]:
    """The scores, or for the single-gallery-shot metric those of every draw; arguments as for `score_feats`."""
    if search.expand:
        found = min(EXPANDED_BY, len(gallery_feats))
        query_feats = query_expansion.expand(query_feats, gallery_feats, k=found, distance=search.distance, mesh=mesh)
    refinement = reranking.refinement(query_feats, gallery_feats, mesh=mesh) if search.rerank else None
    inputs = dict(**labels(test), distance=search.distance, refinement=refinement, mesh=mesh)
    if metric == "market1501":
        return [ranking.scores(ranking.rank(query_feats, gallery_feats, **inputs))]
    ranks = ranking.draw_ranks(query_feats, gallery_feats, key=jax.random.key(DRAW_SEED), draws=DRAWS, **inputs)
    return [ranking.scores(drawn[:, None]) for drawn in np.asarray(ranks)]


def labels(test: RetrievalSet) -> dict[str, np.ndarray]:
    """Pids and camids of a test set, as arguments of `ranking`.

    With `same_camera` "keep", every picture counts as a camera of its own, so that only the query itself is removed.
    """
    query_camids, gallery_camids = test.query.camids, test.gallery.camids
    if test.same_camera == "keep":
        numbers = np.unique([*test.query.names, *test.gallery.names], return_inverse=True)[1]
        query_camids, gallery_camids = np.split(numbers.astype(np.int32), [len(test.query)])
    return dict(
        query_pids=test.query.pids,
        gallery_pids=test.gallery.pids,
        query_camids=query_camids,
        gallery_camids=gallery_camids,
    )


def in_numbers(scores: ranking.Scores) -> dict[str, float]:
    """The scores that tables show."""
    cmc = {f"rank{rank}": float(scores.cmc[rank - 1]) for rank in SHOWN_RANKS}
    return {**cmc, "mAP": scores.mAP, "mINP": scores.mINP}


def with_suffix(spread: Mapping[str, float]) -> dict[str, float]:
    """Standard deviations, with SPREAD appended to their names."""
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
    """Scores by test set in percent, as a table in plain text; standard deviations follow a ±."""
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
