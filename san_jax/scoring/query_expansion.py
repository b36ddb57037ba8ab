"""Average query expansion (Chum 2007): each query feature is averaged with those of its nearest gallery pictures."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from san_jax import devices
from san_jax.scoring import nearest, tiles


def expand(
    query_feats: Float[Array | np.ndarray, "Q _"],
    gallery_feats: Float[Array | np.ndarray, "G _"],
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
    everywhere = NamedSharding(mesh, PartitionSpec())
    return _mean(*(devices.put(feats, everywhere) for feats in (query_feats, gallery_feats)), rows)


@jax.jit
def _mean(query_feats, gallery_feats, rows):
    # Column by column, to avoid an array [Q k D].
    found = sum(gallery_feats[column].astype(jnp.float32) for column in rows.T)
    return (query_feats + found) / (1 + rows.shape[1])
