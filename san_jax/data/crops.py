"""Pictures of one person each: whole files, or boxes in the frames of a folder or video, cut out on the fly."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from san_jax.data import boxes, frames, picture_batches, picture_folder
from san_jax.data.boxes import Detection
from san_jax.data.frames import Cache, Frame, Frames
from san_jax.data.picture_batches import Reader
from san_jax.errors import UserError

UNKNOWN_SIZE = (1 << 30, 1 << 30)  # of a frame that cannot be read, which is reported when it is to be cut

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright picture, as Pillow crops


@dataclasses.dataclass(frozen=True)
class Crop:
    """A picture of one person.

    Attributes:
      frame: the file, or the frame of a video.
      name: unique in its collection: the frame's path inside its folder, with slashes, and the box.
      box: None for the whole frame.
      track: the person's track in a video or series of frames; "" if unknown.
      camid: of the camera; "" if unknown.
      time: ISO 8601; "" if unknown.
    """

    frame: Frame
    name: str
    box: Box | None = None
    track: str = ""
    camid: str = ""
    time: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        number = f", frame {self.frame.number}" if self.frame.number else ""
        box = f", box {_words(self.box)}" if self.box else ""
        return f"{self.frame.path}{number}{box}"


@dataclasses.dataclass(frozen=True)
class Crops:
    """A collection of crops, such as a gallery.

    Attributes:
      title: where they come from, for messages: the folder, file or list.
      crops: in the order of their names, or of a list.
      remarks: lines about what was left out.
      folder: that the frames lie in; None if there is none.
      source: decodes the frames; None if all frames are files.
    """

    title: str
    crops: tuple[Crop, ...]
    remarks: tuple[str, ...] = ()
    folder: Path | None = None
    source: Frames | None = None

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.crops)

    @functools.cached_property
    def _frame(self) -> Cache:
        return Cache(self.source.image if self.source else frames.decoded_file)

    def readers(self) -> list[Reader]:
        """For each crop a function that fills an array with its resized picture, or returns why it cannot."""
        return [
            functools.partial(self._cut_into, crop) if crop.box else picture_batches.reader(crop.frame.path)
            for crop in self.crops
        ]

    def _cut_into(self, crop: Crop, into: np.ndarray) -> str:
        try:
            picture = self._frame(crop.frame).crop(crop.box)
        except Exception as error:  # Pillow and PyAV fail in many ways on damaged files
            return picture_folder.reason(error)
        return picture_folder.fit_into(picture, into)

    def thumbnails(self, crops: Iterable[Crop], *, height: int) -> dict[Crop, UInt8[np.ndarray, "{height} w 3"]]:
        """Small pictures of some crops, as `picture_folder.thumbnail` makes them; grey where one cannot be read."""
        in_order = sorted(set(crops), key=lambda crop: (crop.frame, crop.name))  # a video is read once, from its start
        return {crop: picture_folder.thumbnail(self.image(crop), height=height) for crop in in_order}

    def image(self, crop: Crop) -> Image.Image | None:
        """A crop in its own size; None if it cannot be read."""
        try:
            picture = self._frame(crop.frame)
        except Exception:  # as in `_cut_into`
            return None
        return picture.crop(crop.box) if crop.box else picture


class Wanted(NamedTuple):
    """Which boxes are cut out, and how.

    Attributes:
      margin: added on every side, as a share of the box's width and height.
      min_score: boxes with a lower score are left out; boxes without a score are not.
      min_height: boxes that are lower are left out; pixels.
      min_visible: boxes of people of whom a smaller share is visible are left out, where the file says so.
    """

    margin: float = 0.0
    min_score: float = 0.3
    min_height: float = 32
    min_visible: float = 0.3

    def check(self) -> None:
        """Raises a UserError that names a value that is out of range."""
        for name, value, low, high in (
            ("margin", self.margin, 0, 1),
            ("min_score", self.min_score, -math.inf, math.inf),
            ("min_height", self.min_height, 0, math.inf),
            ("min_visible", self.min_visible, 0, 1),
        ):
            if not low <= value <= high:  # false for NaN
                least = f"of {low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
                raise UserError(f"--{name} is {value}; give a number {least}")

    def why_not(self, found: Detection) -> str:
        """Why a box is left out, and by which flag; "" if it is not."""
        if found.kind:
            return f"are {found.kind}"
        if found.score is not None and not found.score >= self.min_score:
            return f"have a score below {self.min_score:g} (--min_score)"
        if found.box[3] < self.min_height:
            return f"are lower than {self.min_height:g} pixels (--min_height)"
        if found.visible is not None and found.visible < self.min_visible:
            return f"show less than {100 * self.min_visible:g} % of the person (--min_visible)"
        return ""


def in_folder(folder: Path) -> Crops:
    """The pictures of a folder and its subfolders, each a whole file; raises a UserError as `list_files` does."""
    listing = picture_folder.list_files(folder)
    names = [path.relative_to(folder).as_posix() for path in listing.pictures]
    crops = tuple(Crop(Frame(path), name) for path, name in zip(listing.pictures, names, strict=True))
    return Crops(str(folder), crops, tuple(filter(None, [listing.remark(folder)])), folder)


def of_file(path: Path) -> Crops:
    """One picture."""
    return Crops(str(path), (Crop(Frame(path), path.name),))


def in_boxes(place: Path, file: Path, *, form: str = "auto", wanted: Wanted = Wanted()) -> Crops:  # noqa: B008
    """The people in the frames of a folder or video, by the boxes of a file.

    Args:
      place: folder of frames, or video.
      file: file or folder of boxes, as for `boxes.read`.
      form: its format, one of `boxes.FORMATS`, or auto.
      wanted: which boxes are cut out, and how.

    Raises:
      UserError: the frames or boxes cannot be read or do not fit each other, or no box is left.
    """
    wanted.check()
    source = frames.open_frames(place, file)
    detections = boxes.read(file, source, form=form)
    crops, left_out, total = {}, Counter(), 0
    for frame, found in detections:
        size = source.size(frame) or UNKNOWN_SIZE
        for one in found:
            total += 1
            box = inside(_widened(one.box, wanted.margin), size)
            why = wanted.why_not(one) or ("" if box else "lie outside their frame")
            if not why:
                crop = Crop(frame, f"{source.name_of(frame)}-{_words(box)}", box, one.track)
                why = "come twice" if crop.name in crops else ""
                crops.setdefault(crop.name, crop)
            left_out[why] += bool(why)
    reasons = "; ".join(f"{number} {why}" for why, number in left_out.most_common() if number)
    if not crops:
        raise UserError(f"none of the {total} boxes of {file} is left" + (f": {reasons}" if reasons else ""))
    num_frames = len({crop.frame for crop in crops.values()})
    tracks = len({crop.track for crop in crops.values()} - {""})
    line = f"{file}: {len(crops)} boxes{f' of {tracks} tracks' if tracks else ''} in {num_frames} frames"
    line += f"; {sum(left_out.values())} of {total} boxes are left out: {reasons}" if reasons else ""
    remarks = tuple(filter(None, [source.remark, line]))
    return Crops(str(place), tuple(crops.values()), remarks, None if frames.is_video(place) else place, source)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture as a viewer shows it; larger than any box if it cannot be read."""
    return picture_folder.size_of(path) or UNKNOWN_SIZE


def inside(box: Sequence[float], size: tuple[int, int]) -> Box | None:
    """The pixels that a box touches in a picture; None if there are none.

    Args:
      box: x, y, w, h in pixels.
      size: width and height of the picture.
    """
    x, y, w, h = box
    left, top = max(0, math.floor(x)), max(0, math.floor(y))
    right, bottom = min(size[0], math.ceil(x + w)), min(size[1], math.ceil(y + h))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _widened(box: Sequence[float], margin: float) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x - margin * w, y - margin * h, w * (1 + 2 * margin), h * (1 + 2 * margin)


def _words(box: Box) -> str:
    """x,y,w,h of a box."""
    left, top, right, bottom = box
    return f"{left},{top},{right - left},{bottom - top}"
