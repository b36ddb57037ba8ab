"""Watches galleries: lists them again and again, embeds what is new, and shows what can be searched by now."""

import dataclasses
import functools
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from san_jax.data import picture_folder, threads
from san_jax.data.crops import Crop, Crops
from san_jax.errors import UserError
from san_jax.gallery import feature_index
from san_jax.gallery.index_files import PLAIN, Kind
from san_jax.model import Model
from san_jax.scoring.gallery_feats import GalleryFeats
from san_jax.serving.turns import PatientModel, Turns

POLL_SECONDS = 2.0  # between two listings of a gallery at least, and
POLL_SHARE = 10  # at least so many times as long as a listing takes
GROWTH = 1.25  # a gallery that is being embedded is shown anew when it has grown so much, and
SHOW_SECONDS = 1.0  # not before these have passed
SIZES = (32, 128, 500)  # numbers of pictures found for which programs are compiled
TIMES_AT_ONCE = 4096  # pictures whose EXIF is read between two looks at whether to stop


class Source(NamedTuple):
    """A gallery that is to be watched.

    Attributes:
      place: the folder, list or video.
      index: folder of its index.
      open: lists it, as `own_pictures.open_crops`.
    """

    place: Path
    index: Path
    open: Callable[[], Crops]


@dataclasses.dataclass(frozen=True)
class Shown:
    """What can be searched of a gallery; a state of it that does not change.

    Attributes:
      crops: its readable pictures, where known with their times.
      ids: of the pictures: unique in this process, and kept as long as name and file stay as they are.
      feats: their features.
      camids: their cameras; "" where unknown.
      times: seconds since 1970 on the camera's clock; NaN where unknown.
      ready: the same, ready for searches.
      collection: reads their files.
    """

    crops: Sequence[Crop]
    ids: Int64[np.ndarray, "n"]
    feats: Float[np.ndarray, "n D"]
    camids: np.ndarray
    times: Float64[np.ndarray, "n"]
    ready: GalleryFeats
    collection: Crops

    @functools.cached_property
    def rows(self) -> dict[int, int]:
        """The row of each id."""
        return {key: row for row, key in enumerate(self.ids.tolist())}

    def allowed(
        self, *, without: Sequence[int], cameras: Sequence[str], since: float | None, until: float | None
    ) -> Bool[np.ndarray, "n"]:
        """Which pictures may be found.

        Args:
          without: ids of others.
          cameras: theirs; none for any.
          since, until: as `times`, both included; None for any. With one of them, pictures without a time are out.
        """
        allowed = np.ones(len(self.crops), bool)
        allowed[[self.rows[key] for key in without if key in self.rows]] = False
        if cameras:
            allowed &= np.isin(self.camids, np.array(cameras))
        if since is not None:
            allowed &= self.times >= since
        if until is not None:
            allowed &= self.times <= until
        return allowed


class Gallery:
    """A watched gallery.

    Attributes:
      number: its place among the galleries.
      source: where it is.
      shown: what can be searched of it.
      total: number of its pictures, those that are not embedded yet included.
      done: number of those that are embedded or cannot be read.
      unreadable: label -> reason.
      state: listing, embedding, or watching.
      trouble: why it cannot be listed or embedded; "" if it can.
    """

    def __init__(self, number: int, source: Source, shown: Shown):
        self.number, self.source, self.shown = number, source, shown
        self.total, self.done, self.state, self.trouble = 0, 0, "listing", ""
        self.unreadable: dict[str, str] = {}
        self.next_look, self.signature = 0.0, None
        self.ids: dict[tuple, int] = {}  # by name and stamp
        self.taken: dict[tuple, str] = {}  # times in EXIF, by path and stamp

    def cameras(self) -> Counter[str]:
        """Camera -> number of its pictures."""
        return Counter(self.shown.camids.tolist())


class GalleryWatch:
    """Keeps galleries up to date in a thread of its own.

    Args:
      sources: the galleries.
      model: computes features.
      turns: shared with the threads that search.
      distance: as for `GalleryFeats.nearest`.
      kind, batch_size, workers: as for `feature_index.update`.

    Attributes:
      galleries: the galleries.
      distance: as given.
      version: changes whenever what is shown changes.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        model: Model,
        turns: Turns,
        *,
        distance: str = "euclidean",
        kind: Kind = PLAIN,
        batch_size: int = 64,
        workers: int | None = None,
    ):
        self._model, self._turns, self.distance = PatientModel.of(model, turns), turns, distance
        self._reading = dict(kind=kind, batch_size=batch_size, workers=workers)
        self._new_ids, self._stop = itertools.count(1), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="galleries", daemon=True)
        self.version = 0
        self.galleries = [Gallery(number, source, self._nothing(source)) for number, source in enumerate(sources)]

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread after the batch that it computes, and waits for it; what is embedded is saved."""
        self._stop.set()
        self._thread.join()

    def find(self, key: int) -> tuple[Gallery, Shown, int] | None:
        """Gallery, what is shown of it, and row of the picture with an id; None if it is gone."""
        for gallery in self.galleries:
            shown = gallery.shown
            if key in shown.rows:
                return gallery, shown, shown.rows[key]
        return None

    def look(self, gallery: Gallery) -> None:
        """Lists a gallery and, if it has changed, brings its index and what is shown up to date."""
        begin, trouble = time.monotonic(), ""
        took = 0.0
        try:
            crops, stamps = _listed(gallery.source)
            took = time.monotonic() - begin
            signature = [(crop.name, crop.camid, crop.time) for crop in crops.crops], stamps.tobytes()
            if signature != gallery.signature:
                self._update(gallery, crops, stamps)
                gallery.signature = signature
                self._read_times(gallery, crops, stamps)
        except _Stopped:
            return
        except _NotListed as error:
            took, trouble = time.monotonic() - begin, str(error)
            gallery.total, gallery.done, gallery.signature, gallery.unreadable = 0, 0, None, {}
            if len(gallery.shown.crops):
                self._show(gallery, self._nothing(gallery.source))
        except UserError as error:
            trouble = str(error)
        except Exception as error:  # whatever it is, the other galleries and those who search are not to suffer
            trouble = f"{type(error).__name__}: {error}"
        if trouble and trouble != gallery.trouble:
            print(f"{gallery.source.place}: {trouble}", file=sys.stderr, flush=True)
        gallery.state, gallery.trouble = "watching", trouble
        gallery.next_look = time.monotonic() + max(POLL_SECONDS, POLL_SHARE * took)

    def _watch(self):
        self._model.features(np.zeros((1, 1, 1, 3), np.uint8), flip=self._reading["kind"].flip)  # compiles it
        while not self._stop.wait(min(0.1, POLL_SECONDS)):
            for gallery in self.galleries:
                if time.monotonic() >= gallery.next_look and not self._stop.is_set():
                    self.look(gallery)

    def _update(self, gallery, crops, stamps):
        gallery.state, gallery.total, gallery.done = "embedding", len(crops), 0
        growing = _Growing(functools.partial(self._show_rows, gallery, crops, stamps))

        def seen(rows, feats, failed):
            if self._stop.is_set():
                raise _Stopped  # the update saves what it has
            growing.add(rows, feats)
            gallery.done += len(rows) + len(failed)

        updated = feature_index.update(gallery.source.index, crops, self._model, seen=seen, **self._reading)
        index, gallery.unreadable = updated
        gallery.done = len(crops)
        if growing.num_shown == len(index) > 0:
            return
        embedded = set(index.names)
        rows = np.array([row for row, crop in enumerate(crops.crops) if crop.name in embedded], np.int64)
        self._show_rows(gallery, crops, stamps, rows, index.feats)

    def _show_rows(self, gallery, crops, stamps, rows, feats):
        """Shows some rows of a gallery, in its order."""
        some = [crops.crops[row] for row in rows.tolist()]
        keys = [(crop.name, *stamp) for crop, stamp in zip(some, stamps[rows].tolist(), strict=True)]
        ids = [gallery.ids.get(key) or next(self._new_ids) for key in keys]
        gallery.ids = dict(zip(keys, ids, strict=True))
        some = _with_times(some, stamps[rows], gallery.taken)
        camids = np.array([crop.camid for crop in some], str)
        with self._turns.last():
            ready = GalleryFeats([feats], mesh=self._model.mesh)
            # Compiles what the first search of a gallery of this size would have to wait for.
            any_query, anyone = np.zeros((1, feats.shape[1]), np.float32), np.ones(len(feats), bool)
            ready.nearest(any_query, k=SIZES[0], distance=self.distance, allowed=anyone)
        shown = Shown(some, np.array(ids, np.int64), feats, camids, _seconds_of(some), ready, crops)
        self._show(gallery, shown)

    def _show(self, gallery, shown):
        _ = shown.rows  # in this thread, and not in that of a visitor
        gallery.shown = shown
        self.version += 1

    def _nothing(self, source):
        """What is shown of a gallery that is empty or not known yet."""
        feats = np.empty((0, self._model.num_feats), np.float32)
        none = np.empty(0, np.int64), feats, np.empty(0, str), np.empty(0, np.float64)
        return Shown([], *none, GalleryFeats([feats]), Crops(str(source.place), ()))

    def _read_times(self, gallery, crops, stamps):
        """Reads when pictures were taken, where the list does not say, and shows these times."""
        wanted = {
            (crop.frame.path, *stamp): None
            for crop, stamp in zip(crops.crops, stamps.tolist(), strict=True)
            if not (crop.time or crop.frame.number)
        }
        gallery.taken = {key: time for key, time in gallery.taken.items() if key in wanted}
        todo = [key for key in wanted if key not in gallery.taken]
        with ThreadPoolExecutor(threads.num_threads(self._reading["workers"])) as pool:
            for start in range(0, len(todo), TIMES_AT_ONCE):
                if self._stop.is_set():
                    raise _Stopped
                some = todo[start : start + TIMES_AT_ONCE]
                times = pool.map(picture_folder.time_of, [path for path, *_ in some])
                gallery.taken |= dict(zip(some, times, strict=True))
        if any(gallery.taken[key] for key in todo):
            row_of = {crop.name: row for row, crop in enumerate(crops.crops)}
            rows = [row_of[crop.name] for crop in gallery.shown.crops]
            timed = _with_times(gallery.shown.crops, stamps[rows], gallery.taken)
            self._show(gallery, dataclasses.replace(gallery.shown, crops=timed, times=_seconds_of(timed)))


class _Stopped(Exception):
    """The thread is asked to stop."""


class _NotListed(UserError):
    """A gallery cannot be listed, or is empty."""


class _Growing:
    """The pictures of an update so far, shown now and then."""

    def __init__(self, show):
        self._show, self._parts = show, []
        self._count, self.num_shown, self._next = 0, 0, 0.0

    def add(self, rows, feats):
        self._parts.append((rows, feats))
        self._count += len(rows)
        if time.monotonic() >= self._next and self._count > GROWTH * self.num_shown:
            rows, feats = self._parts[0] if len(self._parts) == 1 else _joined(self._parts)
            self._parts = [(rows, feats)]
            self._show(rows, feats)
            self.num_shown, self._next = self._count, time.monotonic() + SHOW_SECONDS


def _joined(parts):
    rows = np.concatenate([rows for rows, _ in parts])
    order = np.argsort(rows)
    return rows[order], np.concatenate([feats for _, feats in parts])[order]


def _listed(source):
    try:
        crops = source.open()
    except UserError as error:
        raise _NotListed(str(error)) from error
    return crops, feature_index.stamps_of(crops)


def _with_times(crops, stamps, taken):
    """The crops, with the times of their files where they have none of their own."""
    found = [taken.get((crop.frame.path, *stamp), "") for crop, stamp in zip(crops, stamps.tolist(), strict=True)]
    return [
        dataclasses.replace(crop, time=time) if time and not crop.time else crop
        for crop, time in zip(crops, found, strict=True)
    ]


def _seconds_of(crops: Sequence[Crop]) -> Float64[np.ndarray, "n"]:
    return np.array([seconds(crop.time) if crop.time else np.nan for crop in crops], np.float64)


def seconds(time: str) -> float:
    """Seconds since 1970 on the clock that a time in ISO 8601 was read from, whatever its zone.

    Raises:
      ValueError: it is no time.
    """
    return datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()


def text_of(seconds: float) -> str:
    """The time of `seconds`, in ISO 8601 without a zone."""
    return datetime.fromtimestamp(float(seconds), UTC).replace(tzinfo=None).isoformat(timespec="seconds")
