"""From uint8 pictures to the networks' input, on the device: crop, mirror, normalise, erase.

The released code resizes each picture once: to 256 x 128, or to 288 x 144 with a crop. Here the workers resize every
training picture to 288 x 144, so that the device gets one static shape, and a picture that is not cropped is scaled
down from that size. This second resampling is the only deviation.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt8

# ImageNet mean and standard deviation (RGB, pixels in [0, 1]).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

ERASED_AREA = (0.02, 0.4)  # range, as a share of the picture
ERASED_ASPECT = (0.3, 1 / 0.3)  # range of height / width
ERASE_DRAWS = 100  # number of random boxes, of which the first that fits is used


def room_for_crop(size: int) -> int:
    """Height or width to which the workers resize a training picture: 288 for 256, 144 for 128."""
    return size * 9 // 8


def normalise(image: UInt8[Array, "*B H W 3"]) -> Float[Array, "*B H W 3"]:
    """Normalises pictures for the encoder; pictures to score need no other preprocessing on the device."""
    mean, std = (lax.expand_dims(jnp.array(of_channels), range(image.ndim - 1)) for of_channels in (MEAN, STD))
    return (image.astype(jnp.float32) / 255 - mean) / std


def scale_texture(texture: UInt8[Array, "*B S S 3"]) -> Float[Array, "*B S S 3"]:
    """Target textures of the decoder, in [-1, 1]. Never mirrored: in UV space a flip does not swap left and right."""
    return texture.astype(jnp.float32) / 127.5 - 1


def augment(
    key: Key[Array, ""],
    image: UInt8[Array, "B roomy_H roomy_W 3"],
    *,
    height: int,
    width: int,
    crop: float,
    mirror: float,
    erase: float,
) -> Float[Array, "B {height} {width} 3"]:
    """Augments and normalises training pictures, each with a key of its own.

    Args:
      key: determined by (seed, step), so that a resumed run gets the same pictures.
      image: pictures of `room_for_crop(height)` x `room_for_crop(width)`.
      height: height of the result.
      width: width of the result.
      crop: probability of a random crop; else the whole picture is scaled down.
      mirror: probability of a left-right flip.
      erase: probability of random erasing.
    """
    one = functools.partial(_augment_one, height=height, width=width, crop=crop, mirror=mirror, erase=erase)
    return jax.vmap(one)(jax.random.split(key, len(image)), image)


def _augment_one(key, image, *, height, width, crop, mirror, erase):
    keys = jax.random.split(key, 5)
    whole = jax.image.resize(image.astype(jnp.float32), (height, width, 3), "linear", antialias=True)
    cut = random_crop(keys[1], image, height=height, width=width)
    image = jnp.where(jax.random.bernoulli(keys[0], crop), cut, jnp.round(whole).astype(jnp.uint8))
    image = normalise(jnp.where(jax.random.bernoulli(keys[2], mirror), image[:, ::-1], image))
    box = random_box(keys[4], height=height, width=width) & jax.random.bernoulli(keys[3], erase)
    # Filled with MEAN after normalisation, so erased boxes do not have the mean colour: as in the released code.
    return jnp.where(box[:, :, None], jnp.array(MEAN)[None, None], image)


def random_crop(
    key: Key[Array, ""], image: UInt8[Array, "roomy_H roomy_W 3"], *, height: int, width: int
) -> UInt8[Array, "{height} {width} 3"]:
    """A random crop of the picture. Offsets are rounded uniform numbers, so the two extreme ones are half as likely."""
    room = jnp.array([image.shape[0] - height, image.shape[1] - width])
    top, left = jnp.round(jax.random.uniform(key, (2,)) * room).astype(jnp.int32)
    return lax.dynamic_slice(image, (top, left, 0), (height, width, 3))


def random_box(key: Key[Array, ""], *, height: int, width: int) -> Array:
    """Mask [H, W] of the box that random erasing fills; all false if no random box fits into the picture."""
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(area_key, (ERASE_DRAWS,), minval=ERASED_AREA[0], maxval=ERASED_AREA[1])
    aspect = jax.random.uniform(aspect_key, (ERASE_DRAWS,), minval=ERASED_ASPECT[0], maxval=ERASED_ASPECT[1])
    high, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (high < height) & (wide < width)
    first = jnp.argmax(fits)
    high, wide = high[first], wide[first]
    corner = jnp.floor(jax.random.uniform(corner_key, (2,)) * jnp.array([height - high + 1, width - wide + 1]))
    y, x = jnp.arange(height)[:, None] - corner[0], jnp.arange(width)[None] - corner[1]
    return fits[first] & (y >= 0) & (y < high) & (x >= 0) & (x < wide)
