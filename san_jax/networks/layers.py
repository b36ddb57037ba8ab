"""Layers that encoder and decoder share: convolution, BatchNorm with PyTorch's constants, pooling, resizing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-5  # of BatchNorm
MOMENTUM = 0.9  # of BatchNorm's running statistics; PyTorch writes 0.1, the weight of the new batch

he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def scaled(channels: int, width: float) -> int:
    """A channel count times a width factor, at least one."""
    return max(1, round(channels * width))


class Conv(nnx.Module):
    """Square convolution that pads size // 2 on every side, as PyTorch's networks do ("SAME" differs at stride 2).

    Args:
      in_channels, out_channels: channels of the map before and after.
      size: height and width of the kernel, stored as [size size in out].
      stride: of both axes.
      padding: zeros on every side; None for size // 2.
      use_bias: whether a bias is added.
      kernel_init: initializer of the kernel.
      dtype: of the computation and of the output; parameters are float32.
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
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, in_channels, out_channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels, jnp.float32)) if use_bias else None
        self.stride = stride
        self.padding = size // 2 if padding is None else padding
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """The map after the convolution, in the layer's dtype."""
        x = lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=[(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, as PyTorch computes it, statistics in float32.

    Training normalises with the biased batch variance and stores the unbiased one (n / (n - 1)) in the running
    average. `train()` and `eval()` of NNX switch between batch and running statistics.

    Args:
      channels: size of the last axis.
      scale_init: initializer of the scale.
      rngs: random streams; takes one key of `params`.
    """

    def __init__(self, channels: int, *, scale_init: Callable = nnx.initializers.ones, rngs: nnx.Rngs):
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))
        self.use_running_average = False

    def __call__(self, x: Float[Array, "*axes C"]) -> Float[Array, "*axes C"]:
        """The normalised array, in the dtype of `x`; in training the running statistics move."""
        mean, var = self.mean[...], self.var[...]
        wide = x.astype(jnp.float32)
        if not self.use_running_average:
            mean, var = batch_moments(wide)
            num_values = x.size // x.shape[-1]
            unbiased = var * (num_values / max(num_values - 1, 1))
            self.mean[...] = lax.stop_gradient(MOMENTUM * self.mean[...] + (1 - MOMENTUM) * mean)
            self.var[...] = lax.stop_gradient(MOMENTUM * self.var[...] + (1 - MOMENTUM) * unbiased)
        factor = self.scale[...] * lax.rsqrt(var + EPSILON)
        return ((wide - mean) * factor + self.bias[...]).astype(x.dtype)


def batch_moments(x: Float[Array, "*axes C"]) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Mean and biased variance over all axes but the last, of float32 values, in two passes.

    The one-pass E[x^2] - E[x]^2 loses all digits where the mean is large beside the deviation.
    """
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.mean(jnp.square(x - mean), axes)


class ConvNorm(nnx.Module):
    """Convolution, then BatchNorm; arguments as those of `Conv`, and the initializer of the BatchNorm's scale."""

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
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            out_channels,
            size,
            stride=stride,
            use_bias=use_bias,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_channels, scale_init=scale_init, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """The normalised map, without an activation."""
        return self.norm(self.conv(x))


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """3 x 3 maximum at stride 2, one pixel of padding: half the height and width, rounded up."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def reflect_pad(x: Float[Array, "B H W C"], *, pixels: int) -> Float[Array, "B h w C"]:
    """The map with a mirrored border of so many pixels; the edge itself is not repeated."""
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")


def upsample_twice(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Bilinear, twice as high and wide; pixels are areas (PyTorch's align_corners=False)."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")


def stretch_width(x: Float[Array, "B H W C"], *, width: int) -> Float[Array, "B H {width} C"]:
    """Bilinear to another width; first and last column stay where they are (PyTorch's align_corners=True)."""
    position = jnp.linspace(0.0, x.shape[2] - 1.0, width)
    column = jnp.arange(x.shape[2], dtype=jnp.float32)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - column))
    return jnp.einsum("bhwc,vw->bhvc", x, weights.astype(x.dtype), precision="highest")
