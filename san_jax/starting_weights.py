"""Weights from elsewhere, by PyTorch's names, into a fresh train state, with a report of what fitted.

They come from files of torchvision, torchreid and the authors' code, from safetensors of timm, of Hugging Face and of
`export_weights`, and from workdirs and checkpoints of our own.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Shaped

from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.networks.encoder import BLOCKS
from san_jax.training import checkpoints
from san_jax.training.train_step import TrainState
from san_jax.weights import torch_names
from san_jax.weights.torch_files import read_tensors_file
from san_jax.weights.torch_names import Entry

FIELDS = ("encoder", "encoder_stats", "decoder", "decoder_stats")
PEOPLE_ALONE = ("fc.", "classifier.")  # what the re-ID losses alone train
IMAGENET_CLASSIFIER = ("fc.weight", "fc.bias")  # torchvision's; the fc of resnet50_fc512 is fc.0 and fc.1

Tensors = Mapping[str, Shaped[np.ndarray, "..."]]


def start_from(path: Path, state: TrainState, *, architecture: Architecture) -> TrainState:
    """The state with the weights of a file or checkpoint; prints what was taken and what stays fresh.

    Args:
      path: a run's workdir, one of its checkpoints, or a file with PyTorch's names (see `read_tensors`).
      state: fresh; its steps and optimizers stay as they are.
      architecture: of its networks.

    Raises:
      UserError: the file cannot be read, or does not fit these networks (see `fill`).
    """
    if not path.is_dir():
        return fill(state, read_tensors(path), architecture=architecture, source=str(path))
    checkpoint = checkpoints.find(path)
    tensors = read_checkpoint(checkpoint, state.step.sharding)
    if learnt_no_people(checkpoint):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(PEOPLE_ALONE)}
    return fill(state, tensors, architecture=architecture, source=str(path))


def learnt_no_people(checkpoint: Path) -> bool:
    """Whether it is of a texture generator, whose fc and classifier are as they were drawn at its start."""
    stored = checkpoints.shapes(checkpoint)
    return bool(stored.get("recon_opt")) and not stored.get("reid_opt")


def read_checkpoint(checkpoint: Path, sharding: jax.sharding.NamedSharding) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Weights of one of our checkpoints under PyTorch's names and in its layouts, in network order.

    Args:
      checkpoint: its folder.
      sharding: to read it in, the same on every device.
    """
    architecture = checkpoints.read_architecture(checkpoint)
    draws = checkpoints.has_decoder(checkpoint)
    parts, _ = checkpoints.restore_networks(checkpoint, sharding, draws=draws)
    arrays = flatten_dict(parts)
    names = torch_names.state_names(
        depth=architecture.depth, fc_dim=architecture.fc_dim, skips=architecture.skips, draws=draws
    )
    return {name: torch_names.to_torch(np.asarray(arrays[entry.path]), entry.layout) for name, entry in names.items()}


def read_tensors(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Tensors of a foreign file by the names of torchvision and of the authors' decoder.

    A state dict, bare or in a checkpoint (`state_dict`, the authors' `decoder_state_dict` beside it), with or without
    the `module.` of DataParallel; or safetensors, with Hugging Face's names too. `num_batches_tracked` is dropped.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    saved = read_tensors_file(path)
    dicts = [saved]
    if isinstance(saved, Mapping) and "state_dict" in saved:
        dicts = [saved["state_dict"], saved.get("decoder_state_dict") or {}]
    tensors = {}
    for state_dict in dicts:
        if not isinstance(state_dict, Mapping):
            raise UserError(f"{path} holds a {type(state_dict).__name__} where a state_dict should be; save that")
        for name, tensor in state_dict.items():
            is_tensor = isinstance(tensor, np.ndarray)
            if not is_tensor or not (jnp.issubdtype(tensor.dtype, jnp.floating) or is_counter(name)):
                kind = tensor.dtype if is_tensor else type(tensor).__name__
                raise UserError(f"{path} holds {name!r} among its weights, of type {kind}; save a plain state_dict")
            tensors[str(name).removeprefix("module.")] = tensor
    names = torch_names.hugging_face_names(depth=max(BLOCKS))  # those of the others are among them
    return {
        names.get(name.removeprefix("resnet."), name): tensor
        for name, tensor in sorted(tensors.items())  # safetensors come in any order
        if not is_counter(name)
    }


def is_counter(name: Any) -> bool:
    """Whether it is one of the entries that PyTorch keeps beside running statistics, and nobody reads."""
    return str(name).endswith("num_batches_tracked")


def fill(state: TrainState, tensors: Tensors, *, architecture: Architecture, source: str) -> TrainState:
    """The state with these tensors in place of its own; prints in a few lines what happened to which.

    Body (stem and stages), fc, classifier and decoder are taken whole or not at all. What stays out: ImageNet's
    classifier, a decoder where the state has none, and a classifier of another shape, since it is of other people.

    Args:
      state: to fill; arrays keep their shardings.
      tensors: by PyTorch's names, in its layouts.
      architecture: of the state's networks.
      source: where they come from, for messages.

    Raises:
      UserError: a tensor matches nothing of ours, has another shape, is missing among its like, or none is of use.
    """
    arrays = flatten_dict({field: getattr(state, field) for field in FIELDS})
    names = torch_names.state_names(
        depth=architecture.depth, fc_dim=architecture.fc_dim, skips=architecture.skips, draws=bool(state.decoder)
    )
    shapes = {name: torch_names.torch_shape(arrays[entry.path].shape, entry.layout) for name, entry in names.items()}
    match = Match.of(tensors, names, shapes)
    if match.problems:
        first, *others = match.problems
        depth = torch_names.depth_of(tensors)
        more = f" ({len(others)} more)" if others else ""
        hint = f"; encoder.depth is {architecture.depth}, theirs {depth}" if depth != architecture.depth else ""
        raise UserError(f"the weights of {source} do not fit: {first}{more}{hint if depth else ''}")
    if jax.process_index() == 0:
        print(f"weights of {source}\n{match.as_table()}", flush=True)
    for name in match.taken:
        entry = names[name]
        values, like = torch_names.to_ours(tensors[name].astype(np.float32), entry.layout), arrays[entry.path]
        arrays[entry.path] = jax.make_array_from_callback(like.shape, like.sharding, values.__getitem__)
    return dataclasses.replace(state, **({field: {} for field in FIELDS} | unflatten_dict(arrays)))


@dataclasses.dataclass(frozen=True)
class Match:
    """What becomes of the tensors of a file, and of ours.

    Attributes:
      taken: names of those that fit; counts by part in `parts`.
      left_out: names of those that these networks have no use for, by reason.
      unfit: the classifier's that have another shape, in words.
      parts: our parts -> how many of its tensors are taken; 0 = stays fresh.
      problems: what must not be, in words.
    """

    taken: list[str]
    left_out: dict[str, list[str]]
    unfit: list[str]
    parts: dict[str, int]
    problems: list[str]

    @classmethod
    def of(cls, tensors: Tensors, names: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]) -> "Match":
        """Compares names and shapes.

        Args:
          tensors: of the file.
          names: ours.
          shapes: ours, in PyTorch's layouts.
        """
        part = {name: part_of(entry) for name, entry in names.items()}
        left_out = {"ImageNet's classifier": [name for name in tensors if name in IMAGENET_CLASSIFIER]}
        if "decoder" not in part.values():
            left_out["no decoder here"] = [name for name in tensors if name in torch_names.decoder_names()]
        known = {*part, *itertools.chain(*left_out.values())}
        found = [name for name in names if name in tensors]
        unfit = {
            name: f"{name} is {list(tensors[name].shape)}, ours {list(shapes[name])}"
            for name in found
            if tensors[name].shape != shapes[name]
        }
        dropped = {"classifier"} & {part[name] for name in unfit}
        taken = [name for name in found if part[name] not in dropped]
        begun = {part[name] for name in found}
        problems = [text for name, text in unfit.items() if part[name] not in dropped]
        problems += [f"{name} matches nothing of ours" for name in tensors if name not in known]
        problems += [f"{name} is missing" for name in names if part[name] in begun and name not in tensors]
        if not taken:
            problems.append("nothing in it is of use here")
        return cls(
            taken=taken,
            left_out={reason: listed for reason, listed in left_out.items() if listed},
            unfit=[text for name, text in unfit.items() if part[name] in dropped],
            parts={name: sum(part[one] == name for one in taken) for name in dict.fromkeys(part.values())},
            problems=problems,
        )

    def as_table(self) -> str:
        """A line each for what is taken, left out, of another shape, fresh; none where there is nothing to say."""
        rows = {
            "taken": f"{len(self.taken)} tensors: " + ", ".join(f"{name} {n}" for name, n in self.parts.items() if n),
            "left out": "; ".join(f"{shortened(listed)} ({reason})" for reason, listed in self.left_out.items()),
            "no fit": "; ".join(self.unfit),
            "fresh": ", ".join(name for name, n in self.parts.items() if not n),
        }
        return "\n".join(f"  {what:<10}{which}" for what, which in rows.items() if which)


def part_of(entry: Entry) -> str:
    """What an array belongs to: body, fc, classifier or decoder."""
    field, child, *_ = entry.path
    if field.startswith("decoder"):
        return "decoder"
    return child if child in ("fc", "classifier") else "body"


def shortened(names: Collection[str]) -> str:
    """The first names of a list, and how many follow."""
    first, rest = list(names)[:3], len(names) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
