import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from san_jax.data import augmentation

H, W = 64, 32
ROOMY = (augmentation.room_for_crop(H), augmentation.room_for_crop(W))


def pictures(number, seed=0, size=ROOMY):
    return np.random.default_rng(seed).integers(0, 256, (number, *size, 3), np.uint8)


@functools.partial(jax.jit, static_argnames=("crop", "mirror", "erase"))
def augment(key, image, crop=0.0, mirror=0.0, erase=0.0):
    return augmentation.augment(key, image, height=H, width=W, crop=crop, mirror=mirror, erase=erase)


def boxes(number, height=256, width=128):
    """Height, width, top and left of erased boxes."""
    draw = jax.jit(jax.vmap(functools.partial(augmentation.random_box, height=height, width=width)))
    masks = np.asarray(draw(jax.random.split(jax.random.key(5), number)))
    rows, columns = masks.any(2), masks.any(1)
    assert (masks == rows[:, :, None] & columns[:, None]).all(), "every mask is one box"
    return rows.sum(1), columns.sum(1), rows.argmax(1), columns.argmax(1)


def test_room_for_crop_is_that_of_the_released_code():
    assert (augmentation.room_for_crop(256), augmentation.room_for_crop(128)) == (288, 144)


def test_pictures_are_normalised_by_the_imagenet_mean_and_std():
    image = jnp.array([[[0, 128, 255]]], jnp.uint8)
    expected = [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(augmentation.normalise(image)[0, 0], expected, rtol=1e-6)


def test_textures_are_scaled_to_minus_one_to_one():
    texture = jnp.array([[[0, 51, 255]]], jnp.uint8)
    np.testing.assert_allclose(augmentation.scale_texture(texture)[0, 0], [-1, -0.6, 1], atol=1e-6)


def test_same_key_gives_the_same_pictures_and_another_key_different_ones():
    image = pictures(4)
    draw = functools.partial(augment, image=image, crop=0.5, mirror=0.5, erase=0.5)
    np.testing.assert_array_equal(draw(jax.random.key(1)), draw(jax.random.key(1)))
    assert not np.array_equal(draw(jax.random.key(1)), draw(jax.random.key(2)))


def test_every_picture_of_a_batch_is_augmented_with_its_own_key():
    image = np.repeat(pictures(1), 16, axis=0)
    drawn = np.asarray(augment(jax.random.key(0), image, crop=1.0))
    assert len(np.unique(drawn.reshape(16, -1), axis=0)) > 8


def test_uncropped_picture_is_resized_as_by_pillow():
    image = pictures(1)
    expected = Image.fromarray(image[0]).resize((W, H), Image.Resampling.BILINEAR)
    plain = np.asarray(augment(jax.random.key(0), image)[0]) * augmentation.STD + augmentation.MEAN
    np.testing.assert_allclose(plain * 255, np.asarray(expected, np.float32), atol=1.01)


def test_mirror_flips_the_picture_left_to_right():
    image, key = pictures(2), jax.random.key(3)
    np.testing.assert_array_equal(augment(key, image, mirror=1.0), augment(key, image)[:, :, ::-1])


def test_crop_offsets_cover_the_margin_with_half_weight_at_its_ends():
    """round(U(0, m)): offsets 1 .. m-1 with probability 1/m, 0 and m with half of it."""
    y, x = np.meshgrid(np.arange(ROOMY[0]), np.arange(ROOMY[1]), indexing="ij")
    image = jnp.asarray(np.stack([y, x, 0 * x], -1), jnp.uint8)
    cut = jax.vmap(lambda key: augmentation.random_crop(key, image, height=H, width=W)[0, 0, :2])
    offsets = np.asarray(jax.jit(cut)(jax.random.split(jax.random.key(0), 20_000)))
    for axis, margin in enumerate((8, 4)):
        share = np.bincount(offsets[:, axis], minlength=margin + 1) / 20_000
        expected = np.full(margin + 1, 1 / margin)
        expected[[0, -1]] /= 2
        np.testing.assert_allclose(share, expected, atol=0.012)


def test_erased_area_and_aspect_follow_the_formulas():
    """Compares the boxes that fit with areas and aspects sampled in NumPy by the reference's formulas."""
    high, wide, _, _ = boxes(4000)
    rng = np.random.default_rng(0)
    area, aspect = 256 * 128 * rng.uniform(0.02, 0.4, 200_000), rng.uniform(0.3, 1 / 0.3, 200_000)
    h, w = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
    fits = (h < 256) & (w < 128)
    for drawn, expected in ((high, h[fits]), (wide, w[fits])):
        quantiles = np.linspace(0.05, 0.95, 10)
        np.testing.assert_allclose(np.quantile(drawn, quantiles), np.quantile(expected, quantiles), atol=5)


def test_erased_box_lies_anywhere_in_the_picture():
    high, wide, top, left = boxes(4000)
    assert (top + high <= 256).all()
    assert (left + wide <= 128).all()
    down, across = top / np.maximum(256 - high, 1), left / np.maximum(128 - wide, 1)
    np.testing.assert_allclose(np.quantile(down, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    np.testing.assert_allclose(np.quantile(across, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    assert (top + high == 256).any(), "the last offset counts"


def test_erased_box_is_filled_with_the_unnormalised_mean():
    image = pictures(64)
    changed = np.asarray(augment(jax.random.key(0), image, erase=1.0) != augment(jax.random.key(0), image)).any(-1)
    filled = np.asarray(augment(jax.random.key(0), image, erase=1.0))[changed]
    np.testing.assert_allclose(filled, np.broadcast_to(augmentation.MEAN, filled.shape), rtol=1e-6)
    assert changed.any((1, 2)).all()


@pytest.mark.parametrize("what", ["crop", "mirror", "erase"])
def test_half_of_the_pictures_are_changed_at_probability_one_half(what):
    image = np.repeat(pictures(1), 1000, axis=0)
    unchanged = augment(jax.random.key(0), image[:1])
    changed = (np.asarray(augment(jax.random.key(7), image, **{what: 0.5})) != unchanged).any((1, 2, 3))
    assert 0.45 < changed.mean() < 0.55
