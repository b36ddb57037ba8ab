import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from san_jax.networks import layers


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolved(x: np.ndarray, kernel: np.ndarray, *, stride: int, padding: int) -> np.ndarray:
    """The convolution by its definition, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel.astype(np.float64))


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [8, 9])
def test_convolution_pads_half_the_kernel_on_every_side(size, stride, height):
    conv = layers.Conv(3, 4, size, stride=stride, rngs=nnx.Rngs(0))
    x = normal(2, height, 6, 3)
    expected = convolved(x, np.asarray(conv.kernel[...]), stride=stride, padding=size // 2)
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_the_convolution_are_those_of_its_definition(size, stride):
    conv = layers.Conv(3, 4, size, stride=stride, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(conv)
    x, toward_x, toward_kernel = normal(2, 8, 6, 3), normal(2, 8, 6, 3, seed=1), normal(size, size, 3, 4, seed=2)
    kernel = np.asarray(conv.kernel[...])
    y, pull = jax.vjp(lambda params, x: nnx.merge(graphdef, params)(x), params, jnp.asarray(x))
    at_y = normal(*y.shape, seed=3)
    at_params, at_x = pull(jnp.asarray(at_y))
    # The convolution is linear in either argument: <at_y, conv(x, toward)> = <gradient, toward>.
    for gradient, toward, image in (
        (at_x, toward_x, convolved(toward_x, kernel, stride=stride, padding=size // 2)),
        (at_params["kernel"][...], toward_kernel, convolved(x, toward_kernel, stride=stride, padding=size // 2)),
    ):
        np.testing.assert_allclose(np.vdot(gradient, toward), np.vdot(at_y, image), rtol=1e-4)


def test_bias_is_added_to_every_pixel():
    conv = layers.Conv(3, 2, 1, use_bias=True, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.asarray([1.0, -2.0])
    np.testing.assert_array_equal(conv(jnp.zeros((1, 2, 2, 3))), np.full((1, 2, 2, 2), [1.0, -2.0]))


def test_batchnorm_normalises_with_the_biased_variance_and_stores_the_unbiased_one():
    norm = layers.BatchNorm(2, rngs=nnx.Rngs(0))
    x = normal(5, 3, 2)
    y = norm(jnp.asarray(x))
    mean, biased, unbiased = x.mean((0, 1)), x.var((0, 1)), x.var((0, 1), ddof=1)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(biased + 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * unbiased, rtol=1e-5)


def test_batchnorm_in_eval_mode_uses_running_statistics_and_does_not_update_them():
    norm = layers.BatchNorm(2, rngs=nnx.Rngs(0))
    norm.mean[...], norm.var[...] = jnp.asarray([1.0, 2.0]), jnp.asarray([4.0, 9.0])
    norm.scale[...], norm.bias[...] = jnp.asarray([3.0, 1.0]), jnp.asarray([0.5, 0.0])
    norm.eval()
    np.testing.assert_allclose(norm(jnp.asarray([[3.0, 5.0]])), [[3.5, 1.0]], rtol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], [1.0, 2.0])
    np.testing.assert_array_equal(norm.var[...], [4.0, 9.0])
    norm.train()
    assert not norm.use_running_average


def test_batchnorm_keeps_the_variance_of_values_far_from_zero():
    norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
    x = normal(64, 3)
    shifted = norm(jnp.asarray(x + 1000.0))
    # One pass over float32 squares near 1e6 would leave no digit of a variance near 1.
    np.testing.assert_allclose(shifted, (x - x.mean(0)) / x.std(0), atol=2e-3)


def test_batchnorm_computes_statistics_in_float32_whatever_the_input_dtype():
    norm = layers.BatchNorm(1, rngs=nnx.Rngs(0))
    x = jnp.ones((4096, 1), jnp.bfloat16).at[::2].set(3.0)
    assert norm(x).dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    np.testing.assert_allclose(norm.mean[...], 0.2, rtol=1e-6)


def test_gradients_of_batchnorm_are_those_of_its_formula():
    norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
    norm.scale[...] = jnp.asarray([0.5, 1.0, 2.0])
    graphdef, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)
    x, at_y = normal(4, 5, 3), normal(4, 5, 3, seed=1)

    def apply(params, x):
        return nnx.merge(graphdef, params, stats, copy=True)(x)

    _, pull = jax.vjp(apply, params, jnp.asarray(x))
    at_params, at_x = pull(jnp.asarray(at_y))
    deviation = np.sqrt(x.var((0, 1)) + 1e-5)
    unit = (x - x.mean((0, 1))) / deviation
    expected = [0.5, 1.0, 2.0] / deviation * (at_y - at_y.mean((0, 1)) - unit * (at_y * unit).mean((0, 1)))
    np.testing.assert_allclose(at_x, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(at_params["scale"][...], (at_y * unit).sum((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(at_params["bias"][...], at_y.sum((0, 1)), rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 5)])
def test_max_pool_takes_windows_of_three_with_a_border(height, width):
    x = normal(2, height, width, 3) - 5.0  # all negative, so a border of zeros would show
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(layers.max_pool(jnp.asarray(x)), windows.max((-2, -1)))


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 9), (2, 3)])
def test_max_pool_without_a_border_starts_inside_and_may_end_outside(height, width):
    x = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = [
        [x[:, i : i + 3, j : j + 3].max((1, 2)) for j in range(0, width - 1, 2)] for i in range(0, height - 1, 2)
    ]
    found = layers.max_pool(jnp.asarray(x), padding=0)
    np.testing.assert_array_equal(found, np.array(expected).transpose(2, 0, 1, 3))


def test_gradient_of_max_pool_goes_to_the_maximum():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(2.0)
    gradient = jax.grad(lambda x: layers.max_pool(x).sum())(x)
    assert gradient[0, 1, 1, 0] == 4.0  # the pixel lies in all four windows
    assert gradient.sum() == 4.0


def test_gradient_of_max_pool_goes_to_the_first_of_equal_maxima():
    gradient = jax.grad(lambda x: layers.max_pool(x).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool_gives_nan_exactly_in_the_windows_that_hold_one(dtype):
    pool, height, width = jax.jit(layers.max_pool), 6, 8
    values = jnp.asarray(normal(1, height, width, 1), dtype)
    plain = np.asarray(pool(values), np.float32)
    for row in range(height):
        for column in range(width):
            pooled = np.asarray(pool(values.at[0, row, column, 0].set(jnp.nan)), np.float32)
            rows, columns = ({(place + 1) // 2, place // 2} for place in (row, column))
            in_window = np.isin(np.arange(height // 2), list(rows))[:, None] & np.isin(
                np.arange(width // 2), list(columns)
            )
            broken = in_window[None, :, :, None]
            np.testing.assert_array_equal(pooled, np.where(broken, np.nan, plain))


def test_reflect_pad_mirrors_without_repeating_the_edge():
    row = jnp.arange(4.0).reshape(1, 1, 4, 1)
    padded = layers.reflect_pad(jnp.tile(row, (1, 4, 1, 1)), pixels=3)
    np.testing.assert_array_equal(padded[0, 0, :, 0], [3, 2, 1, 0, 1, 2, 3, 2, 1, 0])
    assert padded.shape == (1, 10, 10, 1)


def test_upsampling_treats_pixels_as_areas():
    row = jnp.asarray([0.0, 4.0, 8.0]).reshape(1, 1, 3, 1)
    enlarged = layers.upsample_twice(row)
    assert enlarged.shape == (1, 2, 6, 1)
    np.testing.assert_allclose(enlarged[0, 1, :, 0], [0, 1, 3, 5, 7, 8])


def test_upsampling_commutes_with_transposing_the_map():
    x = jnp.asarray(normal(2, 3, 5, 2))
    turned = layers.upsample_twice(x.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(layers.upsample_twice(x), turned, rtol=1e-5, atol=1e-6)


def test_stretching_keeps_both_ends_and_samples_evenly():
    row = jnp.asarray([0.0, 3.0, 9.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(layers.stretch_width(row, width=5)[0, 0, :, 0], [0.0, 1.5, 3.0, 6.0, 9.0])
    np.testing.assert_allclose(layers.stretch_width(row, width=3), row)


@pytest.mark.parametrize("shape", [(2, 2, 3, 4), (1, 4, 5, 2), (2, 1, 8, 1)])
def test_gradient_of_upsampling_is_its_adjoint(shape):
    assert_adjoint(layers.upsample_twice, normal(*shape))


@pytest.mark.parametrize(("shape", "pixels"), [((2, 2, 2, 3), 1), ((1, 4, 5, 2), 3), ((2, 8, 7, 1), 3)])
def test_gradient_of_reflect_pad_is_its_adjoint(shape, pixels):
    assert_adjoint(lambda x: layers.reflect_pad(x, pixels=pixels), normal(*shape))


def assert_adjoint(linear, x: np.ndarray):
    """Checks <at_y, linear(toward)> = <pull(at_y), toward> with a one-hot `toward` for every entry of x."""
    y, pull = jax.vjp(linear, jnp.asarray(x))
    at_y = jnp.asarray(normal(*y.shape, seed=1))
    basis = jnp.eye(x.size).reshape(x.size, *x.shape)
    images = jax.vmap(linear)(basis)
    expected = jnp.tensordot(images, at_y, at_y.ndim).reshape(x.shape)
    np.testing.assert_allclose(pull(at_y)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "width", "channels"), [(7, 20, 3), (7, 21, 3), (3, 9, 1), (5, 11, 4), (5, 11, 5)])
def test_unpadded_convolution_to_few_channels_is_that_of_its_definition(size, width, channels):
    x, kernel = jnp.asarray(normal(2, 10, width, 6)), jnp.asarray(normal(size, size, 6, channels))

    def by_definition(x, kernel):
        return sum(
            jnp.einsum(
                "bhwc,co->bhwo",
                x[:, i : 10 - size + 1 + i, j : width - size + 1 + j],
                kernel[i, j],
                precision="highest",
            )
            for i in range(size)
            for j in range(size)
        )
    found, pull = jax.vjp(lambda x, kernel: layers.convolve(x, kernel, 1, 0), x, kernel)
    expected, expected_pull = jax.vjp(by_definition, x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    at_y = jnp.asarray(normal(*expected.shape))
    for gradient, other in zip(pull(at_y), expected_pull(at_y), strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=2e-5)


def test_unpadded_convolution_gets_an_extra_row_in_programs_for_the_cpu_alone():
    """Lowered for another platform on this machine, as an export is."""
    x, kernel = normal(2, 8, 6, 4), normal(3, 3, 4, 5)
    step = jax.jit(lambda x, kernel: layers.convolve(x, kernel, 1, 0)).trace(x, kernel)
    rows = {"cpu": 7, "cuda": 6, "tpu": 6}
    for platform, height in rows.items():
        text = step.lower(lowering_platforms=(platform,)).as_text()
        assert f"tensor<2x{height}x4x5xf32>" in re.search(r"stablehlo.convolution.*", text).group()
        assert text.count("stablehlo.convolution") == 1


def test_strided_1x1_convolution_flattens_no_map():
    """A flattened map behind a strided slice makes XLA for GPUs abort the process (JAX 0.11.2)."""

    def loss(x, kernel):
        return layers.convolve(x, kernel, 2, 0).sum()

    x, kernel = jnp.zeros((2, 8, 4, 3)), jnp.zeros((1, 1, 3, 5))
    program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, kernel))
    assert program.count("dot_general") == 3
    assert "reshape" not in program


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (7, 7)])
def test_max_pool_keeps_nan_within_its_channel(place):
    x = normal(1, 8, 8, 2)
    x[0, *place, 1] = np.nan
    found = np.asarray(layers.max_pool(jnp.asarray(x)))
    rows, columns = ({(at + 1) // 2, at // 2} for at in place)
    expected = {(row, column) for row in rows for column in columns if row < 4 and column < 4}
    assert set(zip(*np.nonzero(np.isnan(found[0, ..., 1])), strict=True)) == expected
    assert not np.isnan(found[..., 0]).any()
