"""Folders in which data sets are written before they are moved to their place, and what killed processes left there."""

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWNER = "owner.json"  # in every staging folder: whose it is


def prefix(name: str) -> str:
    """How the names of a data set's lock and staging folders begin."""
    return f".{name.replace('/', '-')}."


@contextlib.contextmanager
def folder(data_dir: Path, name: str) -> Iterator[Path]:
    """A new folder of this process to write a data set in; it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix(name), dir=data_dir) as path:
        owner = {"name": name, "pid": os.getpid(), "started": started(os.getpid()), **place()}
        Path(path, OWNER).write_text(json.dumps(owner))
        yield Path(path)


def clear(data_dir: Path, name: str) -> None:
    """Deletes what dead processes of this machine left of a data set; says what else lies there.

    A process of another machine may be writing, and so may be one that has yet to say whose its folder is.
    """
    for path in sorted(data_dir.iterdir()):
        # After the prefix there is a random word. With a dot it would belong to a longer name, "x/small-occlusion0.6".
        if not (re.fullmatch(rf"{re.escape(prefix(name))}[^.]+", path.name) and path.is_dir()):
            continue
        owner = read_owner(path)
        if owner.get("name", name) != name:
            continue
        if owner and all(owner.get(key) == value for key, value in place().items()):
            if started(owner.get("pid")) != owner.get("started"):
                shutil.rmtree(path, ignore_errors=True)  # another process may be at it
        else:
            who = f"process {owner.get('pid')} of {owner.get('host')}" if owner else "an unknown process"
            print(f"{path} is of {who}: delete it if nobody prepares {name} any more", file=sys.stderr, flush=True)


def read_owner(path: Path) -> dict[str, Any]:
    """What a staging folder says of its owner; nothing if it has not come to that."""
    try:
        return dict(json.loads((path / OWNER).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def place() -> dict[str, str]:
    """The machine and what tells its process numbers apart: two containers have the same ones."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pid_namespace": os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else "",
    }


def started(pid: int | None) -> str | None:
    """When a process of this machine began, in ticks since boot, so that its number is not taken for another's.

    None if there is none of that number, or one that has ended and waits for its parent.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
