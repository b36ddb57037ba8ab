"""Features of tracks: the means over all pictures of a person in a video or series of frames."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from san_jax.data.crops import Crop


class Tracks(NamedTuple):
    """One row for each track, in the order in which they begin.

    Attributes:
      crops: of each track the picture whose features are nearest to the mean.
      titles: what tables call it.
      feats: mean of the features of its pictures.
    """

    crops: list[Crop]
    titles: list[str]
    feats: Float32[np.ndarray, "T D"]


def averaged(crops: Sequence[Crop], titles: Sequence[str], feats: Float32[np.ndarray, "n D"]) -> Tracks:
    """Tracks of pictures; a picture without a track is one by itself.

    Args:
      crops: the pictures.
      titles: what tables call them.
      feats: their features.
    """
    rows_of: dict[tuple[str, int], list[int]] = {}
    for row, crop in enumerate(crops):
        rows_of.setdefault((crop.track, 0) if crop.track else ("", row), []).append(row)
    shown, means, named = [], np.empty((len(rows_of), feats.shape[1]), np.float32), []
    for number, rows in enumerate(rows_of.values()):
        means[number] = feats[rows].mean(axis=0, dtype=np.float64)
        nearest = rows[int(np.square(feats[rows] - means[number]).sum(axis=1).argmin())]
        shown.append(crops[nearest])
        pictures = "1 picture" if len(rows) == 1 else f"{len(rows)} pictures"
        track = crops[nearest].track
        named.append(f"track {track}: {pictures}, {titles[nearest]}" if track else titles[nearest])
    return Tracks(shown, named, means)
