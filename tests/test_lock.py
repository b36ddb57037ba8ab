import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from san_jax.errors import UserError
from san_jax.process import lock

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from san_jax.process import lock
with lock.held(Path(sys.argv[1]), what="a training"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_refused_with_pid_and_host_until_the_first_is_dead(tmp_path):
    path = tmp_path / "run" / "lock"
    first = subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    said = (
        f"{path.parent} is in use by a training, pid {first.pid} on {socket.gethostname()}, since .*; "
        "wait for it to end"
    )
    for _ in range(2):
        with pytest.raises(UserError, match=said), lock.held(path, what="another"):
            pass
        with pytest.raises(UserError, match=said):
            lock.check_free(path)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    lock.check_free(path)
    with lock.held(path, what="another"):
        assert path.read_text().startswith(f"another, pid {os.getpid()} on ")
    assert path.read_text() == ""


def test_second_holder_in_one_process_is_refused_too(tmp_path):
    one, other = (lock.held(tmp_path / "lock", what=what) for what in ("one", "other"))
    with one, pytest.raises(UserError, match=f"one, pid {os.getpid()}"), other:
        pass
    with lock.held(tmp_path / "lock", what="other"):
        pass


def test_check_of_a_folder_that_was_never_held_leaves_nothing_there(tmp_path):
    lock.check_free(tmp_path / "run" / "lock")
    assert not list(tmp_path.iterdir())


def test_file_system_without_locks_refuses_nothing(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with lock.held(tmp_path / "lock", what="one"), lock.held(tmp_path / "lock", what="other"):
        lock.check_free(tmp_path / "lock")


def test_unwritable_path_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(UserError, match=r"cannot write .*file/lock \(.*\); choose another place")
    with refused, lock.held(tmp_path / "file" / "lock", what="one"):
        pass
