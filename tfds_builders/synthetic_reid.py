"""Rendered people under six cameras -> records; about as many as in CUHK03, made from nothing but a seed.

              train pictures / people    query          gallery        size
    full              7,387 / 767        1,400 / 700    5,310 / 700    256 x 128
    small             1,911 / 200          200 / 100      754 / 100    128 x  64
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from san_jax.batch import Record
from san_jax.errors import UserError
from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment
from tfds_builders.record import ReidBuilder, encode_pairs

CAMERAS = 6
CAMERAS_OF_A_PERSON = 2
SHARES = {5: 0.85, 4: 0.1, 3: 0.05}  # how often a person has that many pictures of one camera


class Picture(NamedTuple):
    """One picture to be rendered; person and camera from 0, index from 1 for each person before each camera."""

    person: int
    camera: int
    index: int

    @property
    def name(self) -> str:
        """As in 0042_c6_05: cameras are named from 1."""
        return f"{self.person:04d}_c{self.camera + 1}_{self.index:02d}"


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
    """

    seed: int
    train_people: int
    test_people: int
    height: int
    texture_side: int
    occlusion: float = 0.25
    sloppiness: float = 0.5
    variety: float = 1.0


class SyntheticReid(ReidBuilder):
    """People who walk by before two of six cameras each, up to five pictures before each of the two.

    Query and gallery as in CUHK03's new protocol: one query picture of a test person and camera, the rest is gallery.
    A pid is the person's number in the world, whose first N people are those of `train`. Training pictures come with
    the texture that the person was rendered with. A config is also known by its name and other values of its trouble:
    "full-occlusion0.6-sloppiness1".

    The same seed gives the same bytes on machines of one kind; CPU and GPU round differently.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
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
    )

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
        return dataclasses.replace(config, name=name, **values)

    def plan(self, manual_dir: None) -> dict[str, list[Picture]]:
        """The pictures of every split, by person, camera and index."""
        config = self.builder_config
        splits = {"train": [], "query": [], "gallery": []}
        for person in range(config.train_people + config.test_people):
            rng = np.random.default_rng([config.seed, person])
            for camera in sorted(rng.choice(CAMERAS, CAMERAS_OF_A_PERSON, replace=False).tolist()):
                count = rng.choice(list(SHARES), p=list(SHARES.values()))
                asked = rng.integers(1, count, endpoint=True)
                for index in range(1, count + 1):
                    tested = "query" if index == asked else "gallery"
                    split = "train" if person < config.train_people else tested
                    splits[split].append(Picture(person, camera, index))
        return splits

    def records(self, items: Sequence[Picture], manual_dir: None) -> Iterator[Record]:
        """Renders a part of one split."""
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
