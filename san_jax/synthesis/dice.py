"""Numbers that look random: by key one after the other, or by place one for every cell of a plane."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, Key, UInt32


class Dice:
    """Numbers one after the other; drawn in one call a kind, since every call of its own has to be compiled.

    Args:
      flat: key of all but the normal numbers.
      bell: key of the normal numbers, where any are wanted.
      count: how many numbers there are, of both kinds together.
    """

    def __init__(self, flat: Key[Array, ""], bell: Key[Array, ""] | None = None, *, count: int = 64):
        self._flat = jax.random.uniform(flat, (count,))
        self._bell = None if bell is None else jax.random.normal(bell, (count,))
        self._taken = 0

    def _next(self, pool, shape: tuple[int, ...]):
        start, self._taken = self._taken, self._taken + math.prod(shape)
        assert self._taken <= len(pool), "draw more numbers at once"
        return pool[start : self._taken].reshape(shape)

    def between(self, low, high, shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Even."""
        return low + (high - low) * self._next(self._flat, shape)

    def normal(self, *shape: int) -> Float[Array, "..."]:
        """Of mean 0 and deviation 1."""
        return self._next(self._bell, shape)

    def chance(self, share) -> Bool[Array, ""]:
        """True in a `share` of all cases."""
        return self._next(self._flat, ()) < share

    def index(self, count: int) -> Int32[Array, ""]:
        """From 0 to `count` - 1, each as common as the others."""
        return jnp.int32(count * self._next(self._flat, ()))

    def weighted(self, weights) -> Int32[Array, ""]:
        """The index of a weight, as common as the weight is large."""
        sums = jnp.cumsum(jnp.asarray(weights, jnp.float32))
        return jnp.sum(self._next(self._flat, ()) * sums[-1] >= sums[:-1])

    def one_of(self, values) -> Array:
        """One of the rows, each as common as the others."""
        return jnp.asarray(values)[self.index(len(values))]


def word(u: Integer[Array, "..."], v: Integer[Array, "..."], seed: Integer[Array, "..."]) -> UInt32[Array, "..."]:
    """32 bits for whole numbers u and v; far cheaper than jax.random's."""
    x = u.astype(jnp.uint32) * np.uint32(0x9E3779B1) + v.astype(jnp.uint32) * np.uint32(0x85EBCA77)
    x = x + seed.astype(jnp.uint32) * np.uint32(0xC2B2AE3D)
    x = (x ^ (x >> 15)) * np.uint32(0x2C1B3C6D)
    x = (x ^ (x >> 12)) * np.uint32(0x297A2D39)
    return x ^ (x >> 15)


def per_cell(u: Float[Array, "..."], v: Float[Array, "..."], seed: Integer[Array, "..."]) -> Float[Array, "..."]:
    """A number in [0, 1) for every cell with whole u and v."""
    return (word(u.astype(jnp.int32), v.astype(jnp.int32), seed) >> 16).astype(jnp.float32) / 65536


def noise(u: Float[Array, "..."], v: Float[Array, "..."], seed: Integer[Array, "..."]) -> Float[Array, "..."]:
    """Value noise in [0, 1): random numbers at whole u and v, smooth between them."""
    left, low = jnp.floor(u), jnp.floor(v)
    right, up = u - left, v - low
    right, up = right * right * (3 - 2 * right), up * up * (3 - 2 * up)
    corners = [per_cell(left + i, low + j, seed) for j in (0, 1) for i in (0, 1)]
    lower = corners[0] + right * (corners[1] - corners[0])
    upper = corners[2] + right * (corners[3] - corners[2])
    return lower + up * (upper - lower)
