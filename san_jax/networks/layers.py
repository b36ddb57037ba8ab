"""Layers that encoder and decoder share: convolution, BatchNorm with PyTorch's constants, pooling, resizing."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from san_jax.networks.precision import COMPUTE

EPSILON = 1e-5  # of BatchNorm
FEW_CHANNELS = 4  # for which `convolve` packs adjacent columns on a CPU ...
PACKED = 4  # ... this many
MOMENTUM = 0.9  # of BatchNorm's running statistics; PyTorch writes 0.1, the weight of the new batch

he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def scaled(channels: int, width: float, *, least: int = 1) -> int:
    """A channel count times a width factor, at least `least`."""
    return max(least, round(channels * width))


class Conv(nnx.Module):
    """Square convolution that pads size // 2 on every side, as PyTorch's networks do ("SAME" differs at stride 2).

    Args:
      in_channels, out_channels: channels of input and output.
      size: height and width of the kernel, stored as [size size in out].
      stride: of both axes.
      padding: zeros on every side; None for size // 2.
      use_bias: whether a bias is added.
      kernel_init: initializer of the kernel.
      compute_dtype: dtype of the map, and precision of the products, see `precision.py`; parameters are float32.
      rngs: random streams; takes one key of `params`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        use_bias: bool = False,
        kernel_init: Callable = he_normal,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, in_channels, out_channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels, jnp.float32)) if use_bias else None
        self.stride = stride
        self.padding = size // 2 if padding is None else padding
        self.compute_dtype = compute_dtype

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """The map after the convolution, in the layer's dtype."""
        dtype, precision = COMPUTE[self.compute_dtype]
        x = convolve(x.astype(dtype), self.kernel[...].astype(dtype), self.stride, self.padding, precision)
        return x if self.bias is None else x + per_channel(self.bias[...].astype(dtype), x)


def convolve(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k k C c"],
    stride: int,
    padding: int,
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> Float[Array, "B h w c"]:
    """The convolution of a map with a kernel, without a bias.

    XLA's convolutions are slow on the CPU where nothing is padded: the weight gradients of 1 x 1 kernels and all
    three passes of unpadded ones. So the former are written as matrix products, which are no worse on any device,
    and on the CPU the latter get a row of zeros that is dropped again. A strided product keeps the map's four axes:
    XLA for GPUs (JAX 0.11.2) aborts the process when it compiles a flattened map behind a strided slice.
    """
    size = kernel.shape[0]
    if size == 1:
        if stride > 1:
            dimensions = (((3,), (0,)), ((), ()))
            return lax.dot_general(x[:, ::stride, ::stride], kernel[0, 0], dimensions, precision=precision)
        product = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
        return product.reshape(*x.shape[:-1], -1)

    def padded(x: Array, kernel: Array, rows_after: int = padding) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=((padding, rows_after), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )

    if padding or stride > 1:
        return padded(x, kernel)
    if kernel.shape[3] <= FEW_CHANNELS:
        on_cpu = functools.partial(convolve_packed, precision)
    else:
        on_cpu = lambda x, kernel: padded(x, kernel, rows_after=1)[:, :-1]  # noqa: E731
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=padded)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve_packed(
    precision: lax.Precision, x: Float[Array, "B H W C"], kernel: Float[Array, "k k C c"]
) -> Float[Array, "B h w c"]:
    """An unpadded convolution to few channels, computed as one to PACKED times as many at a quarter of the columns.

    Adjacent columns of the result are the channels of one column, so that a CPU multiplies wider matrices: for the
    decoder's last layer, 7 x 7 to 3 channels, forward and backward take a third of the time, although a kernel with
    room for all PACKED shifts has more products.
    """
    return _packed(precision, x, kernel)


def _packed(precision: lax.Precision, x: Array, kernel: Array) -> Array:
    size, width = kernel.shape[0], x.shape[2] - kernel.shape[0] + 1
    missing = -width % PACKED  # columns
    shifted = [jnp.pad(kernel, ((0, 0), (i, PACKED - 1 - i), (0, 0), (0, 0))) for i in range(PACKED)]
    wide = jnp.stack(shifted, axis=3).reshape(size, size + PACKED - 1, kernel.shape[2], -1)
    y = lax.conv_general_dilated(
        jnp.pad(x, ((0, 0), (0, 1), (0, missing), (0, 0))),  # the extra row as in `convolve`
        wide,
        window_strides=(1, PACKED),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
    return y[:, :-1].reshape(*x.shape[:1], y.shape[1] - 1, width + missing, -1)[:, :, :width]


def _packed_backward(precision, residuals, at_y):
    """XLA's own gradient for the kernel; that for the map is again a convolution, of the padded gradient."""
    x, kernel = residuals
    border = kernel.shape[0] - 1
    padded = jnp.pad(at_y, ((0, 0), (border, border), (border, border), (0, 0)))
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    at_x = _packed(precision, padded, turned)
    _, pull = jax.vjp(lambda kernel: _packed(precision, x, kernel), kernel)
    return at_x, *pull(at_y)


convolve_packed.defvjp(
    lambda precision, x, kernel: (_packed(precision, x, kernel), (x, kernel)), _packed_backward
)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, as PyTorch computes it, statistics in float32.

    Training normalises with the biased batch variance and stores the unbiased one (n / (n - 1)) in the running
    average. `train()` and `eval()` of NNX switch between batch and running statistics.

    Args:
      channels: size of the last axis.
      scale_init: initializer of the scale.
      learns_bias: whether the bias gets gradients; otherwise it stays at 0 or at its loaded value.
      rngs: random streams; takes one key of `params`.
    """

    def __init__(
        self,
        channels: int,
        *,
        scale_init: Callable = nnx.initializers.ones,
        learns_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))
        self.learns_bias = learns_bias
        self.use_running_average = False

    def __call__(self, x: Float[Array, "*axes C"]) -> Float[Array, "*axes C"]:
        """The normalised array, in the dtype of `x`; in training mode the running statistics are updated."""
        mean, var = self.mean[...], self.var[...]
        wide = x.astype(jnp.float32)
        if not self.use_running_average:
            mean, var = batch_moments(wide)
            num_values = x.size // x.shape[-1]
            unbiased = var * (num_values / max(num_values - 1, 1))
            # `self.mean[...] = mean` would ask tracers for their sharding, and JAX would search the whole trace for the
            # error message that Flax then drops.
            self.mean.set_value(lax.stop_gradient(MOMENTUM * self.mean[...] + (1 - MOMENTUM) * mean))
            self.var.set_value(lax.stop_gradient(MOMENTUM * self.var[...] + (1 - MOMENTUM) * unbiased))
        factor = self.scale[...] * lax.rsqrt(var + EPSILON)
        bias = self.bias[...] if self.learns_bias else lax.stop_gradient(self.bias[...])
        mean, factor, bias = (per_channel(values, x) for values in (mean, factor, bias))
        return ((wide - mean) * factor + bias).astype(x.dtype)


def batch_moments(x: Float[Array, "*axes C"]) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Mean and biased variance over all axes but the last, of float32 values, in two passes.

    The one-pass E[x^2] - E[x]^2 loses all digits where the mean is large compared with the deviation.
    """
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.mean(jnp.square(x - per_channel(mean, x)), axes)


def per_channel(values: Float[Array, " C"], x: Float[Array, "*axes C"]) -> Float[Array, "*ones C"]:
    """Values of the channels of `x`, with as many axes as `x`: nothing is broadcast to another rank in silence."""
    return lax.expand_dims(values, range(x.ndim - 1))


class ConvNorm(nnx.Module):
    """Convolution, then BatchNorm; arguments as for `Conv`, plus the initializer of the BatchNorm's scale."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        kernel_init: Callable = he_normal,
        scale_init: Callable = nnx.initializers.ones,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            out_channels,
            size,
            stride=stride,
            use_bias=use_bias,
            kernel_init=kernel_init,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_channels, scale_init=scale_init, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """The normalised map, without an activation."""
        return self.norm(self.conv(x))


def max_pool(x: Float[Array, "B H W C"], *, padding: int = 1) -> Float[Array, "B h w C"]:
    """3 x 3 max-pooling at stride 2.

    With one pixel of padding: half the height and width, rounded up. Without: rounded down, and the last window may
    reach one pixel beyond the map (PyTorch's ceil_mode).

    The gradient goes to the first of equal maxima, as PyTorch's does. NaN is propagated; -inf becomes NaN.
    Comparing nine shifted views takes a sixth of the time of XLA's gradient of a windowed maximum on the CPU.
    """
    height, width = (x.shape[1] + padding) // 2, (x.shape[2] + padding) // 2
    lowest = jnp.finfo(x.dtype).min  # not -inf, which `larger` would turn into NaN
    x = jnp.pad(x, ((0, 0), (padding, 1), (padding, 1), (0, 0)), constant_values=lowest)
    views = (x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2] for i in range(3) for j in range(3))
    return functools.reduce(larger, views)


def larger(best: Float[Array, "*axes"], other: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """The larger of two numbers, the first of equal ones, NaN if either is; the gradient goes to it alone.

    Comparisons with NaN are false, so `other` is chosen where either is NaN; adding 0 * `best` carries over a NaN of
    `best`. A second comparison instead would make the gradient an eighth slower on the CPU.
    """
    return jnp.where(best >= other, best, other + 0 * lax.stop_gradient(best))


def reflect_pad(x: Float[Array, "B H W C"], *, pixels: int) -> Float[Array, "B h w C"]:
    """Adds a mirrored border of `pixels` pixels; the edge itself is not repeated."""
    return reflect_axis(reflect_axis(x, 1, pixels), 2, pixels)


def upsample_twice(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Bilinear upsampling by two; pixels are areas (PyTorch's align_corners=False)."""
    return upsample_axis(upsample_axis(x, 1), 2)


# The next two have explicit gradients: XLA's are sums of padded maps, several times slower on the CPU.


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def reflect_axis(x: Float[Array, "B H W C"], axis: int, pixels: int) -> Float[Array, "B h w C"]:
    """A map with mirrored pixels at both ends of one axis."""
    size = x.shape[axis]
    before = lax.slice_in_dim(x, 1, 1 + pixels, axis=axis)
    after = lax.slice_in_dim(x, size - 1 - pixels, size - 1, axis=axis)
    return jnp.concatenate([jnp.flip(before, axis), x, jnp.flip(after, axis)], axis)


def reflect_axis_backward(
    axis: int, pixels: int, _: None, at_y: Float[Array, "B h w C"]
) -> tuple[Float[Array, "B H W C"]]:
    """Adds the gradient of each border to the pixels that it mirrors."""
    before, at_x, after = jnp.split(at_y, (pixels, at_y.shape[axis] - pixels), axis)
    for start, border in ((1, before), (at_x.shape[axis] - 1 - pixels, after)):
        mirrored = lax.slice_in_dim(at_x, start, start + pixels, axis=axis) + jnp.flip(border, axis)
        at_x = lax.dynamic_update_slice_in_dim(at_x, mirrored, start, axis)
    return (at_x,)


reflect_axis.defvjp(lambda x, axis, pixels: (reflect_axis(x, axis, pixels), None), reflect_axis_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def upsample_axis(x: Float[Array, "B H W C"], axis: int) -> Float[Array, "B h w C"]:
    """Doubles one axis: each pixel becomes two, both 3/4 the pixel and 1/4 its neighbour on that side."""
    before, after = neighbours(x, x, axis)
    pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return pairs.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


def upsample_axis_backward(axis: int, _: None, at_y: Float[Array, "B h w C"]) -> tuple[Float[Array, "B H W C"]]:
    """3/4 of the gradients of a pixel's own two, 1/4 of those of the adjacent two, which are interpolated with it."""
    pairs = at_y.reshape(*at_y.shape[:axis], -1, 2, *at_y.shape[axis + 1 :])
    evens, odds = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    before, after = neighbours(evens, odds, axis)
    return (0.75 * (evens + odds) + 0.25 * (before + after),)


def neighbours(
    evens: Float[Array, "B H W C"], odds: Float[Array, "B H W C"], axis: int
) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W C"]]:
    """For interleaved evens and odds: the odd before each even, the even after each odd; the ends are repeated."""
    size = evens.shape[axis]
    first, rest = lax.slice_in_dim(evens, 0, 1, axis=axis), lax.slice_in_dim(evens, 1, size, axis=axis)
    head, last = lax.slice_in_dim(odds, 0, size - 1, axis=axis), lax.slice_in_dim(odds, size - 1, size, axis=axis)
    return jnp.concatenate([first, head], axis), jnp.concatenate([rest, last], axis)


upsample_axis.defvjp(lambda x, axis: (upsample_axis(x, axis), None), upsample_axis_backward)


def stretch_width(x: Float[Array, "B H W C"], *, width: int) -> Float[Array, "B H {width} C"]:
    """Bilinear resizing to another width; the corner columns coincide (PyTorch's align_corners=True)."""
    position = jnp.linspace(0.0, x.shape[2] - 1.0, width)
    column = jnp.arange(x.shape[2], dtype=jnp.float32)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - column[None]))
    return jnp.einsum("bhwc,vw->bhvc", x, weights.astype(x.dtype), precision="highest")
