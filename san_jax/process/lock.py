"""Lets one process at a time use a folder: a lock that ends with its holder, and a file that names the holder."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from san_jax.errors import UserError


@contextlib.contextmanager
def held(path: Path, *, what: str) -> Iterator[None]:
    """Holds the lock of a file, which is created if it is missing and remains, empty.

    On a file system without locks nothing is held; on some network file systems a lock holds on one host only.

    Args:
      path: of the file.
      what: the holder's name in the file and in messages, "a training".

    Raises:
      UserError: another process holds it (the message names process and host), or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115, closed below; "a" keeps what another process wrote
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}); choose another place") from error
    with file:
        if not _takes(file, fcntl.LOCK_EX, path):
            yield
            return
        file.truncate(0)
        file.write(f"{what}, pid {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def check_free(path: Path) -> None:
    """Raises `held`'s UserError if another process holds the lock of a file; writes nothing."""
    try:
        file = open(path)  # noqa: SIM115, closed below
    except OSError:  # there is none yet, or `held` says why it cannot be opened
        return
    with file:
        _takes(file, fcntl.LOCK_SH, path)


def _takes(file: TextIO, kind: int, path: Path) -> bool:
    """Takes a lock of an open file, until that is closed; False on a file system without locks.

    Raises:
      UserError: another process holds it.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise UserError(
            f"{path.parent} is in use by {holder}; wait for it to end, stop it, or give another folder"
        ) from error
    except OSError:
        return False
    return True


@contextlib.contextmanager
def waited_for(path: Path, line: str) -> Iterator[None]:
    """Holds the lock of a file, in an existing folder, once no other process does; `line` is printed before waiting.

    On a file system without locks nothing is held.

    Raises:
      OSError: the file cannot be written.
    """
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(line, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
