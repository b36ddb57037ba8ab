"""Contact sheets: pictures in rows with frames and captions, saved as PNG files."""

import io
import math
from collections.abc import Sequence
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from san_jax import files
from san_jax.errors import UserError

# Bluish green and orange red: people with red-green colour blindness can tell them apart.
GREEN = (0, 158, 115)
RED = (213, 60, 40)
GREY = (165, 165, 165)

FRAME = 4  # width of a frame, in pixels
SPACE = 3  # between picture and frame, in pixels
BORDER = FRAME + SPACE  # also left free around pictures without a frame, so that all pictures line up
INK, FAINT, PAPER = (45, 45, 45), (115, 115, 115), (255, 255, 255)


class Cell(NamedTuple):
    """A picture with its caption and its frame.

    Attributes:
      picture: RGB, of any size.
      caption: lines of ASCII below the picture; each is cut to the width of its column.
      frame: RGB colour of the frame; None for no frame.
    """

    picture: UInt8[np.ndarray, "H W 3"]
    caption: str = ""
    frame: tuple[int, int, int] | None = None


def compose(
    rows: Sequence[Sequence[Cell | None]],
    *,
    title: str = "",
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    cell_height: int = 192,
) -> UInt8[np.ndarray, "H W 3"]:
    """Composes a contact sheet. All pictures are scaled to one height and aligned in columns.

    Args:
      rows: rows from the top, each with its cells from the left. None leaves a gap; rows may have different lengths.
      title: one line above the pictures.
      row_titles: a title left of each row; empty for none.
      column_titles: a title above each column; empty for none.
      cell_height: height of the pictures, in pixels; the size of the text is proportional to it.

    Raises:
      ValueError: there are no cells, or the number of titles is not that of the rows or columns.
    """
    columns = list(zip_longest(*rows))
    if not columns:
        raise ValueError("no rows: a contact sheet needs at least one row with a cell")
    for kind, titles, number in (("row", row_titles, len(rows)), ("column", column_titles, len(columns))):
        if len(titles) not in (0, number):
            raise ValueError(f"{len(titles)} {kind} titles for {number} {kind}s")

    font = ImageFont.load_default(max(10, round(cell_height / 14)))
    # A column is at least half as wide as high, like pictures of people, so that there is room for captions.
    widths = [max([cell_height // 2, *(_width(cell, cell_height) for cell in column if cell)]) for column in columns]
    blocks = [
        [_block(cell, font, width=width, height=cell_height) for cell, width in zip(row, widths, strict=False)]
        for row in rows
    ]
    if row_titles:
        titles = [_line(words, font, FAINT, limit=1.5 * cell_height) for words in row_titles]
        level = (0, (cell_height + 2 * BORDER - titles[0].height) // 2, 0, 0)
        blocks = [[ImageOps.expand(title, level, PAPER), *row] for title, row in zip(titles, blocks, strict=True)]
    if column_titles:
        titles = [_line(words, font, FAINT, limit=width) for words, width in zip(column_titles, widths, strict=True)]
        blocks.insert(0, [_blank(0, 0), *titles] if row_titles else titles)
    sheet = _pasted(blocks, gap=font.size)
    if title:
        heading = ImageFont.load_default(round(1.6 * font.size))
        line = _line(title, heading, INK, limit=max(sheet.width, 3 * cell_height))
        sheet = _pasted([[line], [sheet]], gap=font.size)
    return np.asarray(ImageOps.expand(sheet, round(1.5 * font.size), PAPER))


def check_name(path: Path, *, what: str) -> None:
    """Raises a UserError if `path`, `what` on the command line, does not end in .png or cannot be written."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{what} is {path}, which does not end in .png; choose another name")
    files.check_place(path)


def check_place(path: Path, *, pictures: Sequence[Path]) -> None:
    """Checks that `path`, the value of --sheet, names a PNG file outside the folders `pictures`.

    Inside them, the sheet would be taken for one of the pictures next time.

    Raises:
      UserError: it lies in one of these folders, or its name does not end in .png.
    """
    check_name(path, what="--sheet")
    for folder in pictures:
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the contact sheet {path} would lie among the pictures of {folder}; give another --sheet")


def save(path: Path, sheet: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes a sheet as a PNG file, atomically.

    Raises:
      UserError: the file cannot be written.
    """
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, "PNG")
    files.write(path, png.getvalue())


def _width(cell, height):
    """Width of a cell's picture when it is scaled to this height."""
    return max(1, round(height * cell.picture.shape[1] / cell.picture.shape[0]))


def _block(cell, font, *, width, height):
    """An image of a cell, frame and caption included, for a column whose pictures are up to `width` wide."""
    if cell is None:
        return _blank(width + 2 * BORDER, height + 2 * BORDER)
    picture = Image.fromarray(cell.picture).resize((_width(cell, height), height), Image.Resampling.BICUBIC)
    framed = ImageOps.expand(ImageOps.expand(picture, SPACE, PAPER), FRAME, cell.frame or PAPER)
    lines = [_line(words, font, INK, limit=width) for words in cell.caption.splitlines()]
    return _pasted([[framed], *([line] for line in lines)], gap=0, wide=width + 2 * BORDER)


def _line(words, font, colour, *, limit):
    """An image of a line of text, cut to `limit` pixels; the text is left-aligned with the framed pictures."""
    shown = words = " ".join(words.split())
    while words and font.getlength(shown) > limit:
        words = words[:-1]
        shown = words.rstrip() + "…"
    image = _blank(BORDER + math.ceil(font.getlength(shown)), round(1.35 * font.size))
    ImageDraw.Draw(image).text((BORDER, image.height / 2), shown, colour, font, anchor="lm")
    return image


def _pasted(images, *, gap, wide=0):
    """Pastes rows of images into one; a column is as wide as its widest image, a row as high as its highest."""
    columns = zip_longest(*images)
    rights = [max([wide, *(image.width for image in column if image)]) + gap for column in columns]
    bottoms = [max(image.height for image in row) + gap for row in images]
    *lefts, right = accumulate(rights, initial=0)
    *tops, bottom = accumulate(bottoms, initial=0)
    sheet = _blank(right - gap, bottom - gap)
    for top, row in zip(tops, images, strict=True):
        for left, image in zip(lefts, row, strict=False):
            sheet.paste(image, (left, top))
    return sheet


def _blank(width, height):
    return Image.new("RGB", (width, height), PAPER)
