"""Matches the tensors of a state dict with the arrays of our networks."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping

from san_jax.weights import torch_names
from san_jax.weights.state_dicts import StateDict
from san_jax.weights.torch_names import Entry

IMAGENET_CLASSIFIER = ("fc.weight", "fc.bias")  # torchvision's; the fc of resnet50_fc512 is fc.0 and fc.1
NECK = "bottleneck."
DECODER, COARSE = "decoder", "coarse drawing"  # parts of the networks that draw
DRAWING = torch_names.decoder_names(coarse=True)


@dataclasses.dataclass(frozen=True)
class Match:
    """How the tensors of a file match the arrays of our networks.

    Attributes:
      taken: names of the tensors that fit; `parts` counts them.
      left_out: names of tensors that these networks do not use, by reason.
      unfit: messages about tensors of the classifier that have another shape.
      zeros: names of biases that are 0 because the file lacks them.
      parts: part of our networks -> number of its tensors taken; 0: it keeps its fresh weights.
      problems: messages about everything that makes the file unusable.
    """

    taken: list[str]
    left_out: dict[str, list[str]]
    unfit: list[str]
    zeros: list[str]
    parts: dict[str, int]
    problems: list[str]

    @classmethod
    def of(cls, state_dict: StateDict, names: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]) -> "Match":
        """Compares names and shapes.

        Args:
          state_dict: of the file.
          names: PyTorch's names of our arrays.
          shapes: of our arrays, in PyTorch's layouts, by these names.
        """
        tensors = state_dict.tensors
        part = {name: part_of(entry) for name, entry in names.items()}
        left_out = {"ImageNet's classifier": [name for name in tensors if name in IMAGENET_CLASSIFIER]}
        if not {DECODER, COARSE} & set(part.values()):
            left_out["no decoder here"] = [name for name in tensors if name in DRAWING]
        if not any(name.startswith(NECK) for name in names):
            left_out["no neck here"] = [name for name in tensors if name.startswith(NECK)]
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
        if DECODER in begun:
            begun.add(COARSE)  # convolutions that were trained beside a coarse drawing, or without, draw only so
        problems = [text for name, text in unfit.items() if part[name] not in dropped]
        problems += [f"{name} matches nothing of ours" for name in tensors if name not in known]
        problems += [f"{name} is missing" for name in names if part[name] in begun and name not in tensors]
        if not taken:
            problems.append("none of its tensors is used here")
        return cls(
            taken=taken,
            left_out={reason: listed for reason, listed in left_out.items() if listed},
            unfit=[text for name, text in unfit.items() if part[name] in dropped],
            zeros=[name for name in taken if name in state_dict.zeros],
            parts={name: sum(part[one] == name for one in taken) for name in dict.fromkeys(part.values())},
            problems=problems,
        )

    def as_table(self) -> str:
        """One line each for what is taken, left out, of another shape, zero and fresh; empty ones are omitted."""
        rows = {
            "taken": f"{len(self.taken)} tensors: " + ", ".join(f"{name} {n}" for name, n in self.parts.items() if n),
            "left out": "; ".join(f"{shortened(listed)} ({reason})" for reason, listed in self.left_out.items()),
            "no fit": "; ".join(self.unfit),
            "zero": ", ".join(self.zeros),
            "fresh": ", ".join(name for name, n in self.parts.items() if not n),
        }
        return "\n".join(f"  {what:<10}{which}" for what, which in rows.items() if which)


def part_of(entry: Entry) -> str:
    """The part that an array belongs to: body, fc, classifier, decoder or coarse drawing."""
    field, child, *_ = entry.path
    if field.startswith("decoder"):
        return COARSE if child == "coarse" else DECODER
    return child if child in ("fc", "classifier") else "body"


def shortened(names: Collection[str]) -> str:
    """The first three names of a list, and how many more there are."""
    first, rest = list(names)[:3], len(names) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
