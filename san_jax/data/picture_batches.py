"""Pictures from users, of any kind and number, as uint8 batches on the devices; unreadable ones are reported."""

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
Reader = Callable[[np.ndarray], str]  # fills an array [H W 3] with the resized picture; returns "", or why it cannot


class PictureBatch(NamedTuple):
    """A batch, sharded over the devices of all processes.

    Attributes:
      start: index of its first picture.
      reasons: index -> reason, for the pictures that this process was to read and could not.
      images: the pictures; black if unreadable, and after the last one.
      readable: whether each picture could be read. Sharded with the pictures, so that every process learns which ones
        the others could not read.
    """

    start: int
    reasons: dict[int, str]
    images: UInt8[Array, "B H W 3"]
    readable: Bool[Array, "B"]


def batches(
    readers: Sequence[Reader],
    *,
    mesh: Mesh,
    batch_size: int,
    height: int,
    width: int,
    pool: Executor,
    total: int | None = None,
) -> Iterator[PictureBatch]:
    """All pictures in order, in batches of one size.

    Args:
      readers: one for each picture; called in the pool's threads, each by the process whose devices need the picture.
      mesh: the devices that share a batch.
      batch_size: pictures per batch; at most `total`, rounded up to a multiple of the number of devices.
      height, width: size of the pictures in pixels.
      pool: threads that read and decode.
      total: the number of pictures, if these are what is left of more; otherwise theirs. A network's program depends on
        the size of its batch, and the last bits of what it computes on the program.
    """
    size = devices.rounded_up(mesh, min(batch_size, total or len(readers)))
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
    """A reader for a path, a Pillow image, or an array, uint8 [H W 3]."""
    if isinstance(picture, str | os.PathLike):
        return functools.partial(picture_folder.decode_into, Path(picture).read_bytes)
    return functools.partial(picture_folder.fit_into, picture)
