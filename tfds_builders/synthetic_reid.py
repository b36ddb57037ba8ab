"""Rendered people under six cameras -> records; about as many as in CUHK03, made from nothing but a seed.

              train pictures / people    query          gallery        size
    full              7,387 / 767        1,400 / 700    5,310 / 700    256 x 128
    small             1,911 / 200          200 / 100      754 / 100    128 x  64
    ablation          1,899 / 200          800 / 400    3,058 / 400    128 x  64

Each has a twin of the same pictures, full_pseudo and so on, whose textures a generator drew.
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
from tfds_builders.record import Drawn, ReidBuilder, encode_pairs, read_picture

PSEUDO = "_pseudo"


@dataclasses.dataclass(kw_only=True)
class SyntheticReidConfig(tfds.core.BuilderConfig):
    """How many people, how large, and how hard they are to see.

    Attributes:
      seed: of the world.
      train_people, test_people: the world's first, and those after them.
      height: of the pictures in pixels, twice their width.
      texture_side: of the textures in pixels; divides 256.
      occlusion: share of the pictures in which something stands before the person.
      sloppiness: of the boxes, 0 to 1: off the centre, too large or too small, feet cut off, as a detector's.
      variety: of the cameras' light and lenses, 0 to 1; at 0 they differ in their places alone.
      drawn_for: the config whose pictures these are too, with textures that a generator drew; "" = rendered, with the
        textures that the people wear.
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
    # For minutes of training on a CPU: what takes a network long to see through is toned down.
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
    # People whom nobody looked at while numbers were chosen on `small`, and more of them to search for.
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
)


def twin(config: SyntheticReidConfig) -> SyntheticReidConfig:
    """The config of the same pictures with drawn textures."""
    return dataclasses.replace(config, name=f"{config.name}{PSEUDO}", drawn_for=config.name)


def rendered(name: str) -> str:
    """The name of a twin's config, without what makes it a twin."""
    return name.replace(PSEUDO, "", 1)


class Copied(NamedTuple):
    """A picture that is taken over: its row in a split of the rendered set, and the texture to go with it."""

    source: Source
    row: int
    texture: Path | None = None


class SyntheticReid(ReidBuilder):
    """People who walk by before two of six cameras each, up to five pictures before each of the two.

    Query and gallery as in CUHK03's new protocol: one query picture of a test person and camera, the rest is gallery.
    A pid is the person's number in the world, whose first N people are those of `train`. Training pictures come with
    the texture that the person was rendered with. A config is also known by its name and other values of its trouble:
    "full-occlusion0.6-sloppiness1".

    A twin ("small_pseudo", "small_pseudo-occlusion0.6") has the very pictures of its config, which is prepared first,
    and for training pictures what `manual_dir` holds in synthetic_reid/texture_small/NAME.png.

    The same seed gives the same bytes on machines of one kind; CPU and GPU round differently.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (*RENDERED, *map(twin, RENDERED))

    @classmethod
    def get_builder_config(cls, name: str, version=None) -> SyntheticReidConfig | None:
        """The config of a name, with other values of `occlusion`, `sloppiness` and `variety` where it says so.

        Raises:
          UserError: what follows the config's name are not these.
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

    def drawn(self) -> Drawn | None:
        """A twin's textures."""
        config = self.builder_config
        folder = Path("synthetic_reid", f"texture_{config.drawn_for}")
        return Drawn(f"{self.name}/{config.drawn_for}", folder) if config.drawn_for else None

    def instructions(self) -> str:
        """A twin's textures."""
        if not (drawn := self.drawn()):
            return ""
        return (
            f"manual_dir holds {drawn.folder}/NAME.png; "
            f"generate_textures.py --input=tfds:{drawn.pictures} draws them"
        )

    def plan(self, manual_dir: Path | None) -> Mapping[str, Sequence[Picture | Copied]]:
        """The pictures of every split, by person, camera and index."""
        if drawn := self.drawn():
            return self._copied(drawn.pictures, manual_dir / drawn.folder)
        config = self.builder_config
        people = dict(train_people=config.train_people, test_people=config.test_people)
        return splits.splits(seed=config.seed, **people)

    def _copied(self, name: str, textures: Path) -> dict[str, list[Copied]]:
        """The plan of a twin: all pictures of the rendered set; UserError if a training picture has no texture."""
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
        """Renders a part of one split, or copies it."""
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
        for item, (image, texture) in zip(items, encode_pairs(taken), strict=True):
            yield {
                "image": image,
                "texture": texture if item.person < config.train_people else b"",
                "pid": item.person,
                "camid": item.camera,
                "name": item.name,
            }
