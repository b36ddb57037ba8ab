"""CMC, mAP and mINP. The gallery is not sorted: the rank of a picture is one more than the number of nearer ones.

A tile is the distances of a block of queries to all gallery rows that a device holds; no device ever has more than one.
The correct pictures' distances are read from the very tile in which the nearer ones are counted: the last bits of a
product depend on its shape, so distances computed apart would not tie where pictures are equal.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float64, Int, Int32, Key

from san_jax.errors import UserError
from san_jax.scoring import distances

TILE_BYTES = 2**27  # of a tile; two or three buffers of that size live at a time
TILE_QUERIES = 256  # more do not speed up the product
CHUNK = 4  # correct pictures of a query that are counted at once

NOTHING_CORRECT = "no query has a gallery picture of its person under another camera; check people and cameras"


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


@dataclasses.dataclass(frozen=True)
class Refinement:
    """Distances made of those between features and of more that is known of the pictures: re-ranking.

    Attributes:
      refine: of a tile's distances [B G], of `per_query` as [B ...] and of the device's part of `per_gallery`: the
        distances [B G] that count. Hashable; calls with equal ones share a compiled program.
      per_query: arrays [Q ...].
      per_gallery: arrays that the devices of the mesh share as they share the gallery, each an equal part in a row.
    """

    refine: Callable[..., Float[Array, "B G"]]
    per_query: Mapping[str, Array]
    per_gallery: Mapping[str, Array]


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
    gallery_feats: Float[Array | np.ndarray, "G D"],
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    distance: str = "euclidean",
    refinement: Refinement | None = None,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Int32[Array, "Q P"]:
    """Ranks, from 1, of every query's correct gallery pictures by the Market-1501 metric.

    Gallery pictures of the query's person under the query's own camera are removed first. Equally far pictures rank in
    gallery order. P is the largest number of correct pictures; a row has theirs in gallery order, then zeros.

    `distance` is one of `distances.DISTANCES`; `refinement` says what is made of it, as re-ranking does. `tile`, the
    number of queries in a tile, changes time and memory, not ranks; by default as many as TILE_BYTES hold, up to
    TILE_QUERIES. The devices of `mesh` share the gallery rows, over all its axes; by default the first device has them
    all.

    Raises:
      UserError: features are not finite, or there are none.
    """
    correct, removed = same_person(query_pids, gallery_pids, query_camids, gallery_camids)
    # Queries with equally many correct pictures share a tile, which is counted as often as the richest of them asks.
    order = np.argsort(np.sum(correct >= 0, axis=1), kind="stable")
    per_query = {"correct": correct, "removed": removed}
    options = dict(distance=distance, refinement=refinement, tile=tile, mesh=mesh)
    return by_tiles(_ranks, per_query, {}, query_feats, gallery_feats, order=order, **options)


def draw_ranks(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    key: Key[Array, ""],
    draws: int = 10,
    distance: str = "euclidean",
    refinement: Refinement | None = None,
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
    return by_tiles(_drawn_ranks, per_query, people, query_feats, gallery_feats, **options).T


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


def by_tiles(
    count,
    per_query,
    shared,
    query_feats,
    gallery_feats,
    *,
    distance="euclidean",
    refinement=None,
    order=None,
    tile=None,
    mesh=None,
):
    """What `count(tile, per_query, shared)` gives for the queries of a tile, tile after tile, for all queries [Q ...].

    `count`, hashable, gives an array [B ...] or a tree of them, the same on all devices. `per_query` is a dictionary of
    arrays [Q ...], which `count` gets as [B ...]; it gets `shared` whole. `order` is the one in which the queries go
    through the tiles; by default their own.
    """
    check_any(query_feats, gallery_feats)
    num_queries, num_gallery = len(query_feats), len(gallery_feats)
    mesh = mesh or one_device()
    refine, known = None, ({}, {})
    if refinement:
        refine, known = refinement.refine, (refinement.per_query, refinement.per_gallery)
    gallery_feats = pad_rows(gallery_feats, mesh)
    query_feats = jax.device_put(query_feats, NamedSharding(mesh, PartitionSpec()))
    gallery_feats = jax.device_put(gallery_feats, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    query_norms, gallery_norms = distances.squared_norms(query_feats), distances.squared_norms(gallery_feats)
    distances.check_finite(query_norms, name="query")
    distances.check_finite(gallery_norms, name="gallery")

    order = np.arange(num_queries) if order is None else order
    tile = tile or max(1, min(TILE_QUERIES, TILE_BYTES * mesh.size // (4 * len(gallery_feats))))
    num_tiles = -(-num_queries // tile)
    even_tile = -(-num_queries // num_tiles)
    # The last tile is filled up with the last query.
    place = np.minimum(np.arange(num_tiles * even_tile), num_queries - 1)
    results = _map_tiles(
        {"feats": query_feats, "norms": query_norms, **per_query},
        shared,
        {"feats": gallery_feats, "norms": gallery_norms},
        known,
        order[place].reshape(num_tiles, even_tile),
        count=count,
        refine=refine,
        num_gallery=num_gallery,
        distance=distance,
        mesh=mesh,
    )
    place = np.argsort(order)
    return jax.tree.map(lambda x: x[place], results)


def check_any(query_feats, gallery_feats) -> None:
    """Raises a UserError where there are no pictures to rank, or none to rank them for."""
    num_queries, num_gallery = len(query_feats), len(gallery_feats)
    if not (num_queries and num_gallery):
        raise UserError(f"{num_queries} query and {num_gallery} gallery pictures: nothing to rank; check the data set")


def one_device() -> Mesh:
    """A mesh of the first device."""
    return Mesh(np.array(jax.devices()[:1]), ("gallery",))


def pad_rows(rows, mesh: Mesh, *, value=0):
    """As many rows more, of `value`, as make them divide over the devices."""
    rest = -len(rows) % mesh.size
    return jnp.pad(rows, ((0, rest), (0, 0)), constant_values=value) if rest else rows


@functools.partial(jax.jit, static_argnames=("count", "refine", "num_gallery", "distance", "mesh"))
def _map_tiles(queries, shared, gallery, known, tiles, *, count, refine, num_gallery, distance, mesh):
    """`count` for `tiles` [T B] of query rows, [T*B ...]; the gallery rows from `num_gallery` on only fill up."""
    axes = mesh.axis_names
    whole, rows_spread = PartitionSpec(), PartitionSpec(axes)

    def on_device(queries, shared, gallery, known_of_queries, known_of_gallery):
        first_row = lax.axis_index(axes) * len(gallery["feats"])
        rows = (first_row + jnp.arange(len(gallery["feats"]))).astype(jnp.int32)

        def on_tile(query_rows):
            query, known = jax.tree.map(lambda x: x[query_rows], (queries, known_of_queries))
            norms = {"query_norms": query["norms"], "gallery_norms": gallery["norms"]}
            distmat = distances.distmat(query["feats"], gallery["feats"], **norms, distance=distance)
            if refine:
                distmat = refine(distmat, known, known_of_gallery)
            distmat = jnp.where(rows < num_gallery, distmat, jnp.inf)
            return count(Tile(distmat, rows, axes), query, shared)

        return lax.map(on_tile, tiles)

    in_specs = (whole, whole, rows_spread, whole, rows_spread)
    results = jax.shard_map(on_device, mesh=mesh, in_specs=in_specs, out_specs=whole)(queries, shared, gallery, *known)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)


@dataclasses.dataclass(frozen=True)
class Tile:
    """Distances of a block of queries to the gallery rows of this device.

    Attributes:
      distmat: inf in the rows that only fill up the last device.
      rows: their places in the whole gallery.
      axes: mesh axes over which the gallery is spread.
    """

    distmat: Float[Array, "B G"]
    rows: Int32[Array, "G"]
    axes: tuple[str, ...]

    def at(self, rows):
        """Distances [B n] of the gallery rows [B n], whichever device holds them; inf for row -1."""
        local = rows - self.rows[0]
        here = (local >= 0) & (local < len(self.rows))
        found = jnp.take_along_axis(self.distmat, jnp.where(here, local, 0), axis=1, mode="promise_in_bounds")
        return jnp.where(rows < 0, jnp.inf, lax.psum(jnp.where(here, found, 0), self.axes))

    def everywhere(self, numbers):
        """[B n] of this device beside those of all others, in the gallery's order: [B devices*n], on all."""
        num_rows, num_columns = numbers.shape
        places = jnp.zeros((num_rows, lax.axis_size(self.axes), num_columns), numbers.dtype)
        places = places.at[:, lax.axis_index(self.axes)].set(numbers)
        return lax.psum(places, self.axes).reshape(num_rows, -1)

    def num_nearer(self, distance, rows):
        """How many pictures of the whole gallery come before the rows [B P], which are at `distance` [B P]."""
        num_rows = rows.shape[1]
        room = ((0, 0), (0, -num_rows % CHUNK))
        distance, rows = jnp.pad(distance, room), jnp.pad(rows, room, constant_values=-1)

        def count_chunk(i, counts):
            columns = functools.partial(lax.dynamic_slice_in_dim, start_index=i * CHUNK, slice_size=CHUNK, axis=1)
            chunk = _num_nearer(self.distmat, self.rows, columns(distance), columns(rows))
            return lax.dynamic_update_slice_in_dim(counts, chunk, i * CHUNK, axis=1)

        most = jnp.max(jnp.sum(rows >= 0, axis=1))
        counts = lax.pcast(jnp.zeros(rows.shape, jnp.int32), self.axes, to="varying")
        counts = lax.fori_loop(0, (most + CHUNK - 1) // CHUNK, count_chunk, counts)
        return lax.psum(counts[:, :num_rows], self.axes)


def _num_nearer(distmat, gallery_rows, distance, rows):
    """How many of `distmat` [B G], at `gallery_rows` [G] or [B G], come before `distance` [B P], at `rows` [B P]."""
    others, distance, rows = distmat[:, None, :], distance[:, :, None], rows[:, :, None]
    nearer = others < distance
    tied_before = (others == distance) & (gallery_rows[..., None, :] < rows)
    # On the CPU XLA fuses the comparison into a reduction of two operands; for a single one it writes out [B P G].
    return sum(
        lax.reduce(
            (nearer.astype(jnp.int32), tied_before.astype(jnp.int32)),
            (np.int32(0), np.int32(0)),
            lambda a, b: (a[0] + b[0], a[1] + b[1]),
            dimensions=(2,),
        )
    )


def _ranks(tile: Tile, query, _):
    correct, removed = query["correct"], query["removed"]
    distance = tile.at(correct)
    num_removed = _num_nearer(tile.at(removed), removed, distance, correct)
    return jnp.where(correct >= 0, 1 + tile.num_nearer(distance, correct) - num_removed, 0)


def _drawn_ranks(tile: Tile, query, people):
    """Ranks [B R]: of each person in the gallery one random picture, of the query's person a correct one."""
    correct, pid = query["correct"], query["pid"]
    num_correct = jnp.sum(correct >= 0, axis=1).astype(jnp.uint32)
    num_people = len(people["pid"])
    bits = jax.vmap(jax.vmap(lambda key: jax.random.bits(key, (num_people + 1,))))(query["key"])

    # The remainder prefers a person's first pictures by less than (pictures / 2^32).
    pick = (bits[..., num_people] % jnp.maximum(num_correct, 1)[:, None]).astype(jnp.int32)
    own = jnp.take_along_axis(correct, pick, axis=1)
    pick = (bits[..., :num_people] % people["count"]).astype(jnp.int32)
    others = jnp.where(people["pid"] == pid[:, None, None], -1, people["rows"][people["first"] + pick])

    own_distance = tile.at(own)[..., None]
    others_distance = tile.at(others.reshape(len(others), -1)).reshape(others.shape)
    tied_before = (others_distance == own_distance) & (others < own[..., None])
    num_nearer = jnp.sum((others_distance < own_distance) | tied_before, axis=2, dtype=jnp.int32)
    return jnp.where(num_correct[:, None] > 0, 1 + num_nearer, 0)
