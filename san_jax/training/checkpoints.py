"""Orbax checkpoints: the newest state of a run and the best by a score, each with a description of its networks."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from san_jax import devices, files
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.training import older_states
from san_jax.training.train_step import TrainState
from san_jax.training.working_copy import WorkingCopy
from san_jax.weights import checksums, stored
from san_jax.weights.checksums import CHECKSUMS, DESCRIPTION
from san_jax.weights.stored import ABOUT, MODE, PEOPLE, STATE

METRICS = "metrics"  # the item of a best checkpoint with its scores: a folder, and the file in it

# Matches tensorstore's messages about files that cannot be written; these errors have no type of their own.
OF_DISK = re.compile(r"os_error_code|OS error \d|Error writing|Failed writing|Failed to write|No space left")


class BestBy(NamedTuple):
    """The score that decides which of two states is better, and whether higher is better."""

    score: str
    higher_is_better: bool


BY_MAP = BestBy("mAP", higher_is_better=True)


class Checkpoints:
    """The checkpoints of one run, written atomically in the background.

    The newest and the best checkpoint have separate folders, with one checkpoint each, named by its step. The best one
    is made of the newest by hard links, so that its arrays are neither copied from the devices nor written twice.

    Args:
      workdir: folder of the run.
      architecture: architecture of the saved networks.
      mode: their mode; None stores no mode, and `stored.read_about` infers it from the saved arrays.
      people: what the outputs of the classifier stand for, as in `Source.people`; None stores nothing.
      best_by: decides which state is the best.
      copy: of a workdir in an object store; what is saved is sent there in the background. Every process has its own,
        and only the first saves.
    """

    def __init__(
        self,
        workdir: Path,
        architecture: Architecture,
        *,
        mode: str | None = None,
        people: Sequence[str] | None = None,
        best_by: BestBy = BY_MAP,
        copy: WorkingCopy | None = None,
    ):
        stored.check_name(workdir)
        self._about = dataclasses.asdict(architecture)
        if mode is not None:
            self._about[MODE] = mode
        if people is not None:
            self._about[PEOPLE] = list(people)
        self._copy, self._sending = copy, Sending()
        self._alone = copy is not None and jax.process_count() > 1
        writes = not self._alone or jax.process_index() == 0
        self._newest = _manager(workdir / "checkpoints", alone=self._alone) if writes else None
        self._best = workdir.resolve() / "best"
        self._best_by = best_by
        self._best_scores = _scores_of(stored.newest(workdir, best=True))

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
        if self._newest is None or self._newest.latest_step() == step:
            return
        # Of jax.Arrays on several processes orbax expects every process to write a part.
        arrays = jax.device_get(vars(state)) if self._alone else vars(state)
        items = {
            STATE: ocp.args.StandardSave(arrays),
            ABOUT: ocp.args.JsonSave(self._about),
            CHECKSUMS: ocp.args.JsonSave(self._checksums(arrays)),
        }
        with failed_write_as_user_error(Path(self._newest.directory)):
            self._sending.wait()  # it reads the checkpoint that this one replaces
            self._newest.save(step, args=ocp.args.Composite(**items), force=True)
        self._send()

    def _send(self) -> None:
        """Starts sending what was saved."""
        if self._copy is not None and self._newest is not None:
            self._sending.start(self._newest.wait_until_finished, self._copy.publish_if_possible)

    def _checksums(self, arrays: Mapping[str, PyTree]) -> dict[str, int]:
        """The checksums, on process 0, which writes them."""
        if jax.process_index():
            return {}
        return checksums.of_arrays(arrays) | {DESCRIPTION: checksums.of_description(self._about)}

    def keep_if_best(
        self, step: int, scores: Mapping[str, float], *, scored_on: Mapping[str, str] | None = None
    ) -> str | None:
        """Makes the newest checkpoint the best if it is better than all others scored in the same way.

        Process 0 decides. It replaces the previous best. A previous best that was scored in another way cannot be
        compared, and is replaced whatever its score. If the same step is scored again and better, its scores are
        replaced.

        Args:
          step: number of updates made, which the newest checkpoint holds.
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
        self.wait()
        self._best_scores = dict(scores) | scored_on
        refused = None
        if jax.process_index() == 0:
            try:
                self._link_best(step)
            except UserError as error:
                refused = error
        if devices.of_first_process([refused is not None])[0]:
            raise refused or UserError(f"process 0 cannot write the best checkpoint under {self._best}")
        self._send()
        return forgotten(best, scored_on) if forgets else None

    def _link_best(self, step: int) -> None:
        """Makes the newest checkpoint the best one too."""
        part = self._best / f"{step}.part"
        with failed_write_as_user_error(self._best):
            self._best.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            shutil.copytree(Path(self._newest.directory) / str(step), part, copy_function=link_or_copy)
            files.write(part / METRICS / METRICS, json.dumps(self._best_scores))
            # A kill between the next two lines loses nothing: the newest checkpoint is scored again at the next start.
            for old in [path for path in self._best.iterdir() if path.name.isdigit()]:
                shutil.rmtree(old)
            part.rename(self._best / str(step))

    def _is_better(self, scores: Mapping[str, float], best: Mapping[str, float]) -> bool:
        score, least = scores[self._best_by.score], best[self._best_by.score]
        return score > least if self._best_by.higher_is_better else score < least

    def reached_preemption(self, step: int) -> bool:
        """Whether the cluster is about to stop this run (SIGTERM to any process); all processes agree on the step."""
        return ocp.utils.reached_preemption(step)

    def wait(self) -> None:
        """Waits until all saves are on disk, and sent; raises a UserError if one could not be written."""
        if self._newest is not None:
            with failed_write_as_user_error(Path(self._newest.directory)):
                self._sending.wait()
                self._newest.wait_until_finished()

    def close(self) -> None:
        """Waits for all saves, sends the rest of a working copy, and ends orbax's threads."""
        try:
            self.wait()
        finally:
            if self._newest is not None:
                with failed_write_as_user_error(Path(self._newest.directory)):  # the error of a failed save, again
                    self._newest.close()
        if self._copy is not None:
            self._copy.publish()


class Sending:
    """At most one task in the background."""

    def __init__(self):
        self._pool, self._task = ThreadPoolExecutor(1), None

    def start(self, *functions: Callable[[], None]) -> None:
        """Calls functions one after the other in the background, once the previous task has ended."""
        self.wait()
        self._task = self._pool.submit(lambda: [function() for function in functions])

    def wait(self) -> None:
        """Waits for the task, and raises its error."""
        task, self._task = self._task, None
        if task is not None:
            task.result()


def _scores_of(best: Path | None) -> dict[str, float | str] | None:
    """What a best checkpoint was scored by, and the scores; None if there is none."""
    if best is None:
        return None
    with stored.unreadable_as_user_error(best):
        return dict(files.read_json(best / METRICS / METRICS))


def link_or_copy(source: str, target: str) -> None:
    """A hard link to a file; a copy on file systems without hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def forgotten(old: Mapping[str, float | str], new: Mapping[str, str]) -> str:
    """A line for the user about a best checkpoint whose scores cannot be compared with this run's."""
    before, now = (", ".join(f"{name} {scored.get(name, '?')}" for name in new) for scored in (old or {}, new))
    return f"the best checkpoint so far was scored by {before}; it is discarded, since this run is scored by {now}"


def _manager(folder: Path, *, alone: bool) -> ocp.CheckpointManager:
    """Of one process alone, or of all processes on a folder that they share."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
    if alone:
        folder.mkdir(parents=True, exist_ok=True)
        options.create = False  # orbax cannot with these:
        options.multiprocessing_options = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
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
    stored_shapes, wanted = stored.shapes(checkpoint), vars(like)
    older = [name for name in wanted if older_states.is_older(stored_shapes.get(name))]
    as_stored = {name: devices.with_sharding(stored_shapes[name], like.step.sharding) for name in older}
    parts = stored.restore_parts(checkpoint, wanted | as_stored)
    return TrainState(**parts | {name: older_states.converted(parts[name], wanted[name]) for name in older})
