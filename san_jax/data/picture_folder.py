"""Pictures in folders: lists and decodes them; unreadable files are reported, not fatal."""

import datetime
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from san_jax.errors import UserError

# Formats that Pillow recognises but does not decode itself: video, scientific data, PostScript and metafiles.
NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
EXIF_ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)  # values of that tag for pictures that lie on a side
EXIF_DETAILS, EXIF_TAKEN = 0x8769, 0x9003  # the directory with DateTimeOriginal, and that tag
NAMED = 5  # number of ignored files that `Listing.remark` names


class Listing(NamedTuple):
    """The files of a folder and its subfolders, sorted; `others` are not pictures."""

    pictures: list[Path]
    others: list[Path]

    def remark(self, folder: Path) -> str:
        """A line about the files that are ignored; empty if there are none."""
        if not self.others:
            return ""
        names = [os.path.relpath(path, folder) for path in self.others[:NAMED]]
        more = len(self.others) - len(names)
        counted = "1 file is" if len(self.others) == 1 else f"{len(self.others)} files are"
        ending = f" and {more} more" if more else ""
        return f"{folder}: {counted} ignored, not being pictures: {', '.join(names)}{ending}"


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes, in lower case and with their dot, of the formats that the installed Pillow decodes."""
    of_formats = Image.registered_extensions()  # imports all of Pillow's formats
    return frozenset(
        suffix for suffix, name in of_formats.items() if name in Image.OPEN and name not in NOT_PICTURES
    )


def list_files(folder: Path) -> Listing:
    """The files of a folder and its subfolders.

    Pictures are files with one of `suffixes`, in upper or lower case, and files without any suffix that Pillow
    recognises. Links to folders are not followed. Hidden files and folders, whose names begin with a dot, are ignored:
    systems and editors create them (._a.png of macOS, .ipynb_checkpoints).

    Raises:
      UserError: a folder cannot be read, or holds no picture.
    """

    def fail(error: OSError):
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); give a folder of pictures") from error

    found = []
    for root, folders, inside in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk descends only into these
        found += [Path(root, name) for name in inside if not name.startswith(".")]
    by_kind: dict[bool, list[Path]] = {True: [], False: []}
    for path in sorted(found):
        by_kind[_is_picture(path)].append(path)
    listing = Listing(by_kind[True], by_kind[False])
    if not listing.pictures:
        others = f", but {len(listing.others)} other files" if listing.others else ""
        raise UserError(f"{folder} holds no pictures (.jpg, .png and the like){others}; give a folder that does")
    return listing


def _is_picture(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in suffixes()
    try:
        with Image.open(path) as picture:  # reads the header alone
            return picture.format not in NOT_PICTURES
    except Exception:  # Pillow fails in many ways on files that are not pictures
        return False


def decode(encoded: bytes, *, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """As `input_pipeline.decode`, after `as_seen`; raises what Pillow raises."""
    return np.asarray(upright(encoded).resize((width, height), Image.Resampling.BILINEAR))


def thumbnail(picture: Image.Image | None, *, height: int) -> UInt8[np.ndarray, "{height} w 3"]:
    """A picture in its own proportions, at most twice as wide as high; plain grey for None."""
    if picture is None:
        return np.full((height, height // 2, 3), 200, np.uint8)
    width = min(max(1, round(height * picture.width / picture.height)), 2 * height)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture as a viewer shows it, from the file's header; None if it cannot be read."""
    try:
        with Image.open(path) as picture:
            is_turned = picture.getexif().get(EXIF_ORIENTATION, 1) in TURNED
            return picture.size[::-1] if is_turned else picture.size
    except Exception:  # as in `decode_into`, which says why
        return None


def time_of(path: Path) -> str:
    """When a camera says that it took a picture (EXIF's DateTimeOriginal), in ISO 8601; "" if it does not say."""
    try:
        with Image.open(path) as picture:
            if picture.format == "PNG" and "exif" not in picture.info:
                return ""  # Pillow would decode the picture, behind which EXIF may stand
            taken = picture.getexif().get_ifd(EXIF_DETAILS).get(EXIF_TAKEN, "")
        return datetime.datetime.strptime(taken.strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except Exception:  # as above; cameras whose clock was never set write blanks
        return ""


def decode_into(encoded: Callable[[], bytes], into: UInt8[np.ndarray, "H W 3"]) -> str:
    """Decodes the picture that `encoded` reads into an array; returns "", or a line that says why it cannot be decoded.

    Raises:
      UserError: if `encoded` raises it.
    """
    try:
        into[:] = decode(encoded(), height=into.shape[0], width=into.shape[1])
    except UserError:
        raise
    except Exception as error:  # Pillow fails in many ways on damaged files
        return reason(error)
    return ""


def reason(error: Exception) -> str:
    """One line that says why a picture cannot be decoded."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no picture"
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def fit_into(picture: Image.Image | np.ndarray, into: UInt8[np.ndarray, "H W 3"]) -> str:
    """Resizes a picture in memory into an array; returns "", or a line that says why it cannot be resized.

    Args:
      picture: a Pillow image, or uint8 [h w 3].
      into: array to fill, by Pillow's bilinear filter.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            return f"it is an array {picture.dtype} of shape {picture.shape}, not uint8 [height, width, 3]"
        picture = Image.fromarray(picture)
    try:
        resized = as_seen(picture).resize((into.shape[1], into.shape[0]), Image.Resampling.BILINEAR)
        into[:] = np.asarray(resized)
    except Exception as error:  # Pillow reads lazily, and fails in many ways on damaged files
        return reason(error)
    return ""


def upright(encoded: bytes) -> Image.Image:
    """The decoded picture, `as_seen`; raises what Pillow raises."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return as_seen(picture)


def as_seen(picture: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, as a viewer shows it.

    It is rotated as its EXIF tag says, transparent parts are white, and more than 8 bits per channel are scaled to 8
    (Pillow's own conversion clips them, which makes such pictures white). An animation gives its first frame.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _in_8_bits(picture)
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return picture.convert("RGB")


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of integers or floats in 8 bits; its range is 0 to 1, 255 or 65535, the first that holds it."""
    values = np.nan_to_num(np.asarray(picture, np.float64))
    largest = values.max(initial=0)
    ranges = {"F": (1, 255), "I": (255, 65535)}.get(picture.mode, (65535,))  # the others are I;16 and its variants
    full = next((top for top in ranges if largest <= top), largest)
    return Image.fromarray(np.round(255 * np.clip(values / full, 0, 1)).astype(np.uint8))
