import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from commands import ROOT
from runs import PEOPLE, config_of

from configs import baseline
from san_jax import devices
from san_jax.data.input_pipeline import WAYS
from san_jax.errors import UserError
from san_jax.training import run, train_loop
from san_jax.training.train_loop import Profiler, SaveClock
from san_jax.weights import stored


def test_second_run_in_a_workdir_is_refused_with_pid_and_host_of_the_first(tmp_path):
    holder = "import sys, time; from pathlib import Path; from san_jax.process import lock\n"
    holder += "with lock.held(Path(sys.argv[1]), what='a training'): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", holder, tmp_path / "run" / train_loop.LOCK]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        said = rf"{tmp_path}/run is in use by a training, pid {process.pid} on {re.escape(socket.gethostname())}, since"
        with pytest.raises(UserError, match=said), train_loop.held_workdir(tmp_path / "run"):
            pass
        process.kill()
        process.wait()
        with train_loop.held_workdir(tmp_path / "run"):  # a dead process holds no lock
            assert f"pid {os.getpid()}" in (tmp_path / "run" / train_loop.LOCK).read_text()
    assert (tmp_path / "run" / train_loop.LOCK).read_text() == ""


@pytest.mark.parametrize("there", [None, "a training, pid 2 on host1", ""])
def test_workdir_that_another_process_does_not_share_is_refused(there, tmp_path, monkeypatch):
    """This process stands for the second one of two, with a folder of its own under the same name."""
    held = tmp_path / train_loop.LOCK
    held.write_text("a training, pid 1 on host0")
    of_first = train_loop._digest(held)
    monkeypatch.setattr(devices, "of_first_process", lambda numbers: [of_first])
    monkeypatch.setattr(devices, "of_all_processes", lambda number: [1, number])
    train_loop.check_shared(tmp_path, seconds=0.1)
    held.unlink()
    if there is not None:
        held.write_text(there)
    with pytest.raises(UserError, match="is not seen by process 1: the workdir must be one folder"):
        train_loop.check_shared(tmp_path, seconds=0.1)


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_ctrl_c_while_a_command_starts_prints_no_traceback(seconds):
    """During the import of its modules, or at the beginning of its work."""
    command = [sys.executable, "search.py", "--checkpoint=/nowhere", "--gallery=/nowhere", "--query=/nowhere"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    # On a busy machine Python itself may still be starting, before the first line of the command.
    assert "Traceback" not in errors or "search.py" not in errors
    assert process.returncode in (-signal.SIGINT, 130, 1)  # 1: it had already found that there is no checkpoint


def test_checkpoint_is_due_when_the_last_one_is_old_enough(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock, never = SaveClock(0.5), SaveClock(0.0)
    for seconds, due in ((29, False), (1, True), (5, True)):
        now[0] += seconds
        assert clock.is_due(7) == due
        assert not never.is_due(7)
    clock.restart()
    assert not clock.is_due(8)


def test_processes_agree_on_the_clock_of_the_first_only_at_some_steps(monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(devices, "of_first_process", lambda numbers: asked.append(numbers) or [True])
    clock = SaveClock(60.0)
    assert [step for step in range(25) if clock.is_due(step)] == [0, 10, 20]
    assert asked == [[False]] * 3


def small_run(workdir, **fields):
    config = config_of(baseline, **{"schedule.eval_every": 0, "schedule.epochs": 2, **fields})
    return run.build(config, workdir, source=PEOPLE, test_sets=[], mesh=devices.make_mesh())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_run_saves_by_time_and_records_the_profiled_steps(way, tmp_path, monkeypatch):
    """In every way of data.cache; nothing is copied to or from the devices by accident."""
    saved = []
    monkeypatch.setattr(train_loop.Checkpoints, "save", lambda self, step, state: saved.append(step))
    built = small_run(tmp_path, **{"schedule.save_minutes": 1e-9, "data.cache": way})
    train_loop.train(built, profiled=range(1, 3))
    assert saved == list(range(1, built.total + 1))
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


@pytest.mark.parametrize(
    ("steps", "begun"), [(range(2, 4), [2]), (range(0, 9), [0]), (range(9, 12), []), (range(0), [])]
)
def test_profiler_records_its_steps_alone(steps, begun, tmp_path, monkeypatch):
    now, said = [None], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: said.append(("start", now[0])))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: said.append(("stop", now[0])))
    with Profiler(tmp_path, steps, settle=lambda: said.append(("settle", now[0]))) as profiler:
        for step in range(6):
            now[0] = step
            with profiler.step(step):
                pass
        now[0] = "end"
    ended = [("settle", steps.stop), ("stop", steps.stop)] if steps.stop < 6 else [("stop", "end")]
    assert said == [("start", step) for step in begun] + (ended if begun else [])


@pytest.mark.parametrize("where", ["step_of", "open_feed", "make_state"])
def test_device_without_memory_is_one_line_that_names_what_to_lower_and_the_checkpoint_stays(where, tmp_path):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9663676416 bytes.")

    built = dataclasses.replace(small_run(tmp_path), **{where: (lambda step: full) if where == "step_of" else full})
    said = "too little memory for a step of 16 pictures; lower batch.identities, now 4, or set compute_dtype"
    with pytest.raises(UserError, match=said) as error:
        train_loop.train(built)
    assert "\n" not in str(error.value)
    assert stored.newest(tmp_path) is None


def test_other_errors_of_xla_are_not_blamed_on_memory(tmp_path):
    built = small_run(tmp_path)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), train_loop.out_of_memory_as_user_error(built):
        raise jax.errors.JaxRuntimeError("INTERNAL: ptxas exited with non-zero error code")

