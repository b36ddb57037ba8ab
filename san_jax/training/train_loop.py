"""The loop of a run: step, show, save, score, in the order they happen."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from san_jax import devices, files
from san_jax.drawing import contact_sheet
from san_jax.errors import Stopped, UserError
from san_jax.training import checkpoints, run_config
from san_jax.training.checkpoints import Checkpoints
from san_jax.training.progress import Progress
from san_jax.training.run import Run
from san_jax.training.train_step import TrainState
from san_jax.weights import stored

LOCK = "lock"  # the file of a workdir that says which process trains there


def train(run: Run) -> TrainState:
    """Trains to the end; starts from the newest checkpoint of the workdir, if there is one.

    Raises:
      UserError: a loss or the state is not finite, a checkpoint cannot be read or written, or another process trains
        in the workdir.
      Stopped: somebody asked the run to stop; its state is saved.
    """
    with locked_workdir(run.workdir):
        return _train(run)


def _train(run: Run) -> TrainState:
    state = start(run)
    run_config.keep(run.config, run.workdir)  # only now: a state that cannot be restored leaves the run as it was
    step = int(jax.device_get(state.step))
    events = run.workdir / "events" if jax.process_index() == 0 else None
    with (
        asked_to_stop() as asked,
        checkpoints_of(run) as saved,
        Progress(events, start=step, total=run.total, batch_size=run.batch_size, rates=run.rates) as progress,
    ):
        for note in run.notes:
            progress.say(note)
        if step >= run.total:
            progress.say(nothing_left(run, step))
        if step >= run.total or step in run.score_at:  # the latter: stopped between a save and the scores due with it
            score(run, step, state, saved=saved, progress=progress)
        if step < run.total:
            progress.say("compiling the train step")
        for batch in run.batches(step) if step < run.total else ():
            with jax.transfer_guard("disallow"):
                state, terms = run.step_of(step)(state, batch)
            progress.show(step, terms)
            step += 1
            preempted = saved.reached_preemption(step)
            stop = asked() or (signal.SIGTERM if preempted else None)
            if stop or run.is_saved_at(step):
                progress.settle()
                check_finite(state, step)
                saved.save(step, state)
            if stop:
                line = f"stopped after step {step}, which is saved; start again on {run.workdir} to go on"
                raise Stopped(line, stop)
            if step in run.score_at:
                score(run, step, state, saved=saved, progress=progress)
    return state


@contextlib.contextmanager
def locked_workdir(workdir: Path) -> Iterator[None]:
    """Holds the workdir against other runs: process 0 does, and all processes end where it cannot.

    Raises:
      UserError: another process trains there.
    """
    refused = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                stack.enter_context(files.locked(workdir / LOCK, what="a training"))
            except UserError as error:
                refused = error
        if devices.of_first_process([refused is not None])[0]:
            raise refused or UserError(f"{workdir} is in use by another process, as process 0 says")
        yield


def nothing_left(run: Run, step: int) -> str:
    """A line about a run whose state is at its config's last step, or past it."""
    where = "is at its last step" if step == run.total else f"is past its last step, {run.total} by this config"
    return f"{run.workdir} {where}: {step} steps are made and none is left; raise schedule.epochs to go on"


def checkpoints_of(run: Run) -> Checkpoints:
    """The checkpoints of a run."""
    networks = run.networks
    return Checkpoints(run.workdir, networks.architecture, mode=networks.mode, best_by=run.scoring.best_by)


def start(run: Run) -> TrainState:
    """The newest checkpoint's state, or a fresh one."""
    newest = stored.newest(run.workdir)
    if newest is None:
        return run.make_state()
    return checkpoints.restore(newest, run.state)


def score(run: Run, step: int, state: TrainState, *, saved: Checkpoints, progress: Progress) -> None:
    """Scores the state after `step` updates, and keeps it if it is the best so far on the first test set."""
    scores, sheet = run.scoring.score(vars(state))
    if scores:
        progress.say(f"scores after step {step}, {run.scoring.units}\n{run.scoring.as_table(scores)}")
        progress.add_scores(step, scores)
        data, of_first_set = next(iter(scores.items()))
        scored_on = {"metric": run.scoring.metric, "data": data}
        if forgotten := saved.save_if_best(step, state, of_first_set, scored_on=scored_on):
            progress.say(forgotten)
    if sheet is not None:
        show_sheet(run, step, sheet, progress=progress)
    progress.restart_clock(step)


def show_sheet(run: Run, step: int, sheet: UInt8[np.ndarray, "H W 3"], *, progress: Progress) -> None:
    """What the state after `step` updates draws, for TensorBoard and as a file of the workdir."""
    progress.add_picture(step, "textures", sheet)
    if jax.process_index() == 0:
        contact_sheet.save(run.workdir / "textures" / f"step_{step:06d}.png", sheet)


@jax.jit
def all_finite(state: TrainState) -> Bool[Array, ""]:
    """Whether every number of the state is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def check_finite(state: TrainState, step: int) -> None:
    """Raises a UserError before a broken state is saved over a good one."""
    if not jax.device_get(all_finite(state)):
        raise UserError(
            f"the weights are not finite after step {step}; the last checkpoint is from before: lower "
            "reid.learning_rate or recon.learning_rate and start again on the same workdir"
        )


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], int | None]]:
    """The signal that came since, SIGTERM or SIGINT, or None; a second one ends the process as usual.

    On several processes JAX watches for SIGTERM itself, so that all stop after the same step. Outside the main thread,
    where Python takes no handlers, signals stay as they are.
    """
    came = []

    def remember(number, _):
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    watches = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT) if watches}
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
