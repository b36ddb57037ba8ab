"""Splits of a rendered world into a re-ID data set: people, cameras and pictures, determined by a seed alone."""

from typing import NamedTuple

import numpy as np

CAMERAS = 6
CAMERAS_OF_A_PERSON = 2
SHARES = {5: 0.85, 4: 0.1, 3: 0.05}  # probabilities of the number of pictures of a person in one camera


class Picture(NamedTuple):
    """A picture to render; person and camera count from 0, index counts from 1 for each person and camera."""

    person: int
    camera: int
    index: int

    @property
    def name(self) -> str:
        """The picture's stem, such as 0042_c6_05; in names, cameras count from 1."""
        return f"{self.person:04d}_c{self.camera + 1}_{self.index:02d}"


def splits(*, seed: int, train_people: int, test_people: int) -> dict[str, list[Picture]]:
    """The pictures of train, query and gallery, sorted by person, camera and index.

    Query and gallery are as in CUHK03's new protocol: one picture of each test person and camera is a query, the others
    are gallery.

    Args:
      seed: seed of the world.
      train_people: number of training people, who are the first of the world.
      test_people: number of test people, who follow them.
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
