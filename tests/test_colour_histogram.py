import numpy as np
import pytest

from san_jax.scoring.colour_histogram import histograms

BY_STRIPE = (6, 3, 16)


def noise(*shape, seed=0, below=256):
    return np.random.default_rng(seed).integers(0, below, shape).astype(np.uint8)


def numbers(images):
    return np.asarray(histograms(images)).reshape(-1, *BY_STRIPE)


def test_histograms_sum_to_one_with_equal_weight_per_stripe_and_channel():
    found = numbers(noise(5, 48, 20, 3))
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), 1, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=3), 1 / 18, rtol=1e-6)


def test_values_fall_into_the_bins_of_their_quantile_in_the_picture():
    """A sixth of the pixels are dark, the rest light: their middle quantiles are 1/12 and 7/12."""
    images = np.full((1, 24, 10, 3), 200, np.uint8)
    images[0, 4:8] = 30
    expected = np.zeros(BY_STRIPE)
    expected[:, :, 16 * 7 // 12] = 1 / 18
    expected[1] = 0
    expected[1, :, 16 * 1 // 12] = 1 / 18
    np.testing.assert_allclose(numbers(images)[0], expected, rtol=1e-6)


def test_channels_are_counted_separately():
    images = np.full((1, 12, 8, 3), 100, np.uint8)
    images[0, :6, :, 2] = 180
    found = numbers(images)[0]
    assert np.all(found[:, :2, 8] > 0), "one value everywhere stands in the middle"
    np.testing.assert_array_equal(np.argmax(found[:, 2], axis=1), [12, 12, 12, 4, 4, 4])


def test_increasing_map_of_each_channel_changes_nothing():
    images = noise(3, 60, 24, 3, below=120)
    seen = np.stack([2 * images[..., 0], 255 - 119 + images[..., 1], images[..., 2] + images[..., 2] // 2], axis=-1)
    np.testing.assert_array_equal(numbers(seen.astype(np.uint8)), numbers(images))


def test_moving_pixels_within_a_stripe_changes_nothing_and_between_stripes_does():
    images = noise(1, 48, 20, 3)
    np.testing.assert_array_equal(numbers(images[:, :, ::-1]), numbers(images))
    np.testing.assert_array_equal(numbers(images[:, ::-1])[:, ::-1], numbers(images))
    assert np.any(numbers(images[:, ::-1]) != numbers(images))


@pytest.mark.parametrize("size", [(47, 20), (6, 1), (128, 64)])
def test_pictures_of_a_batch_are_independent(size):
    images = noise(4, *size, 3)
    one_by_one = np.concatenate([numbers(image[None]) for image in images])
    np.testing.assert_array_equal(numbers(images), one_by_one)
