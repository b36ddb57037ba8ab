"""Queries with the gallery pictures nearest to them, correct and wrong ones framed in different colours."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int, Int32

from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import Cell
from san_jax.report import picture_list
from san_jax.scoring import distances, evaluation
from san_jax.scoring.evaluation import RetrievalSet


def sheet_rows(
    test: RetrievalSet,
    queries: Int[np.ndarray, "q"],
    query_feats: Float[np.ndarray, "Q D"],
    gallery_feats: Float[np.ndarray, "G D"],
    *,
    first: int,
    height: int,
    width: int,
) -> list[list[Cell]]:
    """One row of a contact sheet for each query: the query, then the gallery pictures nearest to it.

    Correct pictures have a green frame, wrong ones a red one.

    Args:
      test: the test set.
      queries: rows of the query split.
      query_feats, gallery_feats: features of both splits, in their order.
      first: number of gallery pictures to show; fewer are shown if fewer of them are scored for the query.
      height, width: of the pictures, in pixels.
    """
    found = top_rows(test, queries, query_feats, gallery_feats, first=first)
    size = dict(height=height, width=width)
    table = []
    for query, gallery_rows in zip(queries, found, strict=True):
        pid = test.query.pids[query]
        colours = [contact_sheet.GREEN if test.gallery.pids[row] == pid else contact_sheet.RED for row in gallery_rows]
        hits = zip(picture_list.read(test.gallery, gallery_rows, **size), colours, strict=True)
        [picture] = picture_list.read(test.query, [query], **size)
        table.append([Cell(picture), *(Cell(hit, frame=colour) for hit, colour in hits)])
    return table


def top_rows(
    test: RetrievalSet,
    queries: Int[np.ndarray, "q"],
    query_feats: Float[np.ndarray, "Q D"],
    gallery_feats: Float[np.ndarray, "G D"],
    *,
    first: int,
) -> list[Int32[np.ndarray, "n"]]:
    """The `first` nearest gallery rows of each of a few queries, nearest first; fewer if there are fewer.

    Pictures that the test set's `same_camera` removes from a query's gallery are left out.
    """
    chosen, gallery = (jnp.asarray(feats, jnp.float32) for feats in (query_feats[queries], gallery_feats))
    distmat = distances.whole_distmat(chosen, gallery)
    labels = evaluation.labels(test)
    same_pid = labels["query_pids"][queries][:, None] == labels["gallery_pids"][None, :]
    same_camid = labels["query_camids"][queries][:, None] == labels["gallery_camids"][None, :]
    # Among equal distances, top_k takes the first row.
    nearness, found = jax.device_get(lax.top_k(jnp.where(same_pid & same_camid, -jnp.inf, -distmat), first))
    return [row[near > -np.inf] for near, row in zip(nearness, found, strict=True)]
