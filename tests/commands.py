"""Runs commands in subprocesses, as users start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Processes that share busy cores may reach a sum more than gloo's 30 s apart.
PATIENT = "--xla_cpu_collective_timeout_seconds=300 --xla_cpu_collective_call_terminate_timeout_seconds=300"


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


def run_command(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, env=environment, check=False)
