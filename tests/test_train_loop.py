import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from commands import ROOT

from san_jax.errors import UserError
from san_jax.training import train_loop


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


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_ctrl_c_while_a_command_starts_prints_no_traceback(seconds):
    """During the import of its modules, or at the beginning of its work."""
    command = [sys.executable, "search.py", "--checkpoint=/nowhere", "--gallery=/nowhere", "--query=/nowhere"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode in (-signal.SIGINT, 130, 1)  # 1: it had already found that there is no checkpoint
