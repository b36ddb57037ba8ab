"""The field's sets, from their releases as they are: folders of pictures whose names say who they show.

                    train pictures / people   query            gallery           cameras
    market1501           12,936 /   751       3,368 /   750     15,913 /   750      6    gallery: 2,798 of nobody
    dukemtmc_reid        16,522 /   702       2,228 /   702     17,661 / 1,110      8
    occluded_duke        15,618 /   702       2,210 /   519     17,661 / 1,110      8    queries are half hidden
    msmt17               32,621 / 1,041      11,659 / 3,060     82,161 / 3,060     15
    cuhk03_np             7,368 /   767       1,400 /   700      5,328 /   700      2    labeled; detected 7,365, 5,332
    partial_reid                                300 /    60        300 /    60           queries are parts of people
    partial_ilids                               119 /   119        119 /   119           queries are parts of people
    viper:K                 632 /   316         316 /   316        316 /   316      2    K from 0 to 9: seeded halves

Each has a config `pictures`, the default, and where it is trained on, `texture`, whose training pictures have textures
that a generator drew, MANUAL_DIR/texture_NAME/PICTURE.png. The counts are those that the owners published; a release
with others is refused, since its scores could not be compared.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from san_jax.data import picture_folder
from san_jax.errors import UserError
from tfds_builders import layouts
from tfds_builders.file_builder import FileBuilder
from tfds_builders.people_list import Row, with_unique_names
from tfds_builders.record import DrawnTextures, Rows

PICTURES, TEXTURE = "pictures", "texture"  # names of configs
NUM_HALVES = 10  # of VIPeR


class Size(NamedTuple):
    """Pictures of a split, and people among them."""

    pictures: int
    people: int


class ReleaseConfig(tfds.core.BuilderConfig):
    """Which pictures, and whether those for training have textures: by the config's name."""


def configs(*variants: str) -> tuple[ReleaseConfig, ...]:
    """The configs of a set that is trained on, with and without textures."""
    plain = variants or (PICTURES,)
    textured = [f"{variant}_{TEXTURE}" for variant in variants] or [TEXTURE]
    return tuple(ReleaseConfig(name=name) for pair in zip(plain, textured, strict=True) for name in pair)


class Release(FileBuilder):
    """Base of the sets: a subclass says where its pictures are and how many there should be.

    Attributes:
      FOLDERS: names of the release's folder in manual_dir; the first that exists is read.
      SIZES: published sizes of the splits.
      SOURCE: where the release comes from.
      NOBODY: the pid of distractors, pictures of nobody in the queries; None if the set has none.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = configs()
    DEFAULT_BUILDER_CONFIG_NAME = PICTURES
    FOLDERS: ClassVar[Sequence[str]]
    SIZES: ClassVar[Mapping[str, Size]]
    SOURCE: ClassVar[str]
    NOBODY: ClassVar[int | None] = None

    def instructions(self) -> str:
        """The release's folder, and that of the textures."""
        needed = f"manual_dir holds {self.FOLDERS[0]}/ of {self.SOURCE}"
        if not (drawn := self.drawn()):
            return needed
        draws = f"generate_textures.py --input=tfds:{drawn.pictures} draws them"
        return f"{needed}, and {drawn.folder}/ with textures; {draws}"

    def drawn(self) -> DrawnTextures | None:
        """The generated textures of a config `texture`."""
        name = self.builder_config.name
        if not name.endswith(TEXTURE):
            return None
        variant = name.removesuffix(TEXTURE).removesuffix("_")
        folder = "_".join(filter(None, (TEXTURE, self.name, variant)))
        return DrawnTextures(f"{self.name}/{variant or PICTURES}", Path(folder))

    def root(self, manual_dir: Path) -> Path:
        """The release's folder.

        Raises:
          UserError: there is none.
        """
        for name in self.FOLDERS:
            if (manual_dir / name).is_dir():
                return manual_dir / name
        raise UserError(
            f"{manual_dir} has no folder {' or '.join(self.FOLDERS)}; give the one that holds {self.SOURCE}"
        )

    def listed(self, root: Path) -> Iterator[Row]:
        """The rows of all splits, from the release's folder: by default in Market-1501's layout."""
        yield from layouts.read(root).rows

    def plan(self, manual_dir: Path) -> dict[str, list[Row]]:
        """The pictures of every split, after a check of their numbers."""
        root = self.root(manual_dir)
        rows = with_unique_names(self.listed(root))
        splits = {split: [row for row in rows if row.split == split] for split in self.SIZES}
        for split, size in self.sizes().items():
            found = Size(len(splits[split]), len({row.pid for row in splits[split]} - {self.NOBODY}))
            if found != size:
                raise UserError(
                    f"{root} has {found.pictures:,} {split} pictures of {found.people:,} people, {self.name} has "
                    f"{size.pictures:,} of {size.people:,}; unpack the release again, or write a list "
                    "(.csv) of what there is"
                )
        if drawn := self.drawn():
            splits["train"] = list(self.with_textures(splits["train"], manual_dir / drawn.folder))
        return splits

    def sizes(self) -> Mapping[str, Size]:
        """Published sizes of the stored splits."""
        return self.SIZES

    def with_textures(self, rows: Sequence[Row], folder: Path) -> Iterator[Row]:
        """The same rows with the files of their textures.

        Raises:
          UserError: one is missing.
        """
        if missing := [row.name for row in rows if not (folder / f"{row.name}.png").is_file()]:
            raise UserError(
                f"{folder / missing[0]}.png is missing ({len(missing)} textures of {len(rows)} training pictures); "
                f"generate_textures.py --input=tfds:{self.drawn().pictures} draws them"
            )
        for row in rows:
            yield dataclasses.replace(row, texture=folder / f"{row.name}.png")


def leading_number(path: Path) -> int:
    """The number with which a file's name begins: its person.

    Raises:
      UserError: it begins with something else.
    """
    if not (match := re.match(r"\d+", path.name)):
        raise UserError(f"{path} does not begin with the number of a person; unpack the release again")
    return int(match[0])


class Market1501(Release):
    """Market-1501 (Zheng 2015). Junk (pid -1) is left out, as its protocol wants; distractors (pid 0) are gallery.

    `distractors_500k` has the 500,000 further distractors in the gallery, from the folder images/ of the release.
    """

    BUILDER_CONFIGS = (*configs(), ReleaseConfig(name="distractors_500k"))
    FOLDERS = ("Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15", "market1501", "Market-1501")
    SIZES: ClassVar[Mapping[str, Size]] = {
        "train": Size(12_936, 751),
        "query": Size(3_368, 750),
        "gallery": Size(15_913, 750),
    }
    NOBODY = 0
    DISTRACTORS = 500_000
    SOURCE = "Market-1501 (http://www.liangzheng.org/Project/project_reid.html)"

    def listed(self, root: Path) -> Iterator[Row]:
        """The rows of the release, and of the further distractors if the config has them."""
        yield from super().listed(root)
        if self.builder_config.name == "distractors_500k":
            for path in picture_folder.list_files(root / "images").pictures:
                camera = re.search(r"_c(\d)", path.name)
                camid = int(camera[1]) if camera else 0
                yield Row(path=path, pid=self.NOBODY, camid=camid, name=f"images/{path.stem}", split="gallery")

    def sizes(self) -> Mapping[str, Size]:
        """With further distractors, the gallery is larger."""
        more = self.DISTRACTORS if self.builder_config.name == "distractors_500k" else 0
        pictures, people = self.SIZES["gallery"]
        return {**self.SIZES, "gallery": Size(pictures + more, people)}


class DukemtmcReid(Release):
    """DukeMTMC-reID (Ristani 2016, Zheng 2017). Its owners withdrew it in 2019; here for those who have it."""

    FOLDERS = ("DukeMTMC-reID", "dukemtmc-reid/DukeMTMC-reID", "dukemtmc_reid")
    SIZES: ClassVar[Mapping[str, Size]] = {
        "train": Size(16_522, 702),
        "query": Size(2_228, 702),
        "gallery": Size(17_661, 1_110),
    }
    SOURCE = "DukeMTMC-reID (withdrawn by its owners in 2019)"


class OccludedDuke(Release):
    """Occluded-Duke (Miao 2019): another split of DukeMTMC-reID, whose queries are all partly hidden."""

    FOLDERS = ("Occluded_Duke", "occluded_duke")
    SIZES: ClassVar[Mapping[str, Size]] = {
        "train": Size(15_618, 702),
        "query": Size(2_210, 519),
        "gallery": Size(17_661, 1_110),
    }
    SOURCE = "Occluded-Duke, made from DukeMTMC-reID by https://github.com/lightas/Occluded-DukeMTMC-Dataset"


class Msmt17(Release):
    """MSMT17 (Wei 2018), of both releases: v1, and v2, whose faces are masked. Train has list_train and list_val.

    A line of a list names a picture and its person, "0000/0000_000_01_0303morning_0015_0.jpg 0"; the third part of the
    name is the camera.
    """

    BUILDER_CONFIGS = configs("v1", "v2")
    DEFAULT_BUILDER_CONFIG_NAME = "v1"
    SIZES: ClassVar[Mapping[str, Size]] = {
        "train": Size(32_621, 1_041),
        "query": Size(11_659, 3_060),
        "gallery": Size(82_161, 3_060),
    }
    SOURCE = "MSMT17 (http://www.pkuvmc.com/publications/msmt17.html, by agreement)"
    LISTS: ClassVar[Mapping[str, tuple[str, str]]] = {  # list -> folder of its pictures, split
        "list_train.txt": ("train", "train"),
        "list_val.txt": ("train", "train"),
        "list_query.txt": ("test", "query"),
        "list_gallery.txt": ("test", "gallery"),
    }

    @property
    def release(self) -> str:
        """V1 or V2."""
        return self.builder_config.name.partition("_")[0].upper()

    @property
    def FOLDERS(self) -> Sequence[str]:
        """The folder of the release of this config."""
        return f"MSMT17_{self.release}", f"msmt17/MSMT17_{self.release}"

    def listed(self, root: Path) -> Iterator[Row]:
        """The rows of the four lists."""
        for file, (folder, split) in self.LISTS.items():
            pictures = root / (folder if self.release == "V1" else f"mask_{folder}_v2")
            try:
                lines = (root / file).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{root / file} cannot be read ({error}); unpack the release again") from error
            for number, line in enumerate(lines, 1):
                match = re.fullmatch(r"(\S+?([^/\s]*)\.\w+)\s+(\d+)\s*", line)
                parts = match[2].split("_") if match else ()
                if len(parts) < 3 or not parts[2].isdecimal():
                    raise UserError(f"{root / file}: line {number} is not PICTURE PID; unpack the release again")
                name = f"{folder}/{match[1].rpartition('.')[0]}"
                labels = {"pid": int(match[3]), "camid": int(parts[2]), "split": split}
                yield Row(path=pictures / match[1], name=name, **labels)


class Cuhk03Np(Release):
    """CUHK03-NP (Zhong 2017): CUHK03 by the new protocol as folders of PNG files; `cuhk03` reads the original."""

    BUILDER_CONFIGS = configs("labeled", "detected")
    DEFAULT_BUILDER_CONFIG_NAME = "labeled"
    SIZES: ClassVar[Mapping[str, Size]] = {
        "train": Size(7_368, 767),
        "query": Size(1_400, 700),
        "gallery": Size(5_328, 700),
    }
    DETECTED: ClassVar[Mapping[str, Size]] = {**SIZES, "train": Size(7_365, 767), "gallery": Size(5_332, 700)}
    SOURCE = "CUHK03-NP (https://github.com/zhunzhong07/person-re-ranking)"

    @property
    def boxes(self) -> str:
        """Labeled or detected."""
        return self.builder_config.name.partition("_")[0]

    @property
    def FOLDERS(self) -> Sequence[str]:
        """The folder of the boxes of this config."""
        return f"cuhk03-np/{self.boxes}", f"CUHK03-NP/{self.boxes}", f"cuhk03/cuhk03-np/{self.boxes}"

    def sizes(self) -> Mapping[str, Size]:
        """Those of the config's boxes."""
        return self.SIZES if self.boxes == "labeled" else self.DETECTED


class Partial(Release):
    """Base of the sets whose queries are parts of people: pid from the digits that begin a file's name.

    Queries count as taken by camera 0 and the gallery by camera 1, so that no gallery picture is left out for a query.
    """

    SPLITS = ("query", "gallery")
    BUILDER_CONFIGS = (ReleaseConfig(name=PICTURES),)
    PARTS: ClassVar[Mapping[str, Sequence[str]]]  # split -> names of its folder

    def listed(self, root: Path) -> Iterator[Row]:
        """The rows of both folders."""
        for camid, split in enumerate(self.SPLITS):
            folders = [root / name for name in self.PARTS[split]]
            folder = next((folder for folder in folders if folder.is_dir()), folders[0])
            for path in picture_folder.list_files(folder).pictures:
                name = path.relative_to(root).with_suffix("").as_posix()
                yield Row(path=path, pid=leading_number(path), camid=camid, name=name, split=split)


class PartialReid(Partial):
    """Partial-REID (Zheng 2015): five parts and five whole pictures of each of 60 people."""

    FOLDERS = ("Partial_REID", "PartialREID", "partial_reid")
    PARTS: ClassVar[Mapping[str, Sequence[str]]] = {
        "query": ("partial_body_images",),
        "gallery": ("whole_body_images",),
    }
    SIZES: ClassVar[Mapping[str, Size]] = {"query": Size(300, 60), "gallery": Size(300, 60)}
    SOURCE = "Partial-REID (Zheng et al., Partial Person Re-identification, ICCV 2015)"


class PartialIlids(Partial):
    """Partial-iLIDS (Zheng 2011): a part and a whole picture of each of 119 people."""

    FOLDERS = ("PartialiLIDS", "Partial_iLIDS", "Partial-iLIDS", "partial_ilids")
    PARTS: ClassVar[Mapping[str, Sequence[str]]] = {"query": ("query", "Probe"), "gallery": ("gallery", "Gallery")}
    SIZES: ClassVar[Mapping[str, Size]] = {"query": Size(119, 119), "gallery": Size(119, 119)}
    SOURCE = "Partial-iLIDS (Zheng et al., Person Re-identification by Probabilistic Relative Distance, 2011)"


class Viper(Release):
    """VIPeR (Gray 2007): 632 people, a picture by each of two cameras; `viper:K` tests on half of them.

    The pictures are stored once. The halves of K = 0 .. 9 are drawn by the seed K; camera a is query, camera b gallery.
    """

    FOLDERS = ("VIPeR", "VIPeR.v1.0", "viper/VIPeR", "viper")
    BUILDER_CONFIGS = (ReleaseConfig(name=PICTURES),)
    STORED = "both"
    SIZES: ClassVar[Mapping[str, Size]] = {STORED: Size(1_264, 632)}
    SOURCE = "VIPeR (https://vision.soe.ucsc.edu/node/178)"

    def listed(self, root: Path) -> Iterator[Row]:
        """The pictures of both cameras, named PID_ANGLE; pids are those of the release, of which some are missing."""
        for camid, folder in enumerate(("cam_a", "cam_b")):
            for path in picture_folder.list_files(root / folder).pictures:
                labels = {"pid": leading_number(path), "camid": camid, "split": self.STORED}
                yield Row(path=path, name=f"{folder}/{path.stem}", **labels)

    def variants(self) -> Sequence[str]:
        """The halves."""
        return [str(k) for k in range(NUM_HALVES)]

    def rows(self, split: str, variant: str) -> Rows:
        """The rows of a split of one of the halves; the first one if none is named."""
        if variant and variant not in self.variants():
            raise UserError(f"half {variant} of {self.name} is none of 0 to {NUM_HALVES - 1}")
        pids, camids = self.numbers(self.STORED, "pid"), self.numbers(self.STORED, "camid")
        people = np.unique(pids)
        trained = np.random.default_rng(int(variant or 0)).permutation(people)[: len(people) // 2]
        is_trained = np.isin(pids, trained)
        chosen = is_trained if split == "train" else ~is_trained & (camids == (split == "gallery"))
        rows = np.flatnonzero(chosen)
        return Rows(self.STORED, rows, pids[rows])


RELEASES: tuple[type[Release], ...] = (
    Market1501,
    DukemtmcReid,
    OccludedDuke,
    Msmt17,
    Cuhk03Np,
    PartialReid,
    PartialIlids,
    Viper,
)
