"""The loop of a run: step, show, save, score, in the order they happen."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from san_jax import contact_sheet
from san_jax.errors import Stopped, UserError
from san_jax.training import checkpoints
from san_jax.training.checkpoints import Checkpoints
from san_jax.training.progress import Progress
from san_jax.training.run import Run
from san_jax.training.train_step import TrainState


def train(run: Run) -> TrainState:
    """Trains to the end; starts from the newest checkpoint of the workdir, if there is one.

    Raises:
      UserError: a loss or the state is not finite, or a checkpoint cannot be written.
      Stopped: somebody asked the run to stop; its state is saved.
    """
    state = start(run)
    step = int(jax.device_get(state.step))
    events = run.workdir / "events" if jax.process_index() == 0 else None
    with (
        asked_to_stop() as asked,
        Checkpoints(run.workdir, run.networks.architecture, best_by=run.scoring.best_by) as saved,
        Progress(events, start=step, total=run.total, batch_size=run.batch_size, rates=run.rates) as progress,
    ):
        for note in run.notes:
            progress.say(note)
        if step in run.score_at:  # stopped between a save and the scores that were due with it
            score(run, step, state, saved=saved, progress=progress)
        if step < run.total:
            progress.say("compiling the train step")
        for batch in run.batches(step):
            with jax.transfer_guard("disallow"):
                state, terms = run.step_of(step)(state, batch)
            progress.show(step, terms)
            step += 1
            stop = asked() or saved.reached_preemption(step)
            if stop or step in run.score_at or step % run.save_every == 0:
                progress.settle()
                check_finite(state, step)
                saved.save(step, state)
            if stop:
                raise Stopped(f"stopped after step {step}, which is saved; start again on {run.workdir} to go on")
            if step in run.score_at:
                score(run, step, state, saved=saved, progress=progress)
    return state


def start(run: Run) -> TrainState:
    """The newest checkpoint's state, or a fresh one."""
    newest = checkpoints.newest(run.workdir)
    if newest is None:
        return run.make_state()
    return checkpoints.restore(newest, run.state)


def score(run: Run, step: int, state: TrainState, *, saved: Checkpoints, progress: Progress) -> None:
    """Scores the state after `step` updates, and keeps it if it is the best so far on the first test set."""
    scores, sheet = run.scoring.score(vars(state))
    if scores:
        progress.say(f"scores after step {step}, {run.scoring.units}\n{run.scoring.as_table(scores)}")
        progress.add_scores(step, scores)
        saved.save_if_best(step, state, next(iter(scores.values())))
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
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT came since; a second one ends the process as usual.

    On several processes JAX watches for SIGTERM itself, so that all stop after the same step.
    """
    came = []

    def remember(number, _):
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    watched = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ()
    before = {number: signal.signal(number, remember) for number in watched}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
