"""From uint8 pictures to what the networks see, on the device: crop, mirror, normalise, erase.

The released code resizes a picture once, to 256 x 128 or to 288 x 144 and then crops. Here workers resize every
training picture to 288 x 144, so that one static shape reaches the device, and a picture that is not cropped is scaled
down from there: a second resampling, the one deviation.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

# Of ImageNet, in RGB order and of pictures in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

ERASED_AREA = (0.02, 0.4)  # share of the picture
ERASED_ASPECT = (0.3, 1 / 0.3)  # height : width
ERASE_DRAWS = 100  # the first box that fits is taken


def room_for_crop(size: int) -> int:
    """Height or width in which workers hand over a training picture: 288 for 256, 144 for 128."""
    return size * 9 // 8


def normalise(image: UInt8[Array, "*B H W 3"]) -> Float[Array, "*B H W 3"]:
    """Pictures as the encoder sees them; a picture to be scored needs nothing else."""
    return (image.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)


def scale_texture(texture: UInt8[Array, "*B S S 3"]) -> Float[Array, "*B S S 3"]:
    """Textures as the decoder is to draw them, in [-1, 1]. Never mirrored: in UV space that is not left for right."""
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
    """Training pictures as the encoder sees them, every picture with a key of its own.

    Args:
      key: follows from (seed, step), so that a resumed run sees the same pictures.
      image: `room_for_crop` of the height and width.
      height: of the result.
      width: of the result.
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
    # Filled after normalisation, so erased boxes are not the mean colour: a quirk of the released code, kept.
    return jnp.where(box[..., None], jnp.array(MEAN), image)


def random_crop(
    key: Key[Array, ""], image: UInt8[Array, "roomy_H roomy_W 3"], *, height: int, width: int
) -> UInt8[Array, "{height} {width} 3"]:
    """A part of the picture. Offsets are rounded uniform numbers, so the two end offsets are half as likely."""
    room = jnp.array([image.shape[0] - height, image.shape[1] - width])
    top, left = jnp.round(jax.random.uniform(key, (2,)) * room).astype(jnp.int32)
    return jax.lax.dynamic_slice(image, (top, left, 0), (height, width, 3))


def random_box(key: Key[Array, ""], *, height: int, width: int) -> Array:
    """Mask [H, W] of the box that random erasing fills; nowhere true if no draw fits into the picture."""
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(area_key, (ERASE_DRAWS,), minval=ERASED_AREA[0], maxval=ERASED_AREA[1])
    aspect = jax.random.uniform(aspect_key, (ERASE_DRAWS,), minval=ERASED_ASPECT[0], maxval=ERASED_ASPECT[1])
    high, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (high < height) & (wide < width)
    first = jnp.argmax(fits)
    high, wide = high[first], wide[first]
    corner = jnp.floor(jax.random.uniform(corner_key, (2,)) * jnp.array([height - high + 1, width - wide + 1]))
    y, x = jnp.arange(height)[:, None] - corner[0], jnp.arange(width) - corner[1]
    return fits[first] & (y >= 0) & (y < high) & (x >= 0) & (x < wide)
