"""SA-Enc: a ResNet that returns four stages, the re-ID features and the classifier's logits."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from san_jax.errors import UserError
from san_jax.networks.layers import BatchNorm, Conv, ConvNorm, max_pool, scaled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EncoderOutput:
    """The encoder's output for a batch.

    Attributes:
      stages: maps of stages 1 to 4, fine to coarse, in the compute dtype.
      feats: the re-ID features, float32, for both losses and retrieval.
      logits: one per training identity, float32.
    """

    stages: tuple[Float[Array, "B _ _ _"], ...]
    feats: Float[Array, "B D"]
    logits: Float[Array, "B N"]


class BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions with a shortcut (He 2016); the first one has the stride."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int, compute_dtype: str, rngs: nnx.Rngs):
        self.conv1 = Conv(in_channels, channels, 3, stride=stride, compute_dtype=compute_dtype, rngs=rngs)
        self.norm1 = BatchNorm(channels, rngs=rngs)
        self.conv2 = Conv(channels, channels, 3, compute_dtype=compute_dtype, rngs=rngs)
        self.norm2 = BatchNorm(channels, rngs=rngs)
        self.shortcut = make_shortcut(in_channels, channels, stride=stride, compute_dtype=compute_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """The block's map after its last ReLU."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions with a shortcut (He 2016); the 3 x 3 has the stride, as in torchvision."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int, compute_dtype: str, rngs: nnx.Rngs):
        out_channels = channels * self.expansion
        self.conv1 = Conv(in_channels, channels, 1, compute_dtype=compute_dtype, rngs=rngs)
        self.norm1 = BatchNorm(channels, rngs=rngs)
        self.conv2 = Conv(channels, channels, 3, stride=stride, compute_dtype=compute_dtype, rngs=rngs)
        self.norm2 = BatchNorm(channels, rngs=rngs)
        self.conv3 = Conv(channels, out_channels, 1, compute_dtype=compute_dtype, rngs=rngs)
        self.norm3 = BatchNorm(out_channels, rngs=rngs)
        self.shortcut = make_shortcut(in_channels, out_channels, stride=stride, compute_dtype=compute_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """The block's map after its last ReLU."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def make_shortcut(
    in_channels: int, out_channels: int, *, stride: int, compute_dtype: str, rngs: nnx.Rngs
) -> ConvNorm | None:
    """A 1 x 1 convolution where a block changes the map's shape, else None: the map itself is added."""
    if stride == 1 and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride=stride, compute_dtype=compute_dtype, rngs=rngs)


NECKS = ("none", "bn")
STEMS = ("torchvision", "fastreid", "strong_baseline")
BLOCKS = {  # depth: kind of block, blocks per stage
    10: (BasicBlock, (1, 1, 1, 1)),
    14: (Bottleneck, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    26: (Bottleneck, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def stage_channels(depth: int, width: float) -> tuple[int, ...]:
    """Channels of the maps after stages 1 to 4.

    Raises:
      UserError: there is no ResNet of this depth.
    """
    if depth not in BLOCKS:
        raise UserError(f"encoder.depth is {depth}; there are {', '.join(map(str, BLOCKS))}")
    block, _ = BLOCKS[depth]
    return tuple(scaled(64 * 2**stage, width) * block.expansion for stage in range(4))


class Head(nnx.Module):
    """The layers between the pooled map and the features: linear layer, BatchNorm, ReLU.

    Args:
      in_dim: channels of the pooled map.
      out_dim: outputs of the linear layer; 0 omits it.
      neck: "none": the `fc` of resnet50_fc512. "bn": BatchNorm is the last layer, without a ReLU and with a bias
        that is not trained (BNNeck, Luo 2019).
      rngs: random streams; `params` is used.
    """

    def __init__(self, in_dim: int, out_dim: int, *, neck: str = "none", rngs: nnx.Rngs):
        self.linear = make_linear(in_dim, out_dim, rngs=rngs) if out_dim else None
        self.norm = BatchNorm(out_dim or in_dim, learns_bias=neck != "bn", rngs=rngs)
        self.ends_in_relu = neck != "bn"

    def __call__(self, x: Float[Array, "B C"]) -> Float[Array, "B D"]:
        """The re-ID features."""
        x = self.norm(x if self.linear is None else self.linear(x))
        return nnx.relu(x) if self.ends_in_relu else x


def make_linear(in_dim: int, out_dim: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer with weights of N(0, 0.01) and zero biases, in float32 on every device."""
    normal = nnx.initializers.normal(0.01)
    return nnx.Linear(in_dim, out_dim, kernel_init=normal, precision=lax.Precision.HIGHEST, rngs=rngs)


class Encoder(nnx.Module):
    """ResNet v1 as in torchvision, average pool, optional `fc`, classifier (paper, section 3.1).

    Its children, by name: stem, stage1 .. stage4, fc (with `fc_dim` or a neck), classifier. `eval()` of a child
    switches that child alone to its running statistics.

    Args:
      depth: 10, 18, 34 (basic blocks), 14, 26, 50, 101 or 152 (bottlenecks).
      num_pids: training identities, outputs of the classifier.
      fc_dim: length of the features; 0 keeps the channels of the pooled map.
      last_stride: of stage 4, 1 or 2.
      width: factor on the channels of all stages.
      neck: "none" or "bn", see `Head`. With "none" and `fc_dim` 0 there is no `fc`: the pooled map is the feature.
      stem: what follows the first convolution and its BatchNorm. "torchvision": ReLU, max-pool with padding.
        "fastreid": ReLU, max-pool without padding. "strong_baseline": max-pool with padding, no ReLU.
      compute_dtype: of the stages, see `precision.py`.
      rngs: random streams; `params` is used.

    Raises:
      UserError: depth, stride, neck or stem is none of these.
    """

    def __init__(
        self,
        *,
        depth: int,
        num_pids: int,
        fc_dim: int = 512,
        last_stride: int = 1,
        width: float = 1.0,
        neck: str = "none",
        stem: str = "torchvision",
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.channels = stage_channels(depth, width)
        if last_stride not in (1, 2):
            raise UserError(f"encoder.last_stride is {last_stride}; it can be 1 or 2")
        for field, value, known in (("neck", neck, NECKS), ("stem", stem, STEMS)):
            if value not in known:
                raise UserError(f"encoder.{field} is {value!r}; it can be {' or '.join(known)}")
        block, num_blocks = BLOCKS[depth]
        in_channels = scaled(64, width)
        self.stem_has_relu, self.pool_padding = stem != "strong_baseline", int(stem != "fastreid")
        self.stem = ConvNorm(3, in_channels, 7, stride=2, compute_dtype=compute_dtype, rngs=rngs)
        for stage, stride in enumerate((1, 2, 2, last_stride)):
            channels = scaled(64 * 2**stage, width)
            blocks = nnx.List()
            for index in range(num_blocks[stage]):
                options = dict(stride=stride if index == 0 else 1, compute_dtype=compute_dtype)
                blocks.append(block(in_channels, channels, **options, rngs=rngs))
                in_channels = channels * block.expansion
            setattr(self, f"stage{stage + 1}", blocks)
        self.fc = Head(in_channels, fc_dim, neck=neck, rngs=rngs) if fc_dim or neck == "bn" else None
        self.classifier = make_linear(fc_dim or in_channels, num_pids, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> EncoderOutput:
        """Stages, features and logits of normalised pictures; in training mode the running statistics are updated."""
        x = self.stem(images)
        x = max_pool(nnx.relu(x) if self.stem_has_relu else x, padding=self.pool_padding)
        stages = ()
        for blocks in (self.stage1, self.stage2, self.stage3, self.stage4):
            for block in blocks:
                x = block(x)
            stages += (x,)
        feats = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        feats = feats if self.fc is None else self.fc(feats)
        return EncoderOutput(stages=stages, feats=feats, logits=self.classifier(feats))
