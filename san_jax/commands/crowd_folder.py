"""A folder with the frames of a rendered crowd and its gt.txt, as MOTChallenge lays them out.

Each frame holds a comment that says how it was made, so that a folder's own frames are told apart from all others.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from san_jax import files
from san_jax.errors import UserError
from san_jax.synthesis.crowd import Frame

TRUTH = "gt.txt"
QUALITY = 95  # of the JPEG files


def check(folder: Path, comment: str) -> None:
    """Checks that a folder is new or empty, or holds nothing but frames with this comment and their gt.txt.

    What a killed process has begun may lie there, too.

    Raises:
      UserError: it holds other files, or cannot be written.
    """
    files.check_place(folder / TRUTH)
    if not folder.is_dir():
        return
    begun = r"(\d{6}\.jpg|gt\.txt)" + files.WRITER.pattern
    found = sorted(path for path in folder.iterdir() if not re.fullmatch(begun, path.name))
    frames = [path for path in found if re.fullmatch(r"\d{6}\.jpg", path.name)]
    other = [path for path in found if path not in frames and not (path.name == TRUTH and frames)]
    if other := other + [path for path in frames if _comment_of(path) != comment]:
        what = "is not of this crowd" if len(other) == 1 else f"and {len(other) - 1} more are not of this crowd"
        raise UserError(f"{folder} holds files already: {other[0].name} {what}; give --crowd another folder")


def _comment_of(path: Path) -> str | None:
    """The comment in a JPEG file; None if there is none, or if it is no picture."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("comment", b"").decode(errors="replace")
    except OSError:
        return None


def write(folder: Path, frames: Iterable[Frame], comment: str) -> None:
    """Writes 000001.jpg and so on as they come, and gt.txt at the end, each atomically."""
    lines = []
    for number, frame in enumerate(frames, start=1):
        files.write(folder / f"{number:06}.jpg", _jpeg(frame.picture, comment))
        lines += lines_of(number, frame)
    files.write(folder / TRUTH, "".join(f"{line}\n" for line in lines))


def lines_of(number: int, frame: Frame) -> list[str]:
    """The lines of MOT16's gt.txt for one frame: frame, id, left, top, width, height, 1, class 1, visible share.

    Ids count from 1, as people on a contact sheet do from 0. Pixels count from 0, unlike MOT16's, which count from 1.
    """
    rows = zip(frame.person, frame.box, frame.visible, strict=True)
    return [
        f"{number},{person + 1},{','.join(f'{side:.2f}' for side in box)},1,1,{visible:.2f}"
        for person, box, visible in rows
    ]


def _jpeg(picture: UInt8[np.ndarray, "H W 3"], comment: str) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=QUALITY, comment=comment)
    return encoded.getvalue()
