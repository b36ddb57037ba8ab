"""What becomes of the tensors of a state dict, and of the arrays that they should fill."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping

from san_jax.weights import torch_names
from san_jax.weights.state_dicts import StateDict
from san_jax.weights.torch_names import Entry

IMAGENET_CLASSIFIER = ("fc.weight", "fc.bias")  # torchvision's; the fc of resnet50_fc512 is fc.0 and fc.1
NECK = "bottleneck."


@dataclasses.dataclass(frozen=True)
class Match:
    """What becomes of the tensors of a file, and of ours.

    Attributes:
      taken: names of those that fit; counts by part in `parts`.
      left_out: names of those that these networks have no use for, by reason.
      unfit: the classifier's that have another shape, in words.
      zeros: names of biases that are 0 because the file lacks them.
      parts: our parts -> how many of its tensors are taken; 0 = stays fresh.
      problems: what must not be, in words.
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
          names: ours.
          shapes: ours, in PyTorch's layouts.
        """
        tensors = state_dict.tensors
        part = {name: part_of(entry) for name, entry in names.items()}
        left_out = {"ImageNet's classifier": [name for name in tensors if name in IMAGENET_CLASSIFIER]}
        if "decoder" not in part.values():
            left_out["no decoder here"] = [name for name in tensors if name in torch_names.decoder_names()]
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
        problems = [text for name, text in unfit.items() if part[name] not in dropped]
        problems += [f"{name} matches nothing of ours" for name in tensors if name not in known]
        problems += [f"{name} is missing" for name in names if part[name] in begun and name not in tensors]
        if not taken:
            problems.append("nothing in it is of use here")
        return cls(
            taken=taken,
            left_out={reason: listed for reason, listed in left_out.items() if listed},
            unfit=[text for name, text in unfit.items() if part[name] in dropped],
            zeros=[name for name in taken if name in state_dict.zeros],
            parts={name: sum(part[one] == name for one in taken) for name in dict.fromkeys(part.values())},
            problems=problems,
        )

    def as_table(self) -> str:
        """A line each for what is taken, left out, of another shape, fresh; none where there is nothing to say."""
        rows = {
            "taken": f"{len(self.taken)} tensors: " + ", ".join(f"{name} {n}" for name, n in self.parts.items() if n),
            "left out": "; ".join(f"{shortened(listed)} ({reason})" for reason, listed in self.left_out.items()),
            "no fit": "; ".join(self.unfit),
            "zero": ", ".join(self.zeros),
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
