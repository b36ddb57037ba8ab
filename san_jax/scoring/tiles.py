"""Distances of queries to a gallery, tile by tile, on all devices; for ranks, nearest neighbours and histograms.

A tile holds the distances of a block of queries to all gallery rows of one device; no device has more than one tile at
a time. The distances of the correct pictures are read from the same tile in which nearer pictures are counted: the last
bits of a product depend on its shape, so that separately computed distances of equal pictures would not tie.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32

from san_jax import devices
from san_jax.errors import UserError
from san_jax.scoring import distances

TILE_BYTES = 2**27  # size of a tile; two or three buffers of this size exist at a time
TILE_QUERIES = 256  # more queries do not make the product faster
CHUNK = 8  # correct pictures of a query that are ranked at once
BLOCK = 256  # gallery pictures with one limit for each ranked picture, whose own block is counted apart


@dataclasses.dataclass(frozen=True)
class Refinement:
    """A function that replaces the distances of a tile by better ones, as re-ranking does, and the data that it needs.

    Attributes:
      refine: refine(distmat, per_query, per_gallery) returns new distances [B G]. It gets those of the tile [B G], the
        arrays of `per_query` as [B ...], and this device's part of `per_gallery`. Must be hashable: equal functions
        share a compiled program.
      per_query: arrays [Q ...].
      per_gallery: arrays that are split over the devices of the mesh along the first axis, into equal parts.
    """

    refine: Callable[..., Float[Array, "B G"]]
    per_query: Mapping[str, Array]
    per_gallery: Mapping[str, Array]


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
    """Calls `count(tile, per_query, shared)` tile by tile and returns its results for all queries, [Q ...].

    Args:
      count: returns an array [B ...] or a tree of arrays, the same on all devices. Must be hashable: equal functions
        share a compiled program.
      per_query: a dictionary of arrays [Q ...], which `count` gets as [B ...].
      shared: a dictionary of arrays that `count` gets whole.
      query_feats: [Q D].
      gallery_feats: [G D]; or SplitRows of the mesh, of which no process needs to hold more than its part.
      distance: one of `distances.DISTANCES`.
      refinement: replaces the distances of each tile; None for none.
      order: the order [Q] in which queries are put into tiles; by default their own.
      tile: number of queries in a tile; by default as many as TILE_BYTES hold, up to TILE_QUERIES.
      mesh: the devices that share the gallery rows; by default the first device alone.

    Raises:
      UserError: features are not finite, or there are none.
    """
    check_any(query_feats, gallery_feats)
    num_queries, num_gallery = len(query_feats), len(gallery_feats)
    mesh = mesh or one_device()
    refine, known = None, ({}, {})
    if refinement:
        refine, known = refinement.refine, (refinement.per_query, refinement.per_gallery)
    query_feats = devices.put(query_feats, NamedSharding(mesh, PartitionSpec()))
    gallery_feats = devices.split_rows(mesh, gallery_feats).array
    query_norms, gallery_norms = distances.squared_norms(query_feats), distances.squared_norms(gallery_feats)
    distances.check_finite(query_norms, name="query")
    distances.check_finite(gallery_norms, name="gallery")

    order = np.arange(num_queries) if order is None else order
    tile = tile or max(1, min(TILE_QUERIES, TILE_BYTES * mesh.size // (4 * len(gallery_feats))))
    num_tiles = -(-num_queries // tile)
    even_tile = -(-num_queries // num_tiles)
    # The last tile is padded with the last query.
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
    """Raises a UserError if there are no query pictures or no gallery pictures."""
    num_queries, num_gallery = len(query_feats), len(gallery_feats)
    if not (num_queries and num_gallery):
        raise UserError(f"{num_queries} query and {num_gallery} gallery pictures: nothing to rank; check the data set")


def one_device() -> Mesh:
    """A mesh of the first device alone."""
    return Mesh(np.array(jax.devices()[:1]), ("gallery",))


def pad_rows(rows, mesh: Mesh, *, value=0):
    """Appends rows of `value` until the number of rows is a multiple of the number of devices."""
    rest = -len(rows) % mesh.size
    return jnp.pad(rows, ((0, rest), (0, 0)), constant_values=value) if rest else rows


@functools.partial(jax.jit, static_argnames=("count", "refine", "num_gallery", "distance", "mesh"))
def _map_tiles(queries, shared, gallery, known, tiles, *, count, refine, num_gallery, distance, mesh):
    """Results [T*B ...] of `count` for `tiles` [T B] of query rows; gallery rows from `num_gallery` on are padding."""
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
      distmat: the distances; inf in columns that are padding.
      rows: row in the whole gallery of each column.
      axes: mesh axes over which the gallery is split.
    """

    distmat: Float[Array, "B G"]
    rows: Int32[Array, "G"]
    axes: tuple[str, ...]

    def at(self, rows):
        """Distances [B n] of gallery rows [B n], no matter which device holds them; inf for row -1."""
        local = rows - self.rows[0]
        here = (local >= 0) & (local < len(self.rows))
        found = jnp.take_along_axis(self.distmat, jnp.where(here, local, 0), axis=1, mode="promise_in_bounds")
        return jnp.where(rows < 0, jnp.inf, lax.psum(jnp.where(here, found, 0), self.axes))

    def all_gather(self, numbers):
        """Gathers the columns [B n] of all devices, in the gallery's order: [B devices*n], the same on every device."""
        num_rows, num_columns = numbers.shape
        places = jnp.zeros((num_rows, lax.axis_size(self.axes), num_columns), numbers.dtype)
        places = places.at[:, lax.axis_index(self.axes)].set(numbers)
        return lax.psum(places, self.axes).reshape(num_rows, -1)

    def num_nearer(self, distance, rows):
        """How many pictures of the whole gallery rank before each of `rows` [B P], at distances `distance` [B P]."""
        num_rows = rows.shape[1]
        size = min(CHUNK, num_rows)
        room = ((0, 0), (0, -num_rows % size))
        distance, rows = jnp.pad(distance, room), jnp.pad(rows, room, constant_values=-1)

        def count_chunk(i, counts):
            columns = functools.partial(lax.dynamic_slice_in_dim, start_index=i * size, slice_size=size, axis=1)
            chunk = num_nearer_in_tile(self.distmat, columns(distance), columns(rows) - self.rows[0])
            return lax.dynamic_update_slice_in_dim(counts, chunk, i * size, axis=1)

        most = jnp.max(jnp.sum(rows >= 0, axis=1))
        counts = lax.pcast(jnp.zeros(rows.shape, jnp.int32), self.axes, to="varying")
        counts = lax.fori_loop(0, (most + size - 1) // size, count_chunk, counts)
        return lax.psum(counts[:, :num_rows], self.axes)


def num_nearer_in_tile(distmat, distance, columns):
    """How many pictures of a tile rank before each of some pictures [B P], which may belong to other tiles.

    Among pictures at equal distance, lower columns rank first. None counts as nearer than itself, although XLA may
    compute its distance twice, with other last bits.

    Args:
      distmat: distances [B G].
      distance: [B P] of the pictures that are ranked.
      columns: [B P] of these pictures; below 0 or from G on, if they are in another tile.
    """
    num_columns = distmat.shape[1]
    num_blocks = num_columns // BLOCK
    own = columns // BLOCK
    # One comparison for each distance: equal ones count in blocks before the picture's own, and not in those after it.
    # Next above 0 comes the least normal number, since devices may take smaller ones for 0.
    or_equal = jnp.maximum(jnp.nextafter(distance, jnp.inf), np.finfo(np.float32).tiny)

    def limit(of_picture):
        distance, or_equal, own = (numbers[:, None] for numbers in of_picture)
        block = jnp.arange(num_blocks)[None, :]
        others = jnp.where(block < own, or_equal, distance)
        return jnp.where(block == own, -jnp.inf, others)[:, :, None]

    limits = [limit(of_picture) for of_picture in zip(distance.T, or_equal.T, own.T, strict=True)]
    blocks = distmat[:, : num_blocks * BLOCK].reshape(len(distmat), num_blocks, BLOCK)
    counts = _sums([blocks < limit for limit in limits], dimensions=(1, 2))
    # The picture's own block, and the columns after the last block.
    place = jnp.clip(own, 0, max(num_blocks - 1, 0))[:, :, None] * BLOCK + jnp.arange(BLOCK)[None, None]
    place = jnp.minimum(place, num_columns - 1).reshape(len(own), -1)
    near = jnp.take_along_axis(distmat, place, axis=1, mode="promise_in_bounds")
    # A row for each ranked picture.
    near, place, at, column = (numbers.reshape(own.size, -1) for numbers in (near, place, distance, columns))
    inside = (own >= 0) & (own < num_blocks)
    counts += jnp.where(inside, num_nearer(near, place, at, column).reshape(own.shape), 0)
    if num_columns % BLOCK:
        rest = slice(num_blocks * BLOCK, None)
        counts += num_nearer(distmat[:, rest], jnp.arange(num_columns, dtype=jnp.int32)[rest], distance, columns)
    return counts


def _sums(conditions, *, dimensions):
    """How often each of some arrays of truth values is true, [B] each, stacked to [B P].

    One reduction of them all: on the CPU, XLA fuses what they are computed from into it.
    """
    numbers = tuple(condition.astype(jnp.int32) for condition in conditions)
    start = (np.int32(0),) * len(numbers)
    added = lax.reduce(numbers, start, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), dimensions)
    return jnp.stack(added, axis=1)


def num_nearer(distmat, gallery_rows, distance, rows):
    """How many pictures rank before each of `rows` [B P], whose distances are `distance` [B P].

    Among pictures at equal distance, lower rows rank first. Counted are the pictures at `gallery_rows` [G] or [B G],
    whose distances are `distmat` [B G]. None counts as nearer than itself, although XLA may compute its distance twice,
    with other last bits.
    """
    others, distance, rows = distmat[:, None, :], distance[:, :, None], rows[:, :, None]
    other_rows = jnp.atleast_2d(gallery_rows)[:, None, :]
    nearer = (others < distance) & (other_rows != rows)
    tied_before = (others == distance) & (other_rows < rows)
    # On the CPU, XLA fuses the comparisons into a reduction of two operands, but not into one of a single operand, for
    # which it would write out an array [B P G].
    return sum(
        lax.reduce(
            (nearer.astype(jnp.int32), tied_before.astype(jnp.int32)),
            (np.int32(0), np.int32(0)),
            lambda a, b: (a[0] + b[0], a[1] + b[1]),
            dimensions=(2,),
        )
    )
