"""Which machine this is, and which process a number means there."""

import functools
import hashlib
import json
import os
import socket
from pathlib import Path


def machine() -> dict[str, str]:
    """The machine, its boot and its PID namespace, since two containers may use the same process numbers."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pid_namespace": os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else "",
    }


@functools.cache
def machine_number() -> str:
    """Eight hexadecimal digits that tell machines apart."""
    return hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()[:8]


def started(pid: int | None) -> str | None:
    """Start time of a process of this machine, in ticks since boot; tells it from a later one with the same number.

    None if there is no process with that number, or if it is a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
