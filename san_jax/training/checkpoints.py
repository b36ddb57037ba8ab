"""Orbax checkpoints: the newest state of a run and the best by a score, each with a description of its networks."""

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

# Matches tensorstore's messages about files that cannot be written; these errors have no type of their own.
OF_DISK = re.compile(r"os_error_code|OS error \d|Error writing|Failed writing|Failed to write|No space left")


class BestBy(NamedTuple):
    """The score that decides which of two states is better, and whether higher is better."""

    score: str
    higher_is_better: bool


BY_MAP = BestBy("mAP", higher_is_better=True)


class Checkpoints:
    """The checkpoints of one run, written atomically in the background.

    The newest and the best checkpoint have separate folders, with one checkpoint each, named by its step.

    Args:
      workdir: folder of the run.
      architecture: architecture of the saved networks.
      mode: their mode; None stores no mode, and `stored.read_about` infers it from the saved arrays.
      best_by: decides which state is the best.
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
        # However a run ends, its last save must reach the disk before the interpreter shuts down orbax's threads.
        self.close()

    def save(self, step: int, state: TrainState) -> None:
        """Starts writing the state after `step` updates, unless that step is saved already.

        Raises:
          UserError: this save, or the previous one, could not be written.
        """
        if self._newest.latest_step() != step:
            self._save(self._newest, step, state)

    def save_if_best(
        self, step: int, state: TrainState, scores: Mapping[str, float], *, scored_on: Mapping[str, str] | None = None
    ) -> str | None:
        """Starts writing the state if it is better than all others scored in the same way; process 0 decides.

        It replaces the previous best. A previous best that was scored in another way cannot be compared, and is
        replaced whatever its score. If the same step is scored again and better, its scores are replaced.

        Args:
          step: number of updates made.
          state: the state after them.
          scores: score name -> value.
          scored_on: what the scores depend on besides the weights, by name ("metric", "data"); stored with the scores.
            A name that is missing from the stored best, as in older versions, counts as equal.

        Returns:
          A line saying that the previous best was discarded because it was scored in another way; otherwise None.

        Raises:
          UserError: as for `save`.
        """
        scored_on, best = dict(scored_on or {}), self._best_scores
        forgets = best is not None and any(best.get(name, value) != value for name, value in scored_on.items())
        better = best is None or forgets or self._is_better(scores, best)
        better, forgets = devices.of_first_process([better, forgets])  # last bits may differ
        if not better:
            return None
        with failed_write_as_user_error(Path(self._best.directory)):
            self._best.wait_until_finished()
            # A kill before the new one is complete loses nothing: the same state is the newest checkpoint, too.
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
        """Whether the cluster is about to stop this run (SIGTERM to any process); all processes agree on the step."""
        return self._newest.reached_preemption(step)

    def wait(self) -> None:
        """Waits until all saves are on disk; raises a UserError if one could not be written."""
        for manager in (self._newest, self._best):
            with failed_write_as_user_error(Path(manager.directory)):
                manager.wait_until_finished()

    def close(self) -> None:
        """Waits for all saves and ends orbax's threads."""
        self.wait()
        self._newest.close()
        self._best.close()


def forgotten(old: Mapping[str, float | str], new: Mapping[str, str]) -> str:
    """A line for the user about a best checkpoint whose scores cannot be compared with this run's."""
    before, now = (", ".join(f"{name} {scored.get(name, '?')}" for name in new) for scored in (old or {}, new))
    return f"the best checkpoint so far was scored by {before}; it is discarded, since this run is scored by {now}"


def _manager(folder: Path, **options) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True, **options)
    return ocp.CheckpointManager(folder.resolve(), options=options)


@contextlib.contextmanager
def failed_write_as_user_error(folder: Path) -> Iterator[None]:
    """Turns orbax's and tensorstore's errors about files that cannot be written into one-line UserErrors."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if not is_of_disk(error):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"cannot write a checkpoint under {folder}: {reason}; the last complete one "
            "is kept, free some space and start again on the same workdir"
        ) from error


def is_of_disk(error: BaseException) -> bool:
    """Whether an error says that files cannot be written; XLA raises RuntimeErrors too, as when memory runs out."""
    return isinstance(error, OSError) or bool(OF_DISK.search(str(error)))


def restore(checkpoint: Path, like: TrainState) -> TrainState:
    """Restores the state of a checkpoint.

    Args:
      checkpoint: folder of the checkpoint.
      like: shapes, dtypes and shardings to restore into (`jax.ShapeDtypeStruct`s).
    """
    return TrainState(**stored.restore_parts(checkpoint, vars(like)))
