"""Allowed values of every config field, checked before any data is opened, and the fields that a run does not use."""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from san_jax import files
from san_jax.data.input_pipeline import CACHES
from san_jax.errors import UserError
from san_jax.networks.architecture import MODES
from san_jax.networks.encoder import BLOCKS, NECKS, STEMS
from san_jax.networks.precision import COMPUTE_DTYPES
from san_jax.scoring.evaluation import METRICS, SAME_CAMERA
from san_jax.training.optimizers import OPTIMIZERS, TEXTURE_OPTIMIZERS
from san_jax.training.schedule import DECAYS


@dataclasses.dataclass(frozen=True)
class Range:
    """The allowed values of a field.

    Attributes:
      allows: whether a value, of any type, is allowed.
      words: the allowed values in an error message, after "it must be".
    """

    allows: Callable[[Any], bool]
    words: str


def whole(low: int, high: int | None = None) -> Range:
    """Integers from `low`, up to and including `high` if given."""
    words = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    return Range(lambda value: _is_whole(value) and low <= value and (high is None or value <= high), words)


def number(low: int, high: float = math.inf, *, above: bool = False, below: bool = False) -> Range:
    """Finite numbers from `low` to `high`; `above` excludes `low` itself, `below` excludes `high`."""

    def allows(value: Any) -> bool:
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and (value < high if below else value <= high)

    end = "" if high == math.inf else f" and {'below' if below else 'at most'} {high:g}"
    return Range(allows, f"a number {'above' if above else 'of at least'} {low:g}{end}")


def one_of(values: Sequence[Any]) -> Range:
    """One of a few values of one type."""
    types = {type(value) for value in values}
    return Range(lambda value: type(value) in types and value in values, f"one of {', '.join(map(str, values))}")


def text(*, empty: bool = True) -> Range:
    """Strings."""
    words = "a string" if empty else "a string that is not empty"
    return Range(lambda value: isinstance(value, str) and (empty or bool(value.strip())), words)


def or_unset(of: Range) -> Range:
    """The values of a range, and None."""
    return Range(lambda value: value is None or of.allows(value), f"{of.words}, or unset")


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
SHARE = number(0, 1.0)  # a probability
DECAY = number(0, 1.0, below=True)
POSITIVE = number(0, above=True)
MILESTONES = Range(_is_milestones, "a tuple of strictly increasing integers above 0, such as (40, 80)")

LOCAL = ("data.train", "data.test", "data.pit", "data.manual_dir")  # may name local folders or lists
# In the order of configs/base.py, which says what each field means.
RANGES: Mapping[str, Range] = {
    "mode": one_of(MODES),
    "seed": whole(0, 2**32 - 1),
    "init_from": text(),
    "compute_dtype": one_of(COMPUTE_DTYPES),
    "deterministic": SWITCH,
    "onednn": SWITCH,
    "data.train": text(empty=False),
    "data.test": text(),
    "data.pit": text(),
    "data.manual_dir": text(),
    "data.data_dir": text(),
    "data.pattern": text(),
    "data.height": whole(16),
    "data.width": whole(16),
    "data.cache": one_of(CACHES),
    "data.cache_gb": number(0),
    "data.workers": or_unset(whole(0)),
    "encoder.depth": one_of(tuple(BLOCKS)),
    "encoder.fc_dim": whole(0),
    "encoder.last_stride": one_of((1, 2)),
    "encoder.width": POSITIVE,
    "encoder.neck": one_of(NECKS),
    "encoder.stem": one_of(STEMS),
    "decoder.width": number(0),
    "decoder.min_channels": whole(1),
    "decoder.skips": SWITCH,
    "decoder.coarse": whole(0),
    "batch.identities": whole(1),
    "batch.instances": whole(1),
    "batch.pit_pictures": whole(0),
    "augmentation.crop": SHARE,
    "augmentation.mirror": SHARE,
    "augmentation.erase": SHARE,
    "loss.label_smoothing": DECAY,
    "loss.htri_only": SWITCH,
    "loss.margin": number(0),
    "loss.reconstruction": number(0),
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
    "recon.optimizer": one_of(TEXTURE_OPTIMIZERS),
    "recon.learning_rate": number(0),
    "recon.decoder_learning_rate": or_unset(number(0)),
    "recon.warmup_steps": whole(0),
    "recon.decay": one_of(DECAYS),
    "recon.milestones": MILESTONES,
    "recon.gamma": POSITIVE,
    "recon.b1": DECAY,
    "recon.b2": DECAY,
    "schedule.fixbase_epoch": whole(0),
    "schedule.open_layers": Range(_is_names, 'a tuple of layer names, such as ("fc", "classifier")'),
    "schedule.warmup_epochs": whole(0),
    "schedule.warmup_rate": number(0),
    "schedule.warmup_growth": POSITIVE,
    "schedule.epochs": whole(0),
    "schedule.eval_every": whole(0),
    "schedule.save_minutes": number(0),
    "schedule.save_every": whole(0),
    "scoring.metric": one_of(METRICS),
    "scoring.same_camera": one_of(SAME_CAMERA),
    "scoring.batch_size": whole(1),
}


def check(config: ConfigDict, *, where: str = "") -> None:
    """Checks every field by itself and against the others; `run.build` checks them against data and devices.

    Args:
      config: a config with the fields of configs/base.py.
      where: prefix of the field names in messages, such as "san." for a part of a chain.

    Raises:
      UserError: a field is missing, unknown or not allowed; names the field and its allowed values.
    """
    fields = flatten_dict(config.to_dict(), sep=".")
    if wrong := sorted(fields.keys() ^ RANGES.keys()):
        problem = "is not a field of" if wrong[0] in fields else "is missing from"
        raise UserError(f"{where}{wrong[0]} {problem} a training config; configs/base.py lists all fields")
    for name, allowed in RANGES.items():
        if not allowed.allows(fields[name]):
            raise UserError(f"{where}{name} is {fields[name]!r}; it must be {allowed.words}")
    for name in LOCAL:
        files.check_local(fields[name], what=f"{where}{name}", why="its pictures are read one by one")
    schedule = config.schedule
    if not schedule.fixbase_epoch + schedule.warmup_epochs + schedule.epochs:
        raise UserError(f"{where}schedule.epochs, warmup_epochs and fixbase_epoch are all 0; set at least one of them")
    if config.batch.pit_pictures and config.mode != "san":
        raise UserError(
            f"{where}batch.pit_pictures is {config.batch.pit_pictures}, but mode {config.mode} uses no pairs; "
            "set it to 0"
        )
    if config.mode != "baseline":
        check_size(config, where=where)
        check_convolutions(config, where=where)


def check_some(config: ConfigDict, names: Sequence[str], *, where: str) -> None:
    """Raises a UserError, which begins with `where`, if one of these fields is missing or has a value it may not have.

    For configs that were read from a file; those of older versions lack fields that others need.
    """
    fields = flatten_dict(config.to_dict(), sep=".")
    for name in names:
        if name not in fields:
            raise UserError(f"{where} has no {name}; restore the file, or start the training again on the same workdir")
        if not RANGES[name].allows(fields[name]):
            raise UserError(f"{where} has {name} {fields[name]!r}; it must be {RANGES[name].words}")


def check_size(config: ConfigDict, *, where: str) -> None:
    """Raises a UserError if the decoder's feature maps would not match the encoder's in size."""
    if config.encoder.last_stride != 1:
        raise UserError(f"{where}encoder.last_stride is {config.encoder.last_stride}; mode {config.mode} needs 1")
    for side in ("height", "width"):
        if config.data[side] % 16:
            raise UserError(
                f"{where}data.{side} is {config.data[side]}; mode {config.mode} needs a multiple of 16, "
                "so that the feature maps of decoder and encoder match"
            )


def check_convolutions(config: ConfigDict, *, where: str) -> None:
    """Raises a UserError if the decoder has no convolutions, but nothing else to draw with, or a loss needs them."""
    if config.decoder.width:
        return
    if not config.decoder.coarse:
        raise UserError(f"{where}decoder.width and decoder.coarse are both 0, so nothing is drawn; set one of them")
    if config.mode == "san" and config.loss.texture_triplets:
        raise UserError(
            f"{where}loss.texture_triplets is {config.loss.texture_triplets} and decoder.width 0, but this loss "
            "compares maps of the decoder's convolutions; set loss.texture_triplets to 0, or give a width"
        )


def changed_in_vain(config: ConfigDict, defaults: Sequence[ConfigDict]) -> list[str]:
    """The fields that were changed without effect, as "NAME VALUE": unused, and different from all `defaults`."""
    fields, *usual = (flatten_dict(one.to_dict(), sep=".") for one in (config, *defaults))
    return [
        f"{name} {fields[name]}"
        for name in RANGES
        if name in unused(config) and fields[name] not in [one[name] for one in usual]
    ]


def unused(config: ConfigDict) -> frozenset[str]:
    """The fields without effect in a run of this config: those of other modes, and those disabled by other fields."""
    reid, schedule = config.reid, config.schedule
    has_reid, has_decoder = config.mode != "san_pg", config.mode != "baseline"
    moments = reid.optimizer in ("amsgrad", "adam") or schedule.warmup_epochs > 0  # the warm-up uses Adam
    used_if = {
        "data.cache_gb": config.data.cache != "stream",
        "data.pit": config.batch.pit_pictures > 0,
        "decoder.": has_decoder,
        "decoder.min_channels": has_decoder and config.decoder.width > 0,
        "decoder.skips": has_decoder and config.decoder.width > 0,
        "recon.": has_decoder,
        "recon.milestones": has_decoder and config.recon.decay == "milestones",
        "recon.gamma": has_decoder and config.recon.decay == "milestones",
        "loss.label_smoothing": has_reid and not config.loss.htri_only,
        "loss.htri_only": has_reid,
        "loss.margin": has_reid,
        "loss.reconstruction": config.mode == "san" and config.loss.texture_triplets > 0,  # else Adam undoes it
        "loss.texture_triplets": config.mode == "san",
        "loss.texture_margin": config.mode == "san" and config.loss.texture_triplets > 0,
        "reid.": has_reid,
        "reid.b1": has_reid and moments,
        "reid.b2": has_reid and moments,
        "reid.momentum": has_reid and reid.optimizer in ("sgd", "rmsprop"),
        "reid.nesterov": has_reid and reid.optimizer == "sgd",
        "schedule.open_layers": schedule.fixbase_epoch > 0,
        "schedule.warmup_rate": has_reid and schedule.warmup_epochs > 0,
        "schedule.warmup_growth": has_reid and schedule.warmup_epochs > 0,
        "scoring.metric": has_reid,
        "scoring.same_camera": has_reid,
    }
    idle = tuple(start for start, is_used in used_if.items() if not is_used)
    return frozenset(name for name in RANGES if name.startswith(idle)) if idle else frozenset()
