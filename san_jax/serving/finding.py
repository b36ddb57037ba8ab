"""A search: what the page asks for, the nearest pictures of all galleries, and the same as CSV and contact sheet."""

import io
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from san_jax.data import picture_folder
from san_jax.data.crops import Crop
from san_jax.data.frames import Frame
from san_jax.gallery import finds, found_files
from san_jax.gallery.finds import Find
from san_jax.serving import gallery_watch
from san_jax.serving.gallery_watch import SIZES, Gallery, GalleryWatch
from san_jax.serving.guard import Refused
from san_jax.serving.queries import MOST_BYTES, Queries
from san_jax.serving.turns import Turns

MOST_FOUND, MOST_NAMED = SIZES[-1], 1000  # pictures found; queries, or pictures that are marked


class Wanted(NamedTuple):
    """What is searched for.

    Attributes:
      queries: names of `Queries`.
      like: ids of pictures that are searched for, too, and not found.
      right: ids of pictures that show the person.
      wrong: ids of pictures that do not.
      cameras: those to search; none for all.
      since, until: times in seconds, as `gallery_watch.seconds`; None for any.
      galleries: numbers of those to search; none for all.
      top: number of pictures to find.
      only_right: whether only pictures in `right` are saved.
    """

    queries: list[str]
    like: list[int]
    right: list[int]
    wrong: list[int]
    cameras: list[str]
    since: float | None
    until: float | None
    galleries: list[int]
    top: int
    only_right: bool


class Hit(NamedTuple):
    """A picture found: its id, its gallery, and the find."""

    id: int
    gallery: Gallery
    find: Find


class Found(NamedTuple):
    """The answer.

    Attributes:
      hits: nearest first.
      searched: number of pictures among which they were searched.
      threshold: the distance up to which pictures are taken for the same person; None if unknown.
    """

    hits: list[Hit]
    searched: int
    threshold: float | None


def wanted_of(given: Any) -> Wanted:
    """What a request asks for.

    Args:
      given: its JSON.

    Raises:
      Refused: it is not what docs/search.md says.
    """
    if not isinstance(given, Mapping):
        raise Refused(400, "the request is no JSON object; send {}")
    fields = {"queries", "like", "right", "wrong", "cameras", "from", "to", "galleries", "top", "only_right"}
    if unknown := sorted(set(given) - fields):
        raise Refused(400, f"there is no field {unknown[0]!r}; there are {', '.join(sorted(fields))}")
    top, only_right = given.get("top", 24), given.get("only_right", False)
    if type(top) is not int or not 1 <= top <= MOST_FOUND:
        raise Refused(400, f"top is {top!r}; give a number from 1 to {MOST_FOUND}")
    if type(only_right) is not bool:
        raise Refused(400, "only_right is neither true nor false; give one of them")
    wanted = Wanted(
        **{name: _list(given, name, str) for name in ("queries", "cameras")},
        **{name: _list(given, name, int) for name in ("like", "right", "wrong", "galleries")},
        since=_time(given, "from"),
        until=_time(given, "to"),
        top=top,
        only_right=only_right,
    )
    if not (wanted.queries or wanted.like or wanted.right):
        raise Refused(400, "there is nothing to search for; give queries, or pictures like it")
    return wanted


def _list(given, name, kind):
    found = given.get(name, [])
    if not isinstance(found, list) or any(type(one) is not kind for one in found):
        raise Refused(400, f"{name} is no list of {'numbers' if kind is int else 'words'}; give one")
    if len(found) > MOST_NAMED:
        raise Refused(400, f"{name} has more than {MOST_NAMED} entries; give fewer")
    return found


def _time(given, name):
    value = given.get(name)
    if value in (None, ""):
        return None
    try:
        return gallery_watch.seconds(value)
    except (TypeError, ValueError) as error:
        raise Refused(400, f"{name} is {value!r}; give a time such as 2026-11-28T14:03") from error


class Finder:
    """Searches galleries.

    Args:
      watch: the galleries.
      queries: the pictures of visitors.
      turns: shared with the thread that embeds.
      threshold: the distance up to which pictures are taken for the same person; None if unknown.
      holds_for_means: whether that is so for means of several features, too.
    """

    def __init__(
        self,
        watch: GalleryWatch,
        queries: Queries,
        turns: Turns,
        *,
        threshold: float | None = None,
        holds_for_means: bool = False,
    ):
        self._watch, self._queries, self._turns = watch, queries, turns
        self.threshold, self._holds_for_means = threshold, holds_for_means

    def find(self, wanted: Wanted) -> Found:
        """The nearest pictures; raises a Refused if a query is not kept any more, or all pictures of it are gone."""
        feats = self._feats(wanted)
        threshold = self.threshold if len(feats) == 1 or self._holds_for_means else None
        limit = math.inf if threshold is None else threshold
        query = feats.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
        k = next(size for size in SIZES if size >= wanted.top)
        hits, searched = [], 0
        for gallery in self._watch.galleries:
            if wanted.galleries and gallery.number not in wanted.galleries:
                continue
            shown = gallery.shown
            masks = dict(cameras=wanted.cameras, since=wanted.since, until=wanted.until)
            allowed = shown.allowed(without=[*wanted.wrong, *wanted.like], **masks)
            searched += int(allowed.sum())
            with self._turns.first():
                found = shown.ready.nearest(query, k=k, distance=self._watch.distance, allowed=allowed)
            for far, row in zip(found.distances[0].tolist(), found.rows[0].tolist(), strict=True):
                if far < math.inf:
                    crop = shown.crops[row]
                    find = Find(crop, finds.printable(crop.name), far, is_query=False, is_beyond=far > limit)
                    hits.append(Hit(int(shown.ids[row]), gallery, find))
        hits = sorted(hits, key=lambda hit: hit.find.distance)[: wanted.top]
        return Found(hits, searched, threshold)

    def csv(self, wanted: Wanted) -> str:
        """The columns of `found_files`; raises a Refused as `find`, or if there is nothing to save."""
        hits = self._to_save(wanted)
        boxed = any(hit.find.crop.box for hit in hits)
        query, _ = self._first_query(wanted)
        rows = found_files.table_of([query], [[hit.find for hit in hits]], boxed=boxed)
        return found_files.csv_of(rows)

    def sheet(self, wanted: Wanted) -> bytes:
        """A contact sheet, PNG; raises a Refused as `csv`."""
        hits = self._to_save(wanted)
        query, picture = self._first_query(wanted)
        more = len(wanted.queries) + len(wanted.like) + len(wanted.right) - 1
        others = f" and {more} more" if more > 0 else ""
        searched = ", ".join(dict.fromkeys(str(hit.gallery.source.place) for hit in hits))
        gallery_of = {hit.find.crop: hit.gallery for hit in hits}

        def thumbnails(crops, *, height):
            asked = list(crops)
            small = {}
            for gallery in self._watch.galleries:
                own = [crop for crop in asked if gallery_of[crop] is gallery]
                small |= gallery.shown.collection.thumbnails(own, height=height)
            return small

        sheet, _ = finds.sheet(
            [query],
            [[hit.find for hit in hits]],
            title=f"{query.name}{others} in {searched}",
            query_thumbnails=lambda crops, height: {query: picture_folder.thumbnail(picture, height=height)},
            thumbnails=thumbnails,
        )
        encoded = io.BytesIO()
        Image.fromarray(sheet).save(encoded, "PNG")
        return encoded.getvalue()

    def progress(self) -> dict[str, Any]:
        """What GET /api/galleries answers."""
        galleries = self._watch.galleries
        cameras = sum((gallery.cameras() for gallery in galleries), Counter())
        times = np.concatenate([gallery.shown.times for gallery in galleries])
        times = times[~np.isnan(times)]
        return {
            "version": self._watch.version,
            "galleries": [_progress_of(gallery) for gallery in galleries],
            "cameras": [{"camera": name, "pictures": cameras[name]} for name in sorted(cameras, key=_natural) if name],
            "with_times": len(times),
            "first_time": gallery_watch.text_of(times.min()) if len(times) else "",
            "last_time": gallery_watch.text_of(times.max()) if len(times) else "",
            "threshold": self.threshold,
            "most_bytes": MOST_BYTES,
            "most_found": MOST_FOUND,
        }

    def picture(self, key: int) -> tuple[Crop, Image.Image]:
        """A gallery's picture and what its file shows; raises a Refused if it is gone or cannot be read."""
        found = self._watch.find(key)
        picture = found and found[1].collection.image(found[1].crops[found[2]])
        if picture is None:
            raise Refused(404, "this picture is gone from its gallery, or cannot be read any more")
        return found[1].crops[found[2]], picture

    def _feats(self, wanted: Wanted) -> Float32[np.ndarray, "n D"]:
        feats = [self._queries.get(key).feats for key in dict.fromkeys(wanted.queries)]
        for key in dict.fromkeys([*wanted.like, *wanted.right]):
            if found := self._watch.find(key):
                feats.append(found[1].feats[found[2]])
        if not feats:
            raise Refused(404, "the pictures that are searched for are gone from their galleries; choose others")
        return np.stack(feats)

    def _to_save(self, wanted):
        hits = self.find(wanted).hits
        hits = [hit for hit in hits if hit.id in wanted.right] if wanted.only_right else hits
        if not hits:
            raise Refused(409, "there is no picture to save; search first, or mark some as right")
        return hits

    def _first_query(self, wanted) -> tuple[Crop, Image.Image]:
        if wanted.queries:
            query = self._queries.get(wanted.queries[0])
            return Crop(Frame(Path(query.name)), query.name, query.box), query.person()
        return self.picture(next(key for key in (*wanted.like, *wanted.right) if self._watch.find(key)))


def _progress_of(gallery: Gallery) -> dict[str, Any]:
    unreadable = gallery.unreadable
    return {
        "number": gallery.number,
        "name": gallery.source.place.name or str(gallery.source.place),
        "place": str(gallery.source.place),
        "state": gallery.state,
        "pictures": gallery.total,
        "done": gallery.done,
        "searchable": len(gallery.shown.crops),
        "unreadable": len(unreadable),
        "first_unreadable": [{"picture": name, "why": unreadable[name]} for name in list(unreadable)[:20]],
        "trouble": gallery.trouble,
    }


def in_words(hit: Hit, threshold: float | None) -> dict[str, Any]:
    """A picture found, as JSON."""
    find = hit.find
    return {
        "id": hit.id,
        "gallery": hit.gallery.number,
        "name": find.name,
        "camera": find.crop.camid,
        "time": find.crop.time,
        "distance": round(find.distance, 6),
        "within": None if threshold is None else not find.is_beyond,
    }


def _natural(name: str) -> tuple:
    """Sorts 2 before 10."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
