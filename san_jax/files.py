"""Atomic file writes; JSON that may be damaged; which texts are addresses in object stores."""

import contextlib
import glob
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from san_jax.errors import UserError
from san_jax.process import identity

UNFINISHED = ".part"  # ends the names of files that `write` has begun
WRITER = re.compile(r"\.([0-9a-f]{8})\.(\d+)" + re.escape(UNFINISHED) + "$")  # in such a name: machine, process
ABANDONED = 3600.0  # seconds after which such a file counts as left by a process that was killed

REMOTE = ("s3", "gs")  # schemes of object stores that `san_jax.remote` reads and writes


def is_remote(place: str | os.PathLike) -> bool:
    """Whether a text or path is an address in an object store; a Path makes s3:/BUCKET of s3://BUCKET, which counts.

    Raises:
      UserError: it is an address of another kind.
    """
    scheme, slashes = re.match(r"(?:([A-Za-z][A-Za-z0-9+.-]*):(/+))?", os.fspath(place)).groups(default="")
    if scheme not in REMOTE and slashes.startswith("//"):
        raise UserError(f"{place} is neither a local path nor an s3:// or gs:// address; copy it to one of these")
    return scheme in REMOTE


def at_home(place: str | os.PathLike, *, known: bool = True) -> Path:
    """A local path in which ~ or ~USER at the start is replaced by the user's home folder.

    Args:
      place: the path.
      known: whether the user must exist; otherwise ~USER may also be the name of a file.

    Raises:
      UserError: there is no such user, or a NUL character, which no path can have.
    """
    if "\0" in (text := os.fspath(place)):
        raise UserError(f"the path {text!r} holds a NUL character, which no path can; correct it")
    expanded = os.path.expanduser(text)
    if known and expanded.startswith("~"):
        raise UserError(f"{text}: the home folder of {Path(text).parts[0]} is not known; give the whole path")
    return Path(expanded)


def check_local(place: str | os.PathLike, *, what: str, why: str = "it is read and written in place") -> None:
    """Raises a UserError if a place is an address in an object store; `what` is the flag or field, `why` the reason."""
    if is_remote(place):
        address = re.sub(r":/+", "://", os.fspath(place), count=1)
        raise UserError(f"{what} is {address}, but must be local, since {why}; give a local path, and copy it by hand")


def check_place(path: Path) -> None:
    """For commands that compute for long before they write: raises the UserError of `write` where that would fail."""
    check_local(path, what="a file to be written")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if os.path.isdir(path):
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is not a folder"
    elif not os.access(folder, os.W_OK):
        reason = f"{folder} cannot be written"
    else:
        return
    raise UserError(f"cannot write {path} ({reason}); choose another place")


def write(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it; creates its folder if it is missing.

    Text is written as UTF-8; what cannot be encoded, such as an undecodable file name, is escaped.

    Raises:
      UserError: it cannot be written; an existing file is kept.
    """
    with _renamed(path) as part:
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside a file, whose folder exists; what is written there becomes the file at the end.

    For files that take long to write: what processes that were killed have begun of the same file is deleted first.

    Raises:
      UserError: an OSError inside, or when it is renamed. After this and any other error an existing file is kept, and
        nothing else is left.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{UNFINISHED}"):
        if WRITER.fullmatch(left.name.removeprefix(path.name)) and is_abandoned(left):
            with contextlib.suppress(OSError):
                left.unlink()
    with _renamed(path) as part:
        yield part


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """`replacing`, without looking at the folder, which may hold many files."""
    check_local(path, what="a file to be written")
    # Two processes may write the same file.
    part = path.with_name(f"{path.name}.{identity.machine_number()}.{os.getpid()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise UserError(f"cannot write {path} ({reason}); choose another place or free some space") from error


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON.
    """
    return parsed_json(path.read_text())


def parsed_json(text: str | bytes) -> Any:
    """What a text of JSON holds; a ValueError if it is none, or is nested so deeply that Python does not read it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_abandoned(path: Path) -> bool:
    """Whether a file that was begun is left by a process that was killed; False if the file is gone.

    That is so if its name, as `write` gives it, is that of a process of this machine which has ended, or if it was
    begun long ago.
    """
    writer = WRITER.search(path.name)
    if writer and writer[1] == identity.machine_number() and identity.started(int(writer[2])) is None:
        return path.exists()
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False


def delete_abandoned(folder: Path) -> None:
    """Deletes the files that killed processes have begun in a folder and its subfolders."""
    for path in folder.rglob(f"*{UNFINISHED}"):
        if is_abandoned(path):
            path.unlink(missing_ok=True)
