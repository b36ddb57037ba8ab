"""Pictures in folders: which there are, and what is in each; a damaged one among thousands is a reason, not an end."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from san_jax.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def find(folder: Path) -> list[Path]:
    """Files of a folder and its subfolders that end in one of SUFFIXES, in capitals or not; ascending.

    Links to folders are not followed.

    Raises:
      UserError: a folder cannot be read, or there is no such file.
    """

    def fail(error: OSError):
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); give a folder of pictures") from error

    found = [Path(root, name) for root, _, inside in os.walk(folder, onerror=fail) for name in inside]
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}); give a folder that does")
    return paths


def decode(encoded: bytes, *, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """As `input_pipeline.decode`, but upright where a phone was held otherwise (EXIF); raises what Pillow raises."""
    return np.asarray(_upright(encoded).resize((width, height), Image.Resampling.BILINEAR))


def thumbnail(path: Path, *, height: int) -> UInt8[np.ndarray, "{height} w 3"]:
    """A picture in its own proportions, at most twice as wide as high; grey where it cannot be read."""
    try:
        picture = _upright(path.read_bytes())
    except Exception:  # as in `decode_into`
        return np.full((height, height // 2, 3), 200, np.uint8)
    width = min(max(1, round(height * picture.width / picture.height)), 2 * height)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def decode_into(encoded: Callable[[], bytes], into: UInt8[np.ndarray, "H W 3"]) -> str:
    """Decodes what `encoded` reads to fill an array, and returns ""; or a line that says why it cannot.

    Raises:
      UserError: `encoded` does.
    """
    try:
        into[:] = decode(encoded(), height=into.shape[0], width=into.shape[1])
    except UserError:
        raise
    except UnidentifiedImageError:
        return "it is no picture"
    except Exception as error:  # Pillow fails in many ways on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return " ".join(reason.split())
    return ""


def _upright(encoded: bytes) -> Image.Image:
    with Image.open(io.BytesIO(encoded)) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")
