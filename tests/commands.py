"""Runs commands as users start them, in subprocesses or in copies of a process that has imported their modules."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.joined import PATIENT, variables

ROOT = Path(__file__).parent.parent
# Imports take two to three seconds of most commands; a process that has made them, and nothing else, is copied.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([f"san_jax.commands.{name}" for name in ("evaluate", "search", "textures", "train")])


class Running:
    """`python WORDS` in a copy of a process in which the modules of the commands are imported already.

    Tests of imports, of signals during them, of pipes, and of variables that are read by them need a process of their
    own: see `start_alone`.

    Args:
      words: a script and its arguments, or "-m", a module and its arguments.
      cwd: where it runs.
      environment: variables that are set or changed.
      together: whether stderr goes where stdout goes.
    """

    def __init__(self, *words, cwd=ROOT, environment=None, together=False):
        self._folder = tempfile.TemporaryDirectory()
        names = ("output", "output") if together else ("stdout", "stderr")
        places = [Path(self._folder.name, name) for name in names]
        self._outputs = dict.fromkeys(places)
        self._process = FORKS.Process(target=_become, args=([*map(str, words)], cwd, environment or {}, *places))
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        """The exit code, None while it runs."""
        return self._process.exitcode

    def wait(self):
        """Waits until it has ended."""
        self._process.join(600)

    def finish(self):
        """Waits; returns the exit code, stdout and stderr, or both together."""
        self.wait()
        self._process.kill()
        self._process.join()
        with self._folder:
            return self._process.exitcode, *(place.read_text() for place in self._outputs)


def _become(words, cwd, environment, *places):
    os.setsid()  # a process group of its own, so that it can be killed with those that it starts
    for number, place in enumerate(places, start=1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.update(environment)
    os.chdir(cwd)
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], str(cwd)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
            runpy.run_path(words[0], run_name="__main__")
    finally:
        # As at the end of a process of its own, which multiprocessing leaves out: JAX waits for the other processes.
        atexit._run_exitfuncs()


def start(*words, **environment):
    """Starts a command; `finish` waits for it."""
    return Running(*words, environment=environment)


def run(*words, cwd=ROOT):
    """Exit code, stdout and stderr of a command."""
    return Running(*words, cwd=cwd).finish()


def finish(running):
    """Exit code and outputs of a command that was started."""
    return running.finish()


def xla_flags(*flags):
    """The variable XLA_FLAGS with these flags after those of the tests."""
    return " ".join([os.environ["XLA_FLAGS"], *flags])


def call_on_devices(num_devices, module, function):
    """Calls a function of a module of tests in a process of its own with that many devices; fails as it does."""
    flags = xla_flags(f"--xla_force_host_platform_device_count={num_devices}")
    result = subprocess.run(
        [sys.executable, "-c", f"import {module}; {module}.{function}()"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def two_processes():
    """The variables of each of two processes that join each other, with a device each."""
    return [own | {"XLA_FLAGS": xla_flags(PATIENT)} for own in variables(2)]


def start_alone(*words, cwd=ROOT):
    """`python WORDS` in a process of its own and a process group of its own; its output and errors are one text."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
