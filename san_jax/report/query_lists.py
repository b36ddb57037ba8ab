"""The hardest and the easiest queries of a test set, each with the gallery pictures nearest to it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from san_jax.drawing.html_page import Markup, element
from san_jax.report import picture_list, ranked_pictures
from san_jax.scoring import ranking
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet

NUM_QUERIES = 5  # in each of the two lists
NUM_RANKED = 10  # gallery pictures shown for each query
HEIGHT = 128  # of the pictures, in pixels
SEED = 0  # for breaking ties; the same in all reports, so that equal scores give the same choice of queries

ORDER = (
    "Queries are ordered by average precision over the whole gallery. A list has at most one query of each identity; "
    "ties are broken at random, with a fixed seed."
)


def elements(
    test: RetrievalSet, feats: RetrievalFeats, ranks: Int[np.ndarray, "Q P"], *, aspect: float
) -> list[Markup]:
    """Both lists with their headings.

    Args:
      test: the test set.
      feats: features of its pictures.
      ranks: ranks of each query's correct gallery pictures, as `ranking.rank` gives them for these features.
      aspect: width of the shown pictures divided by their height.
    """
    precisions = average_precisions(ranks)
    hardest, easiest = hardest_and_easiest(precisions, test.query.pids)
    queries = np.array(hardest + easiest, int)
    found = ranked_pictures.top_rows(test, queries, *feats, first=min(NUM_RANKED, len(test.gallery)))
    width = int(HEIGHT * aspect)
    shown = [
        part
        for query, rows in zip(queries, found, strict=True)
        for part in (
            element("p", summary(test.query.names[query], ranks[query], precisions[query])),
            ranked_list(test, query, rows, width=width),
        )
    ]
    first_easiest = 2 * len(hardest)
    return [
        element("h3", "Hardest queries"),
        element("p", ORDER, class_="faint"),
        *shown[:first_easiest],
        element("h3", "Easiest queries"),
        *shown[first_easiest:],
    ]


def average_precisions(ranks: Int[np.ndarray, "Q P"]) -> Float64[np.ndarray, "Q"]:
    """Average precision of each query from the ranks of its correct pictures (0: none); NaN if it has none."""
    return np.array([ranking.scores(row[None]).mAP if row.any() else np.nan for row in ranks])


def hardest_and_easiest(precisions: Float[np.ndarray, "Q"], pids: Int[np.ndarray, "Q"]) -> tuple[list[int], list[int]]:
    """Rows of the queries with the lowest and with the highest average precision.

    Queries whose average precision is NaN are left out. No query is in both lists, and no identity twice in one list.

    Args:
      precisions: average precision of each query.
      pids: identity of each query.

    Returns:
      The hardest queries, hardest first, and the easiest ones, easiest first; up to NUM_QUERIES each.
    """
    shuffled = np.random.default_rng(SEED).permutation(np.flatnonzero(~np.isnan(precisions)))
    rows = shuffled[np.argsort(precisions[shuffled], kind="stable")]
    hardest = _one_per_person(rows, pids)
    return hardest, _one_per_person(rows[~np.isin(rows, hardest)][::-1], pids)


def _one_per_person(rows, pids):
    first = np.sort(np.unique(pids[rows], return_index=True)[1])
    return rows[first[:NUM_QUERIES]].tolist()


def summary(name: str, ranks: Int[np.ndarray, "P"], precision: float) -> str:
    """A line on one query: its name, its average precision and the ranks of its correct pictures."""
    ranks = ranks[ranks > 0]
    return (
        f"{name}: average precision {100 * precision:.1f} %, "
        f"first correct picture at rank {ranks.min():,}, last of {len(ranks)} at rank {ranks.max():,}"
    )


def ranked_list(
    test: RetrievalSet, query: int | np.integer, rows: Sequence[int] | Int[np.ndarray, "n"], *, width: int
) -> Markup:
    """A query and the gallery pictures nearest to it, correct ones framed in green, wrong ones in red.

    Args:
      test: the test set.
      query: row of the query.
      rows: gallery rows, nearest first.
      width: of the pictures, in pixels.
    """
    pid, camid = test.query.pids[query], test.query.camids[query]
    [picture] = picture_list.read(test.query, [query], height=HEIGHT, width=width)
    alt = f"query {test.query.names[query]}: person {pid}, camera {camid}"
    entries = [picture_list.entry(picture, alt=alt, caption=f"query, cam {camid}", class_="asked")]
    pictures = picture_list.read(test.gallery, rows, height=HEIGHT, width=width)
    for rank, (row, picture) in enumerate(zip(rows, pictures, strict=True), start=1):
        found_pid, found_camid = test.gallery.pids[row], test.gallery.camids[row]
        kind, mark = ("right", "✓") if found_pid == pid else ("wrong", "✗")
        alt = f"{rank}: {kind}, person {found_pid}, camera {found_camid}"
        caption = f"{mark} cam {found_camid}"
        entries.append(picture_list.entry(picture, alt=alt, caption=caption, class_=f"framed {kind}"))
    return element("ol", *entries, class_="pictures")
