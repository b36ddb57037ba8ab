"""Pictures of people's own, of any kind and number, as uint8 batches on the devices; what cannot be read is told."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, UInt8
from PIL import Image

from san_jax import devices
from san_jax.data import picture_folder

Picture = str | os.PathLike | Image.Image | np.ndarray
Reader = Callable[[np.ndarray], str]  # fills an array [H W 3] with the resized picture, or says why it cannot; else ""


class PictureBatch(NamedTuple):
    """A batch, cut over the devices of all processes.

    Attributes:
      start: number of its first picture.
      reasons: number -> reason of those pictures that this process had to read and could not.
      images: the pictures; black where one cannot be read, and behind the last one.
      readable: whether a picture could be read. It travels with the pictures, so that every process learns what the
        others could not read.
    """

    start: int
    reasons: dict[int, str]
    images: UInt8[Array, "B H W 3"]
    readable: Bool[Array, "B"]


def batches(
    readers: Sequence[Reader], *, mesh: Mesh, batch_size: int, height: int, width: int, pool: Executor
) -> Iterator[PictureBatch]:
    """All pictures in their order, in batches of one size.

    Args:
      readers: one for each picture; called from the pool's threads, each by the process whose devices need it.
      mesh: the devices that share a batch.
      batch_size: pictures at once; rounded up to a multiple of the devices, and no more than there are.
      height, width: of the pictures in pixels.
      pool: reads and decodes.
    """
    size = devices.rounded_up(mesh, min(batch_size, len(readers)))
    local = devices.local_rows(mesh, size) if readers else ()
    for start in range(0, len(readers), max(size, 1)):
        images = np.zeros((len(local), height, width, 3), np.uint8)
        mine = [row for row in (start + local).tolist() if row < len(readers)]
        reasons = list(pool.map(lambda row, into: readers[row](into), mine, images))
        readable = np.array([not why for why in reasons] + [False] * (len(local) - len(mine)))
        failed = {row: why for row, why in zip(mine, reasons, strict=True) if why}
        put = [devices.put_rows(mesh, array, num_rows=size) for array in (images, readable)]
        yield PictureBatch(start, failed, *put)


def reader(picture: Picture) -> Reader:
    """What reads a path, a picture of Pillow's, or an array [H W 3] of uint8."""
    if isinstance(picture, str | os.PathLike):
        return functools.partial(picture_folder.decode_into, Path(picture).read_bytes)
    return functools.partial(picture_folder.fit_into, picture)
