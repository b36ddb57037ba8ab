import time

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from san_jax.errors import UserError
from san_jax.report import event_files
from san_jax.training.progress import Progress


def scalars(folder):
    """(tag, step) of all scalars in a folder's event files, and the steps from which earlier events are purged."""
    found, purged = [], []
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step) for value in event.summary.value]
            purged += [event.step] if event.HasField("session_log") else []
            at += 16 + length
    return found, purged


def terms(loss):
    return {"loss": {"id": jnp.float32(loss)}, "rate": {"reid": jnp.float32(1e-3)}}


def run(folder, start, stop, total=40, loss=1.0):
    with Progress(folder, start=start, total=total, batch_size=8) as progress:
        for step in range(start, stop):
            progress.show(step, terms(loss))
        progress.settle()


def test_printed_lines_show_step_loss_terms_and_speed(tmp_path, capsys):
    run(tmp_path, 0, 40)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "step 1/40  id 1"
    assert last.startswith("step 40/40  id 1  ")
    assert last.endswith(" pictures/s  00:00 left")


def test_scalars_after_a_resumed_step_are_purged(tmp_path):
    run(tmp_path, 0, 25)
    time.sleep(1.1)  # event files are named by the second
    run(tmp_path, 20, 40)
    found, purged = scalars(tmp_path)
    assert purged[-1] == 20
    assert [step for tag, step in found if tag == "loss/id"] == [0, 10, 20, 20, 30]
    assert ("rate/reid", 30) in found


def test_picture_is_shown_at_its_step(tmp_path):
    with Progress(tmp_path, start=0, total=4, batch_size=8) as progress:
        progress.add_picture(3, "textures", np.zeros((4, 6, 3), np.uint8))
    assert scalars(tmp_path)[0] == [("textures", 3)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_non_finite_loss_stops_the_run_and_names_step_and_term(tmp_path, loss):
    with pytest.raises(UserError, match=r"loss id is (nan|inf) at step 3; .*learning_rate"):
        run(tmp_path, 3, 5, loss=loss)


def test_terms_are_read_one_step_late(tmp_path):
    with Progress(tmp_path, start=0, total=4, batch_size=8) as progress:
        progress.show(0, terms("nan"))
        with pytest.raises(UserError, match="at step 0"):
            progress.show(1, terms(1))


def test_process_without_output_still_checks_the_loss(capsys):
    run(None, 0, 3)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError):
        run(None, 0, 3, loss=float("nan"))


def test_reconstruction_is_shown_beside_that_of_a_constant_texture(tmp_path, capsys):
    """The mean of the last hundred steps, as a share of the constant's."""
    with Progress(tmp_path, start=0, total=121, batch_size=8, constant_loss=0.4) as progress:
        for step in range(121):
            loss = 2.0 if step < 21 else 0.3
            progress.show(step, {"loss": {"reconstruction": jnp.float32(loss)}, "rate": {"recon": jnp.float32(1e-3)}})
        progress.settle()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "step 1/121  reconstruction 2 recon_over_constant 5"
    assert last.startswith("step 121/121  reconstruction 0.3 recon_over_constant 0.75  ")
    assert ("ratio/recon_over_constant", 120) in scalars(tmp_path)[0]
    assert event_files.over_constant(tmp_path, step=121) == pytest.approx(0.75)
    assert event_files.over_constant(tmp_path, step=120) > 0.75
    assert event_files.over_constant(tmp_path, step=0) is None
