"""The files of an index of features: a folder of parts, of which every save adds some.

about.json says whose features they are. A part is NAME.npy with features, which are mapped into memory, and NAME.json
with the names of their pictures and checksums.
"""

import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Int64

from san_jax import files
from san_jax.errors import UserError
from san_jax.model import ENCODER, Model
from san_jax.scoring import gallery_feats

# Pictures in a part at most, so that full parts are searched in place; 128 MB of 512 features each, which are written
# again if one changes.
PART_ROWS = 8 * gallery_feats.CHUNK
ABOUT = "about.json"
OLD_SUFFIX = ".npz"  # of indexes of earlier versions, which were one file
PART_NAME = r"\d{20}_\d+"
BROKEN = "is damaged, or was never an index"


@dataclasses.dataclass(frozen=True)
class Part:
    """The features of some pictures, as a part of an index holds them.

    Attributes:
      names: as in `Crop.name`.
      stamps: file size in bytes and modification time in nanoseconds, as of when the picture was read.
      feats: their features.
    """

    names: Sequence[str]
    stamps: Int64[np.ndarray, "n 2"]
    feats: Float[np.ndarray, "n D"]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def rows(self, rows: Int[np.ndarray, "m"]) -> "Part":
        """Some of its pictures."""
        return Part([self.names[row] for row in rows], self.stamps[rows], self.feats[rows])


class Stored(NamedTuple):
    """What a folder holds: its parts by name, and the names of parts that are damaged."""

    parts: dict[str, Part]
    damaged: list[str]


class Kind(NamedTuple):
    """What features an index holds: with which flags of search.py they were computed and kept.

    Attributes:
      flip: means over the picture and its mirror image.
      half: in half precision.
    """

    flip: bool = False
    half: bool = False

    @property
    def dtype(self) -> np.dtype:
        """In which they are stored."""
        return np.dtype(np.float16 if self.half else np.float32)

    def words(self) -> list[str]:
        """The flags that are set."""
        return [name for name, is_set in self._asdict().items() if is_set]

    def difference(self, other: Sequence[str]) -> str:
        """How features with the flags `other` differ from these, for a message; "" if they do not."""
        unlike = [name for name in self._fields if (name in self.words()) != (name in other)]
        return " and ".join(f"with{'' if name in other else 'out'} --{name}" for name in unlike)


PLAIN = Kind()


def kind_of(given: Mapping[str, Any]) -> Kind:
    """The kind that flags ask for, which are named as its fields."""
    return Kind(**{name: given[name] for name in Kind._fields})


def digest(model: Model, kind: Kind = PLAIN) -> str:
    """SHA-256, in hexadecimal, of all that a feature depends on except its picture; and the words of its kind."""
    return " ".join([model.digest(*ENCODER), *kind.words()])


def empty(num_feats: int, kind: Kind = PLAIN) -> Part:
    """An index without pictures."""
    return Part([], np.empty((0, 2), np.int64), np.empty((0, num_feats), kind.dtype))


def read(path: Path, model: Model, *, gallery: str | None = None, kind: Kind = PLAIN) -> tuple[Stored, str]:
    """The parts of an index and "", or no parts and what is wrong with the folder ("" if it is missing or empty).

    Args:
      path: folder of the index.
      model: whose features are wanted.
      gallery: what they are to be of; None for whatever it is.
      kind: how they are to be computed and kept.

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
        encoder, *words = about["made_by"].split()
        checkpoint, of = about["checkpoint"], about["gallery"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return nothing, BROKEN
    if gallery is not None and of != os.path.realpath(gallery):
        raise UserError(f"the index {path} is of {of}, not of {gallery}; choose another --index, or delete that folder")
    if [encoder, *words] != digest(model, kind).split():
        difference = kind.difference(words) if encoder == digest(model) else ""
        return nothing, f"holds features {difference or f'by another model, {checkpoint}'}"
    names = sorted(name.removesuffix(".json") for name in inside if re.fullmatch(PART_NAME + r"\.json", name))
    parts = {name: _read_part(path / name, model.num_feats, kind.dtype) for name in names}
    return Stored(
        {name: part for name, part in parts.items() if part is not None},
        [name for name, part in parts.items() if part is None],
    ), ""


def write_about(path: Path, model: Model, kind: Kind, *, gallery: str) -> None:
    """Writes whose features an index holds, if its folder does not say so already."""
    about = {"made_by": digest(model, kind), "checkpoint": model.source, "gallery": os.path.realpath(gallery)}
    content = json.dumps(about, indent=2) + "\n"
    if not (path / ABOUT).exists() or (path / ABOUT).read_text() != content:
        files.write(path / ABOUT, content)


def _read_part(path: Path, num_feats: int, dtype: np.dtype) -> Part | None:
    """A part, its features mapped into memory; None if it is damaged."""
    try:
        about = files.read_json(path.with_suffix(".json"))
        feats = load_feats(path)
        names, stamps = about["names"], np.array(about["stamps"], np.int64).reshape(-1, 2)
        sizes = (len(names), num_feats), dtype, len(names)
        if (feats.shape, feats.dtype, len(stamps)) != sizes or zlib.crc32(feats) != about["crc32"]:
            return None
        if zlib.crc32(json.dumps([names, about["stamps"]]).encode()) != about["names_crc32"]:
            return None
    except Exception:  # numpy fails in many ways on damaged files
        return None
    return Part(names, stamps, feats)


def load_feats(path: Path) -> np.ndarray:
    """The array of a part, named without its suffix; mapped into memory if there is one process."""
    # On a shared file system, another host's process may delete a part that this one has mapped.
    return np.load(path.with_suffix(".npy"), mmap_mode="r" if jax.process_count() == 1 else None)


def write_part(path: Path, part: Part) -> list[Path]:
    """Adds the pictures to an index, PART_ROWS in a part; returns the parts, without their suffixes."""
    written = []
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
        written.append(name)
    return written


def delete_part(path: Path, name: str) -> None:
    """Deletes a part of an index."""
    for suffix in (".json", ".npy"):  # without its names, a part does not count
        (path / name).with_suffix(suffix).unlink(missing_ok=True)


def delete_abandoned(path):
    """Deletes what killed processes have left: unfinished files, and features without names."""
    files.delete_abandoned(path)
    for place in path.glob("*.npy"):
        is_part = re.fullmatch(PART_NAME, place.stem)
        if is_part and not place.with_suffix(".json").exists() and files.is_abandoned(place):
            place.unlink(missing_ok=True)


def joined(parts: Sequence[Part]) -> Part:
    """One part with the pictures of some, of which there is at least one."""
    names = list(itertools.chain.from_iterable(part.names for part in parts))
    stamps, feats = (np.concatenate([getattr(part, name) for part in parts]) for name in ("stamps", "feats"))
    return Part(names, stamps, feats)


def set_aside(path: Path, complaint: str) -> Path:
    """Moves an index that is not the wanted one, since it COMPLAINT, to PATH.old, and returns that place.

    One that was moved there before is deleted.

    Raises:
      UserError: it cannot be moved.
    """
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
    return aside


def earlier(path: Path) -> Path:
    """The file that was the index in earlier versions."""
    return path.with_name(path.name + OLD_SUFFIX)


def read_earlier(path: Path, model: Model, kind: Kind) -> Part | None:
    """The features in an index of an earlier version; None if there is none, or it is damaged or of another model."""
    try:
        content = earlier(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip():
                return None
        with np.load(io.BytesIO(content)) as saved:
            found = Part(saved["names"].tolist(), saved["stamps"], saved["feats"])
            made_by = saved["made_by"].tolist()[0]
    except Exception:  # zipfile and numpy fail in many ways on damaged files
        return None
    fits = (found.stamps.shape, found.feats.shape) == ((len(found), 2), (len(found), model.num_feats))
    return found if fits and not kind.half and made_by == digest(model, kind) else None
