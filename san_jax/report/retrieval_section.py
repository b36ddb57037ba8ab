"""The part of the page on one test set: scores, CMC curve, pairs of cameras, hardest and easiest queries."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from san_jax.drawing import html_page
from san_jax.drawing.html_page import Markup, element
from san_jax.networks.architecture import Architecture
from san_jax.report import query_lists
from san_jax.scoring import camera_pairs, evaluation, ranking, references
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet

CMC_TICKS = (1, 5, 10, 20, 30, 40, 50)
METRICS = {
    "market1501": "Market-1501 metric: gallery pictures with the query's pid and camid are ignored.",
    "cuhk03": "CUHK03's single-gallery-shot metric: the gallery holds one picture of each identity, chosen at random; "
    f"mean of {evaluation.DRAWS} draws. The parts below the curve use the whole gallery.",
}
KEPT = (
    "Exception: scoring.same_camera is keep, so of the gallery pictures with the query's pid and camid only the query "
    "itself is ignored."
)
PAIRS = (
    "Each cell: the queries of one camera, searched in the gallery pictures of another camera. A camera paired with "
    "itself has no score, since gallery pictures with the query's pid and camid are ignored."
)


def elements(
    test: RetrievalSet,
    feats: RetrievalFeats,
    scores: Mapping[str, float],
    *,
    architecture: Architecture,
    mesh: Mesh,
    metric: str,
    workers: int | None,
) -> list[Markup]:
    """Everything that the page shows for a test set, except its heading and its textures.

    Args:
      test: the test set.
      feats: features of its pictures.
      scores: the run's scores, as scores.json has them.
      architecture: of the networks; gives the aspect ratio of the pictures.
      mesh: the devices that share the gallery.
      metric: one of `evaluation.METRICS`, that of `scores`.
      workers: threads that decode pictures; None = one for each core, 0 = no threads.
    """
    ranks = np.asarray(ranking.rank(*feats, **evaluation.labels(test), mesh=mesh))
    compared = compared_scores(test, feats, ranks, mesh=mesh, metric=metric, workers=workers)
    rows = {name: evaluation.in_numbers(found) for name, found in compared.items()} | {"this run": scores}
    remarks = [size_of(test), METRICS[metric], *([KEPT] if test.same_camera == "keep" else [])]
    return [
        *(element("p", line, class_="faint") for line in [*remarks, *evaluation.remarks([test])]),
        score_table(rows),
        element("h3", "Cumulative matching characteristic"),
        cmc_chart(compared),
        *camera_tables(camera_scores(test, feats)),
        *query_lists.elements(test, feats, ranks, aspect=architecture.width / architecture.height),
    ]


def compared_scores(
    test: RetrievalSet,
    feats: RetrievalFeats,
    ranks: Int[np.ndarray, "Q P"],
    *,
    mesh: Mesh,
    metric: str,
    workers: int | None,
) -> dict[str, ranking.Scores]:
    """Scores of this run, of colour histograms and of chance, with their whole CMC curves."""
    options = dict(metric=metric, mesh=mesh)
    # These ranks are for the Market-1501 metric; the CUHK03 one samples galleries and ranks in each of them.
    own = ranking.scores(ranks) if metric == "market1501" else evaluation.score_feats(*feats, test, **options)
    found = references.scores(test, workers=workers, **options)
    return {"this run": own, **{name: found[name] for name in ("colour histogram", "chance")}}


def size_of(test: RetrievalSet) -> str:
    """A line with the numbers of queries, gallery pictures, identities and cameras."""
    identities, cameras = len(np.unique(test.gallery.pids)), len(np.unique(test.gallery.camids))
    return (
        f"{len(test.query):,} queries; {len(test.gallery):,} gallery pictures of {identities:,} identities "
        f"from {cameras} cameras, which are numbered from 0."
    )


def score_table(rows: Mapping[str, Mapping[str, float]]) -> Markup:
    """Scores in percent, a row for each run or reference.

    Args:
      rows: scores as fractions, by name and score. "this run" names the columns; other rows may lack the last ones.
    """
    columns = [name.replace("rank", "rank-") for name in rows["this run"]]
    cells = {name: [f"{100 * value:.2f}" for value in numbers.values()] for name, numbers in rows.items()}
    return html_page.table(columns, cells, caption="Scores in percent")


def cmc_chart(compared: Mapping[str, ranking.Scores]) -> Markup:
    """CMC curves: the share of the queries that have a correct picture among the first 1, 2, ... of the gallery."""
    curves = {name: 100 * scores.cmc for name, scores in compared.items()}
    ranks = np.arange(1, len(next(iter(curves.values()))) + 1)
    axes = dict(x_label="rank", y_label="queries with a correct picture up to this rank, %", x_ticks=CMC_TICKS)
    chart = html_page.line_chart(ranks, curves, **axes, width=480, height=280, top=100.0)
    return element("figure", html_page.legend(list(curves)), chart, class_="chart")


def camera_scores(test: RetrievalSet, feats: RetrievalFeats) -> camera_pairs.CameraPairs:
    """Scores by pair of cameras; the query's own camera is never scored, whatever `same_camera` the test set has."""
    labels = evaluation.labels(dataclasses.replace(test, same_camera="remove"))  # with "keep", cameras are renumbered
    return camera_pairs.score(*feats, **labels)


def camera_tables(pairs: camera_pairs.CameraPairs) -> list[Markup]:
    """Tables of rank-1 and mAP by camera of query and gallery; nothing if no pair of cameras has a score."""
    if np.isnan(pairs.mAP).all():
        return []
    titles = dict(
        rows=[f"camera {camid}" for camid in pairs.query_camids],
        columns=[str(camid) for camid in pairs.gallery_camids],
        corner="query \\ gallery",
    )
    tables = [
        html_page.heat_table(shares, **titles, caption=f"{name}, %")
        for name, shares in (("rank-1", pairs.rank1), ("mAP", pairs.mAP))
    ]
    words = element("p", PAIRS, class_="faint")
    return [element("h3", "By pair of cameras"), words, element("div", *tables, class_="beside")]
