"""Keeps decoded pictures on disk, so that a run that starts again need not decode them: checked, and bounded in size.

The name of an entry follows from what is in it: the digest of the encoded pictures, the field, the shape, and the
versions of the libraries that decoded them. An entry KEY is a file KEY.npy that is mapped into memory and, written
last, KEY.json with the checksums of its rows.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt32
from PIL import features as pillow

from san_jax import files
from san_jax.data import threads
from san_jax.errors import UserError
from san_jax.process import lock

FORMAT = 1  # of the entries
ROWS_AT_ONCE = 256  # rows whose checksums a thread computes before it asks for more
SPARE_BYTES = 1 << 30  # left free on the disk

Shape = tuple[int, int, int, int]


def key_of(digest: str, field: str, shape: Shape) -> str:
    """The name of an entry; decoders of other versions may round differently, so they get other names."""
    decoders = {name: pillow.version(name) for name in ("pil", "jpg", "libjpeg_turbo", "zlib")}
    content = json.dumps([FORMAT, digest, field, shape, decoders], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class DecodedStore:
    """The decoded pictures that are kept in a folder.

    Args:
      folder: created when it is first written to.
      max_bytes: what all entries may take together; those that were not used for the longest time are removed first.
    """

    def __init__(self, folder: Path, *, max_bytes: int):
        self._folder, self._max_bytes = folder, max_bytes

    def can_keep(self, num_bytes: int) -> bool:
        """Whether entries of this size may be written: they are within the bound, and the disk has room for them."""
        with contextlib.suppress(OSError):
            existing = next(place for place in (self._folder, *self._folder.absolute().parents) if place.is_dir())
            if not os.access(existing, os.W_OK):
                return False
            free = shutil.disk_usage(existing).free + sum(size for _, size, _ in self._entries())
            return num_bytes <= self._max_bytes and num_bytes + SPARE_BYTES <= free
        return False

    def kept(
        self,
        key: str,
        shape: Shape,
        fill: Callable[[np.ndarray], None],
        *,
        num_bytes: int,
        about: Mapping[str, str],
        workers: int | None,
    ) -> UInt8[np.ndarray, "n H W 3"] | None:
        """The entry's array, read-only; an entry that is missing or damaged is written first.

        Args:
          key: see `key_of`.
          shape: of the array.
          fill: fills an array of this shape.
          num_bytes: of this entry and of those of the same set; all of them are kept, or none.
          about: stored beside the checksums, for people who look into the folder.
          workers: threads that compute checksums.

        Returns:
          None if it is missing and cannot be kept: the set is too large, or the folder cannot be written.
        """
        if (array := self._read(key, shape, workers=workers)) is not None:
            return array
        if not self.can_keep(num_bytes):
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with lock.waited_for(self._folder / "lock", f"waiting for another process to decode {about['source']}"):
                array = self._read(key, shape, workers=workers)  # of the process that was waited for
                return array if array is not None else self._write(key, shape, fill, about=about, workers=workers)
        except OSError as error:
            where = f"decoded pictures cannot be kept in {self._folder} ({error.strerror or error})"
            print(f"{where}; they stay in memory, and the next start decodes them again", file=sys.stderr, flush=True)
            return None

    def _read(self, key: str, shape: Shape, *, workers: int | None) -> np.ndarray | None:
        path, about = self._folder / f"{key}.npy", self._folder / f"{key}.json"
        try:
            expected = np.array(files.read_json(about)["crc32"], np.uint32)
            array = np.load(path, mmap_mode="r")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, OverflowError):
            return self._forget(key)
        if array.shape != shape or array.dtype != np.uint8 or not np.array_equal(checksums(array, workers), expected):
            return self._forget(key)
        with contextlib.suppress(OSError):  # a folder that can only be read
            os.utime(about)  # the time of the last use
        return array

    def _forget(self, key: str) -> None:
        path = self._folder / f"{key}.json"
        print(f"{path.with_suffix('.npy')} is damaged; its pictures are decoded again", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            path.unlink()

    def _write(self, key, shape, fill, *, about, workers) -> np.ndarray:
        for left in self._folder.glob("*.part"):  # by a process that was killed: this one holds the lock
            left.unlink()
        self._make_room(int(np.prod(shape)))
        part, path = self._folder / f"{key}.npy.part", self._folder / f"{key}.npy"
        try:
            array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            with part.open("r+b") as file:  # a write into a hole of the file would end the process if the disk is full
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
            fill(array)
            array.flush()
            sums = checksums(array, workers)
            part.replace(path)
        except BaseException:  # Ctrl-C too
            part.unlink(missing_ok=True)
            raise
        try:
            files.write(path.with_suffix(".json"), json.dumps({**about, "shape": shape, "crc32": sums.tolist()}) + "\n")
        except UserError as error:
            raise OSError(str(error)) from error
        return np.load(path, mmap_mode="r")

    def _make_room(self, num_bytes: int) -> None:
        """Removes the entries that were not used for the longest time until this many bytes fit."""
        entries = sorted(self._entries())
        free = min(self._max_bytes - sum(size for _, size, _ in entries), self._free() - SPARE_BYTES)
        for _, size, path in entries:
            if free >= num_bytes:
                return
            for suffix in (".json", ".npy"):  # a process that has mapped the file keeps it
                path.with_suffix(suffix).unlink(missing_ok=True)
            free += size

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Time of the last use, size in bytes and file of every entry."""
        found = []
        for path in self._folder.glob("*.npy"):
            with contextlib.suppress(FileNotFoundError):
                about = path.with_suffix(".json")
                used = (about if about.exists() else path).stat().st_mtime
                found.append((used, path.stat().st_size, path))
        return found


def checksums(array: UInt8[np.ndarray, "n H W 3"], workers: int | None) -> UInt32[np.ndarray, "n"]:
    """CRC-32 of every row."""
    blocks = (array[first : first + ROWS_AT_ONCE] for first in range(0, len(array), ROWS_AT_ONCE))
    found = threads.ahead(lambda rows: [zlib.crc32(row) for row in rows], blocks, workers=workers)
    return np.array([number for numbers in found for number in numbers], np.uint32)
