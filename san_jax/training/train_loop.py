"""The training loop of a run: steps, progress, checkpoints and scores."""

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from san_jax import devices, remote
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.process import lock, stopping
from san_jax.training import checkpoints, resuming, run_config
from san_jax.training.checkpoints import Checkpoints
from san_jax.training.progress import Progress
from san_jax.training.run import Run
from san_jax.training.train_step import TrainState
from san_jax.training.working_copy import WorkingCopy

STEPS_BETWEEN_DECISIONS = 10  # of several processes, whether a checkpoint is due by time: they wait for each other
LOCK = "lock"  # file in the workdir that names the process that trains there


def train(run: Run, *, profiled: range = range(0), copy: WorkingCopy | None = None) -> TrainState:
    """Trains to the end, from the newest checkpoint of the workdir if there is one.

    Args:
      run: what is trained.
      profiled: steps that are recorded by JAX's profiler, in the folder `profile` of the workdir.
      copy: whose folder the workdir is, if the run is in an object store.

    Raises:
      UserError: a loss or the state is not finite, a checkpoint cannot be read or written, or another process trains
        in the workdir.
      Stopped: a signal asked the run to stop; its state is saved.
    """
    with held_workdir(run.workdir, shared=copy is None), stopping.remembered() as stop:
        return _train(run, stop, profiled, copy)


def _train(run: Run, stop: stopping.Stop, profiled: range, copy: WorkingCopy | None) -> TrainState:
    with out_of_memory_as_user_error(run):
        state = start(run)
        run_config.keep(run.config, run.workdir)  # only now, so that a failed restore leaves the run unchanged
        if copy is not None:  # fails now, rather than after hours, if the store cannot be written
            _by_first_process(run.workdir, copy.publish)
        step = int(jax.device_get(state.step))
        feed = run.open_feed() if step < run.total else None
    events = run.workdir / "events" if jax.process_index() == 0 else None
    constant_loss = run.constant_loss() if feed and events and run.constant_loss else None
    sizes = dict(start=step, total=run.total, batch_size=run.batch_size)
    with (
        checkpoints_of(run, copy) as saved,
        Progress(events, **sizes, constant_loss=constant_loss) as progress,
        Profiler(run.workdir / "profile", profiled, settle=progress.settle) as profiler,
    ):
        for note in (*run.notes, *([feed.note] if feed else [])):
            progress.say(note)
        if step >= run.total:
            progress.say(nothing_left(run, step))
        if step >= run.total or step in run.score_at:  # the latter: it was stopped after the save, before the scoring
            score(run, step, state, saved=saved, progress=progress)
        if step < run.total:
            progress.say("compiling the train step")
        clock = SaveClock(run.config.schedule.save_minutes)
        feeds = feed.batches(step) if feed else ()
        while step < run.total:
            with jax.transfer_guard("disallow"), out_of_memory_as_user_error(run), profiler.step(step):
                state, terms = run.step_of(step)(state, next(feeds))
                stop.unsaved = True
                progress.show(step, terms)
            step += 1
            stops = saved.reached_preemption(step) or (stop.asked and jax.process_count() == 1)
            pauses = step in run.score_at or (step < run.total and run.step_of(step) is not run.step_of(step - 1))
            if stops or pauses or run.is_saved_at(step) or clock.is_due(step):
                progress.settle()
                check_finite(state, step)
                saved.save(step, state)
                clock.restart()
            if stops:
                workdir = remote.named(run.workdir)
                raise stop.error(f"stopped after step {step}, which is saved; start again on {workdir} to resume")
            if pauses:  # scoring or compiling may take minutes; once all is saved, a signal ends the process at once
                saved.wait()
                stop.unsaved = False
            if step in run.score_at:
                score(run, step, state, saved=saved, progress=progress)
    return state


class SaveClock:
    """Tells when a checkpoint is due by time; process 0 decides for all.

    Args:
      minutes: from one checkpoint to the next; 0 = never due.
    """

    def __init__(self, minutes: float):
        self._seconds = 60 * minutes
        self.restart()

    def restart(self) -> None:
        """A checkpoint was saved now."""
        self._since = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether one is due after `step` updates. Several processes agree on it every STEPS_BETWEEN_DECISIONS."""
        if not self._seconds or (jax.process_count() > 1 and step % STEPS_BETWEEN_DECISIONS):
            return False
        return bool(devices.of_first_process([time.monotonic() - self._since >= self._seconds])[0])


class Profiler:
    """Records steps with JAX's profiler, for TensorBoard and xprof.

    Args:
      folder: of the recording; every process writes its own file there.
      steps: the steps to record; those before the start of the loop are left out.
      settle: waits until the devices have finished all steps, so that the last one is recorded whole.
    """

    def __init__(self, folder: Path, steps: range, *, settle: Callable[[], None]):
        self._folder, self._steps, self._settle, self._runs = folder, steps, settle, False

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._stop()

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around a step; its number is shown in the recording."""
        if step in self._steps and not self._runs:
            jax.profiler.start_trace(self._folder)
            self._runs = True
        elif step >= self._steps.stop and self._runs:
            self._settle()
            self._stop()
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def _stop(self) -> None:
        if self._runs:
            jax.profiler.stop_trace()
            self._runs = False


@contextlib.contextmanager
def out_of_memory_as_user_error(run: Run) -> Iterator[None]:
    """Turns XLA's error about a device without memory into one line; the last checkpoint is unaffected."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(
            f"the devices have too little memory for a step of {run.batch_size} pictures; lower batch.identities, now "
            f"{run.config.batch.identities}, or set compute_dtype to bfloat16 or data.cache to host, and start again "
            "on the same workdir"
        ) from error


def nothing_left(run: Run, step: int) -> str:
    """A line for the user about a run whose state is at the last step of its config, or past it."""
    where = "is at its last step" if step == run.total else f"is past the last step of this config, {run.total}"
    workdir = remote.named(run.workdir)
    return f"{workdir} {where}: {step} steps are done and none are left; raise schedule.epochs to train on"


@contextlib.contextmanager
def held_workdir(workdir: Path, *, shared: bool = True) -> Iterator[None]:
    """Locks the workdir against other runs; process 0 takes the lock, and all processes fail if it cannot.

    Args:
      workdir: the folder.
      shared: whether it must be one folder for all processes, as it must unless each has a copy of its own.

    Raises:
      UserError: another process trains there, or the processes do not share the workdir.
    """
    with contextlib.ExitStack() as stack:
        _by_first_process(workdir, lambda: stack.enter_context(lock.held(workdir / LOCK, what="a training")))
        if shared:
            check_shared(workdir)
        yield


def check_shared(workdir: Path, *, seconds: float = 10.0) -> None:
    """Checks that all processes see the file with which process 0 has locked the workdir; they must call it together.

    Args:
      workdir: the workdir, locked.
      seconds: how long network file systems may take to show what another host has written.

    Raises:
      UserError: a process does not see it.
    """
    [expected] = devices.of_first_process([_digest(workdir / LOCK)])
    until = time.monotonic() + seconds
    while (sees := _digest(workdir / LOCK) == expected) is False and time.monotonic() < until:
        time.sleep(0.1)
    blind = [index for index, each in enumerate(devices.of_all_processes(int(sees))) if not each]
    if blind:
        raise UserError(
            f"what process 0 writes into {workdir} is not seen by process {blind[0]}: the workdir must be one folder "
            "that all hosts share"
        )


def _digest(path: Path) -> int:
    """A number of 31 bits that tells the contents of files apart; -1 if there is no file."""
    return zlib.crc32(path.read_bytes()) >> 1 if path.exists() else -1


def check_free(workdir: Path) -> None:
    """Checks that no other run trains in a workdir, before its checkpoints are read or data are prepared in vain.

    Raises:
      UserError: another process trains there.
    """
    _by_first_process(workdir, lambda: lock.check_free(workdir / LOCK))


def _by_first_process(workdir: Path, uses: Callable[[], None]) -> None:
    """Calls a function in process 0; if it raises a UserError there, every process raises one."""
    refused = None
    if jax.process_index() == 0:
        try:
            uses()
        except UserError as error:
            refused = error
    if devices.of_first_process([refused is not None])[0]:
        raise refused or UserError(f"process 0 cannot use {workdir}; its message says why")


def checkpoints_of(run: Run, copy: WorkingCopy | None = None) -> Checkpoints:
    """Opens the checkpoints of a run."""
    how = dict(mode=run.networks.mode, people=run.people, best_by=run.validation.best_by, copy=copy)
    return Checkpoints(run.workdir, run.networks.architecture, **how)


def start(run: Run) -> TrainState:
    """The newest checkpoint's state, or a fresh one.

    Raises:
      UserError: the checkpoint cannot be read, or the processes do not see the same one.
    """
    newest = resuming.newest_of_all(run.workdir)
    return run.make_state() if newest is None else checkpoints.restore(newest, run.state)


def score(run: Run, step: int, state: TrainState, *, saved: Checkpoints, progress: Progress) -> None:
    """Scores the saved state after `step` updates, and keeps it as the best if it is, by the first test set."""
    scores, sheet = run.validation.score(vars(state))
    if scores:
        progress.say(f"scores after step {step}, {run.validation.units}\n{run.validation.as_table(scores)}")
        progress.add_scores(step, scores)
        data, of_first_set = next(iter(scores.items()))
        scored_on = {"metric": run.validation.metric, "data": data}
        if forgotten := saved.keep_if_best(step, of_first_set, scored_on=scored_on):
            progress.say(forgotten)
    if sheet is not None:
        show_sheet(run, step, sheet, progress=progress)
    progress.restart_clock(step)


def show_sheet(run: Run, step: int, sheet: UInt8[np.ndarray, "H W 3"], *, progress: Progress) -> None:
    """Writes a contact sheet of textures after `step` updates to TensorBoard and into the workdir."""
    progress.add_picture(step, "textures", sheet)
    if jax.process_index() == 0:
        contact_sheet.save(run.workdir / "textures" / f"step_{step:06d}.png", sheet)


@jax.jit
def all_finite(state: TrainState) -> Bool[Array, ""]:
    """Whether every number of the state is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def check_finite(state: TrainState, step: int) -> None:
    """Raises a UserError if the state is not finite, before it replaces the last checkpoint."""
    if not jax.device_get(all_finite(state)):
        raise UserError(
            f"the weights are not finite after step {step}; the last checkpoint is unaffected: lower "
            "reid.learning_rate or recon.learning_rate and start again on the same workdir"
        )
