"""Pictures of one's own: a data set made from a list of files or from a folder."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from san_jax.batch import Record
from san_jax.data import picture_folder, threads
from san_jax.errors import UserError
from tfds_builders import layouts, people_list, people_split
from tfds_builders.people_list import PeopleList, Row
from tfds_builders.record import ReidBuilder, Rows, encode_png

SPLIT_FILE = "split.csv"  # in the prepared set, if a split was made
STORED_AS_THEY_ARE = ("JPEG", "PNG")
EXIF_ORIENTATION = 0x0112


@dataclasses.dataclass(kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """The rows to store; None for a set that is prepared already and whose list is not at hand."""

    listed: PeopleList | None = None


class Folder(ReidBuilder):
    """The pictures of a list (`people_list`) or folder (`layouts`), under a name that changes with them, STEM-HASH8.

    Pictures are stored as the files are, or, where a viewer would show something else than their plain pixels (rotated
    by EXIF, transparent, grey, of 16 bits) or a box is given, as PNG of what it would show. A list without splits gets
    one (`people_split`), which is written beside the records.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = ()
    given: ClassVar[dict[str, FolderConfig]] = {}  # those that `config_of` has read, by name

    @classmethod
    def get_builder_config(cls, name: str, version=None) -> FolderConfig | None:
        """The config of STEM-HASH8; None for other names."""
        if name in cls.given:
            return cls.given[name]
        return FolderConfig(name=name) if re.fullmatch(r"[\w.-]+-[0-9a-f]{8}", name, re.ASCII) else None

    @classmethod
    def config_of(cls, place: str, *, pattern: str = "") -> str:
        """Reads a list or folder, and returns the name of its config.

        Args:
          place: path of the list or folder.
          pattern: for folders, as in `layouts.read`.

        Raises:
          UserError: it cannot be read, or something is wrong with it.
        """
        path = Path(place).expanduser()
        listed = people_list.read(path) if people_list.is_list(place) else layouts.read(path, pattern=pattern)
        stem = re.sub(r"[^\w.-]", "_", listed.stem, flags=re.ASCII)
        name = f"{stem}-{listed.digest}"
        cls.given[name] = FolderConfig(name=name, listed=listed)
        return name

    @classmethod
    def with_textures(cls, name: str, textures: Path, *, split: str) -> list[Row]:
        """The rows of a config that `config_of` has read, with splits; those of one split have textures NAME.png."""
        rows = _with_splits(cls.given[name].listed).rows
        return [
            dataclasses.replace(row, texture=textures / f"{row.name}.png" if row.split == split else row.texture)
            for row in rows
        ]

    def plan(self, manual_dir: None) -> dict[str, list[Row]]:
        """The rows of every split, in the list's order."""
        given = self.builder_config.listed
        if given is None:
            name = self.builder_config.name
            raise UserError(f"folder/{name} is not prepared; give the list or folder it is made from")
        listed = _with_splits(given)
        if listed is not given:
            people_list.write(Path(self.data_dir) / SPLIT_FILE, listed.rows)
        self._lines = listed.remarks
        splits = {split: [row for row in listed.rows if row.split == split] for split in self.SPLITS}
        return {split: rows for split, rows in splits.items() if rows}

    def remarks(self, place: Path) -> list[str]:
        """How the list was understood, and where a split that was made can be changed."""
        made = place / SPLIT_FILE
        kept = [f"the split is {made}; copy it, change it, and give it in place of the list"] if made.exists() else []
        return [*self._lines, *kept]

    def records(self, items: Sequence[Row], manual_dir: None) -> Iterator[Record]:
        """Reads some pictures of one split, by several threads."""
        with ThreadPoolExecutor(threads.num_threads(None)) as pool:
            pictures = pool.map(lambda row: stored_picture(row.path, row.box), items)
            textures = pool.map(lambda row: stored_picture(row.texture) if row.texture else b"", items)
            for row, image, texture in zip(items, pictures, textures, strict=True):
                yield {
                    "image": image,
                    "texture": texture,
                    "pid": row.pid,
                    "camid": row.camid,
                    "name": row.name,
                    "time": row.time,
                }

    def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
        """When the picture was taken, ISO 8601; "" if the list does not say."""
        return {"time": tfds.features.Text()}

    def splits(self) -> tuple[str, ...]:
        """Those that the list has."""
        return tuple(self.info.metadata)

    def rows(self, split: str, variant: str) -> Rows:
        """Where the records of a split are stored; a list may lack some of the splits."""
        if split not in self.info.metadata:
            there = ", ".join(self.info.metadata)
            raise UserError(f"folder/{self.builder_config.name} has no pictures in split {split}, only in {there}")
        return super().rows(split, variant)

    def _check_splits(self, plan) -> None:
        """Any split will do; `rows` says which are missing."""


def _with_splits(listed: PeopleList) -> PeopleList:
    return listed if listed.has_splits else people_split.split(listed)


def stored_picture(path: Path, box: tuple[float, float, float, float] | None = None) -> bytes:
    """An encoded picture whose plain pixels are what a viewer shows of a file, or of a box in it.

    Args:
      path: of the picture.
      box: x, y, w, h in pixels of the upright picture; what lies outside the picture is cut off.

    Raises:
      UserError: the file is no readable picture, or the box lies outside it.
    """
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as opened:
            opened.load()
            if box is None and _is_plain(opened):
                return content
            seen = picture_folder.as_seen(opened)
    except Exception as error:  # Pillow fails in many ways on damaged files
        why = getattr(error, "strerror", None) or "it is no picture, or damaged"
        raise UserError(f"{path} cannot be read ({why}); replace it, or take it out of the list") from error
    return encode_png(np.asarray(seen if box is None else seen.crop(_inside(box, seen.size, path))))


def _is_plain(picture: Image.Image) -> bool:
    """Whether a picture's pixels are what viewers show."""
    plain = picture.format in STORED_AS_THEY_ARE and picture.mode == "RGB" and not picture.has_transparency_data
    return plain and getattr(picture, "n_frames", 1) == 1 and picture.getexif().get(EXIF_ORIENTATION, 1) == 1


def _inside(box: tuple[float, float, float, float], size: tuple[int, int], path: Path) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels that a box touches in a picture of this size."""
    x, y, w, h = box
    left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
    right, bottom = min(size[0], int(np.ceil(x + w))), min(size[1], int(np.ceil(y + h)))
    if left >= right or top >= bottom:
        raise UserError(
            f"{path}: the box {x:g},{y:g},{w:g},{h:g} lies outside the picture of {size[0]} x {size[1]} pixels; "
            "correct the list"
        )
    return left, top, right, bottom
