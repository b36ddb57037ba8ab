"""Stand-ins for the releases of the field's sets: their file names and numbers, every picture the same small one."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write(release: Path, picture: Path, paths: Iterator[str]) -> Path:
    """Makes links to one picture."""
    folders = set()
    for name in paths:
        path = release / name
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        path.symlink_to(picture)
    return release


def picture(folder: Path) -> Path:
    """A JPEG of 4 x 8 pixels."""
    path = folder / "picture.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 4, 3)).astype(np.uint8)).save(path)
    return path


def spread(count: int, people: Sequence[int], cameras: int) -> Iterator[tuple[int, int, int]]:
    """(pid, camera from 1, number) of `count` pictures, so that every person has some."""
    for number in range(count):
        yield people[number % len(people)], 1 + number // len(people) % cameras, number


def market_names(folder: str, count: int, people: Sequence[int], cameras: int = 6) -> Iterator[str]:
    """Names in Market-1501's way."""
    for pid, camera, number in spread(count, people, cameras):
        shown = f"{pid:04d}" if pid >= 0 else str(pid)
        yield f"{folder}/{shown}_c{camera}s{1 + number % 3}_{number:06d}_{number % 100:02d}.jpg"


def market1501(distractors: int = 0) -> Iterator[str]:
    """As in Market-1501-v15.09.15, with its distractors and junk."""
    trained, tested = range(2, 1504, 2), range(1, 1501, 2)
    yield from market_names("bounding_box_train", 12_936, trained)
    yield from market_names("query", 3_368, tested)
    yield from market_names("bounding_box_test", 13_115, tested)
    yield from market_names("bounding_box_test", 2_798, [0])
    yield from market_names("bounding_box_test", 3_819, [-1])
    yield from market_names("gt_bbox", 100, trained)
    yield from market_names("images", distractors, [0])
    yield "readme.txt"


def duke_names(folder: str, count: int, people: Sequence[int]) -> Iterator[str]:
    """Names in DukeMTMC-reID's way."""
    for pid, camera, number in spread(count, people, 8):
        yield f"{folder}/{pid:04d}_c{camera}_f{number:07d}.jpg"


def dukemtmc_reid() -> Iterator[str]:
    """As in DukeMTMC-reID."""
    yield from duke_names("bounding_box_train", 16_522, range(1, 703))
    yield from duke_names("query", 2_228, range(1001, 1703))
    yield from duke_names("bounding_box_test", 17_661, range(1001, 2111))


def occluded_duke() -> Iterator[str]:
    """As in Occluded_Duke."""
    yield from duke_names("bounding_box_train", 15_618, range(1, 703))
    yield from duke_names("query", 2_210, range(1001, 1520))
    yield from duke_names("bounding_box_test", 17_661, range(1001, 2111))


def cuhk03_np(boxes: str) -> Iterator[str]:
    """As in CUHK03-NP."""
    train, gallery = {"labeled": (7_368, 5_328), "detected": (7_365, 5_332)}[boxes]
    for folder, count, people in (
        ("bounding_box_train", train, range(1, 768)),
        ("query", 1_400, range(768, 1_468)),
        ("bounding_box_test", gallery, range(768, 1_468)),
    ):
        for pid, camera, number in spread(count, people, 2):
            yield f"{boxes}/{folder}/{pid:04d}_c{camera}_{number}.png"


MSMT17 = {  # list -> folder, pictures, people
    "list_train.txt": ("train", 30_248, 1_041),
    "list_val.txt": ("train", 2_373, 1_041),
    "list_query.txt": ("test", 11_659, 3_060),
    "list_gallery.txt": ("test", 82_161, 3_060),
}


def msmt17_lines(count: int, people: int) -> Iterator[str]:
    """The lines of one list: path and pid."""
    for pid, camera, number in spread(count, range(people), 15):
        yield f"{pid:04d}/{pid:04d}_{number:03d}_{camera:02d}_0303morning_{number:04d}_0.jpg {pid}\n"


def write_msmt17(release: Path, *, version: str) -> Path:
    """The four lists of MSMT17; the pictures that they name are not written."""
    release.mkdir(parents=True)
    for file, (_, count, people) in MSMT17.items():
        (release / file).write_text("".join(msmt17_lines(count, people)))
    for folder in ("train", "test") if version == "v1" else ("mask_train_v2", "mask_test_v2"):
        (release / folder).mkdir()
    return release


def msmt17_pictures() -> Iterator[str]:
    """The pictures that the lists of MSMT17's first version name."""
    for _file, (folder, count, people) in MSMT17.items():
        yield from (f"{folder}/{line.split()[0]}" for line in msmt17_lines(count, people))


def partial_reid() -> Iterator[str]:
    """As in Partial_REID."""
    for folder, pid, number in itertools.product(("partial", "whole"), range(1, 61), range(1, 6)):
        yield f"{folder}_body_images/{pid:03d}_{number:03d}.jpg"


def partial_ilids() -> Iterator[str]:
    """As in PartialiLIDS."""
    for folder, pid in itertools.product(("Probe", "Gallery"), range(1, 120)):
        yield f"{folder}/{pid:03d}.jpg"


def viper() -> Iterator[str]:
    """As in VIPeR, whose pids have gaps."""
    for folder, number in itertools.product(("cam_a", "cam_b"), range(632)):
        yield f"{folder}/{number + number // 50:03d}_{45 * (number % 4)}.bmp"
