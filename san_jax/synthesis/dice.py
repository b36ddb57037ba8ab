"""Random numbers: a sequence drawn from keys, and fixed noise over a plane."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, Key, UInt32


class Dice:
    """A sequence of random numbers; all are drawn by one call for each distribution, which saves compile time.

    Args:
      flat: key of the uniform numbers.
      bell: key of the normal numbers; None if none are needed.
      count: upper bound on the number of values that are taken, of both distributions together.
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
        """Uniform in [low, high)."""
        return low + (high - low) * self._next(self._flat, shape)

    def normal(self, *shape: int) -> Float[Array, "..."]:
        """Normal, with mean 0 and standard deviation 1."""
        return self._next(self._bell, shape)

    def chance(self, share) -> Bool[Array, ""]:
        """True with probability `share`."""
        return self._next(self._flat, ()) < share

    def index(self, count: int) -> Int32[Array, ""]:
        """Uniform among 0, ..., count - 1."""
        return jnp.int32(count * self._next(self._flat, ()))

    def weighted(self, weights) -> Int32[Array, ""]:
        """An index of `weights`, with probability proportional to its weight."""
        sums = jnp.cumsum(jnp.asarray(weights, jnp.float32))
        return jnp.sum(self._next(self._flat, ()) * sums[-1] >= sums[:-1])

    def one_of(self, values) -> Array:
        """One of the rows, all with equal probability."""
        return jnp.asarray(values)[self.index(len(values))]


def word(u: Integer[Array, "..."], v: Integer[Array, "..."], seed: Integer[Array, "..."]) -> UInt32[Array, "..."]:
    """A hash of integers u and v, 32 bits; much cheaper than jax.random."""
    x = u.astype(jnp.uint32) * np.uint32(0x9E3779B1) + v.astype(jnp.uint32) * np.uint32(0x85EBCA77)
    x = x + seed.astype(jnp.uint32) * np.uint32(0xC2B2AE3D)
    x = (x ^ (x >> 15)) * np.uint32(0x2C1B3C6D)
    x = (x ^ (x >> 12)) * np.uint32(0x297A2D39)
    return x ^ (x >> 15)


def per_cell(u: Float[Array, "..."], v: Float[Array, "..."], seed: Integer[Array, "..."]) -> Float[Array, "..."]:
    """A random number in [0, 1) for each cell (u, v); u and v are whole numbers."""
    return (word(u.astype(jnp.int32), v.astype(jnp.int32), seed) >> 16).astype(jnp.float32) / 65536


def noise(u: Float[Array, "..."], v: Float[Array, "..."], seed: Integer[Array, "..."]) -> Float[Array, "..."]:
    """Value noise in [0, 1): random numbers at whole u and v, interpolated smoothly between them."""
    left, low = jnp.floor(u), jnp.floor(v)
    right, up = u - left, v - low
    right, up = right * right * (3 - 2 * right), up * up * (3 - 2 * up)
    corners = [per_cell(left + i, low + j, seed) for j in (0, 1) for i in (0, 1)]
    lower = corners[0] + right * (corners[1] - corners[0])
    upper = corners[2] + right * (corners[3] - corners[2])
    return lower + up * (upper - lower)
