"""Translates other code bases' state dicts to the names of `torch_names`: wrappers, prefixes, necks, refusals.

fast-reid, reid-strong-baseline and layumi's Person_reID_baseline_pytorch are recognised by their names; torchreid, timm
and the authors use torchvision's names; a table translates Hugging Face's. docs/weights.md lists what a file does not
tell.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from san_jax.errors import UserError
from san_jax.networks.encoder import BLOCKS
from san_jax.weights import torch_names
from san_jax.weights.torch_files import read_notes, read_tensors_file

Tensors = Mapping[str, Shaped[np.ndarray, "..."]]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which a checkpoint keeps its state dict
PARALLEL = re.compile(r"^((module|_orig_mod)\.)+")  # of DataParallel, AveragedModel and torch.compile
FIRST_BLOCK = "layer1.0.conv1.weight"  # what precedes it is the prefix of a ResNet
UNSUPPORTED = {
    r"\.IN\.(weight|bias)$": "instance-batch normalisation (IBN)",
    r"(^|\.)NL_\d+\.": "non-local blocks",
    r"\.(se|se_module)\.": "squeeze-and-excitation blocks (SE)",
    r"(^|\.)usam_\d+\.": "attention (USAM)",
    r"(^|\.)\w*(pool|gem|gap)\w*\.p$": "generalised-mean pooling (GeM)",
    r"^classifier\d+\.": "a classifier for each part of the body (PCB)",
}
PIXELS = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}  # ImageNet's, for pixels in [0, 1]
ZERO_WHERE_ABSENT = ("classifier", "bottleneck", "bottleneck.0", "bottleneck.1")  # layers that may have no bias


@dataclasses.dataclass(frozen=True)
class Code:
    """A code base for re-ID, recognised by the names in its state dicts.

    Attributes:
      name: of the code.
      stem: as `encoder.stem`.
      last_stride: its default; None if that depends on the rest of the network.
      renames: (pattern, replacement) of names outside the ResNet, applied one after the other.
    """

    name: str
    stem: str = "torchvision"
    last_stride: int | None = None
    renames: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str) -> str:
        """The name in `torch_names` of a tensor outside the ResNet."""
        return functools.reduce(lambda name, pair: re.sub(*pair, name), self.renames, name)


PLAIN = Code("torchvision's names")
FAST_REID = Code(
    "fast-reid",
    stem="fastreid",
    last_stride=1,
    renames=((r"^heads\.weight$", "classifier.weight"), (r"^heads\.", ""), (r"^bnneck\.", "bottleneck.")),
)
STRONG_BASELINE = Code("reid-strong-baseline", stem="strong_baseline", last_stride=1)
LAYUMI = Code(
    "layumi's Person_reID_baseline_pytorch",
    last_stride=2,
    renames=((r"^classifier\.add_block\.", "bottleneck."), (r"^classifier\.classifier\.0\.", "classifier.")),
)


@dataclasses.dataclass(frozen=True)
class StateDict:
    """The weights of a file.

    Attributes:
      tensors: float32, by the names of `torch_names`, in PyTorch's layouts.
      code: that wrote them.
      notes: the description that `weights.saving` put beside them; None in other files.
      zeros: names of biases that the file lacks; they are 0 here.
    """

    tensors: dict[str, np.ndarray]
    code: Code = PLAIN
    notes: dict | None = None
    zeros: tuple[str, ...] = ()


def read_state_dict(path: Path) -> StateDict:
    """The weights of a PyTorch or safetensors file.

    The file holds a state dict, bare or in a checkpoint (WRAPPERS, the authors' `decoder_state_dict` beside it), with
    or without the prefixes of DataParallel and of the codes above. `num_batches_tracked` is dropped.

    Raises:
      UserError: the file cannot be read, or holds something other than weights, a number that is not finite, or a kind
        of layer that is not supported here; the message names the tensor.
    """
    tensors = unwrapped(read_tensors_file(path), source=str(path))
    for pattern, what in UNSUPPORTED.items():
        if name := next((name for name in tensors if re.search(pattern, name)), None):
            raise UserError(f"{path} has {what}, which is not supported ({name}); give weights without")
    tensors, code = renamed(tensors, source=str(path))
    hugging_face = torch_names.hugging_face_names(depth=max(BLOCKS))  # those of the others are among them
    tensors = {hugging_face.get(name.removeprefix("resnet."), name): tensor for name, tensor in tensors.items()}
    zeros = {
        f"{layer}.bias": np.zeros(tensors[f"{layer}.weight"].shape[:1], np.float32)
        for layer in ZERO_WHERE_ABSENT
        if np.ndim(tensors.get(f"{layer}.weight")) and f"{layer}.bias" not in tensors
    }
    return StateDict(tensors | zeros, code, read_notes(path), tuple(zeros))


def unwrapped(saved: Any, *, source: str) -> dict[str, np.ndarray]:
    """The tensors of the object in a file, sorted by name; float32, all finite, counters dropped."""
    dicts = [saved]
    while isinstance(dicts[0], Mapping) and (key := next((key for key in WRAPPERS if key in dicts[0]), None)):
        if isinstance(dicts[0][key], np.ndarray):
            break
        dicts = [dicts[0][key], dicts[0].get("decoder_state_dict") or {}, *dicts[1:]]
    tensors = {}
    for state_dict in dicts:
        if not isinstance(state_dict, Mapping):
            raise UserError(f"{source} holds a {type(state_dict).__name__} where a state_dict should be; save that")
        for name, tensor in state_dict.items():
            is_tensor = isinstance(tensor, np.ndarray)
            if not is_tensor or not (jnp.issubdtype(tensor.dtype, jnp.floating) or is_counter(name)):
                kind = tensor.dtype if is_tensor else type(tensor).__name__
                raise UserError(f"{source} holds {name!r} among its weights, of type {kind}; save a plain state_dict")
            if not is_counter(name):
                bare = PARALLEL.sub("", str(name))
                if bare in tensors:
                    raise UserError(f"{source} holds {bare} twice, with and without a prefix; save one network")
                tensors[bare] = finite(str(name), tensor, source=source)
    return dict(sorted(tensors.items()))  # safetensors come in any order


def is_counter(name: Any) -> bool:
    """Whether an entry is a counter that PyTorch keeps beside statistics and averages; they are not used here."""
    return str(name).endswith("num_batches_tracked") or name == "n_averaged"


def finite(name: str, tensor: Shaped[np.ndarray, "..."], *, source: str) -> np.ndarray:
    """The tensor in float32.

    Raises:
      UserError: it holds NaN or infinite numbers, or negative variances.
    """
    with np.errstate(over="ignore"):
        values = tensor.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{source} holds NaN or infinite numbers in {name}; give earlier weights")
    if name.endswith("running_var") and (values < 0).any():
        raise UserError(f"{source} holds a negative variance in {name}; give earlier weights")
    return values


def renamed(tensors: Tensors, *, source: str) -> tuple[dict[str, np.ndarray], Code]:
    """The tensors under the names of `torch_names`, where they have one, and the code that wrote them."""
    prefixes = sorted(name.removesuffix(FIRST_BLOCK) for name in tensors if name.endswith(FIRST_BLOCK))
    if len(prefixes) > 1:
        raise UserError(f"{source} holds several ResNets ({', '.join(map(repr, prefixes))}); save one of them")
    prefix = prefixes[0] if prefixes else ""
    outer, module = re.fullmatch(r"(.*?)(\w*\.)?", prefix).groups()
    body = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    head = {name.removeprefix(outer): tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    code = code_of(module, head)
    check_pixels(head, source=source)
    head = {code.rename(name): tensor for name, tensor in head.items() if name not in PIXELS}
    if np.ndim(head.get("bottleneck.0.weight")) == 1:  # the BatchNorm comes first: there is no linear layer
        head = {name.replace("bottleneck.0.", "bottleneck."): tensor for name, tensor in head.items()}
    if np.shape(head.get("bottleneck.0.weight"))[2:] == (1, 1):  # a 1 x 1 convolution of the pooled map
        head["bottleneck.0.weight"] = head["bottleneck.0.weight"][:, :, 0, 0]
    return body | head, code


def code_of(module: str | None, head: Iterable[str]) -> Code:
    """The code that names its ResNet `module` and has these names outside it."""
    if module == "model." and any(name.startswith("classifier.add_block.") for name in head):
        return LAYUMI
    ours = torch_names.decoder_names()
    known = {"backbone.": (FAST_REID, ("heads.", *PIXELS)), "base.": (STRONG_BASELINE, ("bottleneck.", "classifier."))}
    code, beside = known.get(module, (PLAIN, ()))
    return code if all(name.startswith(beside) or name in ours for name in head) else PLAIN


def check_pixels(head: Tensors, *, source: str) -> None:
    """Raises a UserError if the file holds a normalisation (older fast-reid stores it) that is not ImageNet's."""
    for name, imagenet in PIXELS.items():
        if name in head and not np.allclose(head[name].ravel(), 255 * np.array(imagenet), rtol=1e-4):
            values = ", ".join(f"{value:g}" for value in head[name].ravel()[:3])
            raise UserError(
                f"{source} normalises pictures by its own {name} ({values}); only ImageNet's is supported"
            )
