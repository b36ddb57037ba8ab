"""Which pictures of a rendered world make a re-ID data set: splits, cameras and counts, from a seed alone."""

from typing import NamedTuple

import numpy as np

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


def splits(*, seed: int, train_people: int, test_people: int) -> dict[str, list[Picture]]:
    """The pictures of train, query and gallery, by person, camera and index.

    Query and gallery as in CUHK03's new protocol: one query picture of a test person and camera, the rest is gallery.

    Args:
      seed: of the world.
      train_people: the world's first people.
      test_people: the people after those.
    """
    pictures = {"train": [], "query": [], "gallery": []}
    for person in range(train_people + test_people):
        rng = np.random.default_rng([seed, person])
        for camera in sorted(rng.choice(CAMERAS, CAMERAS_OF_A_PERSON, replace=False).tolist()):
            count = rng.choice(list(SHARES), p=list(SHARES.values()))
            asked = rng.integers(1, count, endpoint=True)
            for index in range(1, count + 1):
                tested = "query" if index == asked else "gallery"
                split = "train" if person < train_people else tested
                pictures[split].append(Picture(person, camera, index))
    return pictures
