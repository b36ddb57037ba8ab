"""Opens data sets by name, with random access; prepares missing ones. `python -m tfds_builders NAME` only prepares."""

import sys

if sys.argv[:1] == ["-m"]:  # run as a command; the imports below take seconds
    from san_jax.process import stopping

    stopping.end_on_signals()

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from san_jax import remote
from san_jax.batch import Record
from san_jax.errors import UserError
from san_jax.files import at_home, is_remote
from san_jax.process import lock
from tfds_builders import people_list, staging
from tfds_builders.cuhk03 import Cuhk03
from tfds_builders.folder import Folder
from tfds_builders.people_list import Row
from tfds_builders.pit import Pit
from tfds_builders.record import DrawnTextures, ReidBuilder, Rows
from tfds_builders.releases import RELEASES
from tfds_builders.set_copy import SetCopy
from tfds_builders.synthetic_reid import SyntheticReid

BUILDERS: dict[str, type[ReidBuilder]] = {
    builder.name: builder for builder in (Cuhk03, *RELEASES, Folder, SyntheticReid, Pit)
}
DESCRIBED = ("pid", "camid", "name", "has_texture")  # columns of every split in a prepared set's metadata.json


class ReidSource:
    """Random access to the records of one split, a `san_jax.batch.Source`; its files are opened at the first read.

    Attributes:
      name: as users write it, "cuhk03/labeled"; "folder/STEM-HASH8" if they name a list or folder of pictures.
      split: "train", "query" or "gallery"; "train" or "test" of pairs.
      pids, camids: int32 [n], known without reading records.
      names: n stems of the pictures' file names.
      has_textures: whether every record's `texture` holds a picture.
      digest: of the encoded pictures.
    """

    def __init__(self, builder: ReidBuilder, rows: Rows, *, name: str, split: str):
        self.name, self.split = name, split
        self._builder, self._stored_split, self._rows = builder, rows.stored_split, rows.rows
        self._texture = rows.texture
        self.pids = rows.pids
        self.camids = builder.numbers(rows.stored_split, "camid")[rows.rows]
        self.names = builder.column(rows.stored_split, "name")[rows.rows].tolist()
        has_texture = builder.column(rows.stored_split, "has_texture")[rows.rows]
        self.has_textures = self._texture == "image" or bool(has_texture.all())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Record:
        """The record of a row.

        Raises:
          UserError: the prepared files are damaged.
        """
        stored_row = int(self._rows[row])
        try:
            stored = self._stored_records[stored_row]
        except Exception as error:  # array_record, riegeli and protobuf have no common exception class
            raise UserError(
                f"{self.name}, split {self.split}: the record of row {row} cannot be read; "
                f"delete {self._builder.data_dir} and start again to rebuild it"
            ) from error
        record = Record(
            image=stored["image"],
            texture=stored[self._texture],
            pid=int(self.pids[row]),
            camid=int(self.camids[row]),
            name=stored["name"].decode(),
        )
        knows_visible = "visible" in stored and self._texture == "texture"
        return record | {"visible": stored["visible"]} if knows_visible else record

    @functools.cached_property
    def people(self) -> list[str]:
        """Each identity, in the order of `pids`: the builder's `world`, and the stored pid, any number or word."""
        labels = self._builder.info.metadata[self._stored_split]["pid"]
        found = {pid: labels[row] for pid, row in zip(self.pids.tolist(), self._rows.tolist(), strict=True)}
        return [f"{self._builder.world}/{found[pid]}" for pid in sorted(found)]

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the split's files and of what this source reads from them."""
        shards = []
        for path in self._builder.info.splits[self._stored_split].filepaths:
            with open(path, "rb") as shard:
                shards.append(hashlib.file_digest(shard, "sha256").hexdigest())
        read = [shards, self._rows.tolist()] + (["image"] if self._texture == "image" else [])
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()

    @functools.cached_property
    def _stored_records(self):
        return self._builder.as_data_source(self._stored_split)

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_stored_records"}


def open_source(
    name: str, split: str, *, data_dir: str | Path, manual_dir: str | Path = "", pattern: str = ""
) -> ReidSource:
    """The records of one split of a data set, which is prepared first if it is missing.

    Args:
      name: DATASET/CONFIG, "cuhk03/labeled"; a classic config may name its test set, "cuhk03/labeled_classic:7". Or the
        path of a list (.csv, .tsv) or folder of pictures.
      split: "train", "query" or "gallery"; pairs have "train" and "test".
      data_dir: folder of prepared data sets; may be shared by processes and machines that start together. Or its
        address in an object store, from which the set is copied if it is not copied yet.
      manual_dir: folder that holds the release; needed only to prepare.
      pattern: of the names of pictures in a folder, see `layouts`; "" for the default.

    Raises:
      UserError: unknown name or split, or the release or what was prepared from it is missing or damaged.
    """
    if is_own(name):
        name = own_name(name, pattern=pattern)
    prepared_name, _, variant = name.partition(":")
    prepared_name = whole_name(prepared_name)
    builder_class = find_builder(prepared_name)
    if split not in builder_class.SPLITS:
        raise UserError(f"{name} has no split {split}; it has {', '.join(builder_class.SPLITS)}")
    builder = prepare(prepared_name, data_dir=data_dir, manual_dir=manual_dir)
    try:
        source = ReidSource(builder, builder.rows(split, variant), name=name, split=split)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise damaged(prepared_name, builder.data_dir) from error
    if not len(source):
        raise UserError(f"{name} has no pictures in split {split}; choose another set")
    return source


def all_variants(name: str) -> list[str]:
    """The names of all variants if a name ends in ":all", else the name itself.

    Raises:
      UserError: the set has no variants.
    """
    prepared_name, _, variant = name.partition(":")
    if variant != "all" or is_own(name):
        return [name]
    found = make_builder(whole_name(prepared_name), Path("nowhere")).variants()
    if not found:
        raise UserError(f"data set {prepared_name} has no variants; leave out :all")
    return [f"{prepared_name}:{variant}" for variant in found]


def drawn_textures(name: str) -> DrawnTextures | None:
    """The generated textures that DATASET/CONFIG reads from manual_dir; None if it reads none."""
    if is_own(name):
        return None
    name = whole_name(name.partition(":")[0])
    return make_builder(name, Path("nowhere")).drawn()


def known_names() -> list[str]:
    """All names that can be prepared; builders may accept more, such as "synthetic_reid/small-occlusion0"."""
    return [f"{name}/{config.name}" for name, builder in BUILDERS.items() for config in builder.BUILDER_CONFIGS]


def is_own(name: str) -> bool:
    """Whether a name is the path of a list, or of a folder of pictures, rather than that of a data set."""
    if people_list.is_list(name):
        return True
    is_set = name.partition("/")[0].partition(":")[0] in BUILDERS
    return bool(name) and not is_set and os.path.isdir(at_home(name, known=False))


def own_name(place: str, *, pattern: str = "") -> str:
    """folder/STEM-HASH8 of a list or folder of pictures, which is read; errors as of `Folder.config_of`."""
    return f"folder/{Folder.config_of(place, pattern=pattern)}"


class TexturedList(NamedTuple):
    """A list to be written: its path, and its rows, some of which have textures."""

    path: Path
    rows: Sequence[Row]

    def write(self) -> None:
        """Writes it."""
        people_list.write(self.path, self.rows)


def list_with_textures(place: str, textures: Path, *, split: str, pattern: str = "") -> TexturedList:
    """A list of the pictures of a list or folder, those of one split with textures.

    Args:
      place: path of the list or folder.
      textures: folder of the textures, NAME.png, and of the list, STEM_textures.csv.
      split: the split whose textures these are.
      pattern: as in `open_source`.

    Raises:
      UserError: the folder has a list of textures by these names that belong to other pictures, and would be kept.
    """
    config = Folder.config_of(place, pattern=pattern)
    path = textures / f"{Folder.given[config].listed.stem}_textures.csv"
    rows = Folder.with_textures(config, textures, split=split)
    pictures = {row.texture.absolute(): (os.path.abspath(row.path), row.box) for row in rows if row.texture}
    for other in people_list.read(path).rows if path.exists() else ():
        shown = os.path.abspath(other.path), other.box
        if other.texture and pictures.get(other.texture, shown) != shown:
            raise UserError(f"{path} gives {other.texture.name} to {other.path}; write the textures somewhere else")
    return TexturedList(path, rows)


def whole_name(name: str) -> str:
    """DATASET/CONFIG of a name, which may omit the config if the data set has a default.

    Raises:
      UserError: there is no such data set, or no such config of it.
    """
    dataset, _, config = name.partition("/")
    builder_class = BUILDERS.get(dataset)
    config = config or getattr(builder_class, "DEFAULT_BUILDER_CONFIG_NAME", None)
    if not config or not builder_class or not builder_class.get_builder_config(config):
        own = ", or give a list (.csv, .tsv) or a folder of pictures that exists"
        if name and os.path.isdir(name):  # it is named like a data set
            own = f"; for the folder of this name write ./{name}"
        raise UserError(f"there is no data set {name}; there are {', '.join(known_names())}{own}")
    return f"{dataset}/{config}"


def find_builder(name: str) -> type[ReidBuilder]:
    """The class that prepares DATASET/CONFIG."""
    return BUILDERS[whole_name(name).split("/")[0]]


def prepare(name: str, *, data_dir: str | Path, manual_dir: str | Path = "", pattern: str = "") -> ReidBuilder:
    """The builder of a data set, with its records written. Of several processes, one writes and the rest wait.

    Args:
      name: DATASET/CONFIG, or the path of a list or folder of pictures.
      data_dir, manual_dir, pattern: as in `open_source`.
    """
    listed, name = name, own_name(name, pattern=pattern) if is_own(name) else whole_name(name.partition(":")[0])
    given, data_dir = data_dir, remote.data_folder(data_dir).absolute()
    try:
        str(data_dir).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"data_dir {data_dir} is no UTF-8, and data sets need a path that is; rename it") from error
    if is_remote(given):
        place = f"{name}/{find_builder(name).VERSION}"
        copied = SetCopy.of(given, place, data_dir, name=name, listed=listed)
        _write_once(name, data_dir, copied.is_whole, copied.write, does="copy")
    else:
        builder = make_builder(name, data_dir)
        if builder.data_path.is_dir():
            return checked(name, builder)
        write = functools.partial(write_records, name, data_dir, manual_dir)
        _write_once(name, data_dir, builder.data_path.is_dir, write, does="prepare")
    return checked(name, make_builder(name, data_dir))


def checked(name: str, builder: ReidBuilder) -> ReidBuilder:
    """The builder of a prepared data set, if the columns that describe its records can be read and belong together.

    Raises:
      UserError: they cannot.
    """
    try:
        columns = [[of_split[feature] for feature in DESCRIBED] for of_split in builder.info.metadata.values()]
        is_whole = bool(columns) and all(
            all(isinstance(column, list) for column in some) and len(set(map(len, some))) == 1 for some in columns
        )
    except Exception as error:  # as in `make_builder`
        raise damaged(name, builder.data_dir) from error
    if not is_whole:
        raise damaged(name, builder.data_dir)
    return builder


def _write_once(
    name: str, data_dir: Path, is_there: Callable[[], bool], write: Callable[[], None], *, does: str
) -> None:
    """Writes a data set if it is not there, when no other process does."""
    if is_there():
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Without locks several processes may write, each its own copy; the first one is kept.
        with lock.waited_for(
            data_dir / f"{staging.prefix(name)}lock", f"waiting for another process to {does} {name}"
        ):
            staging.clear(data_dir, name)
            if not is_there():
                write()
    except OSError as error:
        raise UserError(f"{name} cannot be prepared in {data_dir}: {error.strerror or error}") from error


def make_builder(name: str, data_dir: Path) -> ReidBuilder:
    """The builder of DATASET/CONFIG on a folder of prepared data sets."""
    builder_class = find_builder(name)
    config = name.partition("/")[2]
    try:
        return builder_class(data_dir=data_dir, config=config)
    except Exception as error:  # TFDS reads what is prepared, and fails in many ways on damaged files
        raise damaged(name, data_dir / name) from error


def damaged(name: str, folder: str | Path) -> UserError:
    """The error of a prepared data set whose description cannot be read."""
    return UserError(f"{name} as prepared in {folder} is damaged; delete that folder and start again to rebuild it")


def write_records(name: str, data_dir: Path, manual_dir: str | Path) -> None:
    """Writes a data set into a staging folder and moves it to its place when it is complete."""
    release = at_home(manual_dir).absolute()
    instructions = make_builder(name, data_dir).instructions()
    if instructions and not (manual_dir and release.is_dir() and any(release.iterdir())):
        raise UserError(
            f"{name} is not in data_dir {data_dir} yet, and manual_dir {str(manual_dir)!r} holds no release; "
            + instructions
        )
    print(f"preparing {name} in {data_dir}", file=sys.stderr, flush=True)
    target = make_builder(name, data_dir).data_path
    with staging.folder(data_dir, name) as own:
        builder = make_builder(name, own)
        builder.open_source = functools.partial(open_source, data_dir=data_dir, manual_dir=manual_dir)
        download_config = tfds.download.DownloadConfig(manual_dir=release)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download
                builder.download_and_prepare(download_config=download_config, file_format="array_record")
        except RuntimeError as error:  # array_record raises it on a full disk
            raise OSError(str(error)) from error
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(builder.data_dir, target)
        except OSError:
            if not target.is_dir():  # it exists if another process finished first
                raise
        for line in builder.remarks(target):
            print(line, file=sys.stderr, flush=True)
