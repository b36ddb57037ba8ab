"""The curves of a run, written as TensorBoard's event files.

tensorboardX's own writer hands events to a thread, which ends when the disk is full; the loop would then wait for it
for ever. So they are written here, by the format's own functions, and a run goes on without its curves.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from san_jax.errors import UserError

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event

SECONDS_BETWEEN_WRITES = 60.0


class Curves:
    """A new event file in a folder.

    Args:
      folder: created if it is missing.
      start: number of steps made before; what a killed run wrote of later ones is dropped by readers.
      say: prints a line, if the file can no longer be written.

    Raises:
      UserError: the file cannot be created.
    """

    def __init__(self, folder: Path, *, start: int, say: Callable[[str], None]):
        # Here, since it may be missing where only measurements are made.
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        self._folder, self._say, self._written = folder, say, time.monotonic()
        self._make_event = Event
        # Readers sort these names, which begin with the time.
        seconds, rest = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{rest:09d}.{os.getpid()}.{socket.gethostname()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = RecordWriter(str(folder / name))
        except OSError as error:
            raise UserError(f"cannot write {folder} ({error.strerror}); choose another --workdir") from error
        self._add(Event(step=start, file_version="brain.Event:2"))
        self._add(Event(step=start, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a value of a curve."""
        from tensorboardX import summary

        self._add(self._make_event(step=step, summary=summary.scalar(tag, value)))

    def picture(self, tag: str, picture: UInt8[np.ndarray, "H W 3"], step: int) -> None:
        """Adds a picture."""
        from tensorboardX import summary

        self._add(self._make_event(step=step, summary=summary.image(tag, picture, dataformats="HWC")))

    def _add(self, event: "Event") -> None:
        if self._file is None:
            return
        event.wall_time = time.time()
        try:
            self._file.write(event.SerializeToString())
            if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
                self.flush()
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Writes what was added to the disk."""
        self._written = time.monotonic()
        try:
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Writes the rest and closes the file."""
        self.flush()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _give_up(self, error: OSError) -> None:
        self._file = None
        self._say(
            f"curves cannot be written in {self._folder} ({error.strerror}); the run goes on, and they lack the steps "
            "from here to its next start"
        )
