"""Colour histograms of horizontal stripes: features without a network, to be compared by chi-square distance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8

STRIPES, BINS = 6, 16  # stripes of a picture, bins of a channel; common values in re-ID before neural networks
VALUES = 256  # of a uint8 channel
NUM_FEATS = STRIPES * 3 * BINS


@jax.jit
def histograms(images: UInt8[Array, "B H W 3"]) -> Float32[Array, "B 288"]:
    """Histograms of red, green and blue in six horizontal stripes, sixteen bins each; a feature sums to 1.

    Every channel is first equalised over the whole picture, which removes differences of camera and lighting
    (Finlayson 2005): a bin covers a sixteenth of the picture's pixels, not of the channel's range.
    """
    num_images, height, width, channels = images.shape
    stripe = jnp.arange(height) * STRIPES // height
    place = (stripe[None, :, None, None] * channels + jnp.arange(channels)[None, None, None]) * VALUES
    place = place + images.astype(jnp.int32)
    places = place.reshape(num_images, -1)
    num_places = STRIPES * channels * VALUES
    counts = jax.vmap(lambda places: jnp.zeros(num_places, jnp.int32).at[places].add(1))(places)
    counts = counts.reshape(num_images, STRIPES, channels, VALUES).astype(jnp.float32)

    # The quantile of each value in its picture, 0 to 1: the middle of the pixels that have this value.
    of_picture = counts.sum(axis=1)
    share_below = (jnp.cumsum(of_picture, axis=-1) - of_picture / 2) / (height * width)
    bins = jax.nn.one_hot((share_below * BINS).astype(jnp.int32), BINS)
    # HIGHEST: TF32 on a GPU cannot represent the counts exactly.
    counts = jnp.einsum("bscv,bcvk->bsck", counts, bins, precision=jax.lax.Precision.HIGHEST)
    return counts.reshape(num_images, NUM_FEATS) / (height * width * channels)
