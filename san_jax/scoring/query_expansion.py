"""Average query expansion (Chum 2007): a query is asked once more together with what it found."""

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
    """Query features, each the mean of itself and its k nearest gallery features, as they are: not normalised.

    All gallery pictures count, those that a metric removes too: a search knows nobody's name. The arguments and errors
    are those of `nearest.nearest`.
    """
    mesh = mesh or tiles.one_device()
    options = dict(distance=distance, tile=tile, mesh=mesh)
    rows = nearest.nearest(query_feats, gallery_feats, k=k, **options).rows
    everywhere = NamedSharding(mesh, PartitionSpec())
    return _mean(*(devices.put(feats, everywhere) for feats in (query_feats, gallery_feats)), rows)


@jax.jit
def _mean(query_feats, gallery_feats, rows):
    found = sum(gallery_feats[column].astype(jnp.float32) for column in rows.T)  # never [Q k D]
    return (query_feats + found) / (1 + rows.shape[1])
