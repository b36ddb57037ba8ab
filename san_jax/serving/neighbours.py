"""The nearest pictures of a gallery whose features stay on the device, among those that a mask allows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from san_jax.scoring import distances
from san_jax.scoring.nearest import Nearest

BLOCK = 8192  # rows for which one program is compiled; a gallery of any size is searched block by block


class Neighbours:
    """The features of a gallery, put on the first device once.

    Args:
      feats: features of the gallery.
      distance: one of `distances.DISTANCES`; "euclidean" is squared.
    """

    def __init__(self, feats: Float[np.ndarray, "G D"], *, distance: str = "euclidean"):
        self._length, self._distance = len(feats), distance
        self._blocks = [_put(feats[start : start + BLOCK]) for start in range(0, len(feats), BLOCK)]

    def __len__(self) -> int:
        """Number of pictures."""
        return self._length

    def nearest(
        self, query_feats: Float[np.ndarray, "Q D"], *, k: int, allowed: Bool[np.ndarray, "G"] | None = None
    ) -> Nearest:
        """The k nearest pictures of every query; pictures at equal distance in gallery order.

        Args:
          query_feats: features of the queries.
          k: number of pictures for each query, at most BLOCK. A program is compiled for every k and number of queries.
          allowed: which pictures may be found; None for all.

        Returns:
          Arrays of NumPy; at distance inf, where fewer than k pictures are allowed, rows mean nothing.
        """
        allowed = np.ones(self._length, bool) if allowed is None else allowed
        query = jnp.asarray(query_feats, jnp.float32)
        found = [
            _of_block(query, *block, _padded(allowed[number * BLOCK :][:BLOCK]), k=k, distance=self._distance)
            for number, block in enumerate(self._blocks)
        ]
        empty = Nearest(np.full((len(query), k), np.inf, np.float32), np.zeros((len(query), k), np.int32))
        parts = [empty, *jax.device_get(found)]
        far = np.concatenate([part.distances for part in parts], axis=1)
        rows = np.concatenate([empty.rows, *(part.rows + BLOCK * number for number, part in enumerate(parts[1:]))], 1)
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        return Nearest(np.take_along_axis(far, order, axis=1), np.take_along_axis(rows, order, axis=1))


def _put(feats):
    """A block of features and their squared norms on the device."""
    on_device = jnp.asarray(_padded(feats))
    return on_device, distances.squared_norms(on_device)


def _padded(rows: np.ndarray) -> np.ndarray:
    """Rows of a block, with zeros behind them if there are fewer than BLOCK."""
    room = [(0, BLOCK - len(rows)), *((0, 0),) * (rows.ndim - 1)]
    return np.pad(rows, room) if len(rows) < BLOCK else rows


@functools.partial(jax.jit, static_argnames=("k", "distance"))
def _of_block(query, feats, norms, allowed, *, k, distance):
    known = dict(query_norms=distances.squared_norms(query), gallery_norms=norms)
    far = distances.distmat(query, feats, **known, distance=distance)
    far = jnp.where(allowed[None, :] & jnp.isfinite(far), far, jnp.inf)
    nearness, rows = lax.top_k(-far, k)  # takes the first of equal numbers
    return Nearest(-nearness, rows)


