"""The local folder of a run whose workdir is in an object store: fetched at the start, sent back after every save."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from san_jax import files, remote
from san_jax.errors import UserError
from san_jax.process import lock
from san_jax.remote import Entry, StoreError
from san_jax.weights import stored

AREA = "runs"  # of the cache; the copies of processes other than the first have areas of their own
HELD, COMPILED = "copy.lock", "compiled"
LOCAL = (HELD, COMPILED, "lock")  # entries that are never sent


class WorkingCopy:
    """The local copy of a workdir, held by this process alone.

    Args:
      folder: the copy.
      there: the objects of the workdir when it was fetched.
      writes: whether this process sends files.
    """

    def __init__(self, folder: Path, there: Mapping[str, Entry], *, writes: bool):
        self.folder, self.address, self.writes = folder, remote.named(folder), writes
        self._known = {step for name in there if (step := _step_of(name))}
        self._sent = _stamps(folder)

    def publish(self) -> None:
        """Sends what has changed, and then deletes the checkpoints that are gone here.

        A checkpoint is complete only with its last file, which is sent last and deleted first: whenever this is
        interrupted, the newest complete one is there.

        Raises:
          UserError: another run has written a checkpoint there; a StoreError if the files cannot be sent.
        """
        if not self.writes:
            return
        here, there = _stamps(self.folder), remote.listing(self.address)
        steps = {step for name in there if (step := _step_of(name))}
        if strange := sorted(steps - self._known):
            raise UserError(
                f"another run writes into {self.address}: {strange[0].rstrip('/')} there is not of this one, which "
                "ends; let only one go on, on one machine"
            )
        self._known |= {step for name in here if (step := _step_of(name))}
        changed = [name for name, stamp in here.items() if self._sent.get(name) != stamp]
        gone = [name for name in there if _step_of(name) and name not in here]
        for last in (False, True):
            remote.upload(self.folder, [name for name in changed if _is_last(name) == last], self.address)
        for last in (True, False):
            remote.delete(self.address, [name for name in gone if _is_last(name) == last])
        self._sent = here

    def publish_if_possible(self) -> None:
        """As `publish`; if the store cannot be reached, says so, and the next call sends everything."""
        try:
            self.publish()
        except StoreError as error:
            print(f"{error}; the training goes on, and the next checkpoint is sent", file=sys.stderr, flush=True)


def _step_of(name: str) -> str:
    """The folder of a checkpoint in which a file lies; "" for other files."""
    found = stored.OF_STEP.match(name)
    return found[0] if found and found[1] else ""


def _is_last(name: str) -> bool:
    return name.rpartition("/")[2] == stored.LAST


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the files that are sent, by their names in a working copy."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        top = name.partition("/")[0]
        unfinished = name.endswith(files.UNFINISHED) or (top in ("checkpoints", "best") and not _step_of(name))
        if top not in LOCAL and not unfinished and path.is_file():
            stat = path.stat()
            found[name] = (stat.st_size, stat.st_mtime_ns)
    return found


@contextlib.contextmanager
def of(workdir: str | os.PathLike, *, process: int = 0) -> Iterator[WorkingCopy | None]:
    """The working copy of a workdir in an object store; None for a local workdir.

    What the copy holds of an earlier start is deleted, but for the compiled programs: the store's files count. Of them
    the config and both checkpoints are fetched.

    Args:
      workdir: a local path or an address.
      process: number of this process among those of the run; only the first sends files.

    Raises:
      UserError: the store cannot be read, or another process of this machine trains there.
    """
    if not files.is_remote(workdir):
        yield None
        return
    folder = remote.copy_of(workdir, AREA if process == 0 else f"{AREA}-{process}")
    with remote.naming(folder), lock.held(folder / HELD, what="a training"):
        for path in folder.iterdir():
            if path.is_dir() and path.name != COMPILED:
                shutil.rmtree(path)
            elif path.name not in LOCAL:
                path.unlink()
        there = remote.listing(workdir)
        names = [name for name in stored.wanted(there, everything=True) if not name.startswith("events/")]
        remote.download(workdir, {name: there[name] for name in names}, folder)
        yield WorkingCopy(folder, there, writes=process == 0)
