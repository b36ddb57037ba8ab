"""Which config fields may change when a run is resumed: one table, checked before anything is restored."""

import fnmatch
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from san_jax import devices
from san_jax.errors import UserError
from san_jax.training import older_states, run_config
from san_jax.training.optimizers import leaves_by_path
from san_jax.training.run_config import Config
from san_jax.training.train_step import TrainState
from san_jax.weights import stored

NO_STEP = -1  # stands for "no checkpoint" among the steps of checkpoints


class Rule(NamedTuple):
    """What happens when fields of a config change between two starts of one run.

    Attributes:
      fields: names or patterns, separated by spaces.
      may_change: whether the run is resumed; otherwise it is refused before anything is written.
      why: the effect of the change, or the reason why it is refused.
    """

    fields: str
    may_change: bool
    why: str


# The first rule that matches a field applies. docs/resuming.md shows this table.
RULES = (
    Rule("mode", False, "it determines the networks and optimizers of a run"),
    Rule("encoder.* decoder.* data.height data.width", False, "the stored weights fit one architecture only"),
    Rule("reid.optimizer recon.optimizer", False, "each optimizer has its own kind of state"),
    Rule(
        "schedule.fixbase_epoch schedule.open_layers schedule.warmup_epochs",
        False,
        "each phase starts with a fresh optimizer state where the previous phase ends",
    ),
    Rule("schedule.epochs", True, "the run ends earlier or later; a run past its last step is only scored"),
    Rule("reid.* recon.* schedule.warmup_rate schedule.warmup_growth", True, "takes effect from the next step"),
    Rule("loss.* augmentation.* compute_dtype deterministic onednn", True, "takes effect from the next step"),
    Rule(
        "seed batch.* data.train data.pattern data.pit",
        True,
        "different batches from the next step; epochs change in length, so phases, milestones and the end of the run "
        "move to other steps; the people to train on must stay the same",
    ),
    Rule(
        "data.test scoring.*",
        True,
        "scored differently from now on; a best checkpoint of another metric or test set is discarded",
    ),
    Rule("schedule.eval_every schedule.save_every schedule.save_minutes", True, "scored and saved at other steps"),
    Rule(
        "data.data_dir data.manual_dir data.cache data.cache_gb data.workers",
        True,
        "where pictures are read, kept and decoded; the batches stay the same",
    ),
    Rule("init_from", True, "no effect: the weights come from the checkpoint"),
)


def newest_of_all(workdir: Path) -> Path | None:
    """The newest checkpoint of a workdir, or None; all processes must call it together.

    Call it before any of them reads the checkpoint, since orbax synchronises the processes on a read.

    Raises:
      UserError: the processes do not see the same checkpoint.
    """
    newest = stored.newest(workdir)
    steps = devices.of_all_processes(NO_STEP if newest is None else int(newest.name))
    if len(set(steps)) > 1:
        other = next(index for index, step in enumerate(steps) if step != steps[0])
        found = (steps[0], steps[other])
        first, second = ("no checkpoint" if step == NO_STEP else f"the checkpoint of step {step}" for step in found)
        raise UserError(
            f"in {workdir} process 0 finds {first}, process {other} {second}: the workdir must be one folder that all "
            "hosts share"
        )
    return newest


def rule_of(field: str) -> Rule:
    """The rule that applies to a field, given by its dotted name such as "reid.optimizer"."""
    for rule in RULES:
        if any(fnmatch.fnmatchcase(field, pattern) for pattern in rule.fields.split()):
            return rule
    raise KeyError(f"no rule says whether {field} may change when a run is resumed")


def as_table() -> str:
    """The rules as a table in Markdown."""
    rows = []
    for rule in RULES:
        fields = ", ".join(f"`{name}`" for name in rule.fields.split())
        rows.append(f"| {fields} | {'yes' if rule.may_change else 'no'} | {rule.why} |")
    return "\n".join(["| field | may change | what happens, or why not |", "| --- | --- | --- |", *rows])


def changed_fields(old: Config, new: Config) -> dict[str, tuple]:
    """Field -> (old value, new value) of the fields that both configs have and that differ."""
    old, new = (flatten_dict(json.loads(config.to_json()), sep=".") for config in (old, new))
    return {name: (old[name], new[name]) for name in new if name in old and old[name] != new[name]}


def check_config(config: Config, workdir: Path) -> None:
    """Checks that the run in a workdir can be resumed with this config; passes if there is no checkpoint to resume.

    Raises:
      UserError: fields that must not change differ from the run's config.json; names all of them.
    """
    if stored.newest(workdir) is None or not (workdir / run_config.NAME).exists():
        return
    changed = changed_fields(run_config.read(workdir), config)
    refused = {name: values for name, values in changed.items() if not rule_of(name).may_change}
    if refused:
        fields = ", ".join(f"{name} {old} (this run: {new})" for name, (old, new) in refused.items())
        why = "; ".join(dict.fromkeys(rule_of(name).why for name in refused))
        raise UserError(
            f"{workdir} holds a run with {fields}, which cannot change when it is resumed: {why}; give another "
            "--workdir, or the old value"
        )


def check_people(known: Sequence[str] | None, people: Sequence[str], *, name: str, checkpoint: Path) -> None:
    """Checks that a checkpoint's classifier was trained on the people of a training set, as in `Source.people`.

    Args:
      known: those of the checkpoint; None, if it does not say, passes.
      people: those of the training set.
      name: of the training set.
      checkpoint: folder of the checkpoint, for the message.

    Raises:
      UserError: they are others; counts them, and names the first.
    """
    if known is None or known == list(people):
        return
    before, now = Counter(known), Counter(people)  # sets that are joined may have the same names
    differ = {"new": list(now - before), "gone": list(before - now)}
    found = [f"{len(some)} {how} (such as {some[0]})" for how, some in differ.items() if some]
    raise UserError(
        f"{name} has other people than those that {checkpoint} was trained on: {', '.join(found) or 'in another order'}"
        "; each has an output of the classifier. Give another --workdir, with this run as init_from, or the old people"
    )


def check_state(checkpoint: Path, like: TrainState) -> None:
    """Checks that a checkpoint holds the arrays of a run's state, before any of them is read.

    `check_config` finds most differences first; this check also covers a workdir without a config.

    Raises:
      UserError: an array is missing, is not part of the state or has another shape; names the config field that
        caused it.
    """
    found = stored.shapes(checkpoint)
    older = {name: older_states.shapes_of(state) for name, state in found.items() if older_states.is_older(state)}
    saved, wanted = _leaves(found | older), _leaves(vars(like))
    differ = sorted(path for path in saved.keys() | wanted.keys() if saved.get(path) != wanted.get(path))
    if differ:
        field = _field_behind(differ, saved.keys(), wanted.keys())
        raise UserError(
            f"{checkpoint} does not fit this run: it was trained with another {field} ({len(differ)} arrays differ, "
            f"the first is {'/'.join(differ[0])}); give another --workdir, or the old value"
        )


def _leaves(tree: PyTree) -> dict[tuple[str, ...], tuple]:
    """Path -> (shape, dtype) of every array."""
    return {path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves_by_path(tree).items()}


def _field_behind(differ, saved, wanted) -> str:
    """The config field that explains why arrays differ, inferred from their paths."""
    fields = {path[0] for path in differ}
    if not fields <= {"reid_opt", "recon_opt"}:
        return "mode, or other encoder or decoder fields"
    for field in fields:
        if not all(any(path[0] == field for path in paths) for paths in (saved, wanted)):
            return "mode"
    return "reid.optimizer or schedule.warmup_epochs"
