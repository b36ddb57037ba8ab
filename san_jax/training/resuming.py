"""What of a config may change when a run goes on, and what may not: one table, checked before anything is restored."""

import fnmatch
import json
from pathlib import Path
from typing import NamedTuple

import jax
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree
from ml_collections import ConfigDict

from san_jax import devices
from san_jax.errors import UserError
from san_jax.training import run_config
from san_jax.training.train_step import TrainState
from san_jax.weights import stored

NO_STEP = -1  # in place of a checkpoint's step, where there is none


class Rule(NamedTuple):
    """What happens when fields of a config change between two starts of one run.

    Attributes:
      fields: names or patterns, separated by spaces.
      may_change: whether the run goes on; else it is refused before anything is written.
      why: the effect of the change, or the reason why it is refused.
    """

    fields: str
    may_change: bool
    why: str


# The first rule that matches a field holds. docs/resuming.md shows this table.
RULES = (
    Rule("mode", False, "it decides which networks and which optimizers a run has"),
    Rule("encoder.* decoder.* data.height data.width", False, "the stored weights are those of one network"),
    Rule("reid.optimizer", False, "every optimizer stores other numbers beside the weights"),
    Rule(
        "schedule.fixbase_epoch schedule.open_layers schedule.warmup_epochs",
        False,
        "every phase has an optimizer state of its own, and starts where the phase before it ends",
    ),
    Rule("schedule.epochs", True, "the run ends earlier or later; a run past its last step is only scored"),
    Rule("reid.* recon.* schedule.warmup_rate schedule.warmup_growth", True, "holds from the next step on"),
    Rule("loss.* augmentation.* compute_dtype", True, "holds from the next step on"),
    Rule(
        "seed batch.* data.train data.pit",
        True,
        "other batches from the next step on; epochs change their length, so phases, milestones and the end of the "
        "run lie at other steps; the number of people must stay",
    ),
    Rule(
        "data.test scoring.*",
        True,
        "scored differently from now on; a best checkpoint of another metric or test set is forgotten",
    ),
    Rule("schedule.eval_every schedule.save_every", True, "scored and saved at other steps"),
    Rule("data.data_dir data.manual_dir data.workers", True, "places and processes; the same batches"),
    Rule("init_from", True, "no effect: the weights are those of the checkpoint"),
)


def newest_of_all(workdir: Path) -> Path | None:
    """The newest checkpoint of a workdir, or None; all processes must call it together.

    Before any of them reads in it: orbax lets them wait for one another.

    Raises:
      UserError: the processes do not see the same one.
    """
    newest = stored.newest(workdir)
    steps = devices.of_all_processes(NO_STEP if newest is None else int(newest.name))
    if len(set(steps)) > 1:
        other = next(index for index, step in enumerate(steps) if step != steps[0])
        first, second = ("none" if step == NO_STEP else f"that of step {step}" for step in (steps[0], steps[other]))
        raise UserError(
            f"of the checkpoints in {workdir} process 0 finds {first}, process {other} {second}: the workdir must be "
            "one folder that all hosts share"
        )
    return newest


def rule_of(field: str) -> Rule:
    """The rule that holds for a field, "reid.optimizer"."""
    for rule in RULES:
        if any(fnmatch.fnmatchcase(field, pattern) for pattern in rule.fields.split()):
            return rule
    raise KeyError(f"no rule says whether {field} may change when a run goes on")


def as_table() -> str:
    """The rules as a table in Markdown."""
    rows = []
    for rule in RULES:
        fields = ", ".join(f"`{name}`" for name in rule.fields.split())
        rows.append(f"| {fields} | {'yes' if rule.may_change else 'no'} | {rule.why} |")
    return "\n".join(["| field | may change | what happens, or why not |", "| --- | --- | --- |", *rows])


def changed_fields(old: ConfigDict, new: ConfigDict) -> dict[str, tuple]:
    """Field -> (old value, new value) of the fields that both configs have and that differ."""
    old, new = (flatten_dict(json.loads(config.to_json()), sep=".") for config in (old, new))
    return {name: (old[name], new[name]) for name in new if name in old and old[name] != new[name]}


def check_config(config: ConfigDict, workdir: Path) -> None:
    """Checks that a run can go on with this config; a workdir without a checkpoint has nothing to go on from.

    Raises:
      UserError: a field differs from the run's config.json that must stay; names all such fields.
    """
    if stored.newest(workdir) is None or not (workdir / run_config.NAME).exists():
        return
    changed = changed_fields(run_config.read(workdir), config)
    refused = {name: values for name, values in changed.items() if not rule_of(name).may_change}
    if refused:
        fields = ", ".join(f"{name} {old} (this run: {new})" for name, (old, new) in refused.items())
        why = "; ".join(dict.fromkeys(rule_of(name).why for name in refused))
        raise UserError(
            f"{workdir} holds a run with {fields}, which cannot change when it goes on: {why}; give another "
            "--workdir, or the old value"
        )


def check_state(checkpoint: Path, like: TrainState) -> None:
    """Checks that a checkpoint holds the arrays that a run's state has, before any of them is read.

    The config of the run tells of most differences (`check_config`); this is for a workdir without one.

    Raises:
      UserError: an array is missing, is too many or has another shape; names the config field behind it.
    """
    saved, wanted = _leaves(stored.shapes(checkpoint)), _leaves(vars(like))
    differ = sorted(path for path in saved.keys() | wanted.keys() if saved.get(path) != wanted.get(path))
    if differ:
        field = _field_behind(differ, saved.keys(), wanted.keys())
        raise UserError(
            f"{checkpoint} does not fit this run: it was trained with another {field} ({len(differ)} arrays differ, "
            f"the first is {'/'.join(differ[0])}); give another --workdir, or the old value"
        )


def _leaves(tree: PyTree) -> dict[tuple[str, ...], tuple]:
    """Path -> (shape, dtype) of every array; lists and tuples, named or not, are alike."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in leaves
    }


def _field_behind(differ, saved, wanted) -> str:
    """The config field that decides which arrays there are, from the paths of those that differ."""
    fields = {path[0] for path in differ}
    if not fields <= {"reid_opt", "recon_opt"}:
        return "mode, or other encoder or decoder fields"
    for field in fields:
        if not all(any(path[0] == field for path in paths) for paths in (saved, wanted)):
            return "mode"
    if _phases(saved) != _phases(wanted):
        return "schedule.fixbase_epoch or schedule.warmup_epochs"
    # Of the phase with frozen layers alone; another optimizer shows in the main phase too.
    return "schedule.open_layers" if all("inner_states" in path for path in differ) else "reid.optimizer"


def _phases(paths) -> set[tuple[str, ...]]:
    return {(path[0], path[2]) for path in paths if path[0] in ("reid_opt", "recon_opt") and path[1] == "phases"}
