"""Pictures in which several people may be seen: the files of a folder, or the frames of a video."""

import abc
import os
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from PIL import Image

from san_jax.data import picture_folder
from san_jax.errors import UserError

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
KEPT = 16  # decoded frames; crops of one frame come one after the other, from several threads
PASSED = 64  # frames of a video that stay within reach after later ones have been decoded


class Frame(NamedTuple):
    """A picture file, or a frame of a video.

    Attributes:
      path: of the file.
      number: of the frame in the video, from 1; 0 for a picture file.
    """

    path: Path
    number: int = 0


class Frames(abc.ABC):
    """Frames that boxes refer to by number or by name.

    Attributes:
      title: where they come from, for messages.
      remark: a line about files that are ignored; "" if there are none.
    """

    title: str
    remark: str = ""

    @abc.abstractmethod
    def numbered(self, number: int) -> Frame | None:
        """The frame with a number; None if there is none."""

    @abc.abstractmethod
    def named(self, name: str) -> Frame | None:
        """The frame with a name: a path inside the folder or its end, with or without suffix; None if there is none."""

    @abc.abstractmethod
    def name_of(self, frame: Frame) -> str:
        """A name that is unique among these frames."""

    @abc.abstractmethod
    def size(self, frame: Frame) -> tuple[int, int] | None:
        """Width and height as a viewer shows the frame, in pixels; None if it cannot be read."""

    @abc.abstractmethod
    def image(self, frame: Frame) -> Image.Image:
        """The decoded frame, RGB, upright; called from several threads; raises what Pillow raises."""


def open_frames(place: Path, boxes: Path | None = None) -> Frames:
    """The frames of a folder or of a video, told apart by the suffix.

    Args:
      place: the folder or video.
      boxes: their file of boxes, which may lie in the folder.

    Raises:
      UserError: it cannot be read, or there are no pictures in it.
    """
    return Video(place) if is_video(place) else Folder(place, boxes)


def is_video(place: Path) -> bool:
    """Whether a path is that of a video, by its suffix, and of no folder."""
    return place.suffix.lower() in VIDEOS and not os.path.isdir(place)


def decoded_file(frame: Frame) -> Image.Image:
    """A picture file, decoded, RGB, upright; raises what Pillow raises."""
    return picture_folder.upright(frame.path.read_bytes())


class Folder(Frames):
    """The pictures of a folder and its subfolders."""

    def __init__(self, folder: Path, boxes: Path | None = None):
        listing = picture_folder.list_files(folder)
        listing = listing._replace(others=[path for path in listing.others if path != boxes])
        self.title, self.remark, self._folder = str(folder), listing.remark(folder), folder
        self._by_number: dict[int, list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in listing.pictures:
            if digits := re.findall(r"\d+", path.stem):
                self._by_number[int(digits[-1])].append(path)
            relative = path.relative_to(folder)
            for start in range(len(relative.parts)):
                end = Path(*relative.parts[start:])
                for name in {end.as_posix(), end.with_suffix("").as_posix()}:
                    self._by_name[name].append(path)

    def numbered(self, number: int) -> Frame | None:
        """The picture whose file name ends in this number, such as 000012.jpg."""
        return self._only(self._by_number.get(number, []), f"frame {number}")

    def named(self, name: str) -> Frame | None:
        """The picture at this path inside the folder, or whose path ends so."""
        return self._only(self._by_name.get(name, []), f"the picture {name}")

    def _only(self, found: list[Path], what: str) -> Frame | None:
        if len(found) > 1:
            raise UserError(f"{self.title}: {what} may be {found[0]} or {found[1]}; give the folder of one camera")
        return Frame(found[0]) if found else None

    def name_of(self, frame: Frame) -> str:
        """The path inside the folder, with slashes."""
        return frame.path.relative_to(self._folder).as_posix()

    def size(self, frame: Frame) -> tuple[int, int] | None:
        """From the file's header alone."""
        return picture_folder.size_of(frame.path)

    def image(self, frame: Frame) -> Image.Image:
        """The whole file, decoded."""
        return decoded_file(frame)


class Video(Frames):
    """The frames of a video, decoded in their order by PyAV; others than the next few ones take a new start."""

    def __init__(self, path: Path):
        self.title, self._path = str(path), path
        self._lock, self._passed = Lock(), OrderedDict()
        with self._opened() as container:
            stream = container.streams.video[0]
            self._count = stream.frames or None  # not all formats say
        self._decoded: Iterator[Any] = iter(())
        self._last: int | None = None
        try:
            self._size = self.image(Frame(path, 1)).size
        except Exception as error:  # FFmpeg fails in many ways on damaged files
            raise UserError(f"{path} has no frame that can be decoded ({error}); give another file") from error

    def _opened(self):
        try:
            import av  # an extra; it takes a tenth of a second
        except ImportError as error:
            raise UserError(f"{self._path} is a video, which PyAV reads; pip install 'san_jax[video]'") from error
        try:
            container = av.open(str(self._path))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{self._path} cannot be read as a video ({why}); give another file") from error
        if not container.streams.video:
            raise UserError(f"{self._path} has no pictures, only sound; give another file")
        return container

    def numbered(self, number: int) -> Frame | None:
        """The frame with this number, as long as the video says that it has so many, or does not say how many."""
        within = number >= 1 and (self._count is None or number <= self._count)
        return Frame(self._path, number) if within else None

    def named(self, name: str) -> Frame | None:
        """A frame by STEM_NUMBER or STEM-NUMBER, as detectors name the files of a video's frames."""
        match = re.fullmatch(re.escape(self._path.stem) + r"[_-](\d+)(\.\w+)?", name)
        return self.numbered(int(match[1])) if match else None

    def name_of(self, frame: Frame) -> str:
        """The video's name without suffix, and the frame's number."""
        return f"{self._path.stem}-{frame.number:06d}"

    def size(self, frame: Frame) -> tuple[int, int]:
        """That of the first frame."""
        return self._size

    def image(self, frame: Frame) -> Image.Image:
        """The decoded frame; raises a ValueError if the video ends before it."""
        with self._lock:
            if frame.number not in self._passed:
                self._decode_up_to(frame.number)
            found = self._passed[frame.number]
        picture = found.to_image()
        return picture.rotate(found.rotation, expand=True) if getattr(found, "rotation", 0) else picture

    def _decode_up_to(self, number: int) -> None:
        if self._last is None or number <= self._last:
            self._decoded, self._last = self._opened().decode(video=0), 0
            self._passed.clear()
        for found in self._decoded:
            self._last += 1
            self._passed[self._last] = found
            if len(self._passed) > PASSED:
                self._passed.popitem(last=False)
            if self._last == number:
                return
        raise ValueError(f"the video ends after frame {self._last}")


class Cache:
    """The last few results of a function of a frame; threads that want the same one wait for each other."""

    def __init__(self, function: Callable[[Frame], Image.Image], size: int = KEPT):
        self._function, self._size = function, size
        self._lock, self._kept = Lock(), OrderedDict()

    def __call__(self, frame: Frame) -> Image.Image:
        """The result for a frame; raises what the function raises."""
        with self._lock:
            wanted = self._kept.get(frame)
            is_first = wanted is None
            if is_first:
                wanted = self._kept[frame] = Future()
                if len(self._kept) > self._size:
                    self._kept.popitem(last=False)
        if is_first:
            try:
                wanted.set_result(self._function(frame))
            except BaseException as error:  # those who wait must learn of it, whatever it is
                wanted.set_exception(error)
        return wanted.result()
