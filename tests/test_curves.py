import errno
import os

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from san_jax.errors import UserError
from san_jax.report import event_files
from san_jax.training.curves import Curves

said = []


def curves_in(folder, *, start=0):
    said.clear()
    return Curves(folder, start=start, say=said.append)


def test_scalars_are_read_back_and_those_of_a_killed_run_after_its_last_checkpoint_are_dropped(tmp_path):
    first = curves_in(tmp_path / "events")
    for step in range(4):
        first.scalar("loss/id", step / 2, step)
    first.close()
    second = curves_in(tmp_path / "events", start=2)
    second.scalar("loss/id", 9.0, 2)
    second.close()
    assert event_files.read_scalars(tmp_path / "events") == {"loss/id": {0: 0.0, 1: 0.5, 2: 9.0}}
    assert said == []


def test_picture_is_written_as_png(tmp_path):
    curves = curves_in(tmp_path)
    curves.picture("drawn", np.zeros((4, 6, 3), np.uint8), 7)
    curves.close()
    [path] = tmp_path.iterdir()
    events = [event for event in event_files._events(path.read_bytes()) if event.summary.value]
    assert isinstance(events[0], Event)
    assert (events[0].step, events[0].summary.value[0].image.width) == (7, 6)
    assert events[0].summary.value[0].image.encoded_image_string.startswith(b"\x89PNG")


def test_full_disk_is_one_line_and_nothing_waits(tmp_path, monkeypatch):
    curves = curves_in(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    curves.scalar("loss/id", 1.0, 0)
    for step in range(1, 100):
        curves.flush()
        curves.scalar("loss/id", 1.0, step)
    curves.close()
    [line] = said
    assert line.startswith(f"curves cannot be written in {tmp_path} (No space left on device); the run goes on")


def test_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/events \(Not a directory\); choose another --workdir"):
        curves_in(tmp_path / "file" / "events")
