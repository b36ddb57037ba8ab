"""Average query expansion (Chum 2007): each query feature is averaged with those of its nearest gallery pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from san_jax import devices
from san_jax.devices import SplitRows
from san_jax.scoring import nearest, tiles


def expand(
    query_feats: Float[Array | np.ndarray, "Q _"],
    gallery_feats: Float[Array | np.ndarray, "G _"] | SplitRows,
    *,
    k: int = 5,
    distance: str = "euclidean",
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> Float32[Array, "Q _"]:
    """Expanded query features: the mean of each query feature and its k nearest gallery features, not normalised.

    All gallery pictures take part, even those that a metric removes later, since a search does not know the labels.
    Arguments and errors are those of `nearest.nearest`.
    """
    mesh = mesh or tiles.one_device()
    options = dict(distance=distance, tile=tile, mesh=mesh)
    rows = nearest.nearest(query_feats, gallery_feats, k=k, **options).rows
    query_feats = devices.put(query_feats, NamedSharding(mesh, PartitionSpec()))
    return _mean(query_feats, devices.split_rows(mesh, gallery_feats).array, rows, mesh=mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _mean(query_feats, gallery_feats, rows, *, mesh):
    axes, whole = mesh.axis_names, PartitionSpec()

    def on_device(query_feats, gallery_feats, rows):
        local = rows - lax.axis_index(axes) * len(gallery_feats)
        here = (local >= 0) & (local < len(gallery_feats))

        def neighbour(column):
            """Features of one neighbour of each query: exact, since all devices but one add zeros."""
            found = gallery_feats[jnp.where(here[:, column], local[:, column], 0)].astype(jnp.float32)
            return lax.psum(jnp.where(here[:, column, None], found, 0), axes)

        # Neighbour by neighbour, to avoid an array [Q k D].
        return (query_feats + sum(map(neighbour, range(rows.shape[1])))) / (1 + rows.shape[1])

    in_specs = (whole, PartitionSpec(axes), whole)
    return jax.shard_map(on_device, mesh=mesh, in_specs=in_specs, out_specs=whole)(query_feats, gallery_feats, rows)
