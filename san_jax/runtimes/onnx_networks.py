"""Writes encoder and decoder as nodes of an ONNX graph, BatchNorm folded into the convolution before it.

Maps are NCHW, as ONNX has them; kernels get PyTorch's layouts, which are ONNX's. Nodes have PyTorch's names. jax2onnx
0.13 writes the encoder of `rendered-small`, here 50 nodes, as 624, of which 64 are transposes around convolutions.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float64, Shaped

from san_jax.data.augmentation import MEAN, STD
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.networks.decoder import GRID, SIDE, CoarseTexture, Decoder, UpBlock
from san_jax.networks.encoder import BasicBlock, Bottleneck, Encoder, Head
from san_jax.networks.layers import EPSILON, BatchNorm, Conv, ConvNorm, stretch_width
from san_jax.runtimes.onnx_graph import Graph
from san_jax.weights.torch_names import to_torch

# What this module can write. Other options are refused by name: a field that it does not know at another value than
# its default, or another value of these fields.
FIELDS = (
    *("depth", "fc_dim", "last_stride", "encoder_width", "num_pids", "decoder_width", "skips", "height", "width"),
    *("neck", "stem", "min_channels", "coarse"),
)
VALUES = {"neck": ("none", "bn"), "stem": ("torchvision", "fastreid", "strong_baseline")}


def check(architecture: Architecture) -> None:
    """Raises a UserError that names an option of the networks for which there are no nodes here."""
    for field in dataclasses.fields(architecture):
        value = getattr(architecture, field.name)
        known = value in VALUES.get(field.name, (value,)) if field.name in FIELDS else value == field.default
        if not known:
            raise UserError(f"{field.name} = {value!r} cannot be exported to ONNX; export to .stablehlo")


def normalised(graph: Graph, images: str) -> str:
    """Pictures, uint8 NHWC, as the encoder's input: as `augmentation.normalise`, in NCHW."""
    mean, std = (np.array(of_channels).reshape(1, 3, 1, 1) for of_channels in (MEAN, STD))
    x = graph.add("Transpose", images, name="input.nchw", perm=(0, 3, 1, 2))
    x = graph.cast(np.float32, x, name="input.float")
    x = graph.add("Mul", x, graph.constant("input.scale", 1 / (255 * std)), name="input.scaled")
    return graph.add("Add", x, graph.constant("input.shift", -mean / std), name="input.normalised")


def encoder_stages(graph: Graph, encoder: Encoder, x: str) -> tuple[str, ...]:
    """Maps of stages 1 to 4."""
    x = conv_norm(graph, encoder.stem.conv, encoder.stem.norm, x, name="conv1")
    x = relu(graph, x, name="conv1") if encoder.stem_has_relu else x
    pads = (encoder.pool_padding, encoder.pool_padding, 1, 1)
    x = graph.add("MaxPool", x, name="maxpool", kernel_shape=(3, 3), strides=(2, 2), pads=pads)
    stages = ()
    for stage in range(1, 5):
        for index, block in enumerate(getattr(encoder, f"stage{stage}")):
            x = residual_block(graph, block, x, name=f"layer{stage}.{index}")
        stages += (x,)
    return stages


def residual_block(graph: Graph, block: BasicBlock | Bottleneck, x: str, *, name: str) -> str:
    """Two or three convolutions with a shortcut."""
    last = 3 if isinstance(block, Bottleneck) else 2
    y = x
    for i in range(1, last + 1):
        y = conv_norm(graph, getattr(block, f"conv{i}"), getattr(block, f"norm{i}"), y, name=f"{name}.conv{i}")
        y = relu(graph, y, name=f"{name}.conv{i}") if i < last else y
    if block.shortcut is not None:
        x = conv_norm(graph, block.shortcut.conv, block.shortcut.norm, x, name=f"{name}.downsample")
    return relu(graph, graph.add("Add", y, x, name=f"{name}.add"), name=name)


def features(graph: Graph, encoder: Encoder, stage: str) -> str:
    """The re-ID features, in float32 whatever the maps are in."""
    graph_dtype = graph.dtype
    x = graph.to(np.float32, stage, name="pool.float")
    x = graph.add("GlobalAveragePool", x, name="pool")
    x = graph.add("Flatten", x, name="pooled", axis=1)
    x = x if encoder.fc is None else head(graph, encoder.fc, x)
    graph.dtype = graph_dtype
    return x


def head(graph: Graph, fc: Head, x: str) -> str:
    """The layers between the pooled map and the features."""
    factor, shift = affine(fc.norm)
    if fc.linear is None:
        x = graph.add("Mul", x, graph.constant("fc.weight", factor[None]), name="fc.scaled")
        x = graph.add("Add", x, graph.constant("fc.bias", shift[None]), name="fc")
    else:
        kernel, bias = values(fc.linear.kernel), values(fc.linear.bias)
        x = linear(graph, kernel * factor[None], bias * factor + shift, x, name="fc")
    return relu(graph, x, name="fc") if fc.ends_in_relu else x


def textures(graph: Graph, decoder: Decoder, stages: tuple[str, ...], architecture: Architecture) -> str:
    """The decoder's textures [batch, 3, S, S], not clipped, in the dtype of the maps."""
    drawn = convolved_texture(graph, decoder, stages, architecture) if decoder.convolves else None
    if decoder.coarse is None:
        return drawn
    coarse = coarse_texture(graph, decoder.coarse, stages[3], architecture)
    return coarse if drawn is None else graph.add("Add", drawn, coarse, name="texture")


def convolved_texture(graph: Graph, decoder: Decoder, stages: tuple[str, ...], architecture: Architecture) -> str:
    """The drawing of the decoder's convolutions."""
    x = embedded(graph, decoder.reduce, stages[3], name="reduce_dim")
    for number, stage in enumerate((stages[2], stages[1], stages[0], None), start=1):
        embed = getattr(decoder, f"embed{4 - number}") if stage else None
        if embed is not None:
            skip = embedded(graph, embed, stage, name=f"embed_layer{4 - number}")
            x = graph.add("Add", x, skip, name=f"up{number}.add")
        x = up_block(graph, getattr(decoder, f"up{number}"), x, name=f"up{number}")
    x = conv(graph, decoder.final, reflected(graph, x, pixels=3, name="final_layer"), name="final_layer")
    if (height := architecture.height) == (width := architecture.width):
        return x
    # The columns of a unit matrix, stretched: what each column of the map adds to those of the texture.
    unit = jnp.eye(width)[None, :, :, None]
    weights = np.asarray(stretch_width(unit, width=height))[0, :, :, 0]
    return graph.add("MatMul", x, graph.constant("stretch.weight", weights), name="stretch")


def embedded(graph: Graph, layer: ConvNorm, x: str, *, name: str) -> str:
    """Convolution, BatchNorm, ReLU."""
    return relu(graph, conv_norm(graph, layer.conv, layer.norm, x, name=name), name=name)


def up_block(graph: Graph, block: UpBlock, x: str, *, name: str) -> str:
    """Residual block, ReLU, upsampling by two, convolution."""
    y = relu(graph, conv_norm(graph, block.conv1, block.norm1, x, name=f"{name}.conv1"), name=f"{name}.conv1")
    y = conv_norm(graph, block.conv2, block.norm2, y, name=f"{name}.conv2")
    x = relu(graph, graph.add("Add", x, y, name=f"{name}.residual"), name=f"{name}.residual")
    # Resize takes float32 scales whatever its map is in.
    scales = graph.exact_constant("twice", np.array([1, 1, 2, 2], np.float32))
    options = dict(mode="linear", coordinate_transformation_mode="half_pixel")
    x = graph.add("Resize", x, "", scales, name=f"{name}.twice", **options)
    return conv(graph, block.conv, reflected(graph, x, pixels=1, name=name), name=f"{name}.conv")


def reflected(graph: Graph, x: str, *, pixels: int, name: str) -> str:
    """A map with a mirrored border."""
    pads = graph.constant(f"border{pixels}", np.array([0, 0, pixels, pixels] * 2, np.int64))
    return graph.add("Pad", x, pads, name=f"{name}.pad", mode="reflect")


def coarse_texture(graph: Graph, layer: CoarseTexture, stage: str, architecture: Architecture) -> str:
    """A `CoarseTexture`: products with constant matrices, as both resizings are linear along each axis."""
    height, width = architecture.height, architecture.width  # multiples of 16, or the decoder would not fit
    x = resized(graph, stage, (height // 16, width // 16), GRID, name="coarse.seen")
    x = graph.add("Flatten", x, name="coarse.flat", axis=1)
    kernel = values(layer.code.kernel)  # its inputs are rows, columns, channels; here channels come first
    kernel = kernel.reshape(*GRID, -1, kernel.shape[1]).transpose(2, 0, 1, 3).reshape(kernel.shape)
    x = linear(graph, kernel, None, x, name="coarse.0")
    kernel, bias = (values(one).reshape(-1, SIDE, SIDE, 3) for one in (layer.texels.kernel, layer.texels.bias))
    kernel, bias = (one.transpose(0, 3, 1, 2).reshape(len(one), -1) for one in (kernel, bias))
    x = linear(graph, kernel, bias[0], x, name="coarse.1")
    shape = graph.constant("coarse.shape", np.array([-1, 3, SIDE, SIDE], np.int64))
    x = graph.add("Reshape", x, shape, name="coarse.texels")
    return resized(graph, x, (SIDE, SIDE), (height, height), name="coarse")


def resized(graph: Graph, x: str, old: tuple[int, int], new: tuple[int, int], *, name: str) -> str:
    """A map resized as by `jax.image.resize`, bilinear: a product with a constant matrix along each axis."""
    rows, columns = (resizing(*sizes) for sizes in zip(old, new, strict=True))
    x = graph.add("MatMul", x, graph.constant(f"{name}.columns.weight", columns), name=f"{name}.columns")
    return graph.add("MatMul", graph.constant(f"{name}.rows.weight", rows.T), x, name=f"{name}.rows")


def resizing(old: int, new: int) -> Shaped[np.ndarray, "old new"]:
    """What each of `old` values adds to each of `new` ones when an axis is resized."""
    return np.asarray(jax.image.resize(jnp.eye(old), (old, new), "linear"))


def pixels(graph: Graph, drawn: str) -> str:
    """Textures as uint8 NHWC, as `Model.textures` returns them."""
    ends = (graph.constant(f"pixels.{name}", np.array(value, np.float32)) for name, value in (("low", -1), ("high", 1)))
    x = graph.add("Clip", drawn, *ends, name="pixels.clipped")
    x = graph.add("Add", x, graph.constant("pixels.one", np.array(1.0)), name="pixels.positive")
    x = graph.add("Mul", x, graph.constant("pixels.scale", np.array(127.5)), name="pixels.scaled")
    x = graph.cast(np.uint8, graph.add("Round", x, name="pixels.rounded"), name="pixels.bytes")
    return graph.add("Transpose", x, name="pixels.nhwc", perm=(0, 2, 3, 1))


# ---- Single layers.


def relu(graph: Graph, x: str, *, name: str) -> str:
    """The positive part."""
    return graph.add("Relu", x, name=f"{name}.relu")


def conv_norm(graph: Graph, layer: Conv, norm: BatchNorm, x: str, *, name: str) -> str:
    """A convolution and the BatchNorm after it, as one convolution."""
    return conv(graph, layer, x, name=name, after=affine(norm))


def conv(
    graph: Graph,
    layer: Conv,
    x: str,
    *,
    name: str,
    after: tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]] | None = None,
) -> str:
    """A convolution with a bias; factor and shift `after` it, of each channel, are folded into both."""
    kernel = values(layer.kernel)
    bias = np.zeros(kernel.shape[3]) if layer.bias is None else values(layer.bias)
    if after is not None:
        factor, shift = after
        kernel, bias = kernel * factor[None, None, None], bias * factor + shift
    constants = (
        graph.constant(f"{name}.weight", to_torch(kernel, "conv")),
        graph.constant(f"{name}.bias", bias),
    )
    sizes = dict(kernel_shape=kernel.shape[:2], strides=[layer.stride] * 2, pads=[layer.padding] * 4)
    return graph.add("Conv", x, *constants, name=name, **sizes)


def linear(graph: Graph, kernel: np.ndarray, bias: np.ndarray | None, x: str, *, name: str) -> str:
    """A linear layer; the kernel is [in, out]."""
    constants = [graph.constant(f"{name}.weight", to_torch(kernel, "linear"))]
    constants += [] if bias is None else [graph.constant(f"{name}.bias", bias)]
    return graph.add("Gemm", x, *constants, name=name, transB=1)


def affine(norm: BatchNorm) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]]:
    """A BatchNorm with running statistics as a factor and a shift for each channel."""
    factor = values(norm.scale) / np.sqrt(values(norm.var) + EPSILON)
    return factor, values(norm.bias) - values(norm.mean) * factor


def values(parameter: nnx.Variable) -> Float64[np.ndarray, "..."]:
    """The values of a parameter or statistic."""
    return np.asarray(parameter[...], np.float64)
