"""The features of a gallery by one encoder, kept on disk; an update embeds only new and changed pictures.

An index is a folder. about.json says whose features it holds. Every save of an update adds a part, NAME.npy with
features, which are mapped into memory, and NAME.json with the names of their pictures and a checksum; nothing else is
written again. Parts with pictures that have changed or are gone are replaced by what is left of them. An update that
was killed continues from its last save.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Int, Int64
from tqdm import tqdm

from san_jax import files, remote
from san_jax.data import threads
from san_jax.data.crops import Crops
from san_jax.errors import UserError
from san_jax.gallery.embedding import embed
from san_jax.model import ENCODER, Model
from san_jax.weights import pretrained

SAVE_SECONDS = 30.0  # between two saves; a killed update loses at most this work
PART_ROWS = 65_536  # pictures in a part at most: 128 MB of 512 features each, which is written again if one changes
SMALL_ROWS, MOST_SMALL = 4096, 32  # more parts than that with fewer pictures than that are joined to one
NO_FILE = -1  # size and time of a file that was listed but does not exist
ABOUT = "about.json"
OLD_SUFFIX = ".npz"  # of indexes of earlier versions, which were one file
PART_NAME = r"\d{20}_\d+"
BROKEN = "is damaged, or was never an index"


@dataclasses.dataclass(frozen=True)
class Index:
    """The features of pictures.

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

    def rows(self, rows: Int[np.ndarray, "m"]) -> "Index":
        """Some of its pictures."""
        return Index([self.names[row] for row in rows], self.stamps[rows], self.feats[rows])


class Stored(NamedTuple):
    """What a folder holds: its parts by name, and the names of parts that are damaged."""

    parts: dict[str, Index]
    damaged: list[str]


def empty(num_feats: int) -> Index:
    """An index without pictures."""
    return Index([], np.empty((0, 2), np.int64), np.empty((0, num_feats), np.float32))


def read(path: Path, model: Model, *, gallery: str | None = None, flip: bool = False) -> tuple[Stored, str]:
    """The parts of an index and "", or no parts and what is wrong with the folder ("" if it is missing or empty).

    Args:
      path: folder of the index.
      model: whose features are wanted.
      gallery: what they are to be of; None for whatever it is.
      flip: whether they are to be means over mirror images.

    Raises:
      UserError: the folder exists and cannot be read, is not the folder of an index, or is that of another gallery.
    """
    nothing = Stored({}, [])
    try:
        inside = {entry.name for entry in path.iterdir() if not entry.name.endswith(files.UNFINISHED)}
    except FileNotFoundError:
        return nothing, ""
    except OSError as error:
        raise UserError(f"the index {path} cannot be read ({error.strerror}); choose another place") from error
    if not inside:
        return nothing, ""
    if ABOUT not in inside:
        raise UserError(f"{path} is not an index, since it has no {ABOUT} but {min(inside)}; choose another --index")
    try:
        about = files.read_json(path / ABOUT)
        made_by, checkpoint, of = about["made_by"], about["checkpoint"], about["gallery"]
    except (OSError, ValueError, KeyError, TypeError):
        return nothing, BROKEN
    if gallery is not None and of != os.path.realpath(gallery):
        raise UserError(f"the index {path} is of {of}, not of {gallery}; choose another --index, or delete that folder")
    if made_by != digest(model, flip=flip):
        is_same_model = made_by == digest(model, flip=not flip)
        what = f"with{'out' if flip else ''} --flip" if is_same_model else f"by another model, {checkpoint}"
        return nothing, f"holds features {what}"
    names = sorted(name.removesuffix(".json") for name in inside if re.fullmatch(PART_NAME + r"\.json", name))
    parts = {name: _read_part(path / name, model.num_feats) for name in names}
    return Stored(
        {name: part for name, part in parts.items() if part is not None},
        [name for name, part in parts.items() if part is None],
    ), ""


def _read_part(path: Path, num_feats: int) -> Index | None:
    """A part, its features mapped into memory; None if it is damaged."""
    try:
        about = files.read_json(path.with_suffix(".json"))
        # On a shared file system, another host's process may delete a part that this one has mapped.
        feats = np.load(path.with_suffix(".npy"), mmap_mode="r" if jax.process_count() == 1 else None)
        names, stamps = about["names"], np.array(about["stamps"], np.int64).reshape(-1, 2)
        sizes = (len(names), num_feats), np.float32, len(names)
        if (feats.shape, feats.dtype, len(stamps)) != sizes or zlib.crc32(feats) != about["crc32"]:
            return None
        if zlib.crc32(json.dumps([names, about["stamps"]]).encode()) != about["names_crc32"]:
            return None
    except Exception:  # numpy fails in many ways on damaged files
        return None
    return Index(names, stamps, feats)


def _write_part(path: Path, part: Index) -> None:
    """Adds the pictures to an index, PART_ROWS in a part."""
    for start in range(0, len(part), PART_ROWS):
        if not (path / ABOUT).exists():
            raise UserError(f"the index {path} was deleted while a search used it; start the search again")
        some = part.rows(np.arange(start, min(start + PART_ROWS, len(part))))
        content, stamps = io.BytesIO(), some.stamps.tolist()
        np.save(content, np.ascontiguousarray(some.feats))
        checks = {
            "crc32": zlib.crc32(np.ascontiguousarray(some.feats)),
            "names_crc32": zlib.crc32(json.dumps([some.names, stamps]).encode()),
        }
        # Names sort by time. Two updates of one index at once write parts of their own.
        name = path / f"{time.time_ns():020d}_{os.getpid()}"
        files.write(name.with_suffix(".npy"), content.getvalue())
        files.write(name.with_suffix(".json"), json.dumps({"names": some.names, "stamps": stamps, **checks}))


def _delete_part(path: Path, name: str) -> None:
    for suffix in (".json", ".npy"):  # without its names, a part does not count
        (path / name).with_suffix(suffix).unlink(missing_ok=True)


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
    """The default folder of a gallery's index: in WORKDIR/search of a run, or in `search` next to a file of weights.

    For weights that come with the package it is in runs/NAME/search of the current folder. The newest and the best
    checkpoint of a run have separate indexes, and so have galleries of the same name, files of boxes, and flipped
    features.
    """
    kind = ("_best" if checkpoint.resolve().parent.name == "best" else "") + ("_flip" if flip else "")
    return home_of(checkpoint) / f"{_stem(gallery, boxes)}{kind}"


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
    flip: bool = False,
    workers: int | None = None,
    batch_size: int = 64,
    save_seconds: float = SAVE_SECONDS,
) -> tuple[Index, dict[str, str]]:
    """Brings the index of a gallery up to date, with a progress bar; pictures that are gone drop out of it.

    The index of another encoder is moved to PATH.old, and all pictures are embedded. An index of an earlier version,
    the file PATH.npz, is read, and deleted when its features are in the new one.

    Args:
      path: folder of the index, shared by all processes.
      crops: the gallery.
      model: computes the features.
      flip: as in `Model.features`.
      workers: threads that read pictures; None = one for each core.
      batch_size: pictures at once, over all devices.
      save_seconds: seconds between two saves.

    Returns:
      The index of all readable pictures, in the order of `crops`, and label -> reason for the others.

    Raises:
      UserError: the index cannot be read or written.
    """
    stored, complaint = read(path, model, gallery=crops.title, flip=flip)
    earlier = None if stored.parts else _read_earlier(path, model, flip=flip)
    growing = _Growing(crops, [*stored.parts.values(), *([earlier] if earlier else [])], model.num_feats)
    multihost_utils.sync_global_devices("all processes have read the index")  # before one of them writes it
    if complaint:
        _set_aside(path, complaint)
    _check_alike(growing.known)
    todo, num_before = np.flatnonzero(~growing.known), growing.known.sum()
    _say(f"{crops.title}: {len(crops)} pictures, {num_before} of them in the index")
    for remark in crops.remarks:
        _say(remark)
    if jax.process_index() == 0:  # a place that cannot be written is reported before the work, not after it
        _prepare(path, stored, earlier, growing, model, crops, flip=flip)
    embedded = _embedded(crops, todo, model, flip=flip, workers=workers, batch_size=batch_size)
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

    def __init__(self, crops: Crops, parts: Sequence[Index], num_feats: int):
        self.labels = [crop.label for crop in crops.crops]
        self._names = [crop.name for crop in crops.crops]
        stamps = {path: _stamp(path) for path in {crop.frame.path for crop in crops.crops}}
        self._stamps = np.array([stamps[crop.frame.path] for crop in crops.crops], np.int64).reshape(-1, 2)
        self._num_feats, self._pending, self._added = num_feats, [], []
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
        if len(rows):
            self._pending.append((rows, feats))
            self.known[rows] = True

    def pending(self) -> Index:
        """The pictures that were added since the last call."""
        rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._pending)])
        feats = np.concatenate([np.empty((0, self._num_feats), np.float32), *(feats for _, feats in self._pending)])
        self._added += self._pending
        self._pending = []
        return Index([self._names[row] for row in rows], self._stamps[rows], feats)

    def index(self) -> Index:
        """The index of all embedded pictures, in the gallery's order."""
        rows = np.flatnonzero(self.known)
        names = list(itertools.compress(self._names, self.known))
        if len(self._parts) == 1 and not (self._added or self._pending):
            own, part, kept = self._parts[0]
            if np.array_equal(own, rows) and len(kept) == len(part):
                return Index(names, self._stamps[rows], part.feats)  # as it is mapped into memory
        feats = np.empty((len(self._names), self._num_feats), np.float32)
        for own, part, kept in self._parts:
            feats[own] = part.feats[kept]
        for own, added in (*self._added, *self._pending):
            feats[own] = added
        return Index(names, self._stamps[rows], feats if len(rows) == len(feats) else feats[rows])


def _keys_of(part):
    return zip(part.names, map(tuple, part.stamps.tolist()), strict=True)


def _prepare(path, stored, earlier, growing, model, crops, *, flip):
    """Writes what about.json says, replaces parts that hold more than the gallery, and converts an earlier index."""
    about = {"made_by": digest(model, flip=flip), "checkpoint": model.source, "gallery": os.path.realpath(crops.title)}
    content = json.dumps(about, indent=2) + "\n"
    if not (path / ABOUT).exists() or (path / ABOUT).read_text() != content:
        files.write(path / ABOUT, content)
    for name in stored.damaged:
        _say(f"{path}: the part {name} is damaged, and its pictures are embedded again")
        _delete_part(path, name)
    _delete_abandoned(path)
    kept = dict(zip(stored.parts, growing.kept, strict=False))
    small = [name for name, rows in kept.items() if len(rows) < SMALL_ROWS]
    for name, rows in kept.items():
        if len(rows) < len(stored.parts[name]) and name not in small:
            _write_part(path, stored.parts[name].rows(rows))
            _delete_part(path, name)
    if len(small) > MOST_SMALL or any(len(kept[name]) < len(stored.parts[name]) for name in small):
        _write_part(path, _joined([stored.parts[name].rows(kept[name]) for name in small], model.num_feats))
        for name in small:
            _delete_part(path, name)
    if earlier:
        _write_part(path, earlier.rows(growing.kept[-1]))
        _earlier(path).unlink()


def _delete_abandoned(path):
    """Deletes what killed processes have left: unfinished files, and features without names."""
    files.delete_abandoned(path)
    for place in path.glob("*.npy"):
        is_part = re.fullmatch(PART_NAME, place.stem)
        if is_part and not place.with_suffix(".json").exists() and files.is_abandoned(place):
            place.unlink(missing_ok=True)


def _joined(parts: Sequence[Index], num_feats: int) -> Index:
    parts = [empty(num_feats), *parts]
    names = list(itertools.chain.from_iterable(part.names for part in parts))
    stamps, feats = (np.concatenate([getattr(part, name) for part in parts]) for name in ("stamps", "feats"))
    return Index(names, stamps, feats)


def _embedded(crops, todo, model, *, workers, **options):
    """Rows, feats, and row -> reason of the pictures in rows `todo`, batch by batch."""
    readers = crops.readers()
    with ThreadPoolExecutor(threads.num_threads(workers)) as pool:
        for rows, feats, failed in embed(model, [readers[row] for row in todo], pool=pool, **options):
            yield todo[rows], feats, {todo[row]: why for row, why in failed.items()}


def _add_all(growing, embedded, *, path, save_seconds):
    """Adds pictures; saves at intervals and at the end. Label -> reason for unreadable ones."""

    def save():
        added = growing.pending()
        if jax.process_index() == 0:
            _write_part(path, added)

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


def _earlier(path: Path) -> Path:
    return path.with_name(path.name + OLD_SUFFIX)


def _read_earlier(path: Path, model: Model, *, flip: bool) -> Index | None:
    """The features in an index of an earlier version; None if there is none, or it is damaged or of another model."""
    try:
        content = _earlier(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip():
                return None
        with np.load(io.BytesIO(content)) as saved:
            found = Index(saved["names"].tolist(), saved["stamps"], saved["feats"])
            made_by = saved["made_by"].tolist()[0]
    except Exception:  # zipfile and numpy fail in many ways on damaged files
        return None
    fits = (found.stamps.shape, found.feats.shape) == ((len(found), 2), (len(found), model.num_feats))
    return found if fits and made_by == digest(model, flip=flip) else None


def _set_aside(path, complaint):
    """Moves an index that is not the wanted one to PATH.old, in place of one that was moved there before."""
    aside = next(
        place
        for place in (path.with_name(f"{path.name}.old{number or ''}") for number in itertools.count())
        if not place.exists() or (place / ABOUT).exists()
    )
    if jax.process_index() == 0:
        try:
            if aside.exists():
                shutil.rmtree(aside)
            path.rename(aside)
        except OSError as error:
            raise UserError(f"the index {path} {complaint}, and cannot be moved ({error.strerror}); move it") from error
    _say(f"{path} {complaint}: it is now {aside}, and the index is built again")


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
