import time

import jax.numpy as jnp
import pytest

from san_jax.report.event_files import read_scalars
from san_jax.training.progress import Progress


def run(folder, start, stop, loss):
    with Progress(folder, start=start, total=40, batch_size=8) as progress:
        for step in range(start, stop):
            progress.show(step, {"loss": {"id": jnp.float32(loss)}, "rate": {"reid": jnp.float32(0.5)}})
        progress.settle()
        progress.add_scores(stop, {"cuhk03/labeled": {"mAP": 0.25}})


def test_scalars_are_read_by_tag_and_step(tmp_path):
    run(tmp_path, 0, 25, loss=3.0)
    assert read_scalars(tmp_path) == {
        "loss/id": {0: 3.0, 10: 3.0, 20: 3.0},
        "rate/reid": {0: 0.5, 10: 0.5, 20: 0.5},
        "cuhk03/labeled/mAP": {25: 0.25},
    }


def test_steps_repeated_after_a_kill_count_once_with_their_later_value(tmp_path):
    run(tmp_path, 0, 35, loss=3.0)
    time.sleep(1.1)  # event files are named by the second
    run(tmp_path, 15, 25, loss=2.0)
    found = read_scalars(tmp_path)
    assert found["loss/id"] == {0: 3.0, 10: 3.0, 20: 2.0}
    assert list(found["cuhk03/labeled/mAP"]) == [25]


@pytest.mark.parametrize("cut", [1, 5, 17, 40])
def test_truncated_last_record_is_left_out(tmp_path, cut):
    run(tmp_path, 0, 25, loss=3.0)
    whole = read_scalars(tmp_path)
    [path] = tmp_path.glob("*")
    path.write_bytes(path.read_bytes()[:-cut])
    found = read_scalars(tmp_path)
    assert found["loss/id"] == whole["loss/id"]
    assert "cuhk03/labeled/mAP" not in found


def test_file_is_read_up_to_the_first_corrupt_record(tmp_path):
    run(tmp_path, 0, 25, loss=3.0)
    whole = read_scalars(tmp_path)
    [path] = tmp_path.glob("*")
    path.write_bytes(path.read_bytes() + (3).to_bytes(8, "little") + b"\xff" * 40)
    assert read_scalars(tmp_path) == whole


def test_missing_folder_has_no_scalars(tmp_path):
    assert read_scalars(tmp_path / "events") == {}
