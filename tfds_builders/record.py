"""What every re-ID set stores for a picture, and how it is written: encoded, in the given order, shard by shard."""

import abc
import functools
import io
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32, Int64, UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from san_jax.batch import Record, Source
from san_jax.errors import UserError

# Pictures are plain bytes: TFDS's Image feature decodes, and so encodes, with TensorFlow.
PICTURES = ("image", "texture", "visible")  # the last in `pit` alone
PICTURE = tfds.features.Tensor(shape=(), dtype=np.object_)
FEATURES = {
    "image": PICTURE,
    "texture": PICTURE,
    "pid": np.int32,
    "camid": np.int32,
    "name": tfds.features.Text(),
}
SHARD_SIZE = 512  # records; TFDS holds one shard in memory while it writes it
MOST_DIGITS = 4000  # of a label that is a number; Python reads no longer ones
ENCODED_AHEAD = 64  # pictures that wait to be encoded, at most


class Rows(NamedTuple):
    """Where the records of a split are.

    Attributes:
      stored_split: the split in which they are stored.
      rows: their row numbers in it.
      pids: of each.
      texture: the stored picture that is read as their texture, "texture" or "image".
    """

    stored_split: str
    rows: Int64[np.ndarray, "n"]
    pids: Int32[np.ndarray, "n"]
    texture: str = "texture"


class DrawnTextures(NamedTuple):
    """Generated textures: for the training pictures of which set, and in which folder of manual_dir."""

    pictures: str
    folder: Path


class LocalInfo(tfds.core.DatasetInfo):
    """Does not look for the set on Google's servers, which do not have it; TFDS leaves a temporary folder each time."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: the code describes the set."""


class ReidBuilder(tfds.core.ShardBasedBuilder):
    """Base of the builders. A subclass says which pictures there are (`plan`) and reads them (`records`).

    Shard-based, because TFDS's generator-based builders keep a whole split in memory up to 1 GB and need TensorFlow
    to spill what is larger. All features but the pictures are also kept as columns in `info.metadata`, so that pids
    are known without reading records.
    """

    SPLITS = ("train", "query", "gallery")  # those that readers may ask for
    # (name, split) -> the records of another set that this one is made from; set by the code that prepares this one.
    open_source: Callable[[str, str], Source]

    @abc.abstractmethod
    def plan(self, manual_dir: Path | None) -> Mapping[str, Sequence[Any]]:
        """The items to write, in order, for each stored split.

        Args:
          manual_dir: the folder that holds the release; None if `instructions` asks for none.

        Raises:
          UserError: anything the pictures need is missing; checked before the first one is read.
        """

    @abc.abstractmethod
    def records(self, items: Sequence[Any], manual_dir: Path | None) -> Iterator[Record]:
        """Reads and encodes a part of the plan, one record per item."""

    def instructions(self) -> str:
        """What this config needs in manual_dir; "" if nothing."""
        return ""

    def remarks(self, place: Path) -> Sequence[str]:
        """Lines on a set that has just been prepared in the folder `place`; most data sets need none."""
        return ()

    def drawn(self) -> DrawnTextures | None:
        """The generated textures NAME.png that this config reads; None if it has none or has its own."""
        return None

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str | None:
        """`instructions` under TFDS's name; TFDS opens manual_dir only if there are any."""
        return self.instructions() or None

    def extra_features(self) -> Mapping[str, Any]:
        """Features that this set stores in addition to those of every set."""
        return {}

    @property
    def world(self) -> str:
        """Where a pid stands for one person; sets of one world, such as those of one release, share their people."""
        return self.name

    def splits(self) -> Sequence[str]:
        """The splits of SPLITS that the prepared set has."""
        return self.SPLITS

    def variants(self) -> Sequence[str]:
        """What may follow a colon after the set's name, each a set of its own; most data sets have none."""
        return ()

    def rows(self, split: str, variant: str) -> Rows:
        """Where the records of `split` are stored.

        Args:
          split: one of SPLITS.
          variant: what follows a colon in the data set's name; "" if nothing.

        Raises:
          UserError: there is no such variant.
        """
        if variant:
            raise UserError(f"data set {self.info.full_name.rsplit('/', 1)[0]} has no variants; leave out :{variant}")
        pids = self.numbers(split, "pid")
        return Rows(split, np.arange(len(pids)), pids)

    def column(self, stored_split: str, feature: str) -> np.ndarray:
        """One feature of all records, or `has_texture`, [n ...]."""
        return np.array(self.info.metadata[stored_split][feature])

    def numbers(self, stored_split: str, feature: str) -> Int32[np.ndarray, "n"]:
        """The `pid` or `camid` of all records of a split as int32, the same number in all splits.

        Integers that fit int32 are kept. If any label of the set is another integer or a string, all labels are
        numbered from 0: integers ascending, then strings in alphabetical order.
        """
        labels = {label for columns in self.info.metadata.values() for label in columns[feature]}
        if all(is_int32(label) for label in labels):
            return self.column(stored_split, feature).astype(np.int32)
        ordered = sorted(labels, key=lambda label: (isinstance(label, str), label))
        number_of = {label: number for number, label in enumerate(ordered)}
        return np.array([number_of[label] for label in self.info.metadata[stored_split][feature]], np.int32)

    def _info(self) -> tfds.core.DatasetInfo:
        return LocalInfo(
            builder=self,
            features=tfds.features.FeaturesDict({**FEATURES, **self.extra_features()}),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return OrderedFieldsWriter(self.info.file_format)

    def _download_and_prepare(self, *args, **kwargs):
        with tqdm(unit=" pictures", leave=False, disable=None, file=sys.stderr) as self._bar:
            super()._download_and_prepare(*args, **kwargs)

    def _shard_iterators_per_split(self, dl_manager):
        self.info.metadata.clear()
        manual_dir = Path(dl_manager.manual_dir) if self.instructions() else None
        plan = self.plan(manual_dir)
        self._check_splits(plan)
        self._bar.reset(total=sum(map(len, plan.values())))
        return {
            split: [
                functools.partial(self._shard, split, items[start : start + SHARD_SIZE], manual_dir)
                for start in range(0, len(items), SHARD_SIZE)
            ]
            for split, items in plan.items()
        }

    def _check_splits(self, plan: Mapping[str, Sequence[Any]]) -> None:
        """Raises a UserError that names a split without pictures."""
        asked = self.SPLITS if type(self).rows is ReidBuilder.rows else ()  # else they are parts of the stored ones
        for split in dict.fromkeys([*plan, *asked]):
            if not plan.get(split):
                name = self.info.full_name.rsplit("/", 1)[0]
                raise UserError(f"{name} has no pictures in split {split}; it is not prepared; check its pictures")

    def _shard(self, split: str, items: Sequence[Any], manual_dir: Path | None) -> Iterator[tuple[int, Record]]:
        columns = self.info.metadata.setdefault(split, {})
        for _, record in zip(items, self.records(items, manual_dir), strict=True):
            labels = {key: whole_label(record[key], field=key, name=record["name"]) for key in ("pid", "camid")}
            kept = {key: value for key, value in record.items() if key not in (*PICTURES, *labels)}
            for key, value in {**kept, "has_texture": bool(record["texture"])}.items():
                columns.setdefault(key, []).append(np.asarray(value).tolist())
            for key, label in labels.items():
                columns.setdefault(key, []).append(label)
            self._bar.update()
            # Readers take labels from the columns; the record can hold int32 only.
            yield len(columns["pid"]) - 1, {**record, **{key: x if is_int32(x) else -1 for key, x in labels.items()}}


def whole_label(value: Any, *, field: str, name: str) -> int | str:
    """A pid or camid as it is kept: an integer of any size, also from text that spells one, or a string ("0002").

    Raises:
      UserError: it is missing (None, NaN or an empty text), or there are several.
    """
    if np.ndim(value):
        raise UserError(f"{name} has the {field} {value!r}; give every picture one number or one word")
    value = np.asarray(value).item()
    value = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "" or value != value:
        raise UserError(f"{name} has no {field}; give every picture a number or a string")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value)
    digits = text.removeprefix("-")
    is_number = digits.isdecimal() and digits.isascii() and len(digits) < MOST_DIGITS and str(int(text)) == text
    return int(text) if is_number else text


def is_int32(label: int | str) -> bool:
    """Whether a label is an integer that fits int32."""
    return isinstance(label, int) and -(2**31) <= label < 2**31


class OrderedFieldsWriter(tfds.core.ExampleWriter):
    """Writes fields in a fixed order (protobuf's is random), so that the same release always gives the same files."""

    def write(self, path, examples):
        """Writes (key, serialized tf.Example) pairs to one shard."""
        parse = tf_example_pb2.Example.FromString
        ordered = ((key, parse(data).SerializeToString(deterministic=True)) for key, data in examples)
        return super().write(path, ordered)


def encode_png(picture: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W"], *, level: int = 1) -> bytes:
    """Encodes PNG; level 1 takes two thirds of the time of the default level for a twentieth more bytes."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=level)
    return file.getvalue()


def encode_rows(rows: Iterable[tuple[UInt8[np.ndarray, "..."], ...]]) -> Iterator[tuple[bytes, ...]]:
    """Pictures as PNG, the last of each row a texture; encoded by other threads while `rows` yields the next ones.

    A texture that is repeated in a row, as the same object, is encoded only once, and therefore compressed more.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting, last, encoded = deque(), None, None
        for *pictures, texture in rows:
            if texture is not last:
                last, encoded = texture, pool.submit(encode_png, texture, level=6)
            waiting.append((*(pool.submit(encode_png, picture) for picture in pictures), encoded))
            if len(waiting) > ENCODED_AHEAD:
                yield tuple(part.result() for part in waiting.popleft())
        for row in waiting:
            yield tuple(part.result() for part in row)


def read_picture(path: Path) -> bytes:
    """The file's bytes, after a check that they hold a picture.

    Raises:
      UserError: they do not.
    """
    try:
        with Image.open(path) as image:
            image.load()
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} is not a readable picture; make or fetch it again") from error
