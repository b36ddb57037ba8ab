"""The random streams of a run: for every purpose numbers of its own, from the run's seed and the purpose's name.

All randomness of a training is drawn from here. `jax.random.split(key)[i]` is `jax.random.fold_in(key, i)`, so that
purposes which split one key and purposes which fold numbers into it meet in the same keys.
"""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Key

# "people" is 0, so that the batches of a seed, and where its epochs begin, are those of runs from before there were
# streams: numpy's generators take zeros behind a seed for nothing.
STREAMS = {name: zlib.crc32(name.encode()) for name in ("encoder", "decoder", "augmentation", "pairs")} | {"people": 0}


def key(seed: int, stream: str) -> Key[Array, ""]:
    """The key of a stream, for `jax.random`."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(STREAMS[stream]))


def generator(seed: int, stream: str, epoch: int) -> np.random.Generator:
    """The generator of a stream in an epoch, for numpy."""
    return np.random.default_rng([seed, epoch, STREAMS[stream]])
