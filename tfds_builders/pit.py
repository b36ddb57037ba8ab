"""PIT, paired images and textures (Jin 2020, section 3.2) -> records: what SAN-PG learns textures from.

The paper's pairs: 929 textures of SURREAL, ten bodies, poses and views of each, on pictures of COCO. Their parts come
under licences of their own, so ours are rendered from nothing but a seed, or read from the release.

                wardrobes x pairs    train / test     picture      texture
    procedural           929 x 10    8,810 /  480    256 x 128    256 x 256
    small                1200 x 1    1,140 /   60    128 x  64    128 x 128
    photographs          929 x 10    8,810 /  480    256 x 128    256 x 256
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image, ImageOps

from san_jax.batch import Record
from san_jax.errors import UserError
from san_jax.synthesis import studio
from san_jax.synthesis.sitting import Sitting, sit
from tfds_builders.record import ReidBuilder, encode_pairs, read_picture

PHOTOGRAPHS = Path("photographs")
RELEASE = Path("pit")
ENDINGS = (".jpg", ".jpeg", ".png")


class Pair(NamedTuple):
    """One pair to be rendered or read.

    Attributes:
      wardrobe: number of the texture among all.
      name: of the pair.
      index: of a pair to be rendered, among those of its wardrobe.
      image: its file in a release, or the photograph that stands behind the person; None for a street.
      texture: its file in a release, else None.
      pid: number of the wardrobe in its split.
    """

    wardrobe: int
    name: str
    index: int = 0
    image: Path | None = None
    texture: Path | None = None
    pid: int = -1


@dataclasses.dataclass(kw_only=True)
class PitConfig(tfds.core.BuilderConfig):
    """Where pairs come from, and how many of which size are rendered.

    Attributes:
      seed: of the people and everything around them.
      wardrobes, pairs: number of textures, and of pairs with each.
      height: of the pictures in pixels, twice their width.
      texture_side: in pixels; divides 256.
      photographs: whether photographs stand behind people instead of streets.
      released: whether pairs are read from a release; nothing else counts then.
    """

    seed: int = 3
    wardrobes: int = 929
    pairs: int = 10
    height: int = 256
    texture_side: int = 256
    photographs: bool = False
    released: bool = False


class Pit(ReidBuilder):
    """Pictures of people, centred and whole, each with the texture of what they wear.

    A pid is the number of the wardrobe in its split. A twentieth of the wardrobes is held out in `test`, so that no
    texture is on both sides.

    `release` reads pairs of files with one stem, from `pit/images/` and `pit/textures/`, or from `pit/` where the stems
    end in `_image` and `_texture`. What stands before the last underscore of a stem is its wardrobe: 0042_7 is a pair
    of wardrobe 0042. Files are stored as they are.
    """

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = ("train", "test")
    DEFAULT_BUILDER_CONFIG_NAME = "procedural"
    BUILDER_CONFIGS = (
        PitConfig(name="procedural"),
        # Many wardrobes rather than many pairs of each: a small generator would learn few of them by heart.
        PitConfig(name="small", seed=4, wardrobes=1200, pairs=1, height=128, texture_side=128),
        PitConfig(name="photographs", photographs=True),
        PitConfig(name="release", released=True),
    )

    def instructions(self) -> str:
        """The release's files, or photographs."""
        if self.builder_config.released:
            return f"manual_dir holds {RELEASE}/images/ and {RELEASE}/textures/, with pairs of the same stem"
        if self.builder_config.photographs:
            return f"manual_dir holds {PHOTOGRAPHS}/, a folder of .jpg or .png such as COCO's"
        return ""

    def plan(self, manual_dir: Path | None) -> dict[str, list[Pair]]:
        """The pairs of both splits, by wardrobe."""
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
        """Renders or reads a part of one split."""
        if self.builder_config.released:
            pictures = ((read_picture(item.image), read_picture(item.texture)) for item in items)
        else:
            pictures = encode_pairs(render(items, self.builder_config))
        for item, (image, texture) in zip(items, pictures, strict=True):
            yield {"image": image, "texture": texture, "pid": item.pid, "camid": 0, "name": item.name}


def split_pairs(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """A twentieth of the wardrobes is held out; pids are numbered on both sides.

    Wardrobes 2 n and 2 n + 1 stay together, for one may be the other's double (`people.person`).
    """
    splits = {"train": [], "test": []}
    for pair in pairs:
        splits["test" if pair.wardrobe // 2 % 20 == 0 else "train"].append(pair)
    for split, own in splits.items():
        pids = np.unique([pair.wardrobe for pair in own], return_inverse=True)[1]
        splits[split] = [pair._replace(pid=int(pid)) for pair, pid in zip(own, pids, strict=True)]
    return splits


# ---- Rendered pairs.


def render(items: Sequence[Pair], config: PitConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures and textures of the pairs, uint8, in their order."""
    dresser, sitter = jax.random.split(jax.random.key(config.seed))
    wardrobes, indices = np.array([(item.wardrobe, item.index) for item in items], np.int32).T
    side = config.height * 5 // 4  # of a photograph; the picture is cut from a part of it
    behind = np.stack([open_photograph(item.image, side) for item in items]) if config.photographs else None
    return studio.render(
        sit,
        sitter,
        dresser,
        wardrobes,
        Sitting(wardrobes, indices, behind),
        height=config.height,
        width=config.height // 2,
        texture_side=config.texture_side,
    )


def open_photograph(path: Path, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The middle of a photograph, scaled.

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
      UserError: there is none.
    """
    files = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    found = sorted(path for path in files if path.suffix.lower() in ENDINGS)
    if not found:
        raise UserError(f"{folder} holds no pictures ({', '.join(ENDINGS)}); give the folder it is in as manual_dir")
    return found


def find_released(folder: Path) -> list[Pair]:
    """The pairs of a release, by wardrobe and stem.

    Raises:
      UserError: there are none, some have no partner or two of them, or there are too few wardrobes to hold any out.
    """
    if (folder / "images").is_dir():
        images, textures = (by_stem(find_pictures(folder / part)) for part in ("images", "textures"))
    else:
        files = find_pictures(folder)
        images, textures = (by_stem(files, ending=ending) for ending in ("_image", "_texture"))
    if alone := sorted(images.keys() ^ textures.keys()):
        raise UserError(
            f"{folder}: {alone[0]} is a picture without texture or a texture without picture ({len(alone)} in all); "
            "fetch what is missing, or delete what is left over"
        )
    wardrobe_of = {stem: stem.rpartition("_")[0] or stem for stem in images}
    wardrobes = {name: number for number, name in enumerate(sorted(set(wardrobe_of.values())))}
    if len(wardrobes) < 3:
        raise UserError(
            f"{folder} has pairs of {len(wardrobes)} wardrobes in place of three or more, of which two are held out; "
            "pairs are 0042_7.jpg and .png in images/ and textures/, or 0042_7_image.jpg and 0042_7_texture.png"
        )
    return [
        Pair(wardrobes[wardrobe_of[stem]], stem, image=images[stem], texture=textures[stem])
        for stem in sorted(images, key=lambda stem: (wardrobe_of[stem], stem))
    ]


def by_stem(files: list[Path], *, ending: str = "") -> dict[str, Path]:
    """Files whose stem has an ending, by what stands before it.

    Raises:
      UserError: two files have one stem.
    """
    found = {}
    for path in files:
        if path.stem.endswith(ending):
            first = found.setdefault(path.stem.removesuffix(ending), path)
            if first != path:
                raise UserError(f"{first} and {path} have the same stem; delete one of them")
    return found
