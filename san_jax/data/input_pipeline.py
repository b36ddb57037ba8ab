"""From source and rows to uint8 batches on the devices; grain's workers read, decode and resize each process's rows."""

import contextlib
import ctypes
import dataclasses
import io
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from jaxtyping import Int, Int32, UInt8
from PIL import Image, UnidentifiedImageError

from san_jax import devices
from san_jax.batch import Batch, Source
from san_jax.data.augmentation import room_for_crop
from san_jax.errors import UserError
from san_jax.process import stopping

PR_SET_PDEATHSIG = 1  # option of Linux' prctl: the signal that a process gets when its parent dies


def decode(encoded: bytes, *, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Decodes a stored picture to RGB, resized with Pillow's bilinear filter; raises OSError if it cannot be read."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """The part of this process in every training batch, as numpy arrays; evaluated by grain's workers.

    Attributes:
      source: the training set.
      rows: rows of the source that this process reads for every step.
      height: height of the network's input in pixels; pictures are decoded larger, by `room_for_crop`.
      width: its width.
      with_textures: whether textures (height x height) are decoded too.
    """

    source: Source
    rows: Int32[np.ndarray, "steps local"]
    height: int
    width: int
    with_textures: bool

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.rows)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Images, uint8 [local H' W' 3], and with `with_textures` also textures, uint8 [local H H 3]."""
        records = [self.source[int(row)] for row in self.rows[step]]
        high, wide = room_for_crop(self.height), room_for_crop(self.width)
        batch = {"image": decode_all(self.source, records, "image", height=high, width=wide)}
        if self.with_textures:
            batch["texture"] = decode_all(self.source, records, "texture", height=self.height, width=self.height)
        return batch


@dataclasses.dataclass(frozen=True)
class ScoredBatches:
    """The part of this process in every batch of pictures to score, resized to the network's input.

    The last batch is padded with the source's last picture, so that all batches have one shape.
    """

    source: Source
    rows: Int[np.ndarray, "batches local"]
    height: int
    width: int
    with_textures: bool = False

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.rows)

    def __getitem__(self, batch: int) -> dict[str, np.ndarray]:
        """Images, uint8 [local H W 3], and with `with_textures` also textures, uint8 [local H H 3]."""
        records = [self.source[int(row)] for row in self.rows[batch]]
        arrays = {"image": decode_all(self.source, records, "image", height=self.height, width=self.width)}
        if self.with_textures:
            arrays["texture"] = decode_all(self.source, records, "texture", height=self.height, width=self.height)
        return arrays


def decode_all(source: Source, records: Sequence[dict], field: str, *, height: int, width: int) -> np.ndarray:
    """Decodes one field of some records, uint8 [len(records) height width 3]."""
    pictures = np.empty((len(records), height, width, 3), np.uint8)
    for picture, record in zip(pictures, records, strict=True):
        try:
            picture[:] = decode(record[field], height=height, width=width)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise UserError(
                f"{source.name}: the {field} of {record['name']} cannot be decoded ({error}); "
                "delete the prepared data set and prepare it again"
            ) from error
    return pictures


def training_batches(
    source: Source,
    rows: Int32[np.ndarray, "steps B"],
    *,
    start: int,
    people: int,
    height: int,
    width: int,
    with_textures: bool,
    mesh: Mesh,
    workers: int,
) -> Iterator[Batch]:
    """Training batches on the devices, from step `start`; a resumed run gets the batches of an uninterrupted one.

    Args:
      source: the training set.
      rows: rows of the source for every step of the run, for the global batch.
      start: the first step to read.
      people: number of rows in a batch that have a pid; the rows after them are (picture, texture) pairs.
      height: height of the network's input in pixels.
      width: its width.
      with_textures: whether textures are read too.
      mesh: the devices that share a batch.
      workers: processes that read and decode; 0 = this one.
    """
    size = rows.shape[1]
    local = np.ascontiguousarray(rows[start:, devices.local_rows(mesh, size)])
    host = TrainingBatches(source, local, height=height, width=width, with_textures=with_textures)
    # Training labels: the pids renumbered from 0, in ascending order.
    labels = np.unique(source.pids, return_inverse=True)[1].astype(np.int32)
    pids = labels[rows[start:, :people]]
    for step, arrays in enumerate(_in_workers(host, workers)):
        put = {name: _put(mesh, array, num_rows=size) for name, array in arrays.items()}
        yield Batch(image=put["image"], texture=put.get("texture"), pid=devices.put_everywhere(mesh, pids[step]))


def scored_batches(
    source: Source, *, batch_size: int, height: int, width: int, mesh: Mesh, workers: int
) -> Iterator[UInt8[np.ndarray, "B H W 3"]]:
    """All pictures of a split in order, on the devices; the last batch is padded with the last picture."""
    host = ScoredBatches(source, _in_order(source, batch_size, mesh), height=height, width=width)
    for arrays in _in_workers(host, workers):
        yield _put(mesh, arrays["image"], num_rows=batch_size)


def scored_pairs(
    source: Source, *, batch_size: int, height: int, width: int, mesh: Mesh, workers: int
) -> Iterator[tuple[UInt8[np.ndarray, "B H W 3"], UInt8[np.ndarray, "B H H 3"]]]:
    """As `scored_batches`, with the texture of every picture."""
    host = ScoredBatches(source, _in_order(source, batch_size, mesh), height=height, width=width, with_textures=True)
    for arrays in _in_workers(host, workers):
        yield tuple(_put(mesh, arrays[field], num_rows=batch_size) for field in ("image", "texture"))


def _in_order(source: Source, batch_size: int, mesh: Mesh) -> Int[np.ndarray, "batches local"]:
    """The rows of this process in every batch, over all rows in order; the last batch is padded with the last row."""
    rows = np.minimum(np.arange(-(-len(source) // batch_size) * batch_size), len(source) - 1)
    return rows.reshape(-1, batch_size)[:, devices.local_rows(mesh, batch_size)]


def _put(mesh: Mesh, array: np.ndarray, *, num_rows: int) -> jax.Array:
    """The global batch. Copied, since grain's arrays are in shared memory, which JAX would keep in use on the CPU."""
    return devices.put_rows(mesh, np.array(array), num_rows=num_rows)


def _in_workers(batches: TrainingBatches | ScoredBatches, workers: int) -> Iterator:
    """The elements in order, computed ahead of time by worker processes."""
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    elements = grain.MapDataset.source(batches).to_iter_dataset(ahead)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads absl flags, which are unparsed if no command was run
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        elements = elements.mp_prefetch(options, worker_init_fn=_end_with_parent)
    with stopping.unheard():  # while the workers start: a signal during their imports would print tracebacks
        iterator = iter(elements)
        first = list(itertools.islice(iterator, 1))
    with contextlib.closing(iterator):
        yield from first
        yield from iterator


def _end_with_parent(worker: int, num_workers: int) -> None:
    """Asks the kernel to kill a worker when its parent dies; otherwise it stays, holding memory and inherited pipes."""
    del worker, num_workers
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != multiprocessing.parent_process().pid:  # the parent died before the call
        os._exit(1)
    # On these signals the parent saves and stops; its workers must not end before it has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
