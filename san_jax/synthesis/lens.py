"""Turns linear light into the picture that a camera stores, and photographs back into linear light.

The gamma of sRGB is taken as a square: linear = sRGB ** 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from san_jax.synthesis.dice import Dice, word


class Response(NamedTuple):
    """How a camera turns light into a picture.

    Attributes:
      gains: exposure times white balance, of each channel.
      saturation: factor on the saturation of colours; 0 gives grey.
      contrast: strength of an S-shaped curve; 0 is linear, negative values reduce contrast.
      haze: the sRGB value that black becomes.
      blur: standard deviation of the lens blur, in pixels of a picture of a person, 256 pixels high.
      sharpness: strength of the camera's unsharp mask.
      noise: standard deviation of the noise, in sRGB.
    """

    gains: Float[Array, "3"]
    saturation: Float[Array, ""]
    contrast: Float[Array, ""]
    haze: Float[Array, ""]
    blur: Float[Array, ""]
    sharpness: Float[Array, ""]
    noise: Float[Array, ""]


def random_response(key: Key[Array, ""]) -> Response:
    """A camera with random colours and defects; one in five is dark and noisy."""
    dice = Dice(*jax.random.split(key))
    warmth, green = 0.12 * dice.normal(), 0.04 * dice.normal()
    dim = dice.chance(0.2)
    exposure = jnp.exp(jnp.where(dim, dice.between(-0.5, 0.0), dice.between(0.1, 0.8)))
    return Response(
        gains=exposure * jnp.exp(jnp.stack([warmth, green, -warmth])),
        saturation=dice.between(0.5, 1.15),
        contrast=dice.between(-0.25, 0.5),
        haze=jnp.maximum(dice.between(-0.06, 0.1), 0),
        blur=dice.between(0.4, 1.5),
        sharpness=jnp.maximum(dice.between(-0.5, 0.8), 0),
        noise=dice.between(0.004, 0.016) + jnp.where(dim, 0.012, 0.0),
    )


def respond(
    response: Response,
    key: Key[Array, ""],
    picture: Float[Array, "H W 3"],
    *,
    scale: Float[Array, ""] | None = None,
) -> UInt8[Array, "H W 3"]:
    """The picture that a camera stores, sRGB.

    Args:
      response: of the camera.
      key: decides noise and motion blur.
      picture: linear light.
      scale: height in pixels of the part to which blur and noise are fitted, such as a person's box in a wide frame;
        by default the whole picture's.
    """
    dice = Dice(*jax.random.split(key))
    size = (picture.shape[0] if scale is None else scale) / 256
    soft = response.blur * size * jnp.exp(0.2 * dice.normal())
    motion = jnp.hypot(soft, jnp.maximum(dice.between(-2.0, 1.2), 0) * size)  # motion of camera or person
    x = jnp.sqrt(jnp.clip(_blurred(picture * response.gains, soft, motion), 0, 1))
    x = x + response.contrast * (x * x * (3 - 2 * x) - x)
    grey = x @ jnp.array([0.3, 0.59, 0.11])
    x = grey[..., None] + response.saturation * (x - grey[..., None])
    x = response.haze + (1 - response.haze) * x
    x = x + response.sharpness * (x - _blurred(x, 1.2 * size, 1.2 * size))
    # The sum of the four bytes of a random word is about normal with deviation 148. Noise is finer than the lens blur,
    # but not white.
    height, width, _ = picture.shape
    words = word(jnp.arange(height)[:, None], jnp.arange(3 * width)[None], jax.random.bits(key))
    words = words.reshape(height, width, 3)
    bell = sum(((words >> shift) & 255).astype(jnp.float32) for shift in (0, 8, 16, 24)) / 148 - 3.45
    bell = 0.45 * bell + 0.75 * bell[..., 1:2]  # mostly in brightness
    x = x + 1.8 * response.noise * _blurred(bell, 0.6 * size, 0.6 * size)
    return jnp.round(255 * jnp.clip(x, 0, 1)).astype(jnp.uint8)


def _blurred(picture: Float[Array, "H W 3"], down, across) -> Float[Array, "H W 3"]:
    """Gaussian blur with seven taps; standard deviations in pixels."""
    for axis, deviation in enumerate((down, across)):
        weights = jnp.exp(-0.5 * jnp.square(jnp.arange(-3, 4) / jnp.maximum(deviation, 0.05)))
        weights = weights / weights.sum()
        padded = jnp.pad(picture, [(3, 3) if a == axis else (0, 0) for a in range(3)], mode="edge")
        length = picture.shape[axis]
        picture = sum(weights[tap] * jax.lax.slice_in_dim(padded, tap, tap + length, axis=axis) for tap in range(7))
    return picture


def photograph(
    picture: UInt8[Array, "h w 3"], key: Key[Array, ""], *, height: int, width: int
) -> Float[Array, "{height} {width} 3"]:
    """A random crop of a photograph as a background, in linear light; half of the crops are mirrored."""
    tall, wide = picture.shape[:2]
    dice = Dice(*jax.random.split(key))
    side = dice.between(0.5, 1.0) * min(tall / height, wide / width)  # pixels of the photograph per pixel of the crop
    top, left = dice.between(0.0, 1.0) * (tall - side * height), dice.between(0.0, 1.0) * (wide - side * width)
    cut = jax.image.scale_and_translate(
        picture.astype(jnp.float32) / 255, (height, width, 3), (0, 1),
        jnp.stack([1 / side, 1 / side]), jnp.stack([-top, -left]) / side, method="linear",
    )  # fmt: skip
    return jnp.square(jnp.where(dice.chance(0.5), cut[:, ::-1], cut))
