"""Scores by pair of cameras, that of the query and that of the gallery pictures: shows where a search fails."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from san_jax.scoring import distances

TILE_BYTES = 2**27  # size of a tile of distances


@dataclasses.dataclass(frozen=True)
class CameraPairs:
    """Scores by pair of cameras: the queries of one, searched only in the gallery pictures of the other.

    A pair is NaN if none of its queries has a correct picture.

    Attributes:
      query_camids, gallery_camids: the cameras, ascending.
      rank1: share of the queries whose nearest picture is correct.
      mAP: mean average precision, as a fraction.
    """

    query_camids: Int[np.ndarray, "q"]
    gallery_camids: Int[np.ndarray, "g"]
    rank1: Float64[np.ndarray, "q g"]
    mAP: Float64[np.ndarray, "q g"]


def score(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
) -> CameraPairs:
    """Scores of every pair of cameras, as `ranking.rank` and `ranking.scores` would give for that part of the gallery.

    A camera paired with itself is NaN, since pictures of the query's person by its own camera do not count.
    """
    cameras = np.unique(gallery_camids)
    size = max(1, TILE_BYTES // (4 * len(gallery_camids)))
    first_correct, precision = (np.full((len(query_pids), len(cameras)), np.nan) for _ in range(2))
    for start in range(0, len(query_pids), size):
        tile = np.arange(start, min(start + size, len(query_pids)))
        distmat = np.asarray(distances.whole_distmat(jnp.asarray(query_feats[tile]), jnp.asarray(gallery_feats)))
        for column, camera in enumerate(cameras):
            of_camera = np.flatnonzero(gallery_camids == camera)
            order = of_camera[np.argsort(distmat[:, of_camera], axis=1, kind="stable")]
            correct = gallery_pids[order] == query_pids[tile, None]
            counts = correct.any(axis=1) & (query_camids[tile] != camera)
            first_correct[tile[counts], column] = correct[counts, 0]
            precision[tile[counts], column] = _average_precisions(correct[counts])
    query_cameras = np.unique(query_camids)
    of_pairs = [
        np.stack([_means(found[query_camids == camera]) for camera in query_cameras])
        for found in (first_correct, precision)
    ]
    return CameraPairs(query_cameras, cameras, *of_pairs)


def _average_precisions(correct):
    """Average precision [n] of queries, from which of their gallery pictures, nearest first, are correct [n G].

    Every query has a correct picture.
    """
    so_far = np.cumsum(correct, axis=1)
    return np.sum(correct * so_far / np.arange(1, correct.shape[1] + 1), axis=1) / so_far[:, -1]


def _means(found):
    """Means over rows without NaN; NaN for columns that hold nothing else."""
    return np.ma.masked_invalid(found).mean(axis=0).filled(np.nan)
