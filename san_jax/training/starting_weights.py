"""Loads initial weights, by their PyTorch names, into a fresh train state, and reports what was used.

They come from the files that `weights.state_dicts` reads, or from workdirs and checkpoints of this package.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Shaped

from san_jax import files, remote
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.training.train_step import TrainState, learns_people
from san_jax.weights import pretrained, stored, torch_names
from san_jax.weights.loading import architecture_of, described, draws
from san_jax.weights.match import DRAWING, Match
from san_jax.weights.saving import torch_tensors
from san_jax.weights.state_dicts import Code, StateDict, finite, read_state_dict

FIELDS = ("encoder", "encoder_stats", "decoder", "decoder_stats")
DECODER = ("reduce_dim.0.weight", *(f"up{i}.conv.2.weight" for i in (1, 2, 3, 4)))  # first axis: its channels
CLASSIFIER = ("classifier.",)
REID_ONLY = ("fc.", "bottleneck.", *CLASSIFIER)  # trained by the re-ID losses only


def check_exists(path: Path) -> None:
    """Checks that a path holds weights, before data are prepared in vain; whether they fit is checked later.

    Raises:
      UserError: there is no such file, or no checkpoint in the folder.
    """
    if files.is_remote(path):
        if not stored.wanted(remote.listing(path)):
            raise UserError(f"init_from: {remote.text_of(path)} holds no weights; give a run, a checkpoint or a file")
        return
    path = pretrained.path_of(path)
    if os.path.isdir(path):  # False, where Path's own method raises, for names that are too long
        stored.find(path)
    elif not os.path.lexists(path):
        meant = pretrained.nearest(path)
        hint = f"did you mean {meant}, which comes with the package?" if meant else "give a run, a checkpoint or a file"
        raise UserError(f"init_from: there is no {path}; {hint}")


def start_from(
    path: Path, state: TrainState, *, architecture: Architecture, people: Sequence[str] | None = None
) -> TrainState:
    """The state with the weights of a file or checkpoint; prints what was taken and what stays fresh.

    Args:
      path: a run's workdir, one of its checkpoints, a file with PyTorch's names (see `state_dicts`), the address of
        one of these in an object store, or a name of `pretrained`.
      state: a fresh state; step and optimizers stay unchanged.
      architecture: architecture of the state's networks.
      people: to train on, as in `Source.people`. The classifier of a checkpoint that was trained on others stays
        fresh, even if they are as many. None if that is not known.

    Raises:
      UserError: the weights cannot be read, or do not fit these networks (see `fill`).
    """
    check_exists(path)
    with remote.opened(path, stored.wanted) as place:
        return _start_from(pretrained.path_of(place), state, architecture=architecture, people=people)


def _start_from(
    path: Path, state: TrainState, *, architecture: Architecture, people: Sequence[str] | None
) -> TrainState:
    left_out: tuple[str, ...] = ()
    if os.path.isdir(path):
        checkpoint = stored.find(path)
        found, mode, known = stored.read_about(checkpoint)
        trained_reid, stem = learns_people(mode), found.stem
        if None not in (known, people) and known != list(people):
            left_out = CLASSIFIER
        tensors = read_checkpoint(checkpoint, state.step.sharding)
        tensors = {name: finite(name, tensor, source=str(checkpoint)) for name, tensor in tensors.items()}
        state_dict = StateDict(tensors, Code("a checkpoint", stem=stem))
    else:
        state_dict, trained_reid = read_state_dict(path), True
        if state_dict.notes is not None:
            trained_reid = learns_people(described(state_dict.notes, source=str(path))[1])
    if not trained_reid:
        left_out = REID_ONLY
    tensors = {name: it for name, it in state_dict.tensors.items() if not name.startswith(left_out)}
    state_dict = dataclasses.replace(state_dict, tensors=tensors)
    return fill(state, state_dict, architecture=architecture, source=remote.named(path))


def read_checkpoint(checkpoint: Path, sharding: jax.sharding.NamedSharding) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Weights of a checkpoint of this package under PyTorch's names and in its layouts, in network order.

    Args:
      checkpoint: folder of the checkpoint.
      sharding: sharding to restore into, replicated on all devices.
    """
    architecture, mode, _ = stored.read_about(checkpoint)
    parts, _ = stored.restore_networks(checkpoint, sharding, draws=mode != "baseline")
    return torch_tensors(architecture, parts)


def fill(state: TrainState, state_dict: StateDict, *, architecture: Architecture, source: str) -> TrainState:
    """The state with these tensors in place of its own; prints a few lines about which were used.

    Body (stem and stages), fc, classifier, the decoder's convolutions and its coarse drawing are each taken completely
    or not at all; convolutions are not taken without the coarse drawing beside which they were trained. Ignored are
    ImageNet's classifier, a decoder or neck that the state does not have, and a classifier of another shape, which
    belongs to other identities.

    Args:
      state: the state to fill; arrays keep their shardings.
      state_dict: tensors under PyTorch's names.
      architecture: architecture of the state's networks.
      source: where the tensors come from, for messages.

    Raises:
      UserError: a tensor matches no array of the state or has another shape, a part is incomplete, no tensor can be
        used, or the weights belong to another stem.
    """
    if state_dict.code.stem not in ("torchvision", architecture.stem):
        raise UserError(
            f"the weights of {source} come from {state_dict.code.name}, which has another stem; "
            f"set encoder.stem, which is {architecture.stem}, to {state_dict.code.stem}"
        )
    arrays = flatten_dict({field: getattr(state, field) for field in FIELDS})
    names = torch_names.state_names(architecture, draws=bool(state.decoder))
    shapes = {name: torch_names.torch_shape(arrays[entry.path].shape, entry.layout) for name, entry in names.items()}
    match = Match.of(state_dict, names, shapes)
    if match.problems:
        first, *others = match.problems
        more = f" ({len(others)} more)" if others else ""
        hint = difference(state_dict, architecture, shapes, source=source)
        raise UserError(f"the weights of {source} do not fit: {first}{more}{hint}")
    if jax.process_index() == 0:
        print(f"weights of {source}\n{match.as_table()}", flush=True)
    for name in match.taken:
        entry = names[name]
        values, like = torch_names.to_ours(state_dict.tensors[name], entry.layout), arrays[entry.path]
        arrays[entry.path] = jax.make_array_from_callback(like.shape, like.sharding, values.__getitem__)
    return dataclasses.replace(state, **({field: {} for field in FIELDS} | unflatten_dict(arrays)))


def difference(
    state_dict: StateDict, architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], *, source: str
) -> str:
    """A phrase with the first config field in which the networks of a file differ; empty if there is none.

    Args:
      state_dict: the tensors of the file.
      architecture: of the networks to be filled.
      shapes: of their tensors, under PyTorch's names.
      source: where the tensors come from, for messages.
    """
    if torch_names.depth_of(state_dict.tensors) is None:
        return ""
    theirs = architecture_of(state_dict, source=source)
    fields = {"depth": "depth", "neck": "neck", "fc_dim": "fc_dim", "encoder_width": "width"}
    if not any(name.startswith(REID_ONLY) for name in state_dict.tensors):
        del fields["fc_dim"]  # there is no layer to tell, and none is needed
    for field, name in fields.items():
        if (found := getattr(theirs, field)) != (wanted := getattr(architecture, field)):
            return f"; encoder.{name} is {wanted}, but {found} in the weights"
    if not draws(state_dict) or not any(name in DRAWING for name in shapes):
        return ""
    if theirs.coarse != architecture.coarse:
        return f"; decoder.coarse is {architecture.coarse}, but {theirs.coarse} in the weights"
    if not architecture.decoder_width:
        return "; decoder.width is 0, but the weights have convolutions"
    if not theirs.decoder_width:
        return ""
    found = [(*np.shape(state_dict.tensors.get(name)), 0)[0] for name in DECODER]
    wanted = [shapes[name][0] for name in DECODER]
    if found != wanted:
        return f"; decoder.width and decoder.min_channels give {wanted} channels, but there are {found} in the weights"
    return ""
