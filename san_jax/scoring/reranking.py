"""Re-ranking by k-reciprocal neighbours (Zhong 2017), with a few neighbours of each picture in place of [N N] arrays.

Points are the pictures of query and gallery together, queries first. Pictures of one person find each other: a point is
described by weights of the points that are its neighbours both ways, and two points are as near as their descriptions
overlap. Weights are whole numbers, so sums do not depend on their order and equal descriptions tie on every device.
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
from san_jax.errors import UserError
from san_jax.scoring import distances, nearest, ranking, tiles

ONE = 2**30  # what the weights of a point add up to
TILE_POINTS = 128  # points whose neighbours are looked at together
ROOM = 16  # places for the members of a set come in these, so that a compiled program fits many features
RUN = 32  # entries of an index that are read in a row
RUNS = 4096  # runs that are read at once
PLACE_BITS = 31  # of the number that stands for an entry of an index while it is sorted
TINY = np.finfo(np.float32).tiny


def rank(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
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
    """Ranks by re-ranked distances, as `ranking.rank` gives them; other arguments and errors are those of `refinement`.

    For the single-gallery-shot metric hand the refinement to `ranking.draw_ranks`.
    """
    labels = dict(
        query_pids=query_pids, gallery_pids=gallery_pids, query_camids=query_camids, gallery_camids=gallery_camids
    )
    options = dict(tile=tile, mesh=mesh)
    found = refinement(query_feats, gallery_feats, k1=k1, k2=k2, weight=weight, **options)
    return ranking.rank(query_feats, gallery_feats, **labels, refinement=found, **options)


def distmat(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Float32[Array, "Q G"]:
    """Re-ranked distances, 0 to 1, of sets so small that the matrix fits; arguments and errors of `refinement`."""
    options = dict(tile=tile, mesh=mesh)
    found = refinement(query_feats, gallery_feats, k1=k1, k2=k2, weight=weight, **options)
    whole = tiles.by_tiles(_whole, {}, {}, query_feats, gallery_feats, refinement=found, **options)
    return whole[:, : len(gallery_feats)]


def refinement(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"],
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> tiles.Refinement:
    """What makes re-ranked distances of squared Euclidean ones, for `ranking.rank` of the same features on this mesh.

    A distance is `weight` times the squared Euclidean one, of which the query's farthest point has 1, plus 1 - `weight`
    times the Jaccard distance of the two points' weights. As in the authors' code k1 neighbours are asked for besides
    the point itself, round(k1 / 2), half to even, where a set is expanded, and weights are averaged over the k2 nearest
    points, the point itself among them. Where there are fewer points, all are taken.

    Args:
      query_feats, gallery_feats: those that will be ranked.
      k1: neighbours of which the reciprocal ones are kept.
      k2: points over whose weights is averaged; 1 leaves every point its own.
      weight: of the Euclidean distance, 0 to 1; the paper's lambda.
      tile, mesh: those of `ranking.rank`. Beside a tile and the features memory is some hundred numbers a point.

    Raises:
      UserError: features are not finite, or there are none; k1, k2 or weight make no sense.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise UserError(f"re-ranking by k1 {k1}, k2 {k2}, weight {weight}; k1 and k2 are 1 or more, the weight 0 to 1")
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
    """Features of all points on all devices."""
    tiles.check_any(query_feats, gallery_feats)
    everywhere = NamedSharding(mesh, PartitionSpec())
    query_feats, gallery_feats = (devices.put(feats, everywhere) for feats in (query_feats, gallery_feats))
    distances.check_finite(distances.squared_norms(query_feats), name="query")
    distances.check_finite(distances.squared_norms(gallery_feats), name="gallery")
    return jnp.concatenate([query_feats, gallery_feats]).astype(jnp.float32)


def _whole(tile, _query, _shared):
    return tile.everywhere(tile.distmat)


@dataclasses.dataclass(frozen=True)
class _Neighbours:
    k: int

    def __call__(self, tile, _query, _shared):
        """The k nearest points [B k], and the distance [B] of the farthest one."""
        farthest = jnp.max(jnp.where(tile.distmat < jnp.inf, tile.distmat, 0), axis=1)
        return nearest.nearest_of_tile(tile, k=self.k).rows, lax.pmax(farthest, tile.axes)


def _trimmed(members, *others):
    """All without the columns that no set needs; in `members` the number of points stands where there is none."""
    longest = int(jnp.max(jnp.sum(members < len(members), axis=1)))
    room = ROOM * max(1, -(-longest // ROOM))
    return [x[:, :room] for x in (members, *others)]


def _map_points(function, num_points, *arrays, mesh):
    """`function(rows, *arrays)` of rows [B], tile after tile, for all points; the devices share them."""
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
    """Reciprocal neighbours of every point, with those of neighbours who share more than 2/3 of their own: [N M]."""
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
        # A neighbour who joins with n members brings fewer than n / 3 new ones.
        return _distinct(both, num_points)[:, : size * (1 + (halves.shape[1] - 1) // 3)]

    return _map_points(expand, num_points, neighbours, halves, mesh=mesh)


def _are_reciprocal(neighbours, rows, near):
    """Which of the points `near` [B k] have the points `rows` [B] among their `neighbours` [N k]."""
    return jnp.any(neighbours[near] == rows[:, None, None], axis=2)


def _distinct(members, none):
    """The different members of every row [B n], ascending; behind them and in place of repeated ones `none`, larger."""
    members = jnp.sort(members, axis=1)
    is_repeated = jnp.pad(members[:, 1:] == members[:, :-1], ((0, 0), (1, 0)))
    return jnp.sort(jnp.where(is_repeated, none, members), axis=1)


@functools.partial(jax.jit, static_argnames=("share", "mesh"))
def _weights(points, farthest, members, *, share, mesh):
    """exp(-distance) of the members, the nearer the larger; those of a point add up to `share` of ONE, int32 [N M]."""
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
    """Sums of the weights of the points `averaged` [N k], and their members [N k*M], each once."""
    num_points = len(members)

    def add_up(rows, averaged, members, weights):
        num_rows = len(rows)
        theirs, weights = (x[averaged[rows]].reshape(num_rows, -1) for x in (members, weights))
        sums = jnp.zeros((num_rows, num_points + 1), jnp.int32).at[jnp.arange(num_rows)[:, None], theirs].add(weights)
        distinct = _distinct(theirs, num_points)
        return distinct, jnp.take_along_axis(sums, distinct, axis=1, mode="promise_in_bounds")

    return _map_points(add_up, num_points, averaged, members, weights, mesh=mesh)


def _index(members, weights, *, num_points, mesh):
    """Where each point is a member: a device's gallery pictures and their weights, point by point, and its `starts`."""
    with jax.enable_x64(True):  # for the sort alone
        return _by_point(members, weights, num_points=num_points, mesh=mesh)


@functools.partial(jax.jit, static_argnames=("num_points", "mesh"))
def _by_point(members, weights, *, num_points, mesh):
    """`_index`, where int64 is known."""

    def on_device(members, weights):
        # A point and the place of its entry in one number: on the CPU a quarter of the time of sorting pairs.
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
        # Jaccard's 1 - overlap / (2 - overlap). As in `distances.distmat`, a sum of quotients rounds alike everywhere.
        jaccard = (2 * (1 - self.weight)) * (1 - overlap) / (2 - overlap)
        return jaccard + distmat / (jnp.maximum(query["farthest"], TINY) / self.weight)[:, None]


def _overlap(query, index, *, like):
    """Sums over points of the smaller of the weights that query and gallery picture give it, int32 [B G].

    For every member of a query's set the index lists the gallery pictures that have it; lists are read in runs.
    """
    num_points, num_entries = len(index["starts"]) - 1, len(index["rows"])
    num_members, num_gallery = query["members"].shape[1], like.shape[1]
    members, weights = query["members"].reshape(-1), query["weights"].reshape(-1)
    first = index["starts"][members]
    last = index["starts"][jnp.minimum(members + 1, num_points)]  # where there is no member, nothing is read
    num_runs = (last - first + RUN - 1) // RUN
    runs_so_far = jnp.cumsum(num_runs)

    def add_runs(i, overlap):
        run = i * RUNS + jnp.arange(RUNS, dtype=jnp.int32)
        place = jnp.minimum(jnp.searchsorted(runs_so_far, run, side="right"), len(members) - 1)
        start = first[place] + (run - runs_so_far[place] + num_runs[place]) * RUN
        entry = start[:, None] + jnp.arange(RUN, dtype=jnp.int32)
        is_listed = entry < last[place][:, None]
        entry = jnp.minimum(entry, num_entries - 1)
        smaller = jnp.where(is_listed, jnp.minimum(index["weights"][entry], weights[place][:, None]), 0)
        pair = (place // num_members * num_gallery)[:, None] + index["rows"][entry]
        return overlap.at[pair].add(smaller, mode="promise_in_bounds")

    overlap = jnp.zeros_like(like, jnp.int32).reshape(-1)  # one number tells a place, which adds faster than two
    overlap = lax.fori_loop(0, (runs_so_far[-1] + RUNS - 1) // RUNS, add_runs, overlap)
    return overlap.reshape(like.shape)
