"""The trivial prediction of a texture: one and the same for everybody. Who draws no better has learnt nothing."""

import numpy as np
from jaxtyping import Int32

from san_jax.batch import Source
from san_jax.data import decoded
from san_jax.data.decoded import Field

SAMPLE = 200  # pictures whose textures are compared


def reconstruction_loss(source: Source, rows: Int32[np.ndarray, "steps B"], *, side: int) -> float:
    """The reconstruction loss of the best constant texture, the median of every texel.

    Estimated from SAMPLE of the pictures that a run is trained on, each counted as often as it is used.

    Args:
      source: the training set.
      rows: rows of the source for every step of the run.
      side: height and width of the textures, in pixels.

    Raises:
      UserError: a texture cannot be decoded; names it.
    """
    chosen = np.random.default_rng(0).choice(rows.ravel(), SAMPLE)
    textures = decoded.decode_rows(source, [Field("texture", side, side)], chosen)["texture"]
    median = np.median(textures, axis=0).astype(np.float32)
    return float(np.mean([np.abs(texture - median).mean() for texture in textures]) / 127.5)  # of [-1, 1]
