"""Checkpoints by orbax: a run's newest state and its best by a score, each with a description of its networks."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import orbax.checkpoint as ocp

from san_jax import devices
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.training.train_step import TrainState
from san_jax.weights import stored
from san_jax.weights.stored import ABOUT, MODE, STATE

# How tensorstore says that a file cannot be written, in errors without a type of their own.
OF_DISK = re.compile(r"os_error_code|OS error \d|Error writing|Failed writing|Failed to write|No space left")


class BestBy(NamedTuple):
    """The score by which one state is better than another, and whether the higher one is."""

    score: str
    higher_is_better: bool


BY_MAP = BestBy("mAP", higher_is_better=True)


class Checkpoints:
    """The checkpoints of one run; saves in the background, and a write that was cut off leaves nothing that counts.

    Newest and best lie in folders of their own, one checkpoint each, named by its step.

    Args:
      workdir: of the run.
      architecture: of the networks that are saved.
      mode: of these networks; None leaves it to `read_mode` to infer it from what a state holds.
      best_by: says which state is the best.
    """

    def __init__(self, workdir: Path, architecture: Architecture, *, mode: str | None = None, best_by: BestBy = BY_MAP):
        stored.check_name(workdir)
        self._about = dataclasses.asdict(architecture) | ({} if mode is None else {MODE: mode})
        self._newest = _manager(workdir / "checkpoints")
        self._best_by = best_by
        better = "max" if best_by.higher_is_better else "min"
        self._best = _manager(workdir / "best", best_fn=lambda scores: scores[best_by.score], best_mode=better)
        best = self._best.best_step()
        self._best_scores = None if best is None else dict(self._best.metrics(best))

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        # However a run ends, what it saved last must reach the disk before the interpreter takes its threads away.
        self.close()

    def save(self, step: int, state: TrainState) -> None:
        """Starts to write the state after `step` updates; once a step.

        Raises:
          UserError: this save, or the one before it, could not be written.
        """
        if self._newest.latest_step() != step:
            self._save(self._newest, step, state)

    def save_if_best(
        self, step: int, state: TrainState, scores: Mapping[str, float], *, scored_on: Mapping[str, str] | None = None
    ) -> str | None:
        """Starts to write the state if it is better than all that were scored in the same way; process 0 decides.

        The best one before it goes. A best one that was scored in another way cannot be compared, and goes whatever its
        score; of a step that is scored once more and better, the scores are replaced.

        Args:
          step: updates made.
          state: after them.
          scores: by name.
          scored_on: what scores depend on beside the weights, by name ("metric", "data"); stored beside the scores. A
            best one that was stored without a name, as by older versions, counts as scored in the same way.

        Returns:
          A line that says that the best one before is forgotten since it was scored in another way; else None.

        Raises:
          UserError: as of `save`.
        """
        scored_on, best = dict(scored_on or {}), self._best_scores
        forgets = best is not None and any(best.get(name, value) != value for name, value in scored_on.items())
        better = best is None or forgets or self._is_better(scores, best)
        better, forgets = devices.of_first_process([better, forgets])  # floats may differ in their last bits
        if not better:
            return None
        with failed_write_as_user_error(Path(self._best.directory)):
            self._best.wait_until_finished()
            # Nothing is lost when the process is killed before the new one is whole: it is the newest checkpoint, too.
            for old in self._best.all_steps() if forgets else {step}.intersection(self._best.all_steps()):
                self._best.delete(old)
        self._best_scores = dict(scores) | scored_on
        self._save(self._best, step, state, metrics=self._best_scores)
        return forgotten(best, scored_on) if forgets else None

    def _is_better(self, scores: Mapping[str, float], best: Mapping[str, float]) -> bool:
        score, least = scores[self._best_by.score], best[self._best_by.score]
        return score > least if self._best_by.higher_is_better else score < least

    def _save(self, manager: ocp.CheckpointManager, step: int, state: TrainState, **options) -> None:
        items = {STATE: ocp.args.StandardSave(vars(state)), ABOUT: ocp.args.JsonSave(self._about)}
        with failed_write_as_user_error(Path(manager.directory)):
            manager.save(step, args=ocp.args.Composite(**items), force=True, **options)

    def reached_preemption(self, step: int) -> bool:
        """Whether the cluster is about to stop this run (SIGTERM at any of its processes); all agree on the step."""
        return self._newest.reached_preemption(step)

    def wait(self) -> None:
        """Returns when what was saved is on disk; raises UserError if it could not be written."""
        for manager in (self._newest, self._best):
            with failed_write_as_user_error(Path(manager.directory)):
                manager.wait_until_finished()

    def close(self) -> None:
        """Waits and frees the threads."""
        self.wait()
        self._newest.close()
        self._best.close()


def forgotten(old: Mapping[str, float | str], new: Mapping[str, str]) -> str:
    """A line about a best checkpoint whose scores cannot be compared with this run's."""
    before, now = (", ".join(f"{name} {scored.get(name, '?')}" for name in new) for scored in (old or {}, new))
    return f"the best checkpoint so far was scored by {before}; it is forgotten, since this run is scored by {now}"


def _manager(folder: Path, **options) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True, **options)
    return ocp.CheckpointManager(folder.resolve(), options=options)


@contextlib.contextmanager
def failed_write_as_user_error(folder: Path) -> Iterator[None]:
    """One line in place of orbax's and tensorstore's traces when the disk takes no more."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if not is_of_disk(error):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"cannot write a checkpoint under {folder}: {reason}; the last whole one stays, "
            "make room and start again on the same workdir"
        ) from error


def is_of_disk(error: BaseException) -> bool:
    """Whether an error says that files cannot be written; memory that runs out is a RuntimeError, too, of XLA."""
    return isinstance(error, OSError) or bool(OF_DISK.search(str(error)))


def restore(checkpoint: Path, like: TrainState) -> TrainState:
    """The state of a checkpoint.

    Args:
      checkpoint: its folder.
      like: shapes, dtypes and shardings to restore into (`jax.ShapeDtypeStruct`s).
    """
    return TrainState(**stored.restore_parts(checkpoint, vars(like)))
