"""Saves networks as one file with PyTorch's names and layouts: safetensors, or a file for `torch.load`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict
from jaxtyping import Float16, Float32, PyTree, Shaped

from san_jax import files
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.weights import torch_names
from san_jax.weights.torch_files import NOTES
from san_jax.weights.torch_writer import torch_archive

SAFETENSORS, TORCH = (".safetensors", ""), (".pth", ".pt", ".tar", ".bin")
PREFIXES = {"torchvision": ("", ""), "fastreid": ("backbone.", "heads."), "strong_baseline": ("base.", "")}


def save_weights(
    path: Path, *, architecture: Architecture, mode: str, weights: Mapping[str, PyTree], half: bool = False
) -> int:
    """Writes one file, atomically; with the description in it (key `san_jax`), `load_weights` needs no flags.

    Tensors are float32, or float16 with `half`, with int64 zeros as `num_batches_tracked`, for PyTorch's strict
    loading. Networks with the stem of another code get its prefixes: `backbone.` and `heads.` of fast-reid, `base.` of
    reid-strong-baseline.

    Args:
      path: its suffix selects the format: .safetensors or none, or .pth, .pt, .tar, .bin for `torch.load`.
      architecture: of the networks.
      mode: in which they were trained.
      weights: by TrainState's fields: `encoder`, `encoder_stats` and, with a decoder, `decoder`, `decoder_stats`.
      half: whether values are rounded to float16, in half the bytes.

    Returns:
      Size in bytes.

    Raises:
      UserError: the suffix means another format, a value is too large for float16, or the file cannot be written; an
        existing file is kept.
    """
    check_suffix(path)
    given = dict(architecture=architecture, mode=mode, weights=weights, half=half)
    content = encoded(torch=path.suffix in TORCH, **given)
    files.write(path, content)
    return len(content)


def encoded(
    *, torch: bool, architecture: Architecture, mode: str, weights: Mapping[str, PyTree], half: bool = False
) -> bytes:
    """The content of such a file: for `torch.load`, or safetensors; other arguments as of `save_weights`.

    Raises:
      UserError: a value is too large for float16.
    """
    tensors = torch_tensors(architecture, weights)
    if half:
        tensors = {name: rounded(name, values) for name, values in tensors.items()}
    encoder = torch_names.state_names(architecture, draws=False)
    tensors = {prefixed(name, architecture.stem) if name in encoder else name: it for name, it in tensors.items()}
    for name in [name for name in tensors if name.endswith("running_mean")]:
        tensors[name.removesuffix("running_mean") + "num_batches_tracked"] = np.zeros((), np.int64)
    notes = {NOTES: json.dumps({"architecture": dataclasses.asdict(architecture), "mode": mode})}
    if torch:
        return torch_archive(tensors, notes)
    return safetensors.numpy.save(tensors, {"format": "pt"} | notes)


def check_suffix(path: Path) -> None:
    """Raises a UserError if the suffix is not one of the formats for weights."""
    if path.suffix not in (*SAFETENSORS, *TORCH):
        raise UserError(f"{path}: weights cannot be saved as {path.suffix}; name it .safetensors or .pth")


def rounded(name: str, values: Float32[np.ndarray, "..."]) -> Float16[np.ndarray, "..."]:
    """The values in float16; a UserError names the tensor if one of them is too large."""
    largest = float(np.finfo(np.float16).max)
    if np.abs(values).max(initial=0.0) > largest:
        raise UserError(f"{name} has values above {largest:.0f}, the largest of float16; export without --half")
    return values.astype(np.float16)


def prefixed(name: str, stem: str) -> str:
    """The name of an encoder's tensor with the prefix of the code that its stem comes from."""
    body, head = PREFIXES[stem]
    return (head if name.startswith(("fc.", "bottleneck.", "classifier.")) else body) + name


def torch_tensors(architecture: Architecture, weights: Mapping[str, PyTree]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Weights by PyTorch's names and in its layouts, in network order."""
    arrays, draws = flatten_dict(dict(weights)), bool(weights.get("decoder"))
    names = torch_names.state_names(architecture, draws=draws)
    return {name: torch_names.to_torch(np.asarray(arrays[entry.path]), entry.layout) for name, entry in names.items()}
