"""What every field of a config may be, and which fields a run does not use. Checked before any data is opened."""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from san_jax.errors import UserError
from san_jax.networks.architecture import COMPUTE_DTYPES, MODES
from san_jax.networks.encoder import BLOCKS, NECKS, STEMS
from san_jax.scoring.evaluation import METRICS, SAME_CAMERA
from san_jax.training.optimizers import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Range:
    """The values of a field.

    Attributes:
      allows: whether a value is one of them; whatever the type of the value.
      words: what they are, behind "it may be".
    """

    allows: Callable[[Any], bool]
    words: str


def whole(low: int, high: int | None = None) -> Range:
    """Whole numbers from `low` on, or up to `high`."""
    words = f"a whole number from {low}{' on' if high is None else f' to {high}'}"
    return Range(lambda value: _is_whole(value) and low <= value and (high is None or value <= high), words)


def number(low: int, high: float = math.inf, *, above: bool = False, below: bool = False) -> Range:
    """Finite numbers from `low` to `high`, each itself allowed unless `above` or `below` says otherwise."""

    def allows(value: Any) -> bool:
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and (value < high if below else value <= high)

    end = "" if high == math.inf else f" and {'below' if below else 'at most'} {high:g}"
    return Range(allows, f"a number {'above' if above else 'not below'} {low:g}{end}")


def one_of(values: Sequence[Any]) -> Range:
    """One of a few values of one type."""
    types = {type(value) for value in values}
    return Range(lambda value: type(value) in types and value in values, ", ".join(map(str, values)))


def text(*, empty: bool = True) -> Range:
    """Strings."""
    words = "text" if empty else "text that is not empty"
    return Range(lambda value: isinstance(value, str) and (empty or bool(value.strip())), words)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_milestones(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and all(_is_whole(epoch) and epoch > 0 for epoch in value)
        and all(one < other for one, other in itertools.pairwise(value))
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(name, str) and name for name in value)


SWITCH = Range(lambda value: isinstance(value, bool), "true or false")
SHARE = number(0, 1.0)  # a probability, or a part of a whole
DECAY = number(0, 1.0, below=True)
POSITIVE = number(0, above=True)
MILESTONES = Range(_is_milestones, "whole numbers above 0, each larger than the one before it, as (40, 80)")

# In the order of configs/base.py, which says what each field means.
RANGES: Mapping[str, Range] = {
    "mode": one_of(MODES),
    "seed": whole(0, 2**32 - 1),
    "init_from": text(),
    "compute_dtype": one_of(COMPUTE_DTYPES),
    "data.train": text(empty=False),
    "data.test": text(),
    "data.pit": text(),
    "data.manual_dir": text(),
    "data.data_dir": text(),
    "data.height": whole(16),
    "data.width": whole(16),
    "data.workers": whole(0),
    "encoder.depth": one_of(tuple(BLOCKS)),
    "encoder.fc_dim": whole(0),
    "encoder.last_stride": one_of((1, 2)),
    "encoder.width": POSITIVE,
    "encoder.neck": one_of(NECKS),
    "encoder.stem": one_of(STEMS),
    "decoder.width": POSITIVE,
    "decoder.skips": SWITCH,
    "batch.identities": whole(1),
    "batch.instances": whole(1),
    "batch.pit_pictures": whole(0),
    "augmentation.crop": SHARE,
    "augmentation.mirror": SHARE,
    "augmentation.erase": SHARE,
    "loss.label_smoothing": DECAY,
    "loss.htri_only": SWITCH,
    "loss.margin": number(0),
    "loss.texture_triplets": number(0),
    "loss.texture_margin": number(0),
    "reid.optimizer": one_of(OPTIMIZERS),
    "reid.learning_rate": number(0),
    "reid.milestones": MILESTONES,
    "reid.gamma": POSITIVE,
    "reid.weight_decay": number(0),
    "reid.b1": DECAY,
    "reid.b2": DECAY,
    "reid.momentum": DECAY,
    "reid.nesterov": SWITCH,
    "recon.learning_rate": number(0),
    "recon.milestones": MILESTONES,
    "recon.gamma": POSITIVE,
    "recon.b1": DECAY,
    "recon.b2": DECAY,
    "schedule.fixbase_epoch": whole(0),
    "schedule.open_layers": Range(_is_names, 'names of layers, as ("fc", "classifier")'),
    "schedule.warmup_epochs": whole(0),
    "schedule.warmup_rate": number(0),
    "schedule.warmup_growth": POSITIVE,
    "schedule.epochs": whole(0),
    "schedule.eval_every": whole(0),
    "schedule.save_every": whole(0),
    "scoring.metric": one_of(METRICS),
    "scoring.same_camera": one_of(SAME_CAMERA),
    "scoring.batch_size": whole(1),
}


def check(config: ConfigDict, *, where: str = "") -> None:
    """Raises a UserError that names the field and what it may be, unless the config can be trained as it is.

    Whether it fits the data and the devices is checked by `run.build`.

    Args:
      config: as of configs/base.py.
      where: what stands before the names of its fields, "san." in a chain.
    """
    fields = flatten_dict(config.to_dict(), sep=".")
    if wrong := sorted(fields.keys() ^ RANGES.keys()):
        there = "is no field of" if wrong[0] in fields else "is missing in"
        raise UserError(f"{where}{wrong[0]} {there} the config of a training; configs/base.py has all of its fields")
    for name, allowed in RANGES.items():
        if not allowed.allows(fields[name]):
            raise UserError(f"{where}{name} is {fields[name]!r}; it may be {allowed.words}")
    schedule = config.schedule
    if not schedule.fixbase_epoch + schedule.warmup_epochs + schedule.epochs:
        raise UserError(f"{where}schedule.epochs, warmup_epochs and fixbase_epoch are all 0; give one epoch or more")
    if config.batch.pit_pictures and config.mode != "san":
        raise UserError(
            f"{where}batch.pit_pictures is {config.batch.pit_pictures}, but mode {config.mode} mixes in no pairs; "
            "set it to 0"
        )
    if config.mode != "baseline":
        check_size(config, where=where)


def check_some(config: ConfigDict, names: Sequence[str], *, where: str) -> None:
    """Raises a UserError, which begins with `where`, if one of these fields is missing or has a value it may not have.

    For configs that were read from a file; those of older versions lack fields that others need.
    """
    fields = flatten_dict(config.to_dict(), sep=".")
    for name in names:
        if name not in fields:
            raise UserError(f"{where} has no {name}; restore the file, or start the training again on the same workdir")
        if not RANGES[name].allows(fields[name]):
            raise UserError(f"{where} has {name} {fields[name]!r}; it may be {RANGES[name].words}")


def check_size(config: ConfigDict, *, where: str) -> None:
    """Raises a UserError where the decoder's maps would not fit those of the encoder."""
    if config.encoder.last_stride != 1:
        raise UserError(f"{where}encoder.last_stride is {config.encoder.last_stride}; mode {config.mode} needs 1")
    for side in ("height", "width"):
        if config.data[side] % 16:
            raise UserError(
                f"{where}data.{side} is {config.data[side]}; mode {config.mode} needs a multiple of 16, "
                "so that the decoder's maps fit"
            )


def changed_in_vain(config: ConfigDict, defaults: Sequence[ConfigDict]) -> list[str]:
    """The unused fields whose value is in none of `defaults`, each as "NAME VALUE": changed, and without effect."""
    fields, *usual = (flatten_dict(one.to_dict(), sep=".") for one in (config, *defaults))
    return [
        f"{name} {fields[name]}"
        for name in RANGES
        if name in unused(config) and fields[name] not in [one[name] for one in usual]
    ]


def unused(config: ConfigDict) -> frozenset[str]:
    """The fields that change nothing in a run of this config: of another mode, or of what other fields turn off."""
    reid, schedule, people, draws = config.reid, config.schedule, config.mode != "san_pg", config.mode != "baseline"
    moments = reid.optimizer in ("amsgrad", "adam") or schedule.warmup_epochs > 0  # the warm-up's is Adam
    used_if = {
        "data.pit": config.batch.pit_pictures > 0,
        "decoder.": draws,
        "recon.": draws,
        "loss.label_smoothing": people and not config.loss.htri_only,
        "loss.htri_only": people,
        "loss.margin": people,
        "loss.texture_triplets": config.mode == "san",
        "loss.texture_margin": config.mode == "san" and config.loss.texture_triplets > 0,
        "reid.": people,
        "reid.b1": people and moments,
        "reid.b2": people and moments,
        "reid.momentum": people and reid.optimizer in ("sgd", "rmsprop"),
        "reid.nesterov": people and reid.optimizer == "sgd",
        "schedule.open_layers": schedule.fixbase_epoch > 0,
        "schedule.warmup_rate": people and schedule.warmup_epochs > 0,
        "schedule.warmup_growth": people and schedule.warmup_epochs > 0,
        "scoring.metric": people,
        "scoring.same_camera": people,
    }
    idle = tuple(start for start, is_used in used_if.items() if not is_used)
    return frozenset(name for name in RANGES if name.startswith(idle)) if idle else frozenset()
