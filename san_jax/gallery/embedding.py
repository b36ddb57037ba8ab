"""Features of pictures, some of which may be unreadable."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
from jaxtyping import Array, Bool, Float32, Int, UInt8

from san_jax.data import picture_batches, threads
from san_jax.data.crops import Crop, Crops
from san_jax.data.picture_batches import PictureBatch, Reader
from san_jax.model import Model, Weights, feats_of


def embed(
    model: Model,
    readers: Sequence[Reader],
    *,
    pool: Executor,
    batch_size: int = 64,
    flip: bool = False,
    total: int | None = None,
) -> Iterator[tuple[Int[np.ndarray, "n"], Float32[np.ndarray, "n D"], dict[int, str]]]:
    """Features of pictures, batch by batch.

    Args:
      model: computes the features.
      readers: one for each picture.
      pool: threads that read and decode.
      batch_size: pictures at once, over all devices.
      flip: as in `Model.features`.
      total: as for `picture_batches.batches`.

    Yields:
      Rows of the readable pictures, their feats, and row -> reason for the others; the same on all processes.
    """
    architecture = model.architecture
    size = dict(height=architecture.height, width=architecture.width, batch_size=batch_size, total=total)
    read: deque[PictureBatch] = deque()

    def batches() -> Iterator[tuple[Array, Array]]:
        for batch in picture_batches.batches(readers, mesh=model.mesh, pool=pool, **size):
            read.append(batch._replace(images=None, readable=None))
            yield batch.images, batch.readable

    for feats, readable in model.over(feats_and_flags, batches(), flip=flip, in_parts=model.takes_parts):
        start, reasons = read[0].start, read.popleft().reasons
        feats, readable = feats[: len(readers) - start], readable[: len(readers) - start]
        rows = start + np.arange(len(feats))
        # Processes exchange flags, not texts: a picture that another one could not read is read again for the reason.
        failed = {row: reasons.get(row) or _why_unreadable(readers[row]) for row in rows[~readable].tolist()}
        yield rows[readable], feats[readable], failed


def embed_all(
    model: Model, crops: Crops, *, workers: int | None = None, batch_size: int = 64, flip: bool = False
) -> tuple[list[Crop], Float32[np.ndarray, "n D"], dict[str, str]]:
    """The readable crops, their features, and label -> reason for the others; `workers` is the number of threads."""
    found, parts, unreadable = [], [np.empty((0, model.num_feats), np.float32)], {}
    with ThreadPoolExecutor(threads.num_threads(workers)) as pool:
        for rows, feats, failed in embed(model, crops.readers(), pool=pool, batch_size=batch_size, flip=flip):
            found += [crops.crops[row] for row in rows]
            parts.append(feats)
            unreadable |= {crops.crops[row].label: why for row, why in failed.items()}
    return found, np.concatenate(parts), unreadable


def feats_and_flags(
    weights: Weights, images: UInt8[Array, "B H W 3"], readable: Bool[Array, "B"], **options
) -> tuple[Float32[Array, "B D"], Bool[Array, "B"]]:
    """Features, and whether each picture could be read, replicated on every device."""
    return feats_of(weights, images, **options), readable


def _why_unreadable(read: Reader) -> str:
    return read(np.empty((1, 1, 3), np.uint8)) or "it changed while it was read"
