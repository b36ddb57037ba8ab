"""From source and rows to uint8 batches on the devices, in three ways that give the same batches.

  device   the training set is decoded once and kept on every device; the train step gathers its batch from it
  host     it is decoded once and kept in memory or in a file; batches are gathered from it, one step ahead
  stream   threads read and decode each batch ahead of time
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int, Int32, UInt8

from san_jax import devices
from san_jax.batch import Batch, Source
from san_jax.data import decoded, threads
from san_jax.data.augmentation import room_for_crop
from san_jax.data.decoded import Field
from san_jax.data.decoded_store import DecodedStore
from san_jax.errors import UserError
from san_jax.process import memory

WAYS = ("device", "host", "stream")
CACHES = ("auto", *WAYS)
SHARE_OF_DEVICE = 0.25  # of the free memory, which the training set may take if the way is chosen automatically
SHARE_OF_HOST = 0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resident:
    """A whole training set on every device, from which the train step gathers its batch; nothing is copied per step.

    Attributes:
      images: decoded pictures, larger than the network's input by `room_for_crop`.
      textures: decoded textures; None if there is no decoder to train.
      labels: training label of every row.
      rows: rows of every step of the run.
      people: number of rows in a batch that have a label; the rows after them are (picture, texture) pairs.
      sharding: of a batch.
    """

    images: UInt8[Array, "n H W 3"]
    textures: UInt8[Array, "n S S 3"] | None
    labels: Int32[Array, "n"]
    rows: Int32[Array, "steps B"]
    people: int = dataclasses.field(metadata={"static": True})
    sharding: NamedSharding = dataclasses.field(metadata={"static": True})

    def batch(self, step: Int32[Array, ""]) -> Batch:
        """The batch of a step, with its rows split over the devices."""
        rows = lax.with_sharding_constraint(self.rows[step], self.sharding)

        def gathered(pictures: Array) -> Array:
            return lax.with_sharding_constraint(pictures[rows], self.sharding)

        return Batch(
            image=gathered(self.images),
            texture=None if self.textures is None else gathered(self.textures),
            pid=self.labels[self.rows[step, : self.people]],
        )


def batch_of(fed: Batch | Resident, step: Int32[Array, ""]) -> Batch:
    """The batch of a step, from what the pipeline feeds to the train step; to be called inside it."""
    return fed if isinstance(fed, Batch) else fed.batch(step)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """A training set, and the rows of it that each step is trained on.

    Attributes:
      source: the training set.
      rows: rows of the source for every step of the run, for the global batch.
      people: as in `Resident`.
      height: height of the network's input in pixels; pictures are decoded larger, by `room_for_crop`.
      width: its width.
      with_textures: whether textures (height x height) are needed too.
    """

    source: Source
    rows: Int32[np.ndarray, "steps B"]
    people: int
    height: int
    width: int
    with_textures: bool

    @property
    def fields(self) -> list[Field]:
        """What is decoded, and its size."""
        image = Field("image", room_for_crop(self.height), room_for_crop(self.width))
        return [image, Field("texture", self.height, self.height)] if self.with_textures else [image]

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Training labels: the pids renumbered from 0, in ascending order."""
        return np.unique(self.source.pids, return_inverse=True)[1].astype(np.int32)


class Feed(NamedTuple):
    """The batches of a run.

    Attributes:
      way: one of WAYS.
      note: a line for the user on where the pictures are.
      batches: step -> what the train step is given from this step on, to the end of the run.
    """

    way: str
    note: str
    batches: Callable[[int], Iterator[Batch | Resident]]


def open_feed(
    data: TrainingData, *, mesh: Mesh, cache: str, workers: int | None, store: DecodedStore | None = None
) -> Feed:
    """Decodes the training set, if it is to be kept decoded; all processes of a run must call it together.

    Args:
      data: training set and rows.
      mesh: the devices that share a batch.
      cache: one of WAYS, or "auto": the first of them for which there is room.
      workers: threads that decode, as for `threads.ahead`.
      store: keeps decoded pictures for the next start.

    Raises:
      UserError: a picture cannot be decoded, or `cache` is "device" and the devices have no room.
    """
    way = choose_way(data, mesh=mesh, cache=cache, store=store)
    size = f"{decoded.num_bytes(data.source, data.fields) / 1e6:,.0f} MB"
    if way == "stream":
        note = f"pictures are decoded as they are needed ({size} would be needed to keep them)"
        return Feed(way, note, functools.partial(_streamed, data, mesh=mesh, workers=workers))
    arrays = decoded.decode_all(data.source, data.fields, workers=workers, store=store)
    if way == "host":
        note = f"pictures are decoded, {size} in memory"
        return Feed(way, note, functools.partial(_gathered, data, arrays, mesh=mesh))
    note = f"pictures are decoded, {size} on every device"
    resident = _resident(data, arrays, mesh=mesh)
    return Feed(way, note, lambda start: itertools.repeat(resident, len(data.rows) - start))


def choose_way(data: TrainingData, *, mesh: Mesh, cache: str, store: DecodedStore | None) -> str:
    """The way of `open_feed`, the same on all processes."""
    size = decoded.num_bytes(data.source, data.fields)
    on_device, on_host = devices.free_memory(mesh), memory.available()
    if cache == "auto":
        kept = store is not None and bool(data.source.digest) and store.can_keep(size)
        fits = (size <= SHARE_OF_DEVICE * on_device, kept or size <= SHARE_OF_HOST * on_host, True)
    elif cache == "device":
        fits = (size <= on_device, False, False)
    else:
        fits = tuple(way == cache for way in WAYS)
    first = fits.index(True) if any(fits) else len(WAYS)
    agreed = max(devices.of_all_processes(first))
    if agreed == len(WAYS):
        raise UserError(
            f"data.cache is device, but the decoded pictures of {data.source.name} need {size / 1e9:.1f} GB on every "
            f"device, and {on_device / 1e9:.1f} GB are free on this process's devices; set data.cache to auto"
        )
    return WAYS[agreed]


def _resident(data: TrainingData, arrays: dict[str, np.ndarray], *, mesh: Mesh) -> Resident:
    put = functools.partial(devices.put_everywhere, mesh)
    return Resident(
        images=put(arrays["image"]),
        textures=put(arrays["texture"]) if data.with_textures else None,
        labels=put(data.labels),
        rows=put(data.rows),
        people=data.people,
        sharding=devices.by_rows(mesh),
    )


def _gathered(
    data: TrainingData, arrays: dict[str, np.ndarray], start: int, *, mesh: Mesh
) -> Iterator[Batch | Resident]:
    def gather(rows: Int32[np.ndarray, "local"]) -> dict[str, np.ndarray]:
        return {name: array[rows] for name, array in arrays.items()}

    return _put_in_order(data, gather, start, mesh=mesh, workers=1)


def _streamed(data: TrainingData, start: int, *, mesh: Mesh, workers: int | None) -> Iterator[Batch | Resident]:
    def decode(rows: Int32[np.ndarray, "local"]) -> dict[str, np.ndarray]:
        return decoded.decode_rows(data.source, data.fields, rows)

    return _put_in_order(data, decode, start, mesh=mesh, workers=workers)


def _put_in_order(
    data: TrainingData,
    read: Callable[[Int32[np.ndarray, "local"]], dict[str, np.ndarray]],
    start: int,
    *,
    mesh: Mesh,
    workers: int | None,
) -> Iterator[Batch | Resident]:
    """Batches from step `start`; `read` returns the pictures of some rows, and is called in threads."""
    size = data.rows.shape[1]
    local = data.rows[start:, devices.local_rows(mesh, size)]
    pids = data.labels[data.rows[start:, : data.people]]
    for arrays, of_step in zip(threads.ahead(read, local, workers=workers), pids, strict=True):
        put = {name: devices.put_rows(mesh, array, num_rows=size) for name, array in arrays.items()}
        pid = devices.put_everywhere(mesh, of_step)
        yield Batch(image=put["image"], texture=put.get("texture"), pid=pid)


def scored_batches(
    source: Source,
    *,
    batch_size: int,
    height: int,
    width: int,
    mesh: Mesh,
    workers: int | None,
    by_shares: bool = False,
) -> Iterator[UInt8[np.ndarray, "B H W 3"]]:
    """All pictures of a split in order, on the devices; the last batch is padded with the last picture.

    With `by_shares`, the order is that on each device, which has the pictures that are its part of `devices.SplitRows`;
    the last pictures of each part are padded.
    """
    fields = [Field("image", height, width)]
    rows = rows_by_shares(len(source), batch_size=batch_size, num_devices=mesh.size) if by_shares else None
    for arrays in _in_order(source, fields, batch_size=batch_size, mesh=mesh, workers=workers, rows=rows):
        yield arrays["image"]


def rows_by_shares(num_rows: int, *, batch_size: int, num_devices: int) -> Int[np.ndarray, "batches B"]:
    """Rows of batches of which each device's part goes through that device's share of all rows."""
    share, part = -(-num_rows // num_devices), batch_size // num_devices
    place = np.minimum(np.arange(-(-share // part) * part), share - 1).reshape(-1, 1, part)
    rows = place + share * np.arange(num_devices)[:, None]
    return np.minimum(rows, num_rows - 1).reshape(len(place), batch_size)


def scored_pairs(
    source: Source, *, batch_size: int, height: int, width: int, mesh: Mesh, workers: int | None
) -> Iterator[tuple[UInt8[np.ndarray, "B H W 3"], ...]]:
    """As `scored_batches`, with the texture of every picture and, if it is known, what the picture shows of it."""
    fields = [Field("image", height, width), Field("texture", height, height)]
    if knows_visible(source):
        fields.append(Field("visible", height, height))
    for arrays in _in_order(source, fields, batch_size=batch_size, mesh=mesh, workers=workers):
        yield tuple(arrays[field.name] for field in fields)


def knows_visible(source: Source) -> bool:
    """Whether the records say which texels their pictures show."""
    return len(source[0].get("visible", b"")) > 0


def _in_order(
    source: Source,
    fields: Sequence[Field],
    *,
    batch_size: int,
    mesh: Mesh,
    workers: int | None,
    rows: Int[np.ndarray, "batches B"] | None = None,
) -> Iterator[dict[str, jax.Array]]:
    """Batches of `rows`; by default over all rows in order, the last one padded with the last row."""
    if rows is None:
        rows = np.minimum(np.arange(-(-len(source) // batch_size) * batch_size), len(source) - 1)
    local = rows.reshape(-1, batch_size)[:, devices.local_rows(mesh, batch_size)]
    read = functools.partial(decoded.decode_rows, source, fields)
    for arrays in threads.ahead(read, local, workers=workers):
        yield {name: devices.put_rows(mesh, array, num_rows=batch_size) for name, array in arrays.items()}
