"""Pictures of one's own: a data set made from a list of files or from a folder."""

import dataclasses
import re
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from san_jax.errors import UserError
from tfds_builders import layouts, people_list, people_split
from tfds_builders.file_builder import FileBuilder
from tfds_builders.people_list import PeopleList, Row
from tfds_builders.record import Rows

SPLIT_FILE = "split.csv"  # in the prepared set, if a split was made


@dataclasses.dataclass(kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """The rows to store; None for a set that is prepared already and whose list is not at hand."""

    listed: PeopleList | None = None


class Folder(FileBuilder):
    """The pictures of a list (`people_list`) or folder (`layouts`), under a name that changes with them, STEM-HASH8.

    A list without splits gets one (`people_split`), which is written beside the records.
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
        listed = layouts.read_own(place, pattern=pattern)
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

    def extra_of(self, row: Row) -> dict[str, str]:
        """When the picture was taken."""
        return {"time": row.time}

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
            raise UserError(
                f"folder/{self.builder_config.name} has no pictures in split {split}, only in {there}; "
                "give a list that has them, or one without splits"
            )
        return super().rows(split, variant)

    def _check_splits(self, plan) -> None:
        """Any split will do; `rows` says which are missing."""


def _with_splits(listed: PeopleList) -> PeopleList:
    return listed if listed.has_splits else people_split.split(listed)
