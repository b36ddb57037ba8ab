"""CUHK03 (Li 2014): converts the released `cuhk-03.mat` and protocols to records.

Source: https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html (needs an agreement with CUHK); the new protocol:
Zhong 2017, https://github.com/zhunzhong07/person-re-ranking. 1,467 people, two cameras each.

                train pictures / people    query          gallery
    labeled             7,368 / 767        1,400 / 700    5,328 / 700
    detected            7,365 / 767        1,400 / 700    5,332 / 700
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped
from scipy.io import loadmat

from san_jax.batch import Record
from san_jax.errors import UserError
from tfds_builders.record import DrawnTextures, ReidBuilder, Rows, encode_png, read_picture

NUM_TEST_SETS = 20  # of the classic protocol
CLASSIC = "pictures"  # the stored split of the classic configs; TFDS keeps the name "all" for itself
MAT = Path("cuhk03", "cuhk03_release", "cuhk-03.mat")
TEXTURES = Path("cuhk03", "texture_cuhk03_labeled")
EXTRACTED = "images_{kind}"  # folder in cuhk03/, where torchreid writes the pictures of MAT as PNG files

Cell = tuple[int, int, int]  # camera pair, person, index of the picture; all from 1


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture to be written, and its place in the release (pair, person, index; all from 1)."""

    pair: int
    person: int
    index: int  # 1 to 5 from camera 1, 6 to 10 from camera 2
    pid: int
    texture: str = ""  # file name in TEXTURES; "" = none
    test_sets: tuple[bool, ...] = ()  # classic protocol: membership in each of the 20

    @property
    def view(self) -> int:
        """1 or 2, the camera of the pair."""
        return 1 if self.index <= 5 else 2

    @property
    def name(self) -> str:
        """The protocol's name of the picture, without .png."""
        return f"{self.pair}_{self.person:03d}_{self.view}_{self.index:02d}"


@dataclasses.dataclass(kw_only=True)
class Cuhk03Config(tfds.core.BuilderConfig):
    """Which boxes, which protocol, and whether training pictures have textures."""

    kind: str  # labeled (boxes drawn by people) or detected
    classic: bool = False
    textures: bool = False


class Cuhk03(ReidBuilder):
    """CUHK03: new protocol (train, query, gallery) or classic (stored once, split by one of 20 test sets when read).

    Without `cuhk-03.mat` the pictures are read from the folders into which torchreid extracts them, images_labeled/ and
    images_detected/, by the same names; the classic test sets are in the .mat alone.

    In `train` of the new protocol a pid is the position of the protocol's label in sorted order, in query and gallery
    the label itself. The classic configs number identities across all camera pairs, from 1.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        Cuhk03Config(name="labeled", kind="labeled"),
        Cuhk03Config(name="detected", kind="detected"),
        Cuhk03Config(name="labeled_texture", kind="labeled", textures=True),
        Cuhk03Config(name="labeled_classic", kind="labeled", classic=True),
        Cuhk03Config(name="detected_classic", kind="detected", classic=True),
    )

    def instructions(self) -> str:
        """The files of the release."""
        protocol = "cuhk03/cuhk03_new_protocol_config_labeled.mat"
        return f"manual_dir holds {MAT}, {protocol}, the same for detected, and {TEXTURES}/"

    def drawn(self) -> DrawnTextures | None:
        """The pseudo textures."""
        return DrawnTextures("cuhk03/labeled", TEXTURES) if self.builder_config.textures else None

    def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
        """Classic: whether the picture's person is in each of the 20 test sets."""
        if not self.builder_config.classic:
            return {}
        return {"test_sets": tfds.features.Tensor(shape=(NUM_TEST_SETS,), dtype=np.bool_)}

    def plan(self, manual_dir: Path) -> dict[str, list[Picture]]:
        """The pictures of every split, in the protocol's order, after a check that the release has all of them."""
        config, extracted = self.builder_config, self.extracted(manual_dir)
        if extracted is not None:
            place, cells = extracted, extracted_cells(extracted)
        else:
            place = manual_dir / MAT
            with open_mat(place) as mat:
                cells = find_cells(mat, config.kind)
                if config.classic:
                    return {CLASSIC: classic_pictures(cells, read_test_sets(mat))}
        protocol = manual_dir / "cuhk03" / f"cuhk03_new_protocol_config_{config.kind}.mat"
        splits = read_protocol(protocol)
        present = set(cells)
        missing = [p for split in splits.values() for p in split if (p.pair, p.person, p.index) not in present]
        if missing:
            raise UserError(
                f"{protocol} names {missing[0].name}.png, which {place} lacks ({len(missing)} in all); "
                "use a protocol and a release that belong together"
            )
        if config.textures:
            splits["train"] = with_textures(splits["train"], manual_dir / TEXTURES)
        return splits

    def extracted(self, manual_dir: Path) -> Path | None:
        """The folder of extracted pictures; None if the release's .mat is there, or has to be."""
        folder = manual_dir / "cuhk03" / EXTRACTED.format(kind=self.builder_config.kind)
        there = folder.is_dir() and not self.builder_config.classic and not (manual_dir / MAT).exists()
        return folder if there else None

    @contextlib.contextmanager
    def reader(self, manual_dir: Path) -> Iterator[Callable[[Picture], bytes]]:
        """A function that reads and encodes a picture."""
        folder = self.extracted(manual_dir)
        if folder is not None:
            yield lambda item: read_picture(folder / f"{item.name}.png")
            return
        with open_mat(manual_dir / MAT) as mat:
            grids = read_grids(mat, self.builder_config.kind)

            def read(item: Picture) -> bytes:
                with reading(mat.filename):
                    picture = mat[grids[item.pair - 1][item.person - 1, item.index - 1]][()].T
                return encode_png(np.ascontiguousarray(picture))

            yield read

    def records(self, items: Sequence[Picture], manual_dir: Path) -> Iterator[Record]:
        """Reads pictures and textures of a part of one split."""
        with self.reader(manual_dir) as read:
            for item in items:
                record = {
                    "image": read(item),
                    "texture": read_picture(manual_dir / TEXTURES / item.texture) if item.texture else b"",
                    "pid": item.pid,
                    "camid": item.view - 1,
                    "name": item.name,
                }
                yield record | {"test_sets": np.array(item.test_sets)} if item.test_sets else record

    def variants(self) -> Sequence[str]:
        """The test sets of the classic protocol."""
        return [str(k) for k in range(NUM_TEST_SETS)] if self.builder_config.classic else ()

    def rows(self, split: str, variant: str) -> Rows:
        """Classic: `variant` is the number of the test set; its identities are query and gallery, all others train."""
        if not self.builder_config.classic:
            return super().rows(split, variant)
        if variant not in {str(k) for k in range(NUM_TEST_SETS)} | {""}:
            raise UserError(f"test set {variant} of {self.builder_config.name} is none of 0 to {NUM_TEST_SETS - 1}")
        is_tested = self.column(CLASSIC, "test_sets")[:, int(variant or 0)]
        rows = np.flatnonzero(~is_tested if split == "train" else is_tested)
        pids = self.column(CLASSIC, "pid")[rows]
        if split == "train":
            pids = np.unique(pids, return_inverse=True)[1]
        return Rows(CLASSIC, rows, pids.astype(np.int32))


def read_protocol(path: Path) -> dict[str, list[Picture]]:
    """Pictures of train, query and gallery in the order of the new protocol's indices."""
    if not path.is_file():
        raise UserError(f"there is no {path}; manual_dir holds the release and its protocol files")
    try:
        fields = loadmat(path)
        names = [str(name[0]) for name in fields["filelist"].ravel()]
        labels = fields["labels"].ravel().astype(int)
        indices = {split: fields[f"{split}_idx"].ravel().astype(int) - 1 for split in ("train", "query", "gallery")}
        places = [re.fullmatch(r"([1-5])_(\d{3})_[12]_(\d{2})\.png", name).groups() for name in names]
    except Exception as error:  # scipy fails in many ways on files that are not what they should be
        raise UserError(f"{path} is not a protocol file of CUHK03 ({type(error).__name__}); fetch it again") from error
    num = len(names)
    if len(labels) != num or any(idx.size == 0 or idx.min() < 0 or idx.max() >= num for idx in indices.values()):
        raise UserError(f"{path}: indices or labels do not fit its list of {num} pictures; fetch it again")
    train_labels = np.unique(labels[indices["train"]])
    splits = {}
    for split, idx in indices.items():
        pids = np.searchsorted(train_labels, labels[idx]) if split == "train" else labels[idx]
        splits[split] = [Picture(*map(int, places[i]), pid=int(pid)) for i, pid in zip(idx, pids, strict=True)]
    return splits


def with_textures(pictures: list[Picture], folder: Path) -> list[Picture]:
    """The same pictures with the names of their texture files; UserError if any is missing."""
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    pictures = [dataclasses.replace(picture, texture=f"{picture.name}.png") for picture in pictures]
    missing = [picture.texture for picture in pictures if picture.texture not in present]
    if missing:
        raise UserError(
            f"{folder / missing[0]} is missing ({len(missing)} textures of {len(pictures)} training pictures); "
            "every training picture needs one, or use cuhk03/labeled with config.mode=baseline"
        )
    return pictures


def read_grids(mat: h5py.File, kind: str) -> list[Shaped[np.ndarray, "people 10"]]:
    """References to the cells of `labeled` or `detected`, for each camera pair; MATLAB stores arrays transposed."""
    with reading(mat.filename):
        return [mat[ref][()].T for ref in mat[kind][()].ravel()]


def find_cells(mat: h5py.File, kind: str) -> list[Cell]:
    """The cells that hold a picture, sorted; empty cells are stored as vectors."""
    grids = enumerate(read_grids(mat, kind), 1)
    with reading(mat.filename):
        return [
            (pair, person, index)
            for pair, grid in grids
            for person, row in enumerate(grid, 1)
            for index, ref in enumerate(row, 1)
            if h5py.h5r.dereference(ref, mat.id).rank == 3
        ]


def extracted_cells(folder: Path) -> list[Cell]:
    """The cells of which a folder has the pictures, sorted."""
    names = (re.fullmatch(r"([1-5])_(\d{3})_[12]_(\d{2})\.png", path.name) for path in folder.iterdir())
    return sorted((int(name[1]), int(name[2]), int(name[3])) for name in names if name)


def read_test_sets(mat: h5py.File) -> list[set[tuple[int, int]]]:
    """The people (pair, person) of each test set of the classic protocol."""
    with reading(mat.filename):
        sets = [{(int(pair), int(person)) for pair, person in mat[ref][()].T} for ref in mat["testsets"][()].ravel()]
    if len(sets) != NUM_TEST_SETS:
        raise UserError(f"{mat.filename} has {len(sets)} test sets in place of {NUM_TEST_SETS}; fetch it again")
    return sets


def classic_pictures(cells: list[Cell], test_sets: list[set[tuple[int, int]]]) -> list[Picture]:
    """All pictures of the release, by pair, person and index."""
    people = sorted({(pair, person) for pair, person, _ in cells})
    pids = {person: pid for pid, person in enumerate(people, 1)}
    member = {person: tuple(person in one for one in test_sets) for person in people}
    return [Picture(*cell, pid=pids[cell[:2]], test_sets=member[cell[:2]]) for cell in cells]


@contextlib.contextmanager
def open_mat(path: Path) -> Iterator[h5py.File]:
    """The release's file, open for reading; UserError if it is missing or cut short."""
    if not path.is_file():
        raise UserError(f"there is no {path}; give the folder that holds cuhk03/ as manual_dir")
    with reading(path):
        mat = h5py.File(path, "r")
    with mat:
        yield mat


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns the errors that h5py raises on a file that is not as released into a UserError."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is cut short or not the release's ({reason}); copy or download it again") from error
