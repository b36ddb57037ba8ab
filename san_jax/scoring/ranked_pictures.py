"""What a search finds, to look at: queries with the first pictures of the gallery, right and wrong ones framed."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int, Int32

from san_jax import contact_sheet
from san_jax.batch import Source
from san_jax.contact_sheet import Cell
from san_jax.data import input_pipeline
from san_jax.scoring import distances
from san_jax.scoring.evaluation import TestSet


def rows(
    test: TestSet,
    queries: Int[np.ndarray, "q"],
    query_feats: Float[np.ndarray, "Q D"],
    gallery_feats: Float[np.ndarray, "G D"],
    *,
    first: int,
    height: int,
    width: int,
) -> list[list[Cell]]:
    """One row of a contact sheet for each query: its picture, then the first ones of the gallery, green where right.

    Args:
      test: whose pictures.
      queries: rows of the query split.
      query_feats, gallery_feats: of both splits.
      first: how many gallery pictures, at most.
      height, width: of the pictures, in pixels.
    """
    found = nearest(test, queries, query_feats, gallery_feats, first=first)
    size = dict(height=height, width=width)
    table = []
    for query, gallery_rows in zip(queries, found, strict=True):
        pid = test.query.pids[query]
        colours = [contact_sheet.GREEN if test.gallery.pids[row] == pid else contact_sheet.RED for row in gallery_rows]
        hits = zip(_pictures(test.gallery, gallery_rows, **size), colours, strict=True)
        [picture] = _pictures(test.query, [query], **size)
        table.append([Cell(picture), *(Cell(hit, frame=colour) for hit, colour in hits)])
    return table


def nearest(
    test: TestSet,
    queries: Int[np.ndarray, "q"],
    query_feats: Float[np.ndarray, "Q D"],
    gallery_feats: Float[np.ndarray, "G D"],
    *,
    first: int,
) -> list[Int32[np.ndarray, "n"]]:
    """The `first` gallery rows by distance for each of a few queries, or as many as there are.

    Pictures of the query's person by its camera are left out.
    """
    chosen, gallery = (jnp.asarray(feats, jnp.float32) for feats in (query_feats[queries], gallery_feats))
    distmat = distances.whole_distmat(chosen, gallery)
    same_pid = test.query.pids[queries][:, None] == test.gallery.pids[None, :]
    same_camid = test.query.camids[queries][:, None] == test.gallery.camids[None, :]
    # Of equal ones, top_k takes the first.
    nearness, found = jax.device_get(lax.top_k(jnp.where(same_pid & same_camid, -jnp.inf, -distmat), first))
    return [row[near > -np.inf] for near, row in zip(nearness, found, strict=True)]


def _pictures(source: Source, rows, *, height: int, width: int) -> np.ndarray:
    records = [source[int(row)] for row in rows]
    return input_pipeline.decode_all(source, records, "image", height=height, width=width)
