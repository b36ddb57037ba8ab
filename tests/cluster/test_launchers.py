"""`train.py` under real launchers: it trains, stops by their signals, goes on, and ends with the same bits."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
      words: what stands before the command.
      environment: variables of each process, or of all together.
      stop: called with the started process; asks the run to stop in the launcher's own way.
    """

    def __init__(self, words, environments, stop):
        self._words, self._environments, self._stop = words, environments, stop

    def start(self, command, output):
        """The started processes, whose output goes to a file."""
        with output.open("w") as file:
            return [
                subprocess.Popen(
                    [*self._words, sys.executable, *command],
                    cwd=ROOT,
                    env=environment | {"XLA_FLAGS": xla_flags(PATIENT)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for environment in self._environments()
            ]

    def stop(self, processes):
        self._stop(processes)


def one_of_its_processes(processes):
    """SIGTERM to the last of the Python processes that were started."""
    children = subprocess.run(
        ["pgrep", "--full", f"{sys.executable} train.py"], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGTERM)


def by_hand(count):
    """Processes that are told their number and the address of the first one."""

    def environments():
        [port] = slurm.free_ports(1)
        shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(count)}
        return [os.environ | shared | {"JAX_PROCESS_ID": str(number)} for number in range(count)]

    return Launcher([], environments, lambda processes: os.kill(processes[-1].pid, signal.SIGTERM))


@contextlib.contextmanager
def launched_by(name):
    """The launcher of this name, with its daemons."""
    if name == "by hand":
        yield by_hand(4)
    elif name == "mpirun":
        words = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]
        yield Launcher(words, lambda: [dict(os.environ)], one_of_its_processes)
    else:
        with slurm.running() as environment:

            def cancel(_):  # SIGCONT and SIGTERM, and SIGKILL after KillWait
                subprocess.run(["scancel", "--user=root"], env=environment, check=True)

            yield Launcher(["srun", "-n", "2"], lambda: [environment], cancel)


def finish(processes, output):
    """Waits for the end; the exit statuses and what was said."""
    try:
        statuses = [process.wait(600) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return statuses, output.read_text()


@pytest.mark.parametrize("name", ["by hand", "mpirun", "slurm"])
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
