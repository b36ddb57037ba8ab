"""CMC, mAP and mINP. The gallery is not sorted: the rank of a picture is one more than the number of nearer ones."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float64, Int, Int32, Key

from san_jax.devices import SplitRows
from san_jax.errors import UserError
from san_jax.scoring import tiles

NOTHING_CORRECT = "no query has a gallery picture of its person under another camera; check pids and camids"


@dataclasses.dataclass(frozen=True)
class Scores:
    """How well a gallery is searched. Queries without a correct picture in the gallery are left out.

    Attributes:
      cmc: share of the queries that have a correct picture among the first 1, 2, ..., K.
      mAP: mean over queries of the mean over their correct pictures of (correct ones so far / rank).
      mINP: mean over queries of (number of correct pictures / rank of the last one), Ye 2021.
      num_queries: queries that have a correct picture.
    """

    cmc: Float64[np.ndarray, "K"]
    mAP: float
    mINP: float
    num_queries: float


def scores(ranks: Int[Array | np.ndarray, "Q P"], *, max_rank: int = 50) -> Scores:
    """Scores from the ranks of every query's correct pictures (0: no picture), in float64.

    The CMC stays at its last value where the gallery has fewer than `max_rank` pictures.

    Raises:
      UserError: no query has a correct picture.
    """
    ranks = np.asarray(ranks)
    ranks = ranks[np.any(ranks > 0, axis=1)]
    if not len(ranks):
        raise UserError(NOTHING_CORRECT)
    ranks = np.sort(ranks, axis=1)[:, ::-1]  # the last correct picture first, zeros at the end
    num_correct = np.sum(ranks > 0, axis=1)
    correct_so_far = num_correct[:, None] - np.arange(ranks.shape[1])
    precision = np.where(ranks > 0, correct_so_far / np.maximum(ranks, 1), 0)
    first_rank = np.take_along_axis(ranks, num_correct[:, None] - 1, axis=1)
    return Scores(
        cmc=np.mean(first_rank <= np.arange(1, max_rank + 1), axis=0),
        mAP=float(np.mean(precision.sum(axis=1) / num_correct)),
        mINP=float(np.mean(num_correct / ranks[:, 0])),
        num_queries=float(len(ranks)),
    )


def mean_and_spread(runs: Sequence[Scores]) -> tuple[Scores, Scores]:
    """Mean and standard deviation, field by field, of repeats: random draws, or CUHK03's 20 classic splits."""
    fields = [[getattr(run, field.name) for run in runs] for field in dataclasses.fields(Scores)]

    def summary(statistic) -> Scores:
        cmc, *numbers = (statistic(values, axis=0) for values in fields)
        return Scores(cmc, *map(float, numbers))

    return summary(np.mean), summary(np.std)


def rank(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    distance: str = "euclidean",
    refinement: tiles.Refinement | None = None,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Int32[Array, "Q P"]:
    """Ranks, from 1, of every query's correct gallery pictures by the Market-1501 metric.

    Gallery pictures of the query's person under the query's own camera are removed first. Equally far pictures rank in
    gallery order. P is the largest number of correct pictures; a row has theirs in gallery order, then zeros.

    `distance` is one of `distances.DISTANCES`; `refinement` modifies these distances, as re-ranking does. `tile`, the
    number of queries in a tile, changes time and memory, not ranks; by default as many as TILE_BYTES hold, up to
    TILE_QUERIES. The devices of `mesh` share the gallery rows, over all its axes; by default the first device has them
    all. Gallery features may be SplitRows of `mesh`, so that no process holds more than its part of them.

    Raises:
      UserError: features are not finite, or there are none.
    """
    correct, removed = same_person(query_pids, gallery_pids, query_camids, gallery_camids)
    # A tile loops as often as its query with the most correct pictures needs, so queries with equally many share one.
    order = np.argsort(np.sum(correct >= 0, axis=1), kind="stable")
    per_query = {"correct": correct, "removed": removed}
    options = dict(distance=distance, refinement=refinement, tile=tile, mesh=mesh)
    return tiles.by_tiles(_ranks, per_query, {}, query_feats, gallery_feats, order=order, **options)


def draw_ranks(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    key: Key[Array, ""],
    draws: int = 10,
    distance: str = "euclidean",
    refinement: tiles.Refinement | None = None,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Int32[Array, "R Q"]:
    """Rank of the correct picture by CUHK03's single-gallery-shot metric for each of R draws; 0 where there is none.

    After the removal that `rank` makes, every query and draw keeps one gallery picture of each person at random.
    `mean_and_spread([scores(draw[:, None]) for draw in ranks])` is the metric; its mAP is the mean of 1 / rank over
    these draws, as in the released code. A query's draws follow from `key` and the query's row. The other arguments and
    the errors are those of `rank`.
    """
    correct, _ = same_person(query_pids, gallery_pids, query_camids, gallery_camids)
    pids, first, count = np.unique(np.sort(gallery_pids), return_index=True, return_counts=True)
    by_pid = np.argsort(gallery_pids, kind="stable").astype(np.int32)
    people = {"pid": pids, "first": first.astype(np.int32), "count": count.astype(np.uint32), "rows": by_pid}
    num_queries = len(query_pids)
    per_query = {"correct": correct, "pid": query_pids, "key": jax.random.split(key, (num_queries, draws))}
    options = dict(distance=distance, refinement=refinement, tile=tile, mesh=mesh)
    return tiles.by_tiles(_drawn_ranks, per_query, people, query_feats, gallery_feats, **options).T


def same_person(
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
) -> tuple[Int32[np.ndarray, "Q P"], Int32[np.ndarray, "Q J"]]:
    """Gallery rows of each query's person, [Q P] correct and [Q J] removed ones: in order, then -1."""
    by_pid = np.argsort(gallery_pids, kind="stable")
    first, last = (np.searchsorted(gallery_pids[by_pid], query_pids, side=side) for side in ("left", "right"))
    place = first[:, None] + np.arange(np.max(last - first, initial=1))
    present = place < last[:, None]
    rows = np.append(by_pid, -1)[np.minimum(place, len(by_pid))]
    other_camera = np.append(gallery_camids, -1)[rows] != query_camids[:, None]
    return _packed(rows, present & other_camera), _packed(rows, present & ~other_camera)


def _packed(rows, keep):
    """The rows to keep, moved to the left; -1 behind them."""
    order = np.argsort(~keep, axis=1, kind="stable")[:, : np.max(keep.sum(axis=1), initial=1)]
    return np.take_along_axis(np.where(keep, rows, -1), order, axis=1).astype(np.int32)


def _ranks(tile: tiles.Tile, query, _):
    correct, removed = query["correct"], query["removed"]
    distance = tile.at(correct)
    num_removed = tiles.num_nearer(tile.at(removed), removed, distance, correct)
    return jnp.where(correct >= 0, 1 + tile.num_nearer(distance, correct) - num_removed, 0)


def _drawn_ranks(tile: tiles.Tile, query, people):
    """Ranks [B R]: of each person in the gallery one random picture, of the query's person a correct one."""
    correct, pid = query["correct"], query["pid"]
    num_correct = jnp.sum(correct >= 0, axis=1).astype(jnp.uint32)
    num_people = len(people["pid"])
    bits = jax.vmap(jax.vmap(lambda key: jax.random.bits(key, (num_people + 1,))))(query["key"])

    # The remainder prefers a person's first pictures by less than (pictures / 2^32).
    pick = (bits[..., num_people] % jnp.maximum(num_correct, 1)[:, None]).astype(jnp.int32)
    own = jnp.take_along_axis(correct, pick, axis=1)
    pick = (bits[..., :num_people] % people["count"][None, None]).astype(jnp.int32)
    rows = people["rows"][people["first"][None, None] + pick]
    others = jnp.where(people["pid"][None, None] == pid[:, None, None], -1, rows)

    own_distance = tile.at(own)[..., None]
    others_distance = tile.at(others.reshape(len(others), -1)).reshape(others.shape)
    tied_before = (others_distance == own_distance) & (others < own[..., None])
    num_nearer = jnp.sum((others_distance < own_distance) | tied_before, axis=2, dtype=jnp.int32)
    return jnp.where(num_correct[:, None] > 0, 1 + num_nearer, 0)
