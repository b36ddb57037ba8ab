"""A folder of pictures by the features of one encoder, kept on disk: only new and changed pictures are embedded.

A killed update goes on from where it last saved.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int, Int64, PyTree, UInt8
from tqdm import tqdm

from san_jax import devices, files
from san_jax.data import picture_folder
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.scoring import feature_extraction
from san_jax.training import checkpoints
from san_jax.training.starting_weights import learnt_no_people

SAVE_SECONDS = 30.0  # between two writes of an index: what a kill costs
NO_FILE = -1  # as size and time of what is listed and not there


@dataclasses.dataclass(frozen=True)
class PictureEncoder:
    """The encoder of a checkpoint, on all devices.

    Attributes:
      checkpoint: its folder.
      architecture: of the encoder; gives the pictures' size too.
      weights: `encoder` and `encoder_stats` of its TrainState, on every device.
      mesh: over whose devices a batch is cut.
      batch_size: pictures at once, over all devices; rounded up to a multiple of their number.
    """

    checkpoint: Path
    architecture: Architecture
    weights: PyTree
    mesh: Mesh
    batch_size: int = 64

    @classmethod
    def restore(cls, checkpoint: Path, mesh: Mesh, *, batch_size: int = 64) -> "PictureEncoder":
        """From a checkpoint; nothing but the encoder is read.

        Raises:
          UserError: it cannot be read, or is of a texture generator.
        """
        if learnt_no_people(checkpoint):
            raise UserError(
                f"{checkpoint} is of a texture generator, whose features have met no person; "
                "give a run of mode san or baseline"
            )
        weights, _ = checkpoints.restore_networks(checkpoint, devices.replicated(mesh), draws=False)
        return cls(checkpoint, checkpoints.read_architecture(checkpoint), weights, mesh, batch_size)

    @property
    def num_feats(self) -> int:
        """Length of a feature."""
        return len(self.weights["encoder"]["classifier"]["kernel"])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of everything that a feature depends on beside its picture, in hexadecimal."""
        return self.architecture.digest(self.weights)

    @functools.cached_property
    def of_batch(self) -> Callable[[PyTree, UInt8[Array, "B H W 3"], Bool[Array, "B"]], tuple[Array, Array]]:
        """(weights, pictures, which can be read) -> feats [B D] and the same flags, on every device, jitted.

        The flags travel with the pictures, so that every process learns what the others could not read.
        """

        def embed(weights, images, readable):
            feats = feature_extraction.features(
                weights["encoder"],
                weights["encoder_stats"],
                images,
                architecture=self.architecture,
                compute_dtype="float32",
            )
            return feats, readable

        return jax.jit(embed, out_shardings=devices.replicated(self.mesh))

    def embed(
        self, paths: Sequence[Path], *, pool: Executor
    ) -> Iterator[tuple[Int[np.ndarray, "n"], Float32[np.ndarray, "n D"], dict[int, str]]]:
        """Features of picture files, batch by batch.

        Args:
          paths: of the files.
          pool: reads and decodes.

        Yields:
          Rows of `paths` that can be read, their feats, and row -> reason of those that cannot; alike on all processes.
        """
        # Fetched one batch late: the devices compute while this process reads the next pictures.
        for (start, reasons, computed), _ in itertools.pairwise(itertools.chain(self._batches(paths, pool), [None])):
            feats, readable = (array[: len(paths) - start] for array in jax.device_get(computed))
            rows = start + np.arange(len(feats))
            # Flags travel, not words: what another process could not read is read once more for the reason.
            failed = {row: reasons.get(row) or _why_unreadable(paths[row]) for row in rows[~readable].tolist()}
            yield rows[readable], feats[readable], failed

    def _batches(self, paths, pool):
        """First row, reasons by row of what this process could not read, and what the devices may still compute."""
        size = -(-min(self.batch_size, len(paths)) // self.mesh.size) * self.mesh.size
        local = devices.local_rows(self.mesh, size) if len(paths) else ()
        for start in range(0, len(paths), max(size, 1)):
            images = np.zeros((len(local), self.architecture.height, self.architecture.width, 3), np.uint8)
            mine = [row for row in (start + local).tolist() if row < len(paths)]
            reasons = list(pool.map(picture_folder.decode_into, [paths[row].read_bytes for row in mine], images))
            readable = np.array([not why for why in reasons] + [False] * (len(local) - len(mine)))
            put = [devices.put_rows(self.mesh, array, num_rows=size) for array in (images, readable)]
            yield start, dict(zip(mine, reasons, strict=True)), self.of_batch(self.weights, *put)

    def embed_all(
        self, paths: Sequence[Path], *, workers: int = 2
    ) -> tuple[list[Path], Float32[np.ndarray, "n D"], dict[Path, str]]:
        """Those files that can be read, their features, and path -> reason of the others; `workers` threads read."""
        if not paths:
            return [], np.empty((0, self.num_feats), np.float32), {}
        with ThreadPoolExecutor(workers) as pool:
            rows, feats, failed = zip(*self.embed(paths, pool=pool), strict=True)
        unreadable = {paths[row]: why for reasons in failed for row, why in reasons.items()}
        return [paths[row] for row in np.concatenate(rows)], np.concatenate(feats), unreadable


def _why_unreadable(path: Path) -> str:
    return picture_folder.decode_into(path.read_bytes, np.empty((1, 1, 3), np.uint8)) or "it changed while it was read"


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of a folder's pictures.

    Attributes:
      names: paths inside the folder, with slashes.
      stamps: size in bytes, and time of the last change in nanoseconds, as they were when the picture was read.
      feats: their features.
    """

    names: Sequence[str]
    stamps: Int64[np.ndarray, "n 2"]
    feats: Float32[np.ndarray, "n D"]

    def __len__(self) -> int:
        """Pictures."""
        return len(self.names)

    def write(self, path: Path, encoder: PictureEncoder) -> None:
        """Writes a file for `read`, whole or not at all; raises a UserError if it cannot be written."""
        content = io.BytesIO()
        made_by = np.array([encoder.digest, str(encoder.checkpoint)])
        np.savez(content, made_by=made_by, names=np.array(self.names, str), stamps=self.stamps, feats=self.feats)
        files.write(path, content.getvalue())


def read(path: Path, encoder: PictureEncoder) -> tuple[Index, str]:
    """The index in a file and "", or an empty one and what is wrong with the file; nothing is wrong if there is none.

    Raises:
      UserError: there is something that cannot be opened.
    """
    empty = Index((), np.empty((0, 2), np.int64), np.empty((0, encoder.num_feats), np.float32))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return empty, ""
    except OSError as error:
        raise UserError(f"the index {path} cannot be read ({error.strerror}); choose another place") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip():
                raise ValueError("a checksum is wrong")
        with np.load(io.BytesIO(content)) as stored:
            made_by, checkpoint = stored["made_by"].tolist()
            found = Index(stored["names"].tolist(), stored["stamps"], stored["feats"])
        if made_by != encoder.digest:
            return empty, f"holds features by another model, {checkpoint}"
        if (found.stamps.shape, found.feats.shape) != ((len(found), 2), (len(found), encoder.num_feats)):
            raise ValueError("the parts do not fit")
    except Exception:  # zipfile and numpy fail in many ways on damaged files
        return empty, "is torn, or was never an index"
    return found, ""


class _Growing:
    """An index while pictures are added.

    Attributes:
      paths: of all pictures.
      known: which of them have features.
    """

    def __init__(self, folder: Path, old: Index):
        self.paths = picture_folder.find(folder)
        self._names = [path.relative_to(folder).as_posix() for path in self.paths]
        self._stamps = np.array([_stamp(path) for path in self.paths])
        row_of = {name: row for row, name in enumerate(old.names)}
        old_rows = np.array([row_of.get(name, -1) for name in self._names])
        self.known = old_rows >= 0
        self.known[self.known] = (old.stamps[old_rows[self.known]] == self._stamps[self.known]).all(axis=1)
        self._feats = np.zeros((len(self.paths), old.feats.shape[1]), np.float32)
        self._feats[self.known] = old.feats[old_rows[self.known]]

    def add(self, rows, feats) -> None:
        self._feats[rows], self.known[rows] = feats, True

    def index(self) -> Index:
        """Of the known ones."""
        names = list(itertools.compress(self._names, self.known))
        return Index(names, self._stamps[self.known], self._feats[self.known])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return NO_FILE, NO_FILE
    return found.st_size, found.st_mtime_ns


def default_place(checkpoint: Path, folder: Path) -> Path:
    """Where the index of a folder by a checkpoint's encoder is kept: WORKDIR/search, or beside a checkpoint elsewhere.

    A run's newest and its best checkpoint have files of their own, and so have folders of one name.
    """
    checkpoint, folder = checkpoint.resolve(), folder.resolve()
    of_run = checkpoint.parent.name in ("checkpoints", "best")
    kind = "_best" if checkpoint.parent.name == "best" else ""
    place = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return checkpoint.parents[1 if of_run else 0] / "search" / f"{folder.name}_{place}{kind}.npz"


def update(
    path: Path, folder: Path, encoder: PictureEncoder, *, workers: int = 2, save_seconds: float = SAVE_SECONDS
) -> tuple[Index, dict[Path, str]]:
    """Brings the index of a folder up to date, and shows how far it is; pictures that are gone drop out.

    A file that is no index, or is one by another encoder, is moved to PATH.old, and all is made anew.

    Args:
      path: of the index, seen by all processes.
      folder: of the pictures.
      encoder: embeds them.
      workers: threads that read them.
      save_seconds: between two writes of the index.

    Returns:
      All pictures that can be read, by name; and path -> reason of the others.

    Raises:
      UserError: the folder cannot be read or holds no pictures; the index cannot be read or written.
    """
    old, complaint = read(path, encoder)
    growing = _Growing(folder, old)
    multihost_utils.sync_global_devices("all processes have read the index")  # before one of them writes it
    if complaint:
        _set_aside(path, complaint)
    todo, num_before = np.flatnonzero(~growing.known), growing.known.sum()
    _say(f"{folder}: {len(growing.paths)} pictures, {num_before} of them in the index")
    if not path.exists() or num_before < len(old):
        _save(growing, path, encoder)  # a place that cannot be written is told before the work, not after it
    unreadable = _embed_rest(growing, todo, encoder, workers=workers, save_seconds=save_seconds, path=path)
    if len(todo):
        _say(f"{path}: {growing.known.sum()} pictures, {growing.known.sum() - num_before} of them new or changed")
    return growing.index(), unreadable


def _embed_rest(growing, todo, encoder, *, workers, save_seconds, path):
    """Embeds the pictures in rows `todo`; saves in between, and however it ends. Path -> reason of unreadable ones."""
    unreadable, num_saved, saved = {}, growing.known.sum(), time.monotonic()
    with ThreadPoolExecutor(workers) as pool, _bar(growing.known) as bar:
        try:
            for rows, feats, failed in encoder.embed([growing.paths[row] for row in todo], pool=pool):
                growing.add(todo[rows], feats)
                unreadable |= {growing.paths[todo[row]]: why for row, why in failed.items()}
                bar.update(len(rows) + len(failed))
                if time.monotonic() - saved >= save_seconds:
                    _save(growing, path, encoder)
                    num_saved, saved = growing.known.sum(), time.monotonic()
        finally:
            if growing.known.sum() > num_saved:
                _save(growing, path, encoder)
    return unreadable


def _save(growing, path, encoder):
    if jax.process_index() == 0:
        growing.index().write(path, encoder)


def _set_aside(path, complaint):
    """Of a file that is not what it should be; it may be dear to somebody."""
    aside = path.with_name(f"{path.name}.old")
    if jax.process_index() == 0:
        try:
            path.replace(aside)
        except OSError as error:
            raise UserError(f"the index {path} {complaint}, and cannot be moved ({error.strerror}); move it") from error
    _say(f"{path} {complaint}: it is now {aside}, and the index is made anew")


def _say(line):
    if jax.process_index() == 0:
        print(line, flush=True)


def _bar(known):
    """On a terminal; counts the pictures that are known, and those that cannot be read."""
    hidden = None if jax.process_index() == 0 else True
    return tqdm(total=len(known), initial=int(known.sum()), unit=" pictures", dynamic_ncols=True, disable=hidden)
