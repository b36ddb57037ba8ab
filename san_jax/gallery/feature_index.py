"""The features of a gallery by one encoder, kept on disk; an update embeds only new and changed pictures.

An update that was killed continues from its last save.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Int64
from tqdm import tqdm

from san_jax import files
from san_jax.data import threads
from san_jax.data.crops import Crops
from san_jax.errors import UserError
from san_jax.gallery.embedding import embed
from san_jax.model import ENCODER, Model
from san_jax.weights import pretrained

SAVE_SECONDS = 30.0  # between two writes of an index; a killed update loses at most this work
NO_FILE = -1  # size and time of a file that was listed but does not exist


@dataclasses.dataclass(frozen=True)
class Index:
    """The features of a gallery's pictures.

    Attributes:
      names: as in `Crop.name`.
      stamps: file size in bytes and modification time in nanoseconds, as of when the picture was read.
      feats: their features.
    """

    names: Sequence[str]
    stamps: Int64[np.ndarray, "n 2"]
    feats: Float32[np.ndarray, "n D"]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def write(self, path: Path, model: Model, *, flip: bool = False) -> None:
        """Writes a file for `read`, atomically; raises a UserError if it cannot be written."""
        content = io.BytesIO()
        made_by = np.array([digest(model, flip=flip), model.source])
        np.savez(content, made_by=made_by, names=np.array(self.names, str), stamps=self.stamps, feats=self.feats)
        files.write(path, content.getvalue())


def read(path: Path, model: Model, *, flip: bool = False) -> tuple[Index, str]:
    """The index in a file and "", or an empty index and what is wrong with the file ("" if it is missing).

    Raises:
      UserError: the file exists and cannot be opened.
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
        if made_by != digest(model, flip=flip):
            is_same_model = made_by == digest(model, flip=not flip)
            what = f"with{'out' if flip else ''} --flip" if is_same_model else f"by another model, {checkpoint}"
            return empty, f"holds features {what}"
        if (found.stamps.shape, found.feats.shape) != ((len(found), 2), (len(found), model.num_feats)):
            raise ValueError("the parts do not fit")
    except Exception:  # zipfile and numpy fail in many ways on damaged files
        return empty, "is damaged, or was never an index"
    return found, ""


class _Growing:
    """An index to which pictures are added.

    Attributes:
      labels: what messages call each picture.
      known: whether each of them has features.
    """

    def __init__(self, crops: Crops, old: Index):
        self.labels = [crop.label for crop in crops.crops]
        self._names = [crop.name for crop in crops.crops]
        stamps = {path: _stamp(path) for path in {crop.frame.path for crop in crops.crops}}
        self._stamps = np.array([stamps[crop.frame.path] for crop in crops.crops])
        row_of = {name: row for row, name in enumerate(old.names)}
        old_rows = np.array([row_of.get(name, -1) for name in self._names])
        self.known = old_rows >= 0
        self.known[self.known] = (old.stamps[old_rows[self.known]] == self._stamps[self.known]).all(axis=1)
        self._feats = np.zeros((len(self._names), old.feats.shape[1]), np.float32)
        self._feats[self.known] = old.feats[old_rows[self.known]]

    def add(self, rows, feats) -> None:
        self._feats[rows], self.known[rows] = feats, True

    def index(self) -> Index:
        """The index of all embedded pictures."""
        names = list(itertools.compress(self._names, self.known))
        return Index(names, self._stamps[self.known], self._feats[self.known])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return NO_FILE, NO_FILE
    return found.st_size, found.st_mtime_ns


def digest(model: Model, *, flip: bool = False) -> str:
    """SHA-256, in hexadecimal, of all that a feature depends on except its picture; and a word if it is flipped."""
    return model.digest(*ENCODER) + (" flip" if flip else "")


def default_place(checkpoint: Path, gallery: Path, boxes: Path | None = None, *, flip: bool = False) -> Path:
    """The default file of a gallery's index: in WORKDIR/search of a run, or in `search` next to a file of weights.

    For weights that come with the package it is in runs/NAME/search of the current folder. The newest and the best
    checkpoint of a run have separate files, and so have galleries of the same name, and files of boxes.
    """
    name = str(checkpoint) if pretrained.is_name(checkpoint) else None
    checkpoint, gallery = checkpoint.resolve(), gallery.resolve()
    of_run = checkpoint.parent.name in ("checkpoints", "best")
    kind = ("_best" if checkpoint.parent.name == "best" else "") + ("_flip" if flip else "")
    parts = [os.fsencode(path) for path in (gallery, boxes and boxes.resolve()) if path]
    place = hashlib.sha256(b"\0".join(parts)).hexdigest()[:8]
    home = checkpoint.parents[1 if of_run else 0] if name is None else Path("runs", name)
    return home / "search" / f"{gallery.name}_{place}{kind}.npz"


def update(
    path: Path, crops: Crops, model: Model, *, flip: bool = False, workers: int | None = None, batch_size: int = 64,
    save_seconds: float = SAVE_SECONDS,
) -> tuple[Index, dict[str, str]]:
    """Brings the index of a gallery up to date, with a progress bar; pictures that are gone drop out of it.

    A file that is not an index, or the index of another encoder, is moved to PATH.old, and all pictures are embedded.

    Args:
      path: file of the index, shared by all processes.
      crops: the gallery.
      model: computes the features.
      flip: as in `Model.features`.
      workers: threads that read pictures; None = one for each core.
      batch_size: pictures at once, over all devices.
      save_seconds: seconds between two writes of the index.

    Returns:
      The index of all readable pictures, in the order of `crops`, and label -> reason for the others.

    Raises:
      UserError: the index cannot be read or written.
    """
    old, complaint = read(path, model, flip=flip)
    growing = _Growing(crops, old)
    save = functools.partial(_save, growing, path, model, flip=flip)
    multihost_utils.sync_global_devices("all processes have read the index")  # before one of them writes it
    if complaint:
        _set_aside(path, complaint)
    todo, num_before = np.flatnonzero(~growing.known), growing.known.sum()
    _say(f"{crops.title}: {len(crops)} pictures, {num_before} of them in the index")
    for remark in crops.remarks:
        _say(remark)
    if not path.exists() or num_before < len(old):
        save()  # a place that cannot be written is reported before the work, not after it
    embedded = _embedded(crops, todo, model, flip=flip, workers=workers, batch_size=batch_size)
    unreadable = _add_all(growing, embedded, save=save, save_seconds=save_seconds)
    if len(todo):
        _say(f"{path}: {growing.known.sum()} pictures, {growing.known.sum() - num_before} of them new or changed")
    return growing.index(), unreadable


def _embedded(crops, todo, model, *, workers, **options):
    """Rows, feats, and row -> reason of the pictures in rows `todo`, batch by batch."""
    readers = crops.readers()
    with ThreadPoolExecutor(threads.num_threads(workers)) as pool:
        for rows, feats, failed in embed(model, [readers[row] for row in todo], pool=pool, **options):
            yield todo[rows], feats, {todo[row]: why for row, why in failed.items()}


def _add_all(growing, embedded, *, save, save_seconds):
    """Adds pictures; saves at intervals and at the end. Label -> reason for unreadable ones."""
    unreadable, num_saved, saved = {}, growing.known.sum(), time.monotonic()
    with _bar(growing.known) as bar:
        try:
            for rows, feats, failed in embedded:
                growing.add(rows, feats)
                unreadable |= {growing.labels[row]: why for row, why in failed.items()}
                bar.update(len(rows) + len(failed))
                if time.monotonic() - saved >= save_seconds:
                    save()
                    num_saved, saved = growing.known.sum(), time.monotonic()
        finally:
            if growing.known.sum() > num_saved:
                save()
    return unreadable


def _save(growing, path, model, *, flip):
    if jax.process_index() == 0:
        growing.index().write(path, model, flip=flip)


def _set_aside(path, complaint):
    """Moves a file that is not the wanted index; it is not deleted, since it may still be needed."""
    aside = path.with_name(f"{path.name}.old")
    if jax.process_index() == 0:
        try:
            path.replace(aside)
        except OSError as error:
            raise UserError(f"the index {path} {complaint}, and cannot be moved ({error.strerror}); move it") from error
    _say(f"{path} {complaint}: it is now {aside}, and the index is built again")


def _say(line):
    if jax.process_index() == 0:
        print(line, flush=True)


def _bar(known):
    """A progress bar on terminals; counts embedded and unreadable pictures."""
    hidden = None if jax.process_index() == 0 else True
    return tqdm(total=len(known), initial=int(known.sum()), unit=" pictures", dynamic_ncols=True, disable=hidden)
