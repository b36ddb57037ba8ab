"""The random streams of a run: independent random numbers for each purpose, from the run's seed and the stream's name.

All randomness of a training run comes from here. Streams with names exist because `jax.random.split(key)[i]` is
`jax.random.fold_in(key, i)`: if one purpose splits a key and another folds numbers into it, they get the same keys.
"""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Key

# "people" is 0, so that the batches and epochs of a seed stay those of runs that are older than the streams: numpy's
# generators ignore trailing zeros in a seed.
STREAMS = {name: zlib.crc32(name.encode()) for name in ("encoder", "decoder", "augmentation", "pairs")} | {"people": 0}


def key(seed: int, stream: str) -> Key[Array, ""]:
    """The key of a stream, for `jax.random`."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(STREAMS[stream]))


def generator(seed: int, stream: str, epoch: int) -> np.random.Generator:
    """The numpy generator of a stream in an epoch."""
    return np.random.default_rng([seed, epoch, STREAMS[stream]])
