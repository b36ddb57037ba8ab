"""Checkpoints by orbax: a run's newest state and its best by a score, each with a description of its networks."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import orbax.checkpoint as ocp

from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.training.train_step import TrainState
from san_jax.weights import stored
from san_jax.weights.stored import ABOUT, STATE


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
      best_by: says which state is the best.
    """

    def __init__(self, workdir: Path, architecture: Architecture, *, best_by: BestBy = BY_MAP):
        self._about = dataclasses.asdict(architecture)
        self._newest = _manager(workdir / "checkpoints")
        self._best_by = best_by
        mode = "max" if best_by.higher_is_better else "min"
        self._best = _manager(workdir / "best", best_fn=lambda scores: scores[best_by.score], best_mode=mode)
        best = self._best.best_step()
        self._best_score = None if best is None else self._best.metrics(best)[best_by.score]

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

    def save_if_best(self, step: int, state: TrainState, scores: Mapping[str, float]) -> None:
        """Likewise, if it is better than all that were scored; the one before it goes when this is whole."""
        score, best = scores[self._best_by.score], self._best_score
        if best is None or (score > best if self._best_by.higher_is_better else score < best):
            self._best_score = score
            self._save(self._best, step, state, metrics=dict(scores))

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


def _manager(folder: Path, **options) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True, **options)
    return ocp.CheckpointManager(folder.resolve(), options=options)


@contextlib.contextmanager
def failed_write_as_user_error(folder: Path) -> Iterator[None]:
    """One line in place of orbax's and tensorstore's traces when the disk takes no more."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"cannot write a checkpoint under {folder}: {reason}; the last whole one stays, "
            "make room and start again on the same workdir"
        ) from error


def restore(checkpoint: Path, like: TrainState) -> TrainState:
    """The state of a checkpoint.

    Args:
      checkpoint: its folder.
      like: shapes, dtypes and shardings to restore into (`jax.ShapeDtypeStruct`s).
    """
    return TrainState(**stored.restore_parts(checkpoint, vars(like)))
