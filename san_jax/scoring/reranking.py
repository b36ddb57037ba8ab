"""Re-ranking by k-reciprocal neighbours (Zhong 2017) that stores a few neighbours of each picture, not [N N] arrays.

The points are all pictures, first the queries, then the gallery. Two pictures of one person are likely to be among each
other's nearest neighbours. So a point is described by weights over its reciprocal neighbours, and the distance of two
points is the smaller the more their descriptions overlap. Weights are integers, so that sums do not depend on the order
of their terms, and equal descriptions give equal distances on every device.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int, Int32

from san_jax import devices
from san_jax.devices import SplitRows
from san_jax.errors import UserError
from san_jax.scoring import distances, nearest, ranking, tiles

ONE = 2**30  # sum of the weights of a point
TILE_POINTS = 128  # points that are processed at once
ROOM = 16  # the capacity of a set is a multiple of this, so that compiled programs are reused for other features
RUN = 32  # consecutive entries of an index that are read together
RUNS = 4096  # runs that are read in one iteration
PLACE_BITS = 31  # low bits of a sort key, which hold the place of an index entry
TINY = np.finfo(np.float32).tiny


def rank(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Int32[Array, "Q P"]:
    """Ranks of the correct pictures by re-ranked distances, in the form that `ranking.rank` returns.

    The other arguments and the errors are those of `refinement`. For the single-gallery-shot metric pass the refinement
    to `ranking.draw_ranks`.
    """
    labels = dict(
        query_pids=query_pids, gallery_pids=gallery_pids, query_camids=query_camids, gallery_camids=gallery_camids
    )
    options = dict(tile=tile, mesh=mesh)
    found = refinement(query_feats, gallery_feats, k1=k1, k2=k2, weight=weight, **options)
    return ranking.rank(query_feats, gallery_feats, **labels, refinement=found, **options)


def distmat(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Float32[Array, "Q G"]:
    """The matrix of re-ranked distances, 0 to 1, for sets so small that it fits into memory.

    Arguments and errors are those of `refinement`.
    """
    options = dict(tile=tile, mesh=mesh)
    found = refinement(query_feats, gallery_feats, k1=k1, k2=k2, weight=weight, **options)
    whole = tiles.by_tiles(_whole, {}, {}, query_feats, gallery_feats, refinement=found, **options)
    return whole[:, : len(gallery_feats)]


def refinement(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> tiles.Refinement:
    """The refinement that turns squared Euclidean distances into re-ranked ones.

    Pass it to `ranking.rank` with the same features and the same mesh.

    A re-ranked distance is `weight` times the squared Euclidean distance, divided by that of the query's farthest
    point, plus 1 - `weight` times the Jaccard distance of the two points' weights. As in the authors' code, a point has
    k1 neighbours besides itself, its set is expanded by the round(k1 / 2) (half to even) nearest reciprocal neighbours
    of its members, and weights are averaged over the k2 nearest points including the point itself. If there are fewer
    points, all are taken.

    Args:
      query_feats, gallery_feats: the features that will be ranked.
      k1: number of neighbours from which the reciprocal ones are kept.
      k2: number of points over which weights are averaged; 1 switches averaging off.
      weight: of the Euclidean distance, 0 to 1; the paper's lambda.
      tile, mesh: as in `ranking.rank`. Besides a tile and the features, memory is a few hundred numbers for each point.

    Raises:
      UserError: features are not finite, or there are none; or k1, k2 or weight is out of range.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        values = f"k1 {k1}, k2 {k2}, weight {weight}"
        raise UserError(f"re-ranking by {values}; k1 and k2 must be 1 or more, the weight must be from 0 to 1")
    mesh = mesh or tiles.one_device()
    points = _points(query_feats, gallery_feats, mesh)
    num_queries, num_points = len(query_feats), len(points)

    count = _Neighbours(min(max(k1 + 1, k2), num_points))
    neighbours, farthest = tiles.by_tiles(count, {}, {}, points, points, tile=tile, mesh=mesh)
    [members] = _trimmed(_expanded_sets(neighbours[:, : k1 + 1], size_of_half=round(k1 / 2) + 1, mesh=mesh))
    averaged = neighbours[:, :k2] if k2 > 1 else jnp.arange(num_points, dtype=jnp.int32)[:, None]
    weights = _weights(points, farthest, members, share=1 / averaged.shape[1], mesh=mesh)
    members, weights = _trimmed(*_averages(averaged, members, weights, mesh=mesh))

    of_gallery = tiles.pad_rows(members[num_queries:], mesh, value=num_points)
    index = _index(of_gallery, tiles.pad_rows(weights[num_queries:], mesh), num_points=num_points, mesh=mesh)
    per_query = {"members": members, "weights": weights, "farthest": farthest}
    return tiles.Refinement(_Mix(weight), {name: x[:num_queries] for name, x in per_query.items()}, index)


def _points(query_feats, gallery_feats, mesh):
    """Features of all points [N D], replicated on all devices."""
    tiles.check_any(query_feats, gallery_feats)
    everywhere = NamedSharding(mesh, PartitionSpec())
    query_feats, gallery = devices.put(query_feats, everywhere), devices.split_rows(mesh, gallery_feats)
    distances.check_finite(distances.squared_norms(query_feats), name="query")
    distances.check_finite(distances.squared_norms(gallery.array), name="gallery")

    def joined(query_feats, gallery_feats):
        return jnp.concatenate([query_feats, gallery_feats[: len(gallery)]]).astype(jnp.float32)

    return jax.jit(joined, out_shardings=everywhere)(query_feats, gallery.array)


def _whole(tile, _query, _shared):
    return tile.all_gather(tile.distmat)


@dataclasses.dataclass(frozen=True)
class _Neighbours:
    k: int

    def __call__(self, tile, _query, _shared):
        """The k nearest points [B k], and the distance [B] of the farthest point."""
        farthest = jnp.max(jnp.where(tile.distmat < jnp.inf, tile.distmat, 0), axis=1)
        return nearest.nearest_of_tile(tile, k=self.k).rows, lax.pmax(farthest, tile.axes)


def _trimmed(members, *others):
    """The arrays without the columns that no set needs; in `members`, the number of points marks an empty place."""
    longest = int(jnp.max(jnp.sum(members < len(members), axis=1)))
    room = ROOM * max(1, -(-longest // ROOM))
    return [x[:, :room] for x in (members, *others)]


def _map_points(function, num_points, *arrays, mesh):
    """Calls `function(rows, *arrays)` for tiles of rows [B] until all points are done; the devices share the points."""
    num_tiles = -(-num_points // (TILE_POINTS * mesh.size))

    def on_device(*arrays):
        first = lax.axis_index(mesh.axis_names) * num_tiles * TILE_POINTS
        rows = jnp.minimum(first + jnp.arange(num_tiles * TILE_POINTS, dtype=jnp.int32), num_points - 1)
        results = lax.map(lambda rows: function(rows, *arrays), rows.reshape(num_tiles, TILE_POINTS))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)

    whole, rows_spread = PartitionSpec(), PartitionSpec(mesh.axis_names)
    results = jax.shard_map(on_device, mesh=mesh, in_specs=whole, out_specs=rows_spread)(*arrays)
    return jax.tree.map(lambda x: x[:num_points], results)


@functools.partial(jax.jit, static_argnames=("size_of_half", "mesh"))
def _expanded_sets(neighbours, *, size_of_half, mesh):
    """Reciprocal neighbours of every point, and those of each neighbour that shares more than 2/3 of its own: [N M]."""
    num_points, size = neighbours.shape
    halves = neighbours[:, :size_of_half]
    halves = jnp.where(_are_reciprocal(halves, jnp.arange(num_points), halves), halves, num_points)

    def expand(rows, neighbours, halves):
        near = neighbours[rows]
        are_reciprocal = _are_reciprocal(neighbours, rows, near)
        own, theirs = jnp.where(are_reciprocal, near, -1), halves[near]
        num_shared = jnp.sum(jnp.any(theirs[..., None] == own[:, None, None, :], axis=3), axis=2)
        join = are_reciprocal & (3 * num_shared > 2 * jnp.sum(theirs < num_points, axis=2))
        joined = jnp.where(join[..., None], theirs, num_points).reshape(len(rows), -1)
        both = jnp.concatenate([jnp.where(are_reciprocal, near, num_points), joined], axis=1)
        # A neighbour whose n members join the set adds fewer than n / 3 new ones.
        return _distinct(both, num_points)[:, : size * (1 + (halves.shape[1] - 1) // 3)]

    return _map_points(expand, num_points, neighbours, halves, mesh=mesh)


def _are_reciprocal(neighbours, rows, near):
    """Which of the points `near` [B k] have the point of their row, `rows` [B], among their `neighbours` [N k]."""
    return jnp.any(neighbours[near] == rows[:, None, None], axis=2)


def _distinct(members, none):
    """The distinct members of every row [B n], ascending, then `none`, which is larger than any member."""
    members = jnp.sort(members, axis=1)
    is_repeated = jnp.pad(members[:, 1:] == members[:, :-1], ((0, 0), (1, 0)))
    return jnp.sort(jnp.where(is_repeated, none, members), axis=1)


@functools.partial(jax.jit, static_argnames=("share", "mesh"))
def _weights(points, farthest, members, *, share, mesh):
    """Weights exp(-distance) of the members, int32 [N M], scaled so that those of a point sum to `share` times ONE."""
    num_points = len(points)

    def weigh(rows, points, farthest, members):
        present = members[rows] < num_points
        others = points[jnp.where(present, members[rows], 0)]
        distance = jnp.sum(jnp.square(points[rows][:, None] - others), axis=2)
        closeness = jnp.where(present, jnp.exp(-distance / jnp.maximum(farthest[rows], TINY)[:, None]), 0)
        total = jnp.maximum(jnp.sum(closeness, axis=1, keepdims=True), TINY)
        return jnp.round(closeness / total * (share * ONE)).astype(jnp.int32)

    return _map_points(weigh, num_points, points, farthest, members, mesh=mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _averages(averaged, members, weights, *, mesh):
    """Distinct members [N k*M] of the points `averaged` [N k], and the sums of their weights."""
    num_points = len(members)

    def add_up(rows, averaged, members, weights):
        num_rows = len(rows)
        theirs, weights = (x[averaged[rows]].reshape(num_rows, -1) for x in (members, weights))
        sums = jnp.zeros((num_rows, num_points + 1), jnp.int32).at[jnp.arange(num_rows)[:, None], theirs].add(weights)
        distinct = _distinct(theirs, num_points)
        return distinct, jnp.take_along_axis(sums, distinct, axis=1, mode="promise_in_bounds")

    return _map_points(add_up, num_points, averaged, members, weights, mesh=mesh)


def _index(members, weights, *, num_points, mesh):
    """An inverted index of each device's part of the gallery: the pictures whose sets hold a point, and its weights.

    `rows` and `weights` list them point by point; those of point i are the entries from starts[i] to starts[i + 1].
    """
    with jax.enable_x64(True):  # only for the sort
        return _by_point(members, weights, num_points=num_points, mesh=mesh)


@functools.partial(jax.jit, static_argnames=("num_points", "mesh"))
def _by_point(members, weights, *, num_points, mesh):
    """`_index`, to be called with int64 enabled."""

    def on_device(members, weights):
        # The sort key holds the point and the place of its entry: on the CPU a quarter of the time of sorting pairs.
        place = jnp.arange(members.size, dtype=jnp.int64)
        in_order = jnp.sort(members.reshape(-1).astype(jnp.int64) << PLACE_BITS | place)
        by_point, order = (x.astype(jnp.int32) for x in (in_order >> PLACE_BITS, in_order & (2**PLACE_BITS - 1)))
        starts = jnp.searchsorted(by_point, jnp.arange(num_points + 1, dtype=jnp.int32)).astype(jnp.int32)
        return {"starts": starts, "rows": order // members.shape[1], "weights": weights.reshape(-1)[order]}

    spread = PartitionSpec(mesh.axis_names)
    return jax.shard_map(on_device, mesh=mesh, in_specs=spread, out_specs=spread)(members, weights)


@dataclasses.dataclass(frozen=True)
class _Mix:
    weight: float

    def __call__(self, distmat, query, index):
        overlap = jnp.minimum(_overlap(query, index, like=distmat), ONE).astype(jnp.float32) / ONE
        # The Jaccard distance is 1 - overlap / (2 - overlap). As in `distances.distmat`, a sum of quotients is rounded
        # the same way everywhere.
        jaccard = (2 * (1 - self.weight)) * (1 - overlap) / (2 - overlap)
        return jaccard + distmat / (jnp.maximum(query["farthest"], TINY) / self.weight)[:, None]


def _overlap(query, index, *, like):
    """Overlap of the descriptions of queries and gallery pictures: sums over points of the smaller weight, int32 [B G].

    For every member of a query's set, the index lists the gallery pictures whose sets contain it. Lists are read in
    runs of RUN entries.
    """
    num_points, num_entries = len(index["starts"]) - 1, len(index["rows"])
    num_members, num_gallery = query["members"].shape[1], like.shape[1]
    members, weights = query["members"].reshape(-1), query["weights"].reshape(-1)
    first = index["starts"][members]
    last = index["starts"][jnp.minimum(members + 1, num_points)]  # equals `first` for an empty place
    num_runs = (last - first + RUN - 1) // RUN
    runs_so_far = jnp.cumsum(num_runs)

    def add_runs(i, overlap):
        run = i * RUNS + jnp.arange(RUNS, dtype=jnp.int32)
        place = jnp.minimum(jnp.searchsorted(runs_so_far, run, side="right"), len(members) - 1)
        start = first[place] + (run - runs_so_far[place] + num_runs[place]) * RUN
        entry = start[:, None] + jnp.arange(RUN, dtype=jnp.int32)[None]
        is_listed = entry < last[place][:, None]
        entry = jnp.minimum(entry, num_entries - 1)
        smaller = jnp.where(is_listed, jnp.minimum(index["weights"][entry], weights[place][:, None]), 0)
        pair = (place // num_members * num_gallery)[:, None] + index["rows"][entry]
        return overlap.at[pair].add(smaller, mode="promise_in_bounds")

    overlap = jnp.zeros_like(like, jnp.int32).reshape(-1)  # flat: adding at one index is faster than at two
    overlap = lax.fori_loop(0, (runs_so_far[-1] + RUNS - 1) // RUNS, add_runs, overlap)
    return overlap.reshape(like.shape)
