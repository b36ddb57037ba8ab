"""Reads TensorBoard's event files without TensorBoard."""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboardX.proto.event_pb2 import Event

# A record of an event file: length (8 bytes), its checksum (4), the event, its checksum (4).
HEADER, FOOTER = 12, 4
OVER_CONSTANT = "ratio/recon_over_constant"  # tag of what `progress.Progress` calls recon_over_constant


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of a run: tag -> step -> value, steps ascending.

    A run that was resumed from a checkpoint has logged some steps twice; the later values count. A record cut off by a
    kill is ignored, with everything after it in its file. A missing folder has no scalars.
    """
    scalars: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("[!.]*tfevents*")):  # their names start with the time
        for event in _events(path.read_bytes()):
            if event.HasField("session_log"):
                scalars = {tag: _before(event.step, values) for tag, values in scalars.items()}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    return {tag: dict(sorted(values.items())) for tag, values in scalars.items() if values}


def over_constant(folder: Path, step: int) -> float | None:
    """The last `recon_over_constant` that a run logged before `step` updates were made; None if there is none."""
    shares = _before(step, read_scalars(folder).get(OVER_CONSTANT, {}))
    return list(shares.values())[-1] if shares else None


def _before(step: int, values: dict[int, float]) -> dict[int, float]:
    return {at: value for at, value in values.items() if at < step}


def _events(data: bytes) -> Iterator[Event]:
    place = 0
    while place + HEADER <= len(data):
        start = place + HEADER
        end = start + int.from_bytes(data[place : place + 8], "little")
        if end + FOOTER > len(data):
            return
        try:
            yield Event.FromString(data[start:end])
        except DecodeError:
            return
        place = end + FOOTER
