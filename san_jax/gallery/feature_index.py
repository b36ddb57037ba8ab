"""The features of a gallery by one encoder, kept on disk; an update embeds only new and changed pictures.

Every save of an update adds a part to the index (`index_files`); nothing else is written again. Parts with pictures
that have changed or are gone are replaced by what is left of them. An update that was killed continues from its last
save.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float, Int, Int64
from tqdm import tqdm

from san_jax import files, remote
from san_jax.data import threads
from san_jax.data.crops import Crops
from san_jax.errors import UserError
from san_jax.gallery import index_files
from san_jax.gallery.embedding import embed
from san_jax.gallery.index_files import ABOUT, OLD_SUFFIX, PLAIN, Kind, Part
from san_jax.model import Model
from san_jax.scoring.gallery_feats import UNUSED, GalleryFeats
from san_jax.weights import pretrained

SAVE_SECONDS = 30.0  # between two saves; a killed update loses at most this work
GATHERED_ROWS = 4096  # rows that `blocks` gathers at a time
SMALL_ROWS, MOST_SMALL = 4096, 32  # more parts than that with fewer pictures than that are joined to one
NO_FILE = -1  # size and time of a file that was listed but does not exist
# Rows of a gallery, their features, and row -> reason for others that cannot be read.
Seen = Callable[[Int[np.ndarray, "n"], Float[np.ndarray, "n D"], dict[int, str]], None]


@dataclasses.dataclass(frozen=True)
class GalleryIndex:
    """The features of a gallery's readable pictures, in the gallery's order, wherever they are stored.

    Attributes:
      names: as in `Crop.name`.
      stamps: as in `Part`.
      parts: arrays of features, mapped into memory where they are in files; float16 of an index in half precision.
      rows: for each part, the picture of each of its rows, or UNUSED.
    """

    names: Sequence[str]
    stamps: Int64[np.ndarray, "n 2"]
    parts: Sequence[Float[np.ndarray, "_ D"]]
    rows: Sequence[Int64[np.ndarray, "_"]]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    @functools.cached_property
    def feats(self) -> Float[np.ndarray, "n D"]:
        """All features as one array: that of a part if it holds them all, else a copy."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            if np.array_equal(rows, np.arange(len(self))):
                return part
        return np.concatenate(list(self.blocks()))

    def blocks(self) -> Iterator[Float[np.ndarray, "_ D"]]:
        """The features in the gallery's order, GATHERED_ROWS at a time, for files of any size."""
        part_of, place_of = np.zeros((2, len(self)), np.int64)
        for number, rows in enumerate(self.rows):
            places = np.flatnonzero(rows >= 0)
            part_of[rows[places]], place_of[rows[places]] = number, places
        for start in range(0, len(self), GATHERED_ROWS):
            some = slice(start, start + GATHERED_ROWS)
            block = np.empty((len(part_of[some]), self.parts[0].shape[1]), self.parts[0].dtype)
            for number in np.unique(part_of[some]):
                here = part_of[some] == number
                block[here] = self.parts[number][place_of[some][here]]
            yield block

    def ready(self, mesh: Mesh) -> GalleryFeats:
        """The features, ready for searches on a mesh of devices."""
        return GalleryFeats(self.parts, self.rows, mesh=mesh)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return NO_FILE, NO_FILE
    return found.st_size, found.st_mtime_ns


def stamps_of(crops: Crops) -> Int64[np.ndarray, "n 2"]:
    """Size in bytes and modification time in nanoseconds of the file of each picture; NO_FILE if there is none."""
    stamps = {path: _stamp(path) for path in {crop.frame.path for crop in crops.crops}}
    return np.array([stamps[crop.frame.path] for crop in crops.crops], np.int64).reshape(-1, 2)


def default_place(checkpoint: Path, gallery: Path, boxes: Path | None = None, *, kind: Kind = PLAIN) -> Path:
    """The default folder of a gallery's index: in WORKDIR/search of a run, or in `search` next to a file of weights.

    For weights that come with the package it is in runs/NAME/search of the current folder. The newest and the best
    checkpoint of a run have separate indexes, and so have galleries of the same name, files of boxes, and features of
    another kind.
    """
    best = ["best"] if checkpoint.resolve().parent.name == "best" else []
    return home_of(checkpoint) / "_".join([_stem(gallery, boxes), *best, *kind.words()])


def named_place(index: str) -> Path:
    """The folder that --index names; raises a UserError if it is a file, or has no name."""
    place = Path(index.removesuffix(OLD_SUFFIX))
    if place.is_file() or not place.name:
        raise UserError(f"--index is {index}; name a folder, which is made")
    return place


def _stem(gallery: Path, boxes: Path | None = None) -> str:
    """The name of a gallery, with eight digits that tell galleries of the same name apart."""
    parts = [os.fsencode(path.resolve()) for path in (gallery, boxes) if path]
    return f"{gallery.resolve().name}_{hashlib.sha256(bytes(1).join(parts)).hexdigest()[:8]}"


def home_of(checkpoint: Path) -> Path:
    """The folder of all default indexes of a checkpoint or file of weights; of an address, below runs."""
    if pretrained.is_name(str(checkpoint)):
        return Path("runs", str(checkpoint), "search")
    # Features are mapped into memory, so they stay on this machine.
    checkpoint = Path("runs", *remote.parts_of(checkpoint)) if files.is_remote(checkpoint) else checkpoint.resolve()
    return checkpoint.parents[1 if checkpoint.parent.name in ("checkpoints", "best") else 0] / "search"


def update(
    path: Path,
    crops: Crops,
    model: Model,
    *,
    kind: Kind = PLAIN,
    workers: int | None = None,
    batch_size: int = 64,
    save_seconds: float = SAVE_SECONDS,
    seen: Seen | None = None,
) -> tuple[GalleryIndex, dict[str, str]]:
    """Brings the index of a gallery up to date, with a progress bar; pictures that are gone drop out of it.

    The index of another encoder is moved to PATH.old, and all pictures are embedded. An index of an earlier version,
    the file PATH.npz, is read, and deleted when its features are in the new one.

    Args:
      path: folder of the index, shared by all processes.
      crops: the gallery.
      model: computes the features.
      kind: how features are computed and kept.
      workers: threads that read pictures; None = one for each core.
      batch_size: pictures at once, over all devices.
      save_seconds: seconds between two saves.
      seen: called with what the index holds already, and then with every batch.

    Returns:
      The index of all readable pictures, in the order of `crops`, and label -> reason for the others.

    Raises:
      UserError: the index cannot be read or written, or features are too large for half precision.
    """
    stored, complaint = index_files.read(path, model, gallery=crops.title, kind=kind)
    earlier = None if stored.parts else index_files.read_earlier(path, model, kind)
    growing = _Growing(crops, [*stored.parts.values(), *([earlier] if earlier else [])], model.num_feats, kind)
    multihost_utils.sync_global_devices("all processes have read the index")  # before one of them writes it
    if complaint:
        aside = index_files.set_aside(path, complaint)
        _say(f"{path} {complaint}: it is now {aside}, and the index is built again")
    _check_alike(growing.known)
    todo, num_before = np.flatnonzero(~growing.known), growing.known.sum()
    _say(f"{crops.title}: {len(crops)} pictures, {num_before} of them in the index")
    for remark in crops.remarks:
        _say(remark)
    if jax.process_index() == 0:  # a place that cannot be written is reported before the work, not after it
        _prepare(path, stored, earlier, growing, model, crops, kind)
    embedded = _embedded(crops, todo, model, flip=kind.flip, workers=workers, batch_size=batch_size)
    if seen:
        seen(np.flatnonzero(growing.known), growing.index().feats, {})
        embedded = _shown(embedded, seen)
    unreadable = _add_all(growing, embedded, path=path, save_seconds=save_seconds)
    if len(todo):
        _say(f"{path}: {growing.known.sum()} pictures, {growing.known.sum() - num_before} of them new or changed")
    return growing.index(), unreadable


def _check_alike(known):
    """Raises a UserError if processes see different galleries or indexes, whose rows would be mixed up."""
    sums = multihost_utils.process_allgather(np.array([len(known), zlib.crc32(known)], np.int64))
    if (sums.reshape(-1, 2) != sums.reshape(-1, 2)[0]).any():
        raise UserError("the processes see different pictures or indexes; share the folders, and start no other search")


class _Growing:
    """The pictures of a gallery, those in the index and those that are added to it.

    Attributes:
      labels: what messages call each picture.
      known: whether each of them has features.
      kept: for each part of the index, its rows that are still of use.
    """

    def __init__(self, crops: Crops, parts: Sequence[Part], num_feats: int, kind: Kind):
        self.labels = [crop.label for crop in crops.crops]
        self._names = [crop.name for crop in crops.crops]
        self._stamps = stamps_of(crops)
        self._empty, self._pending, self._added = index_files.empty(num_feats, kind), [], []
        # A picture is known by its name and stamp, so that it does not matter which part was written last.
        wanted = {(name, *stamp): row for row, (name, stamp) in enumerate(self._keys())}
        self.known, self.kept, self._parts = np.zeros(len(self._names), bool), [], []
        for part in parts:
            found = [wanted.pop((name, *stamp), -1) for name, stamp in _keys_of(part)]
            rows = np.array(found, np.int64)
            self.kept.append(np.flatnonzero(rows >= 0))
            self._parts.append((rows[rows >= 0], part, self.kept[-1]))
            self.known[rows[rows >= 0]] = True

    def _keys(self):
        return zip(self._names, map(tuple, self._stamps.tolist()), strict=True)

    def add(self, rows, feats) -> None:
        """Takes the feats of the pictures in `rows`."""
        if len(rows):
            self._pending.append((rows, _as_stored(feats, self._empty.feats.dtype)))
            self.known[rows] = True

    def pending(self) -> tuple[Int64[np.ndarray, "n"], Part]:
        """The pictures that were added since the last call of `keep`, and their rows."""
        rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._pending)])
        feats = np.concatenate([self._empty.feats, *(feats for _, feats in self._pending)])
        return rows, Part([self._names[row] for row in rows], self._stamps[rows], feats)

    def keep(self, parts) -> None:
        """Replaces what `pending` gives by arrays of the same features, such as those of mapped files."""
        rows, _ = self.pending()
        ends = np.cumsum([len(part) for part in parts])
        self._added += [(rows[end - len(part) : end], part) for part, end in zip(parts, ends, strict=True)]
        self._pending = []

    def index(self) -> GalleryIndex:
        """The index of all embedded pictures, in the gallery's order."""
        number_of = np.where(self.known, np.cumsum(self.known) - 1, UNUSED)
        parts, rows = [], []
        for own, part, kept in self._parts:
            of_part = np.full(len(part), UNUSED)
            of_part[kept] = number_of[own]
            parts.append(part.feats)
            rows.append(of_part)
        nothing = (np.empty(0, np.int64), self._empty.feats)  # so that there is a part, with its dtype and width
        for own, added in (*self._added, *self._pending, nothing):
            parts.append(added)
            rows.append(number_of[own])
        return GalleryIndex(list(itertools.compress(self._names, self.known)), self._stamps[self.known], parts, rows)


def _as_stored(feats, dtype):
    """The features in the dtype of the index."""
    if dtype == np.float16 and np.abs(feats).max() > (largest := float(np.finfo(np.float16).max)):
        raise UserError(f"there are features above {largest:.0f}, the most that half precision holds; leave out --half")
    return feats.astype(dtype)


def _keys_of(part):
    return zip(part.names, map(tuple, part.stamps.tolist()), strict=True)


def _prepare(path, stored, earlier, growing, model, crops, kind):
    """Writes what about.json says, replaces parts that hold more than the gallery, and converts an earlier index."""
    index_files.write_about(path, model, kind, gallery=crops.title)
    for name in stored.damaged:
        _say(f"{path}: the part {name} is damaged, and its pictures are embedded again")
        index_files.delete_part(path, name)
    index_files.delete_abandoned(path)
    kept = dict(zip(stored.parts, growing.kept, strict=False))
    small = [name for name, rows in kept.items() if len(rows) < SMALL_ROWS]
    for name, rows in kept.items():
        if len(rows) < len(stored.parts[name]) and name not in small:
            index_files.write_part(path, stored.parts[name].rows(rows))
            index_files.delete_part(path, name)
    if len(small) > MOST_SMALL or any(len(kept[name]) < len(stored.parts[name]) for name in small):
        index_files.write_part(path, index_files.joined([stored.parts[name].rows(kept[name]) for name in small]))
        for name in small:
            index_files.delete_part(path, name)
    if earlier:
        index_files.write_part(path, earlier.rows(growing.kept[-1]))
        index_files.earlier(path).unlink()


def _embedded(crops, todo, model, *, workers, **options):
    """Rows, feats, and row -> reason of the pictures in rows `todo`, batch by batch."""
    readers = crops.readers()
    with ThreadPoolExecutor(threads.num_threads(workers)) as pool:
        # With all of the gallery as `total`, an index that was killed, or grew, has the bits of one that was not.
        wanted = [readers[row] for row in todo]
        for rows, feats, failed in embed(model, wanted, pool=pool, total=len(readers), **options):
            yield todo[rows], feats, {todo[row]: why for row, why in failed.items()}


def _shown(embedded, seen):
    """The same batches, each of which `seen` is called with, after the batch before it was added."""
    for batch in embedded:
        seen(*batch)
        yield batch


def _add_all(growing, embedded, *, path, save_seconds):
    """Adds pictures; saves at intervals and at the end. Label -> reason for unreadable ones."""

    def save():
        _, added = growing.pending()
        written = index_files.write_part(path, added) if jax.process_index() == 0 else []
        # What is in files need not stay in memory.
        growing.keep([index_files.load_feats(name) for name in written] if jax.process_count() == 1 else [added.feats])

    unreadable, saved = {}, time.monotonic()
    with _bar(growing.known) as bar:
        try:
            for rows, feats, failed in embedded:
                growing.add(rows, feats)
                unreadable |= {growing.labels[row]: why for row, why in failed.items()}
                bar.update(len(rows) + len(failed))
                if time.monotonic() - saved >= save_seconds:
                    save()
                    saved = time.monotonic()
        finally:
            save()
    return unreadable


def forget(home: Path, gallery: Path) -> list[Path]:
    """Deletes what searches have kept of a gallery, and returns the deleted folders and files.

    Args:
      home: folder of the indexes of a run, as `home_of` gives it.
      gallery: the folder, list or video that was searched.

    Raises:
      UserError: something cannot be deleted.
    """
    inside = sorted(home.iterdir()) if home.is_dir() else []
    indexes = [place for place in inside if _is_of(place, gallery)]
    sheets = tuple(f"_in_{name}.png" for name in [_stem(gallery), *(place.name for place in indexes)])
    gone = [*indexes, *(place for place in inside if place.name.endswith(sheets) and place not in indexes)]
    for place in gone:
        try:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        except OSError as error:
            raise UserError(f"{place} cannot be deleted ({error.strerror}); delete it yourself") from error
    return gone


def _is_of(place: Path, gallery: Path) -> bool:
    """Whether a folder is an index of the gallery, or a file its index of an earlier version."""
    if place.name.startswith(_stem(gallery)):
        return place.is_dir() or place.suffix == OLD_SUFFIX
    try:
        return files.read_json(place / ABOUT)["gallery"] == os.path.realpath(gallery)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)


def _bar(known: np.ndarray) -> tqdm:
    """A progress bar on terminals; counts embedded and unreadable pictures."""
    hidden = None if jax.process_index() == 0 else True
    return tqdm(total=len(known), initial=int(known.sum()), unit=" pictures", dynamic_ncols=True, disable=hidden)
