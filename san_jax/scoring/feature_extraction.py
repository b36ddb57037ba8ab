"""Features of all pictures of a data set."""

import math
from collections.abc import Iterable

import jax
import numpy as np
from jaxtyping import Float32

from san_jax import devices
from san_jax.batch import Source
from san_jax.data import input_pipeline
from san_jax.devices import SplitRows
from san_jax.model import Model, feats_of

ALIGNMENT = 64  # in bytes; JAX on the CPU copies arrays that are aligned to less


def features(
    model: Model, source: Source, *, batch_size: int = 100, workers: int | None = None, flip: bool = False
) -> Float32[np.ndarray, "n D"]:
    """Features of all pictures of a split, in their order.

    Args:
      model: computes the features.
      source: the split.
      batch_size: pictures of a batch over all devices; rounded up to a multiple of the number of devices.
      workers: threads that decode pictures; None = one for each core, 0 = no threads.
      flip: whether a feature is the mean over the picture and its mirror image.
    """
    images = input_pipeline.scored_batches(
        source,
        batch_size=devices.rounded_up(model.mesh, batch_size),
        height=model.architecture.height,
        width=model.architecture.width,
        mesh=model.mesh,
        workers=workers,
    )
    parts = model.over(feats_of, ((batch,) for batch in images), flip=flip, in_parts=model.takes_parts)
    return in_one_array(parts, len(source))


def split_features(
    model: Model, source: Source, *, batch_size: int = 100, workers: int | None = None, flip: bool = False
) -> SplitRows:
    """As `features`, but the devices share the pictures: each process computes and keeps the features of its part.

    All processes must call it together.
    """
    mesh, num_rows = model.mesh, len(source)
    images = input_pipeline.scored_batches(
        source,
        batch_size=devices.rounded_up(mesh, batch_size),
        height=model.architecture.height,
        width=model.architecture.width,
        mesh=mesh,
        workers=workers,
        by_shares=True,
    )
    parts = model.over(feats_of, ((batch,) for batch in images), flip=flip, in_parts=model.takes_parts, split=True)
    shares, wholes = devices.shares(mesh, num_rows), None
    for number, part in enumerate(parts):
        of_devices = part.reshape(len(shares), -1, part.shape[1])
        if wholes is None:
            wholes = [aligned_empty((rows.stop - rows.start, part.shape[1])) for rows in shares.values()]
        for whole, rows in zip(wholes, of_devices, strict=True):
            place = slice(number * len(rows), (number + 1) * len(rows))
            whole[place] = rows[: len(whole[place])]
    for whole, rows in zip(wholes, shares.values(), strict=True):
        whole[max(num_rows - rows.start, 0) :] = 0
    on_devices = [jax.device_put(whole, device) for whole, device in zip(wholes, shares, strict=True)]
    shape = (devices.rounded_up(mesh, num_rows), part.shape[1])
    return SplitRows(jax.make_array_from_single_device_arrays(shape, devices.by_rows(mesh), on_devices), num_rows)


def in_one_array(parts: Iterable[Float32[np.ndarray, "B D"]], num_rows: int) -> Float32[np.ndarray, "n D"]:
    """The first `num_rows` rows of the parts, as one array that JAX on the CPU can use without a copy.

    Args:
      parts: one or more; together they have at least `num_rows` rows.
      num_rows: number of rows to keep.
    """
    whole = None
    for part in parts:
        if whole is None:
            whole, num_done = aligned_empty((num_rows, part.shape[1])), 0
        whole[num_done : num_done + len(part)] = part[: num_rows - num_done]
        num_done += len(part)
    return whole


def aligned_empty(shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """An uninitialised array whose address is a multiple of ALIGNMENT."""
    size = 4 * math.prod(shape)
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(np.float32).reshape(shape)
