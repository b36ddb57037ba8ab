"""Means of features over several pictures of a person: a track in a video or series of frames, or several queries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from san_jax.data.crops import Crop


class Means(NamedTuple):
    """One row for each group of pictures, in the order in which the groups begin.

    Attributes:
      crops: of each group the picture whose features are nearest to the mean.
      titles: what tables call the group.
      feats: mean of the features of its pictures.
      sizes: number of its pictures.
    """

    crops: list[Crop]
    titles: list[str]
    feats: Float32[np.ndarray, "T D"]
    sizes: list[int]


def of_pictures(crops: Sequence[Crop], titles: Sequence[str], feats: Float[np.ndarray, "n D"]) -> Means:
    """Every picture as a group by itself. Arguments as of `averaged`."""
    return Means(list(crops), list(titles), feats, len(crops) * [1])


def by_track(crops: Sequence[Crop], titles: Sequence[str], feats: Float[np.ndarray, "n D"]) -> Means:
    """The means of tracks; a picture without a track is one by itself. Arguments as of `averaged`."""
    return averaged(crops, titles, feats, groups=[f"track {crop.track}" if crop.track else "" for crop in crops])


def averaged(
    crops: Sequence[Crop], titles: Sequence[str], feats: Float[np.ndarray, "n D"], *, groups: Sequence[str]
) -> Means:
    """The means of groups of pictures.

    Args:
      crops: the pictures.
      titles: what tables call them.
      feats: their features.
      groups: the group of each picture; "" for a picture that is a group by itself.
    """
    rows_of: dict[str | int, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group or row, []).append(row)
    shown, named, means = [], [], np.empty((len(rows_of), feats.shape[1]), np.float32)
    for number, (group, rows) in enumerate(rows_of.items()):
        means[number] = feats[rows].mean(axis=0, dtype=np.float64)
        nearest = rows[int(np.square(feats[rows] - means[number]).sum(axis=1).argmin())]
        shown.append(crops[nearest])
        pictures = "1 picture" if len(rows) == 1 else f"{len(rows)} pictures"
        named.append(f"{group}: {pictures}, {titles[nearest]}" if groups[nearest] else titles[nearest])
    return Means(shown, named, means, list(map(len, rows_of.values())))
