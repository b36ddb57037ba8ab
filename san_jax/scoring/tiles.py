"""Distances of queries to a gallery, tile by tile, over all devices; ranks, neighbours, histograms are counted here.

A tile is the distances of a block of queries to all gallery rows that a device holds; no device ever has more than one.
The correct pictures' distances are read from the very tile in which the nearer ones are counted: the last bits of a
product depend on its shape, so distances computed apart would not tie where pictures are equal.
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

TILE_BYTES = 2**27  # of a tile; two or three buffers of that size live at a time
TILE_QUERIES = 256  # more do not speed up the product
CHUNK = 4  # pictures of a query that are counted at once


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
    query_feats = devices.put(query_feats, NamedSharding(mesh, PartitionSpec()))
    gallery_feats = devices.put(gallery_feats, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
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
            chunk = num_nearer(self.distmat, self.rows, columns(distance), columns(rows))
            return lax.dynamic_update_slice_in_dim(counts, chunk, i * CHUNK, axis=1)

        most = jnp.max(jnp.sum(rows >= 0, axis=1))
        counts = lax.pcast(jnp.zeros(rows.shape, jnp.int32), self.axes, to="varying")
        counts = lax.fori_loop(0, (most + CHUNK - 1) // CHUNK, count_chunk, counts)
        return lax.psum(counts[:, :num_rows], self.axes)


def num_nearer(distmat, gallery_rows, distance, rows):
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
