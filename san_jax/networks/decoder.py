"""SA-Dec: generates the person's full texture image from the encoder's four stages."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from san_jax.errors import UserError
from san_jax.networks.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    reflect_pad,
    scaled,
    stretch_width,
    upsample_twice,
)

CHANNELS = (512, 256, 64, 32, 16)  # of the inputs of up1 to up4 and of the last convolution, at width 1

GRID = (4, 2)  # height and width to which the last stage is resized for a coarse texture
SIDE = 32  # of a coarse texture, in texels

# Xavier normal with gain 0.02 (the gain enters squared), and BatchNorm scales of N(1, 0.02).
xavier_normal = nnx.initializers.variance_scaling(0.02**2, "fan_avg", "normal")


def near_one(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Initializer: N(1, 0.02)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecoderOutput:
    """The decoder's output for a batch.

    Attributes:
      levels: outputs of up1 to up4, coarse to fine, in the compute dtype; none without convolutions.
      texture: the generated texture images, float32 and not clipped; true ones lie in [-1, 1].
    """

    levels: tuple[Float[Array, "B _ _ _"], ...]
    texture: Float[Array, "B H H 3"]


class UpBlock(nnx.Module):
    """Residual block, ReLU, upsampling by two, convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, compute_dtype: str, rngs: nnx.Rngs):
        def conv(channels: int, **options) -> Conv:
            options |= dict(kernel_init=xavier_normal, compute_dtype=compute_dtype)
            return Conv(in_channels, channels, 3, rngs=rngs, **options)

        self.conv1, self.norm1 = conv(in_channels), BatchNorm(in_channels, scale_init=near_one, rngs=rngs)
        self.conv2, self.norm2 = conv(in_channels), BatchNorm(in_channels, scale_init=near_one, rngs=rngs)
        self.conv = conv(out_channels, use_bias=True, padding=0)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W c"]:
        """The map at twice the height and width, without an activation."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(x + self.norm2(self.conv2(y)))
        return self.conv(reflect_pad(upsample_twice(x), pixels=1))


class CoarseTexture(nnx.Module):
    """A texture of SIDE x SIDE texels that is a linear function of the last stage; not part of the paper.

    The convolutions of the decoder are slow to learn which colours belong where on the body; these layers know all
    places from the start, and leave stripes, edges and prints to the convolutions.

    Args:
      in_channels: channels of the last stage.
      numbers: length of the vector between stage and texture.
      rngs: random streams; `params` is used.
    """

    def __init__(self, in_channels: int, numbers: int, *, rngs: nnx.Rngs):
        options = dict(precision=lax.Precision.HIGHEST, rngs=rngs)
        self.code = nnx.Linear(GRID[0] * GRID[1] * in_channels, numbers, use_bias=False, **options)
        self.texels = nnx.Linear(numbers, SIDE * SIDE * 3, kernel_init=nnx.initializers.normal(0.02), **options)

    def __call__(self, stage: Float[Array, "B H W C"], *, side: int) -> Float32[Array, "B {side} {side} 3"]:
        """The textures, resized to `side` x `side` texels."""
        batch, *_, channels = stage.shape
        seen = jax.image.resize(stage.astype(jnp.float32), (batch, *GRID, channels), "linear")
        texels = self.texels(self.code(seen.reshape(batch, -1)))
        return jax.image.resize(texels.reshape(batch, SIDE, SIDE, 3), (batch, side, side, 3), "linear")


class Decoder(nnx.Module):
    """The decoder of the released code; the paper's has no `embed` skips and is not specified further.

    Args:
      encoder_channels: channels of the encoder's stages 1 to 4.
      width: factor on the decoder's channels, 512-256-64-32-16 for every encoder; 0 = no convolutions, the texture is
        the coarse one alone.
      min_channels: channels that each of its maps has at least, whatever the width.
      skips: whether the embedded stages 3, 2 and 1 are added to the inputs of up1, up2 and up3.
      coarse: length of the vector from which a `CoarseTexture` is added to the drawing; 0 = none.
      compute_dtype: of the maps, see `precision.py`; the texture is float32.
      rngs: random streams; `params` is used.

    Raises:
      UserError: there are neither convolutions nor a coarse texture.
    """

    def __init__(
        self,
        *,
        encoder_channels: tuple[int, int, int, int],
        width: float = 1.0,
        min_channels: int = 1,
        skips: bool = True,
        coarse: int = 0,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if not width and not coarse:
            raise UserError("decoder.width and decoder.coarse are both 0, so there is nothing to draw with; set one")
        self.convolves = width > 0
        if self.convolves:
            channels = [scaled(count, width, least=min_channels) for count in CHANNELS]
            self.add_convolutions(encoder_channels, channels, skips=skips, compute_dtype=compute_dtype, rngs=rngs)
        self.coarse = CoarseTexture(encoder_channels[3], coarse, rngs=rngs) if coarse else None

    def add_convolutions(
        self,
        encoder_channels: tuple[int, int, int, int],
        channels: Sequence[int],
        *,
        skips: bool,
        compute_dtype: str,
        rngs: nnx.Rngs,
    ) -> None:
        """Adds the released code's layers, with these channels of the inputs of up1 to up4 and of the last one."""

        def embed(in_channels: int, out_channels: int) -> ConvNorm:
            return ConvNorm(
                in_channels,
                out_channels,
                1,
                use_bias=True,
                kernel_init=xavier_normal,
                scale_init=near_one,
                compute_dtype=compute_dtype,
                rngs=rngs,
            )

        self.reduce = embed(encoder_channels[3], channels[0])
        self.embed3 = embed(encoder_channels[2], channels[0]) if skips else None
        self.embed2 = embed(encoder_channels[1], channels[1]) if skips else None
        self.embed1 = embed(encoder_channels[0], channels[2]) if skips else None
        self.up1 = UpBlock(channels[0], channels[1], compute_dtype=compute_dtype, rngs=rngs)
        self.up2 = UpBlock(channels[1], channels[2], compute_dtype=compute_dtype, rngs=rngs)
        self.up3 = UpBlock(channels[2], channels[3], compute_dtype=compute_dtype, rngs=rngs)
        self.up4 = UpBlock(channels[3], channels[4], compute_dtype=compute_dtype, rngs=rngs)
        self.final = Conv(
            channels[4],
            3,
            7,
            padding=0,
            use_bias=True,
            kernel_init=xavier_normal,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )

    def __call__(self, stages: tuple[Float[Array, "B _ _ _"], ...]) -> DecoderOutput:
        """Decodes the encoder's stages 1 to 4; in training mode the running statistics are updated.

        Raises:
          UserError: the stages' sizes do not fit together.
        """
        check_sizes(stages)
        if not self.convolves:
            return DecoderOutput(levels=(), texture=self.coarse(stages[3], side=4 * stages[0].shape[1]))
        x = nnx.relu(self.reduce(stages[3]))
        levels = ()
        for embed, stage, up in (
            (self.embed3, stages[2], self.up1),
            (self.embed2, stages[1], self.up2),
            (self.embed1, stages[0], self.up3),
            (None, None, self.up4),
        ):
            x = up(x if embed is None else x + nnx.relu(embed(stage)))
            levels += (x,)
        texture = self.final(reflect_pad(x, pixels=3)).astype(jnp.float32)
        texture = stretch_width(texture, width=texture.shape[1])
        if self.coarse is not None:
            texture = texture + self.coarse(stages[3], side=texture.shape[1])
        return DecoderOutput(levels=levels, texture=texture)


def check_sizes(stages: tuple[Float[Array, "B _ _ _"], ...]) -> None:
    """Raises a UserError unless each stage is as large as the map to which the decoder adds it."""
    (height3, width3), (height4, width4) = stages[2].shape[1:3], stages[3].shape[1:3]
    if (height3, width3) != (height4, width4):
        raise UserError(
            f"stage 4 is {height4} x {width4}, stage 3 {height3} x {width3}: "
            "the decoder needs them equal; set encoder.last_stride to 1"
        )
    for factor, stage in ((2, stages[1]), (4, stages[0])):
        if stage.shape[1:3] != (factor * height4, factor * width4):
            raise UserError("data.height and data.width must be multiples of 16, so that the decoder's maps fit")
