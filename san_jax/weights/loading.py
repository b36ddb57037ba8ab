"""Loads networks from one PyTorch or safetensors file: architecture, mode, weights, and a report of what matched."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from san_jax.errors import UserError
from san_jax.networks import decoder, layers
from san_jax.networks.architecture import MODES, Architecture
from san_jax.networks.encoder import BLOCKS
from san_jax.weights import torch_names
from san_jax.weights.match import Match, shortened
from san_jax.weights.state_dicts import PLAIN, StateDict, read_state_dict

CHANNELS = {"conv1.weight": 64, "reduce_dim.0.weight": decoder.CHANNELS[0]}  # of encoder and decoder at width 1
HEIGHT, WIDTH = 256, 128  # of pictures, if neither caller nor file gives them


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The networks of a file.

    Attributes:
      architecture: of the networks.
      mode: in which they were trained; if the file does not say, "san" with a decoder, else "baseline".
      weights: float32 NumPy arrays by TrainState's fields: `encoder`, `encoder_stats` and, with a decoder,
        `decoder`, `decoder_stats`. If the file has no classifier, ours has one output and zero weights.
      report: one line each for the tensors taken, left out and set to zero, and for what the file does not tell.
    """

    architecture: Architecture
    mode: str
    weights: dict[str, PyTree]
    report: str


def load_weights(
    path: Path, *, height: int | None = None, width: int | None = None, last_stride: int | None = None
) -> Loaded:
    """Loads the networks of a file (formats: see `state_dicts.read_state_dict`).

    Depth, widths, fc, neck, stem, number of identities and decoder are inferred from the file.

    Args:
      path: of the file.
      height: of the input pictures, in pixels; None: as the file says, else 256.
      width: as `height`; else 128.
      last_stride: of stage 4. None: as the file says, else the default of the code that wrote it, else 1 for re-ID
        networks (with fc, neck or decoder) and 2 for others, as in torchvision.

    Raises:
      UserError: the file cannot be read or does not hold a network that is supported here.
    """
    state_dict = read_state_dict(path)
    given = {"height": height, "width": width, "last_stride": last_stride}
    given = {field: value for field, value in given.items() if value is not None}
    if state_dict.notes is None:
        architecture = architecture_of(state_dict, source=str(path))
        mode = "san" if draws(state_dict) else "baseline"
    else:
        architecture, mode = described(state_dict.notes, source=str(path))
        if draws(state_dict) != (mode != "baseline"):
            drawn = "a decoder" if draws(state_dict) else "no decoder"
            raise UserError(f"{path} holds {drawn}, but describes its mode as {mode}; export it again")
    architecture = dataclasses.replace(architecture, **given)
    architecture.check(draws=draws(state_dict))
    match, weights = fitted(state_dict, architecture, source=str(path))
    return Loaded(architecture, mode, weights, "\n".join([match.as_table(), *assumed(state_dict, architecture)]))


def draws(state_dict: StateDict) -> bool:
    """Whether the tensors include a decoder."""
    return convolves(state_dict) or "coarse.0.weight" in state_dict.tensors


def convolves(state_dict: StateDict) -> bool:
    """Whether the tensors include a decoder's convolutions."""
    return "reduce_dim.0.weight" in state_dict.tensors


def architecture_of(state_dict: StateDict, *, source: str) -> Architecture:
    """The architecture that these tensors fit, with default picture size and last stride (see `load_weights`).

    Raises:
      UserError: they are not a ResNet that is supported here.
    """
    tensors, code = state_dict.tensors, state_dict.code
    depth = torch_names.depth_of(tensors)
    if depth is None:
        raise UserError(f"{source} is no ResNet of depth {', '.join(map(str, BLOCKS))}; it holds {shortened(tensors)}")

    def rows(name: str, default: int) -> int:
        shape = np.shape(tensors.get(name))
        return shape[0] if shape else default

    encoder_width, decoder_width = (rows(name, channels) / channels for name, channels in CHANNELS.items())
    last = (*np.shape(tensors.get("final_layer.1.weight")), 0, 0)[1]  # channels of its input; 0 without a decoder
    has_neck = any(name.startswith("bottleneck.") for name in tensors)
    fc_dim = rows("bottleneck.0.weight" if has_neck else "fc.0.weight", 0)
    of_reid = fc_dim or has_neck or draws(state_dict)
    return Architecture(
        depth=depth,
        fc_dim=fc_dim,
        last_stride=code.last_stride or (1 if of_reid else 2),
        encoder_width=encoder_width,
        num_pids=rows("classifier.weight", 1),
        decoder_width=decoder_width if convolves(state_dict) or not draws(state_dict) else 0.0,
        skips="embed_layer3.0.weight" in tensors or not convolves(state_dict),
        height=HEIGHT,
        width=WIDTH,
        neck="bn" if has_neck else "none",
        stem=code.stem,
        coarse=rows("coarse.0.weight", 0),
        min_channels=last if last > layers.scaled(decoder.CHANNELS[-1], decoder_width) else 1,
    )


def described(notes: Mapping, *, source: str) -> tuple[Architecture, str]:
    """Architecture and mode from a description that `saving.save_weights` wrote.

    Raises:
      UserError: an incompatible version wrote it.
    """
    kinds = {field.name: (field.type, int) for field in dataclasses.fields(Architecture)}
    try:
        values = dict(notes["architecture"])
        if wrong := [name for name, value in values.items() if not isinstance(value, kinds.get(name, ()))]:
            raise ValueError(f"{wrong[0]} = {values[wrong[0]]!r}")
        if notes["mode"] not in MODES:
            raise ValueError(f"mode = {notes['mode']!r}")
        return Architecture(**values), notes["mode"]
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{source} describes its networks in an unknown format ({reason}); export it again"
        ) from error


def fitted(state_dict: StateDict, architecture: Architecture, *, source: str) -> tuple[Match, dict[str, PyTree]]:
    """Matches the tensors to these networks; returns the match and the weights."""
    shapes = flatten_dict(architecture.shapes(draws=draws(state_dict)))
    names = torch_names.state_names(architecture, draws=draws(state_dict))
    match = Match.of(
        state_dict,
        names,
        {name: torch_names.torch_shape(shapes[entry.path].shape, entry.layout) for name, entry in names.items()},
    )
    lacking = [f"{part} is missing" for part, count in match.parts.items() if not count and part != "classifier"]
    if problems := [*match.problems, *match.unfit, *lacking]:
        more = f" ({len(problems) - 1} more)" if problems[1:] else ""
        raise UserError(f"the weights of {source} do not fit: {problems[0]}{more}")
    arrays = {path: np.zeros(leaf.shape, np.float32) for path, leaf in shapes.items()}
    for name in match.taken:
        arrays[names[name].path] = torch_names.to_ours(state_dict.tensors[name], names[name].layout)
    # Fields without arrays, such as the statistics of a decoder without convolutions, stay.
    return match, {field: {} for field in architecture.shapes(draws=draws(state_dict))} | unflatten_dict(arrays)


def assumed(state_dict: StateDict, architecture: Architecture) -> list[str]:
    """Report lines about what the file does not tell, if another code wrote it."""
    if state_dict.notes is not None or state_dict.code is PLAIN:
        return []
    return [
        f"  known as  {state_dict.code.name}: stem {architecture.stem}, neck {architecture.neck}, "
        "average pool, pictures normalised as ImageNet's (docs/weights.md)"
    ]
