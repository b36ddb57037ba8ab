"""One table: PyTorch's name of every parameter and statistic, our path to it, and how their layouts differ.

The encoder has torchvision's names (torchreid's and the authors' are the same), the decoder those of the authors'
code; no name occurs in both. `num_batches_tracked`, which PyTorch keeps beside running statistics, has no counterpart.
"""

import dataclasses
import re
from collections.abc import Collection
from typing import Literal

import numpy as np

from san_jax.networks.architecture import Architecture
from san_jax.networks.encoder import BLOCKS, Bottleneck

Layout = Literal["conv", "linear", "vector"]
Path = tuple[str | int, ...]

TO_OURS = {"conv": (2, 3, 1, 0), "linear": (1, 0), "vector": (0,)}  # axes: OIHW -> HWIO, OI -> IO, as it is
TO_TORCH = {"conv": (3, 2, 0, 1), "linear": (1, 0), "vector": (0,)}


@dataclasses.dataclass(frozen=True)
class Entry:
    """Our counterpart of one of PyTorch's tensors.

    Attributes:
      path: keys from the top of the encoder's or decoder's pure dictionary; `state_names` puts a field before them.
      layout: determines the transpose between the two.
      is_stat: whether it is a running statistic (nnx.BatchStat); else a parameter (nnx.Param).
    """

    path: Path
    layout: Layout
    is_stat: bool = False


def to_ours(values: np.ndarray, layout: Layout) -> np.ndarray:
    """PyTorch's array in our layout."""
    return np.ascontiguousarray(np.transpose(values, TO_OURS[layout]))


def to_torch(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Our array in PyTorch's layout."""
    return np.ascontiguousarray(np.transpose(values, TO_TORCH[layout]))


def torch_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape of our array in PyTorch's layout."""
    return tuple(shape[axis] for axis in TO_TORCH[layout])


def encoder_names(*, depth: int, fc_dim: int, neck: str = "none") -> dict[str, Entry]:
    """PyTorch's names of an encoder, in network order; with neck "bn", those of reid-strong-baseline and fast-reid."""
    block, num_blocks = BLOCKS[depth]
    num_convs = 3 if block is Bottleneck else 2
    names = conv("conv1", "stem", "conv") | norm("bn1", "stem", "norm")
    for stage in range(1, 5):
        for index in range(num_blocks[stage - 1]):
            theirs, ours = f"layer{stage}.{index}", (f"stage{stage}", index)
            for i in range(1, num_convs + 1):
                names |= conv(f"{theirs}.conv{i}", *ours, f"conv{i}") | norm(f"{theirs}.bn{i}", *ours, f"norm{i}")
            # Basic blocks of stage 1 keep the map's shape.
            if index == 0 and (stage > 1 or block is Bottleneck):
                names |= conv(f"{theirs}.downsample.0", *ours, "shortcut", "conv")
                names |= norm(f"{theirs}.downsample.1", *ours, "shortcut", "norm")
    head = "bottleneck" if neck == "bn" else "fc"
    if fc_dim:
        names |= linear(f"{head}.0", "fc", "linear") | norm(f"{head}.1", "fc", "norm")
    elif neck == "bn":
        names |= norm(head, "fc", "norm")
    return names | linear("classifier", "classifier")


def decoder_names(*, convolves: bool = True, skips: bool = True, coarse: bool = False) -> dict[str, Entry]:
    """PyTorch's names of the decoder, in network order; those of a coarse texture, which theirs has not, are ours."""
    names = convolution_names(skips=skips) if convolves else {}
    if coarse:
        names |= {"coarse.0.weight": Entry(("coarse", "code", "kernel"), "linear")}
        names |= linear("coarse.1", "coarse", "texels")
    return names


def convolution_names(*, skips: bool) -> dict[str, Entry]:
    """PyTorch's names of the decoder's convolutions, in network order."""
    names = {}
    for theirs, ours in (("reduce_dim", "reduce"), *((f"embed_layer{i}", f"embed{i}") for i in (3, 2, 1) if skips)):
        names |= conv(f"{theirs}.0", ours, "conv", bias=True) | norm(f"{theirs}.1", ours, "norm")
    for up in ("up1", "up2", "up3", "up4"):
        names |= conv(f"{up}.res.res.0", up, "conv1") | norm(f"{up}.res.res.1", up, "norm1")
        names |= conv(f"{up}.res.res.3", up, "conv2") | norm(f"{up}.res.res.4", up, "norm2")
        names |= conv(f"{up}.conv.2", up, "conv", bias=True)
    return names | conv("final_layer.1", "final", bias=True)


def state_names(architecture: Architecture, *, draws: bool) -> dict[str, Entry]:
    """PyTorch's names of a train state's weights, in network order.

    Paths begin with the field: `encoder`, `encoder_stats` and, if `draws`, `decoder`, `decoder_stats`.
    """
    networks = {"encoder": encoder_names(depth=architecture.depth, fc_dim=architecture.fc_dim, neck=architecture.neck)}
    if draws:
        convolves, coarse = architecture.decoder_width > 0, architecture.coarse > 0
        networks["decoder"] = decoder_names(convolves=convolves, skips=architecture.skips, coarse=coarse)
    return {
        name: dataclasses.replace(entry, path=(f"{field}_stats" if entry.is_stat else field, *entry.path))
        for field, names in networks.items()
        for name, entry in names.items()
    }


def depth_of(names: Collection[str]) -> int | None:
    """The depth of the encoder whose stem and stages have exactly these names; None if there is no such encoder.

    Other names, such as those of `fc`, `classifier` and decoder, are ignored.
    """
    found = {name for name in names if name.startswith(("conv1.", "bn1.", "layer"))}
    for depth in BLOCKS:
        if found == {name for name in encoder_names(depth=depth, fc_dim=0) if not name.startswith("classifier.")}:
            return depth
    return None


def conv(theirs: str, *ours: str | int, bias: bool = False) -> dict[str, Entry]:
    """The names of one convolution."""
    names = {f"{theirs}.weight": Entry((*ours, "kernel"), "conv")}
    return names | {f"{theirs}.bias": Entry((*ours, "bias"), "vector")} if bias else names


def linear(theirs: str, *ours: str | int) -> dict[str, Entry]:
    """The names of one linear layer."""
    return {
        f"{theirs}.weight": Entry((*ours, "kernel"), "linear"),
        f"{theirs}.bias": Entry((*ours, "bias"), "vector"),
    }


def norm(theirs: str, *ours: str | int) -> dict[str, Entry]:
    """The names of one BatchNorm."""
    return {
        f"{theirs}.weight": Entry((*ours, "scale"), "vector"),
        f"{theirs}.bias": Entry((*ours, "bias"), "vector"),
        f"{theirs}.running_mean": Entry((*ours, "mean"), "vector", is_stat=True),
        f"{theirs}.running_var": Entry((*ours, "var"), "vector", is_stat=True),
    }


def hugging_face_names(*, depth: int) -> dict[str, str]:
    """Hugging Face's name of every entry of a ResNet (microsoft/resnet-50) -> torchvision's, in network order.

    Hugging Face's names are without the prefix `resnet.`, which files of a bare ResNetModel lack. The ImageNet
    classifier is included, as torchvision's `fc`.
    """
    names = {}
    for name in encoder_names(depth=depth, fc_dim=0):
        module, leaf = name.rsplit(".", 1)
        if not module.startswith("classifier"):
            names[f"{hugging_face_module(module)}.{leaf}"] = name
    return names | {"classifier.1.weight": "fc.weight", "classifier.1.bias": "fc.bias"}


def hugging_face_module(module: str) -> str:
    """Hugging Face's name, which counts from 0, of torchvision's `conv1`, `layer1.0.bn2`, `layer1.0.downsample.0`."""
    kind = "normalization" if re.search(r"bn\d$|downsample\.1$", module) else "convolution"
    if not module.startswith("layer"):
        return f"embedder.embedder.{kind}"
    layer, block, part, *_ = module.split(".")
    part = "shortcut" if part == "downsample" else f"layer.{int(part[-1]) - 1}"
    return f"encoder.stages.{int(layer[-1]) - 1}.layers.{block}.{part}.{kind}"
