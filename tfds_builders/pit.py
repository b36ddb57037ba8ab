"""PIT, paired images and textures (Jin 2020, section 3.2), as records: the training data of SAN-PG.

The paper rendered 929 textures of SURREAL, each with ten bodies, poses and views, in front of pictures of COCO. SURREAL
and COCO have licences of their own, so pairs are rendered here from nothing but a seed, or read from the release.

                wardrobes x pairs    train / test     picture      texture
    procedural           929 x 10    8,810 /  480    256 x 128    256 x 256
    small                1200 x 1    1,140 /   60    128 x  64    128 x 128
    many                30000 x 1   28,500 / 1500    128 x  64    128 x 128
    photographs          929 x 10    8,810 /  480    256 x 128    256 x 256
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image, ImageOps

from san_jax.batch import Record
from san_jax.errors import UserError
from san_jax.synthesis import studio
from san_jax.synthesis.sitting import Sitting, sit
from tfds_builders.record import PICTURE, ReidBuilder, Rows, encode_rows, read_picture

PHOTOGRAPHS = Path("photographs")
RELEASE = Path("pit")
ITSELF = "pictures"  # the variant of a set in which a picture is its own texture
ENDINGS = (".jpg", ".jpeg", ".png")


class Pair(NamedTuple):
    """A pair to render or to read.

    Attributes:
      wardrobe: number of the texture among all textures.
      name: stem of the pair.
      index: number of a rendered pair among those of its wardrobe.
      image: file of the picture in a release, or of the photograph in the background; None for a street.
      texture: file of the texture in a release; None for rendered pairs.
      pid: number of the wardrobe in its split; -1 before pairs are split.
    """

    wardrobe: int
    name: str
    index: int = 0
    image: Path | None = None
    texture: Path | None = None
    pid: int = -1


@dataclasses.dataclass(kw_only=True)
class PitConfig(tfds.core.BuilderConfig):
    """Where pairs come from, and how many are rendered in which size.

    Attributes:
      seed: of the people, the places and the cameras.
      wardrobes: number of textures.
      pairs: number of pairs with each texture.
      height: of the pictures, in pixels, twice their width.
      texture_side: height and width of the textures, in pixels; divides 256.
      photographs: whether the background is a photograph instead of a street.
      released: whether pairs are read from a release; the other fields are then ignored.
    """

    seed: int = 3
    wardrobes: int = 929
    pairs: int = 10
    height: int = 256
    texture_side: int = 256
    photographs: bool = False
    released: bool = False


class Pit(ReidBuilder):
    """Pictures of one person each, centred and unoccluded, with the person's texture.

    A pid is the number of the wardrobe in its split. A twentieth of the wardrobes is held out in `test`, so that no
    texture is in both splits.

    The variant `pictures`, as in `pit/small:pictures`, pairs each picture with itself in place of its texture. What is
    learnt from it, but for semantic alignment, tells what aligned textures are worth (docs/ablation.md).

    `release` reads pairs of files with the same stem from `pit/images/` and `pit/textures/`, or from `pit/` where the
    stems end in `_image` and `_texture`. The part of a stem before its last underscore is the wardrobe: 0042_7 is a
    pair of wardrobe 0042. Files are stored unchanged.
    """

    VERSION = tfds.core.Version("1.1.0")
    SPLITS = ("train", "test")
    DEFAULT_BUILDER_CONFIG_NAME = "procedural"
    BUILDER_CONFIGS = (
        PitConfig(name="procedural"),
        # Many wardrobes and one pair of each, since a small generator would memorise a few wardrobes.
        PitConfig(name="small", seed=4, wardrobes=1200, pairs=1, height=128, texture_side=128),
        # For the weights in san_jax/pretrained. No set has the seed of another, here or in synthetic_reid: wardrobe n
        # of a seed is what person n of a world with that seed wears.
        PitConfig(name="many", seed=7, wardrobes=30_000, pairs=1, height=128, texture_side=128),
        PitConfig(name="photographs", photographs=True),
        PitConfig(name="release", released=True),
    )

    def extra_features(self) -> Mapping[str, Any]:
        """Which texels the picture shows: 255 for those squares of 4 x 4 of 256 x 256; empty for released pairs."""
        return {"visible": PICTURE}

    def instructions(self) -> str:
        """Where the release's files, or the photographs, belong."""
        if self.builder_config.released:
            return f"manual_dir holds {RELEASE}/images/ and {RELEASE}/textures/, with pairs of the same stem"
        if self.builder_config.photographs:
            return f"manual_dir holds {PHOTOGRAPHS}/, a folder of .jpg or .png such as COCO's"
        return ""

    def rows(self, split: str, variant: str) -> Rows:
        """The rows of a split; those of the variant `pictures` have the picture as texture."""
        if variant not in ("", ITSELF):
            raise UserError(f"{self.name}/{self.builder_config.name} has no variant {variant}; it has {ITSELF}")
        rows = super().rows(split, "")
        return rows._replace(texture="image") if variant else rows

    def plan(self, manual_dir: Path | None) -> dict[str, list[Pair]]:
        """The pairs of both splits, sorted by wardrobe."""
        config = self.builder_config
        if config.released:
            return split_pairs(find_released(manual_dir / RELEASE))
        pairs = [
            Pair(wardrobe, f"{wardrobe:04d}_{index:02d}", index)
            for wardrobe in range(config.wardrobes)
            for index in range(config.pairs)
        ]
        if config.photographs:
            photographs = find_pictures(manual_dir / PHOTOGRAPHS)
            chosen = np.random.default_rng(config.seed).integers(len(photographs), size=len(pairs))
            pairs = [pair._replace(image=photographs[k]) for pair, k in zip(pairs, chosen, strict=True)]
        return split_pairs(pairs)

    def records(self, items: Sequence[Pair], manual_dir: Path | None) -> Iterator[Record]:
        """Renders or reads some pairs of one split."""
        if self.builder_config.released:
            pictures = ((read_picture(item.image), b"", read_picture(item.texture)) for item in items)
        else:
            pictures = encode_rows(render(items, self.builder_config))
        for item, (image, visible, texture) in zip(items, pictures, strict=True):
            record = {"image": image, "texture": texture, "visible": visible}
            yield {**record, "pid": item.pid, "camid": 0, "name": item.name}


def split_pairs(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Splits pairs into train and test, which gets a twentieth of the wardrobes, and numbers the pids of each split.

    Wardrobes 2 n and 2 n + 1 stay together, since one may be the other's double (`people.person`).
    """
    splits = {"train": [], "test": []}
    for pair in pairs:
        splits["test" if pair.wardrobe // 2 % 20 == 0 else "train"].append(pair)
    for split, own in splits.items():
        pids = np.unique([pair.wardrobe for pair in own], return_inverse=True)[1]
        splits[split] = [pair._replace(pid=int(pid)) for pair, pid in zip(own, pids, strict=True)]
    return splits


# ---- Rendered pairs.


def render(items: Sequence[Pair], config: PitConfig) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pictures, visible squares of texels (0 or 255) and textures of the pairs, uint8, in the order of `items`."""
    dresser, sitter = jax.random.split(jax.random.key(config.seed))
    wardrobes, indices = np.array([(item.wardrobe, item.index) for item in items], np.int32).T
    side = config.height * 5 // 4  # of a photograph, from which the background is cropped
    behind = np.stack([open_photograph(item.image, side) for item in items]) if config.photographs else None
    shots = studio.render(
        sit,
        sitter,
        dresser,
        wardrobes,
        Sitting(wardrobes, indices, behind),
        height=config.height,
        width=config.height // 2,
        texture_side=config.texture_side,
    )
    for shot, texture in shots:
        yield shot.picture, 255 * shot.seen.astype(np.uint8), texture


def open_photograph(path: Path, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The central square of a photograph, resized.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with Image.open(path) as photograph:
            return np.asarray(ImageOps.fit(photograph.convert("RGB"), (side, side), Image.Resampling.BILINEAR))
    except OSError as error:
        raise UserError(f"{path} is not a readable picture; delete it or fetch it again") from error


# ---- Pictures in folders.


def find_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder that are not hidden, sorted by name.

    Raises:
      UserError: there are none.
    """
    files = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    found = sorted(path for path in files if path.suffix.lower() in ENDINGS)
    if not found:
        raise UserError(f"{folder} holds no pictures ({', '.join(ENDINGS)}); give the folder it is in as manual_dir")
    return found


def find_released(folder: Path) -> list[Pair]:
    """The pairs of a release, sorted by wardrobe and stem.

    Raises:
      UserError: there are no pairs, a file has no partner or more than one, or there are too few wardrobes to split.
    """
    if (folder / "images").is_dir():
        images, textures = (by_stem(find_pictures(folder / part)) for part in ("images", "textures"))
    else:
        files = find_pictures(folder)
        images, textures = (by_stem(files, ending=ending) for ending in ("_image", "_texture"))
    if alone := sorted(images.keys() ^ textures.keys()):
        raise UserError(
            f"{folder}: {alone[0]} is a picture without texture or a texture without picture ({len(alone)} in all); "
            "add the missing files, or delete those without a partner"
        )
    wardrobe_of = {stem: stem.rpartition("_")[0] or stem for stem in images}
    wardrobes = {name: number for number, name in enumerate(sorted(set(wardrobe_of.values())))}
    if len(wardrobes) < 3:
        raise UserError(
            f"{folder} has pairs of {len(wardrobes)} wardrobes, but needs at least three, of which two are held out; "
            "name pairs images/0042_7.jpg and textures/0042_7.png, or 0042_7_image.jpg and 0042_7_texture.png"
        )
    return [
        Pair(wardrobes[wardrobe_of[stem]], stem, image=images[stem], texture=textures[stem])
        for stem in sorted(images, key=lambda stem: (wardrobe_of[stem], stem))
    ]


def by_stem(files: list[Path], *, ending: str = "") -> dict[str, Path]:
    """Files whose stems end in `ending`; the keys are the stems without it.

    Raises:
      UserError: two files have the same stem.
    """
    found = {}
    for path in files:
        if path.stem.endswith(ending):
            first = found.setdefault(path.stem.removesuffix(ending), path)
            if first != path:
                raise UserError(f"{first} and {path} have the same stem; delete one of them")
    return found
