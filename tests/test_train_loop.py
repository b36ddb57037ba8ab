import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from commands import ROOT

from san_jax import files
from san_jax.errors import Stopped, UserError
from san_jax.training import train_loop


def test_second_run_on_a_workdir_is_refused_by_pid_and_host(tmp_path):
    holder = "import sys, time; from pathlib import Path; from san_jax import files\n"
    holder += "with files.locked(Path(sys.argv[1]), what='a training'): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", holder, tmp_path / "run" / train_loop.LOCK]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        said = rf"{tmp_path}/run is in use by a training, pid {process.pid} on {re.escape(socket.gethostname())}, since"
        with pytest.raises(UserError, match=said), train_loop.locked_workdir(tmp_path / "run"):
            pass
        process.kill()
        process.wait()
        with train_loop.locked_workdir(tmp_path / "run"):  # a dead process holds nothing
            assert f"pid {os.getpid()}" in (tmp_path / "run" / train_loop.LOCK).read_text()
    assert (tmp_path / "run" / train_loop.LOCK).read_text() == ""


def test_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*run/lock"), files.locked(tmp_path / "run" / "lock", what="it"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_remembered_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with train_loop.asked_to_stop() as asked:
        assert asked() is None
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert asked() == number
        assert signal.getsignal(number) == signal.SIG_DFL, "a second one ends the process"
    assert signal.getsignal(number) == before


def test_signals_stay_as_they_are_outside_the_main_thread():
    before, found = signal.getsignal(signal.SIGINT), []

    def enter():
        with train_loop.asked_to_stop() as asked:
            found.append((asked(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, before)]


def test_status_is_that_of_the_signal():
    assert [Stopped("line", number).status for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_ctrl_c_while_a_command_starts_leaves_no_trace(seconds):
    """While its modules are imported, or while it begins to work."""
    command = [sys.executable, "search.py", "--checkpoint=/nowhere", "--gallery=/nowhere", "--query=/nowhere"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode in (-signal.SIGINT, 130, 1)  # 1: it had found before that there is no checkpoint
