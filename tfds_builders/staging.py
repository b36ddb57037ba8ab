"""Staging folders, in which data sets are written before they are moved to their place; removes abandoned ones."""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from san_jax import files
from san_jax.process import identity

OWNER = "owner.json"  # in every staging folder: names the process that it belongs to


def prefix(name: str) -> str:
    """How the names of a data set's lock and staging folders begin."""
    return f".{name.replace('/', '-')}."


@contextlib.contextmanager
def folder(data_dir: Path, name: str) -> Iterator[Path]:
    """A new folder in which this process writes a data set; deleted at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix(name), dir=data_dir) as path:
        owner = {"name": name, "pid": os.getpid(), "started": identity.started(os.getpid())} | identity.machine()
        Path(path, OWNER).write_text(json.dumps(owner))
        yield Path(path)


def clear(data_dir: Path, name: str) -> None:
    """Deletes a data set's staging folders of dead processes of this machine; prints which others there are.

    The others may be in use: by a process of another machine, or by one that has not written its owner file yet.
    """
    for path in sorted(data_dir.iterdir()):
        # A random word follows the prefix. With a dot it belongs to a longer name, such as "x/small-occlusion0.6".
        if not (re.fullmatch(rf"{re.escape(prefix(name))}[^.]+", path.name) and path.is_dir()):
            continue
        owner = read_owner(path)
        if owner.get("name", name) != name:
            continue
        if owner and all(owner.get(key) == value for key, value in identity.machine().items()):
            if identity.started(owner.get("pid")) != owner.get("started"):
                shutil.rmtree(path, ignore_errors=True)  # another process may be deleting it too
        else:
            who = f"process {owner.get('pid')} of {owner.get('host')}" if owner else "an unknown process"
            print(f"{path} belongs to {who}; delete it if nobody prepares {name} any more", file=sys.stderr, flush=True)


def read_owner(path: Path) -> dict[str, Any]:
    """The owner file of a staging folder; empty if it is not written yet."""
    try:
        return dict(files.read_json(path / OWNER))
    except (OSError, ValueError, TypeError):
        return {}
