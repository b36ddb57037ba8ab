"""Rendered people under six cameras, as records; about the size of CUHK03, made from nothing but a seed.

              train pictures / people    query          gallery        size
    full              7,387 / 767        1,400 / 700    5,310 / 700    256 x 128
    small             1,911 / 200          200 / 100      754 / 100    128 x  64
    ablation          1,899 / 200          800 / 400    3,058 / 400    128 x  64
    many              9,611 / 1,000        200 / 100      764 / 100    128 x  64

Each has a twin, such as full_pseudo, with the same pictures and with generated textures.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from san_jax.batch import Record, Source
from san_jax.errors import UserError
from san_jax.synthesis import splits, studio
from san_jax.synthesis.splits import CAMERAS, Picture
from san_jax.synthesis.studio import Moment
from tfds_builders.record import DrawnTextures, ReidBuilder, encode_rows, read_picture

PSEUDO = "_pseudo"


@dataclasses.dataclass(kw_only=True)
class SyntheticReidConfig(tfds.core.BuilderConfig):
    """Number of people, size of the pictures, and how hard they are.

    Attributes:
      seed: of the world.
      train_people: number of training people, who are the first of the world.
      test_people: number of test people, who follow them.
      height: of the pictures, in pixels, twice their width.
      texture_side: height and width of the textures, in pixels; divides 256.
      occlusion: share of the pictures in which an object may hide part of the person.
      sloppiness: how inaccurate the boxes are, 0 to 1: off centre, too large or too small, feet cut off.
      variety: how much light and lenses of the cameras differ, 0 to 1; at 0 only their places differ.
      drawn_for: for a twin, the name of the config whose pictures it has; "" for rendered pictures with the textures
        that the people were rendered with.
    """

    seed: int
    train_people: int
    test_people: int
    height: int
    texture_side: int
    occlusion: float = 0.25
    sloppiness: float = 0.5
    variety: float = 1.0
    drawn_for: str = ""


RENDERED = (
    SyntheticReidConfig(name="full", seed=1, train_people=767, test_people=700, height=256, texture_side=256),
    # For minutes of training on a CPU: occlusion, sloppiness and variety are reduced, since they slow learning down.
    SyntheticReidConfig(
        name="small",
        seed=2,
        train_people=200,
        test_people=100,
        height=128,
        texture_side=128,
        occlusion=0.1,
        sloppiness=0.3,
        variety=0.3,
    ),
    # Other people than those of `small`, on which hyperparameters were chosen, and more test people.
    SyntheticReidConfig(
        name="ablation",
        seed=5,
        train_people=200,
        test_people=400,
        height=128,
        texture_side=128,
        occlusion=0.1,
        sloppiness=0.3,
        variety=0.3,
    ),
    # For the weights in san_jax/pretrained: as hard as `full`.
    SyntheticReidConfig(name="many", seed=8, train_people=1000, test_people=100, height=128, texture_side=128),
)


def twin(config: SyntheticReidConfig) -> SyntheticReidConfig:
    """The config with the same pictures and with generated textures."""
    return dataclasses.replace(config, name=f"{config.name}{PSEUDO}", drawn_for=config.name)


def rendered(name: str) -> str:
    """The name of the config whose pictures a twin has, from the twin's name."""
    return name.replace(PSEUDO, "", 1)


class Copied(NamedTuple):
    """A picture copied from a rendered set.

    Attributes:
      source: the split of the rendered set.
      row: of the picture in the source.
      texture: file of its generated texture; None for test people.
    """

    source: Source
    row: int
    texture: Path | None = None


class SyntheticReid(ReidBuilder):
    """People who walk past two of six cameras each, with up to five pictures by each of the two.

    Query and gallery are as in CUHK03's new protocol: one picture of each test person and camera is a query, the others
    are gallery. A pid is the person's number in the world; the training people come first. Training pictures have the
    texture that the person was rendered with. Occlusion, sloppiness and variety can be set in the name of a config:
    "full-occlusion0.6-sloppiness1".

    A twin ("small_pseudo", "small_pseudo-occlusion0.6") has the pictures of its config, which is prepared first. The
    textures of its training pictures are read from synthetic_reid/texture_small/NAME.png in `manual_dir`.

    The same seed gives the same bytes on machines of one kind; CPU and GPU round differently.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (*RENDERED, *map(twin, RENDERED))

    @property
    def world(self) -> str:
        """Every seed has people of its own."""
        return f"{self.name}-{self.builder_config.seed}"

    @classmethod
    def get_builder_config(cls, name: str, version=None) -> SyntheticReidConfig | None:
        """The config of a name, which may set `occlusion`, `sloppiness` and `variety`.

        Raises:
          UserError: the name has other settings, or their values are not in [0, 1].
        """
        base, *settings = name.split("-")
        config = super().get_builder_config(base, version)
        if config is None or not settings:
            return config
        pattern = re.compile(r"(occlusion|sloppiness|variety)(0(?:\.\d+)?|1(?:\.0+)?)")
        found = [pattern.fullmatch(setting) for setting in settings]
        values = {match[1]: float(match[2]) for match in found if match}
        if len(values) < len(settings):
            raise UserError(
                f"{cls.name}/{name} is not understood after {base!r}; write -occlusionX, -sloppinessX, -varietyX, "
                f"or several, X from 0 to 1, as in {cls.name}/{base}-occlusion0.6-sloppiness1"
            )
        return dataclasses.replace(config, name=name, drawn_for=config.drawn_for and rendered(name), **values)

    def drawn(self) -> DrawnTextures | None:
        """The rendered set and the folder of textures of a twin; None for rendered configs."""
        config = self.builder_config
        folder = Path("synthetic_reid", f"texture_{config.drawn_for}")
        return DrawnTextures(f"{self.name}/{config.drawn_for}", folder) if config.drawn_for else None

    def instructions(self) -> str:
        """Where a twin's textures belong, and how to generate them."""
        if not (drawn := self.drawn()):
            return ""
        return (
            f"manual_dir holds {drawn.folder}/NAME.png; "
            f"generate_textures.py --input=tfds:{drawn.pictures} draws them"
        )

    def plan(self, manual_dir: Path | None) -> Mapping[str, Sequence[Picture | Copied]]:
        """The pictures of every split, sorted by person, camera and index."""
        if drawn := self.drawn():
            return self._copied(drawn.pictures, manual_dir / drawn.folder)
        config = self.builder_config
        people = dict(train_people=config.train_people, test_people=config.test_people)
        return splits.splits(seed=config.seed, **people)

    def _copied(self, name: str, textures: Path) -> dict[str, list[Copied]]:
        """The plan of a twin: all pictures of the rendered set.

        Raises:
          UserError: a training picture has no texture.
        """
        sources = {split: self.open_source(name, split) for split in self.SPLITS}
        copied = {split: [Copied(source, row) for row in range(len(source))] for split, source in sources.items()}
        paths = [textures / f"{picture}.png" for picture in sources["train"].names]
        if missing := [path for path in paths if not path.is_file()]:
            raise UserError(
                f"{missing[0]} is missing ({len(missing)} textures of {len(paths)} training pictures); "
                f"generate_textures.py --input=tfds:{name} draws them"
            )
        copied["train"] = [item._replace(texture=path) for item, path in zip(copied["train"], paths, strict=True)]
        return copied

    def records(self, items: Sequence[Picture | Copied], manual_dir: Path | None) -> Iterator[Record]:
        """Renders or copies some pictures of one split."""
        if self.builder_config.drawn_for:
            for item in items:
                yield item.source[item.row] | {"texture": read_picture(item.texture) if item.texture else b""}
            return
        config = self.builder_config
        world = studio.make_world(
            jax.random.key(config.seed),
            cameras=CAMERAS,
            occlusion=config.occlusion,
            sloppiness=config.sloppiness,
            variety=config.variety,
        )
        moments = Moment(*np.array(items, np.int32).T)
        taken = studio.render(
            studio.before_a_camera,
            world,
            world.people,
            moments.person,
            moments,
            height=config.height,
            width=config.height // 2,
            texture_side=config.texture_side,
        )
        for item, (image, texture) in zip(items, encode_rows(taken), strict=True):
            yield {
                "image": image,
                "texture": texture if item.person < config.train_people else b"",
                "pid": item.person,
                "camid": item.camera,
                "name": item.name,
            }
