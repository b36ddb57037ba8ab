"""Progress of a run: a bar on a terminal, plain lines elsewhere, scalars for TensorBoard."""

import collections
import math
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from san_jax.errors import UserError
from san_jax.training.curves import Curves

SECONDS_BETWEEN_LINES = 10.0
STEPS_BETWEEN_SCALARS = 10
STEPS_OF_MEAN = 100  # over which the reconstruction loss is averaged before it is compared with a constant texture
Terms = Mapping[str, Mapping[str, Float[Array, ""]]]


class Progress:
    """Shows and checks the loss terms of a run, one step late so that the devices never wait for the host.

    Args:
      folder: folder of the event files; None on processes that show nothing.
      start: number of steps made before.
      total: number of steps of the run.
      batch_size: pictures per step.
      constant_loss: reconstruction loss of the best constant texture, as from `constant_texture`; None without a
        decoder. The mean loss of the last STEPS_OF_MEAN steps is shown as a share of it, `recon_over_constant`: from 1
        on, nothing is learnt.
    """

    def __init__(
        self, folder: Path | None, *, start: int, total: int, batch_size: int, constant_loss: float | None = None
    ):
        self._outstanding: tuple[int, Terms] | None = None
        self._shows = folder is not None
        self._terminal = self._shows and sys.stderr.isatty()
        # Counts pictures, so that the bar shows pictures per second.
        self._bar = tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            unit=" pictures",
            unit_scale=True,
            disable=not self._terminal,
            dynamic_ncols=True,
        )
        self._start, self._total, self._batch_size = start, total, batch_size
        self._constant_loss, self._reconstructions = constant_loss, collections.deque(maxlen=STEPS_OF_MEAN)
        self.restart_clock(start)
        self._curves = Curves(folder, start=start, say=self.say) if self._shows else None

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._bar.close()
        if self._curves is not None:
            self._curves.close()

    def show(self, step: int, terms: Terms) -> None:
        """Takes the terms of a step that may still be running, and shows those of the previous step.

        Args:
          step: number of the step, from 0.
          terms: losses and learning rates by kind and name ({"loss": {"id": ...}, "rate": ...}), on the devices.

        Raises:
          UserError: a loss of the previous step was not finite.
        """
        previous, self._outstanding = self._outstanding, (step, terms)
        if previous is not None:
            self._show(*previous)

    def settle(self) -> None:
        """Waits for the last step that `show` was given, shows and checks it."""
        previous, self._outstanding = self._outstanding, None
        if previous is not None:
            self._show(*previous)

    def _show(self, step: int, terms: Terms) -> None:
        terms = jax.tree.map(float, jax.device_get(terms))
        losses = terms["loss"]
        check_finite(step, losses)
        if not self._shows:
            return
        if self._constant_loss:
            self._reconstructions.append(losses["reconstruction"])
            share = statistics.fmean(self._reconstructions) / self._constant_loss
            terms["ratio"] = {"recon_over_constant": share}
        shown = in_words(losses | terms.get("ratio", {}))
        if step % STEPS_BETWEEN_SCALARS == 0:
            for kind, numbers in terms.items():
                for name, value in numbers.items():
                    self._curves.scalar(f"{kind}/{name}", value, step)
        if step == self._start:
            self.restart_clock(step + 1)  # the first step includes compiling
        if self._terminal:
            self._bar.set_description_str(f"step {step + 1}/{self._total}", refresh=False)
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(self._batch_size)
        elif step in (self._start, self._total - 1) or time.monotonic() - self._since > SECONDS_BETWEEN_LINES:
            self.say(f"step {step + 1}/{self._total}  {shown}{self._speed(step + 1)}")

    def _speed(self, steps: int) -> str:
        """Pictures per second since the last line, and the remaining time at this speed."""
        pictures = (steps - self._since_step) * self._batch_size
        speed = pictures / max(time.monotonic() - self._since, 1e-6)
        self.restart_clock(steps)
        if not pictures:
            return ""
        left = tqdm.format_interval((self._total - steps) * self._batch_size / speed)
        return f"  {speed:.1f} pictures/s  {left} left"

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._terminal:
            self._bar.write(line)
        elif self._shows:
            print(line, flush=True)

    def add_scores(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Writes the scores after `step` updates, by test set, to TensorBoard."""
        if self._curves is not None:
            for data, numbers in scores.items():
                for name, value in numbers.items():
                    self._curves.scalar(f"{data}/{name}", value, step)
            self._curves.flush()

    def add_picture(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes a picture after `step` updates to TensorBoard."""
        if self._curves is not None:
            self._curves.picture(name, picture, step)
            self._curves.flush()

    def restart_clock(self, step: int) -> None:
        """Excludes a pause (scoring, compiling) from the reported speed."""
        self._since, self._since_step = time.monotonic(), step
        self._bar.unpause()


def in_words(terms: Mapping[str, float]) -> str:
    """Loss terms in one line: "id 6.64 triplet 0.31"."""
    return " ".join(f"{name} {value:.3g}" for name, value in terms.items())


def check_finite(step: int, terms: Mapping[str, float]) -> None:
    """Raises a UserError if a loss is NaN or infinite."""
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"loss {broken[0]} is {terms[broken[0]]} at step {step}; the last checkpoint is unaffected: lower "
            "reid.learning_rate or recon.learning_rate and start again on the same workdir"
        )
