"""Atomic file writes, and folders that one process at a time works in."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from san_jax.errors import UserError


def write(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and moves it there; its folder is made if it is missing.

    Raises:
      UserError: it cannot be written; what was there before stays.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise UserError(f"cannot write {path} ({reason}); choose another place or make room") from error


@contextlib.contextmanager
def locked(path: Path, *, what: str) -> Iterator[None]:
    """Holds the lock of a file, which is made if it is missing and stays, empty; the lock dies with its process.

    Where the file system knows no locks nothing is held; on some network file systems a lock holds on one host only.

    Args:
      path: of the file; its folder is what is locked.
      what: what this process does there; written into the file with its pid and host.

    Raises:
      UserError: another process holds the lock, or the file cannot be written; names process and host.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115, closed below; "a": what another process wrote there stays
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}); choose another place") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"{path.parent} is in use by {holder}; wait for its end, stop it, or give another folder"
            ) from error
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"{what}, pid {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
