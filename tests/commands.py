"""Runs commands as users start them, in subprocesses or in copies of a process that has imported their modules."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Processes that share busy cores may reach a sum more than gloo's 30 s apart.
PATIENT = "--xla_cpu_collective_timeout_seconds=300 --xla_cpu_collective_call_terminate_timeout_seconds=300"
# Imports take two to three seconds of most commands; a process that has made them, and nothing else, is copied.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([f"san_jax.commands.{name}" for name in ("evaluate", "search", "textures", "train")])


def run(*words, cwd=ROOT):
    """Runs `python WORDS` in a copy of a process in which the modules of the commands are imported already.

    Tests of imports, signals, pipes and environment variables need a process of their own: see `start`.

    Returns:
      Exit code, stdout and stderr.
    """
    return _copy(words, cwd, ["stdout", "stderr"])


def run_together(*words):
    """As `run`; returns the exit code, and stdout with stderr in between."""
    return _copy(words, ROOT, ["output", "output"])


def _copy(words, cwd, names):
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, name) for name in names]
        process = FORKS.Process(target=_become, args=([*map(str, words)], cwd, *places))
        process.start()
        process.join(600)
        process.kill()
        return process.exitcode, *(place.read_text() for place in dict.fromkeys(places))


def _become(words, cwd, *places):
    for number, place in enumerate(places, start=1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(cwd)
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], str(cwd)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def xla_flags(*flags):
    """The variable XLA_FLAGS with these flags after those of the tests."""
    return " ".join([os.environ["XLA_FLAGS"], *flags])


def two_processes():
    """The variables of each of two processes that join each other, with a device each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "XLA_FLAGS": xla_flags(PATIENT)}
    return [shared | {"JAX_PROCESS_ID": str(index)} for index in (0, 1)]


def start(script, *arguments, **environment):
    """`python SCRIPT ARGUMENTS` in the repository root, in its own process group so that it can be killed."""
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Exit code, stdout and stderr."""
    output, errors = process.communicate(timeout=600)
    return process.returncode, output, errors
