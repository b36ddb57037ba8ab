"""A folder of pictures by the features of one encoder, kept on disk: only new and changed pictures are embedded.

A killed update goes on from where it last saved.
"""

import dataclasses
import hashlib
import io
import itertools
import os
import time
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float32, Int, Int64, UInt8
from tqdm import tqdm

from san_jax import files
from san_jax.data import picture_batches, picture_folder
from san_jax.data.picture_batches import PictureBatch
from san_jax.errors import UserError
from san_jax.model import ENCODER, Model, Weights, feats_of

SAVE_SECONDS = 30.0  # between two writes of an index: what a kill costs
NO_FILE = -1  # as size and time of what is listed and not there


def embed(
    model: Model, paths: Sequence[Path], *, pool: Executor, batch_size: int = 64, flip: bool = False
) -> Iterator[tuple[Int[np.ndarray, "n"], Float32[np.ndarray, "n D"], dict[int, str]]]:
    """Features of picture files, batch by batch.

    Args:
      model: computes them.
      paths: of the files.
      pool: reads and decodes.
      batch_size: pictures at once, over all devices.
      flip: as of `Model.features`.

    Yields:
      Rows of `paths` that can be read, their feats, and row -> reason of those that cannot; alike on all processes.
    """
    readers = [picture_batches.reader(path) for path in paths]
    size = dict(height=model.architecture.height, width=model.architecture.width, batch_size=batch_size)
    read: deque[PictureBatch] = deque()

    def batches() -> Iterator[tuple[Array, Array]]:
        for batch in picture_batches.batches(readers, mesh=model.mesh, pool=pool, **size):
            read.append(batch._replace(images=None, readable=None))
            yield batch.images, batch.readable

    for feats, readable in model.over(feats_and_flags, batches(), flip=flip):
        start, reasons = read[0].start, read.popleft().reasons
        feats, readable = feats[: len(paths) - start], readable[: len(paths) - start]
        rows = start + np.arange(len(feats))
        # Flags travel, not words: what another process could not read is read once more for the reason.
        failed = {row: reasons.get(row) or _why_unreadable(paths[row]) for row in rows[~readable].tolist()}
        yield rows[readable], feats[readable], failed


def embed_all(
    model: Model, paths: Sequence[Path], *, workers: int = 2, batch_size: int = 64, flip: bool = False
) -> tuple[list[Path], Float32[np.ndarray, "n D"], dict[Path, str]]:
    """Those files that can be read, their features, and path -> reason of the others; `workers` threads read."""
    found, parts, unreadable = [], [np.empty((0, model.num_feats), np.float32)], {}
    with ThreadPoolExecutor(workers) as pool:
        for rows, feats, failed in embed(model, paths, pool=pool, batch_size=batch_size, flip=flip):
            found += [paths[row] for row in rows]
            parts.append(feats)
            unreadable |= {paths[row]: why for row, why in failed.items()}
    return found, np.concatenate(parts), unreadable


def feats_and_flags(
    weights: Weights, images: UInt8[Array, "B H W 3"], readable: Bool[Array, "B"], **options
) -> tuple[Float32[Array, "B D"], Bool[Array, "B"]]:
    """Features, and the flags that travel with the pictures, on every device."""
    return feats_of(weights, images, **options), readable


def digest(model: Model) -> str:
    """SHA-256 of everything that a feature depends on beside its picture, in hexadecimal."""
    return model.digest(*ENCODER)


def _why_unreadable(path: Path) -> str:
    return picture_folder.decode_into(path.read_bytes, np.empty((1, 1, 3), np.uint8)) or "it changed while it was read"


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of a folder's pictures.

    Attributes:
      names: paths inside the folder, with slashes.
      stamps: size in bytes, and time of the last change in nanoseconds, as they were when the picture was read.
      feats: their features.
    """

    names: Sequence[str]
    stamps: Int64[np.ndarray, "n 2"]
    feats: Float32[np.ndarray, "n D"]

    def __len__(self) -> int:
        """Pictures."""
        return len(self.names)

    def write(self, path: Path, model: Model) -> None:
        """Writes a file for `read`, whole or not at all; raises a UserError if it cannot be written."""
        content = io.BytesIO()
        made_by = np.array([digest(model), model.source])
        np.savez(content, made_by=made_by, names=np.array(self.names, str), stamps=self.stamps, feats=self.feats)
        files.write(path, content.getvalue())


def read(path: Path, model: Model) -> tuple[Index, str]:
    """The index in a file and "", or an empty one and what is wrong with the file; nothing is wrong if there is none.

    Raises:
      UserError: there is something that cannot be opened.
    """
    empty = Index((), np.empty((0, 2), np.int64), np.empty((0, model.num_feats), np.float32))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return empty, ""
    except OSError as error:
        raise UserError(f"the index {path} cannot be read ({error.strerror}); choose another place") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip():
                raise ValueError("a checksum is wrong")
        with np.load(io.BytesIO(content)) as saved:
            made_by, checkpoint = saved["made_by"].tolist()
            found = Index(saved["names"].tolist(), saved["stamps"], saved["feats"])
        if made_by != digest(model):
            return empty, f"holds features by another model, {checkpoint}"
        if (found.stamps.shape, found.feats.shape) != ((len(found), 2), (len(found), model.num_feats)):
            raise ValueError("the parts do not fit")
    except Exception:  # zipfile and numpy fail in many ways on damaged files
        return empty, "is torn, or was never an index"
    return found, ""


class _Growing:
    """An index while pictures are added.

    Attributes:
      paths: of all pictures.
      known: which of them have features.
    """

    def __init__(self, folder: Path, old: Index):
        self.paths = picture_folder.find(folder)
        self._names = [path.relative_to(folder).as_posix() for path in self.paths]
        self._stamps = np.array([_stamp(path) for path in self.paths])
        row_of = {name: row for row, name in enumerate(old.names)}
        old_rows = np.array([row_of.get(name, -1) for name in self._names])
        self.known = old_rows >= 0
        self.known[self.known] = (old.stamps[old_rows[self.known]] == self._stamps[self.known]).all(axis=1)
        self._feats = np.zeros((len(self.paths), old.feats.shape[1]), np.float32)
        self._feats[self.known] = old.feats[old_rows[self.known]]

    def add(self, rows, feats) -> None:
        self._feats[rows], self.known[rows] = feats, True

    def index(self) -> Index:
        """Of the known ones."""
        names = list(itertools.compress(self._names, self.known))
        return Index(names, self._stamps[self.known], self._feats[self.known])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return NO_FILE, NO_FILE
    return found.st_size, found.st_mtime_ns


def default_place(checkpoint: Path, folder: Path) -> Path:
    """Where the index of a folder by a checkpoint's encoder is kept: WORKDIR/search, or beside a checkpoint elsewhere.

    A run's newest and its best checkpoint have files of their own, and so have folders of one name.
    """
    checkpoint, folder = checkpoint.resolve(), folder.resolve()
    of_run = checkpoint.parent.name in ("checkpoints", "best")
    kind = "_best" if checkpoint.parent.name == "best" else ""
    place = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return checkpoint.parents[1 if of_run else 0] / "search" / f"{folder.name}_{place}{kind}.npz"


def update(
    path: Path, folder: Path, model: Model, *, workers: int = 2, batch_size: int = 64,
    save_seconds: float = SAVE_SECONDS,
) -> tuple[Index, dict[Path, str]]:
    """Brings the index of a folder up to date, and shows how far it is; pictures that are gone drop out.

    A file that is no index, or is one by another encoder, is moved to PATH.old, and all is made anew.

    Args:
      path: of the index, seen by all processes.
      folder: of the pictures.
      model: embeds them.
      workers: threads that read them.
      batch_size: pictures at once, over all devices.
      save_seconds: between two writes of the index.

    Returns:
      All pictures that can be read, by name; and path -> reason of the others.

    Raises:
      UserError: the folder cannot be read or holds no pictures; the index cannot be read or written.
    """
    old, complaint = read(path, model)
    growing = _Growing(folder, old)
    multihost_utils.sync_global_devices("all processes have read the index")  # before one of them writes it
    if complaint:
        _set_aside(path, complaint)
    todo, num_before = np.flatnonzero(~growing.known), growing.known.sum()
    _say(f"{folder}: {len(growing.paths)} pictures, {num_before} of them in the index")
    if not path.exists() or num_before < len(old):
        _save(growing, path, model)  # a place that cannot be written is told before the work, not after it
    unreadable = _embed_rest(
        growing, todo, model, workers=workers, batch_size=batch_size, save_seconds=save_seconds, path=path
    )
    if len(todo):
        _say(f"{path}: {growing.known.sum()} pictures, {growing.known.sum() - num_before} of them new or changed")
    return growing.index(), unreadable


def _embed_rest(growing, todo, model, *, workers, batch_size, save_seconds, path):
    """Embeds the pictures in rows `todo`; saves in between, and however it ends. Path -> reason of unreadable ones."""
    unreadable, num_saved, saved = {}, growing.known.sum(), time.monotonic()
    paths = [growing.paths[row] for row in todo]
    with ThreadPoolExecutor(workers) as pool, _bar(growing.known) as bar:
        try:
            for rows, feats, failed in embed(model, paths, pool=pool, batch_size=batch_size):
                growing.add(todo[rows], feats)
                unreadable |= {growing.paths[todo[row]]: why for row, why in failed.items()}
                bar.update(len(rows) + len(failed))
                if time.monotonic() - saved >= save_seconds:
                    _save(growing, path, model)
                    num_saved, saved = growing.known.sum(), time.monotonic()
        finally:
            if growing.known.sum() > num_saved:
                _save(growing, path, model)
    return unreadable


def _save(growing, path, model):
    if jax.process_index() == 0:
        growing.index().write(path, model)


def _set_aside(path, complaint):
    """Of a file that is not what it should be; it may be dear to somebody."""
    aside = path.with_name(f"{path.name}.old")
    if jax.process_index() == 0:
        try:
            path.replace(aside)
        except OSError as error:
            raise UserError(f"the index {path} {complaint}, and cannot be moved ({error.strerror}); move it") from error
    _say(f"{path} {complaint}: it is now {aside}, and the index is made anew")


def _say(line):
    if jax.process_index() == 0:
        print(line, flush=True)


def _bar(known):
    """On a terminal; counts the pictures that are known, and those that cannot be read."""
    hidden = None if jax.process_index() == 0 else True
    return tqdm(total=len(known), initial=int(known.sum()), unit=" pictures", dynamic_ncols=True, disable=hidden)
