"""Pictures in rows, with frames and captions, as PNG."""

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

# Bluish green and orange red, which people who confuse red and green tell apart.
GREEN = (0, 158, 115)
RED = (213, 60, 40)
GREY = (165, 165, 165)

FRAME = 4  # pixels
SPACE = 3  # pixels between picture and frame
BORDER = FRAME + SPACE  # left free where there is no frame, so that pictures stand in line
INK, FAINT, PAPER = (45, 45, 45), (115, 115, 115), (255, 255, 255)


class Cell(NamedTuple):
    """A picture of any size; lines of ASCII under it, each cut to the width of its column; an RGB frame."""

    picture: UInt8[np.ndarray, "H W 3"]
    caption: str = ""
    frame: tuple[int, int, int] | None = None


def draw(
    rows: Sequence[Sequence[Cell | None]],
    *,
    title: str = "",
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    cell_height: int = 192,
) -> UInt8[np.ndarray, "H W 3"]:
    """The sheet. Pictures are scaled to one height and stand in columns; None leaves a gap, rows may be short.

    Args:
      rows: from the top, cells from the left.
      title: one line above everything.
      row_titles: one a row, left of it, or none at all.
      column_titles: one a column, above it, or none at all.
      cell_height: of the pictures in pixels; text grows with it.

    Raises:
      ValueError: there is no cell, or not one title for each row or column.
    """
    columns = list(zip_longest(*rows))
    if not columns:
        raise ValueError("no rows: a contact sheet needs at least one row with a cell")
    for kind, titles, number in (("row", row_titles, len(rows)), ("column", column_titles, len(columns))):
        if len(titles) not in (0, number):
            raise ValueError(f"{len(titles)} {kind} titles for {number} {kind}s")

    font = ImageFont.load_default(max(10, round(cell_height / 14)))
    # Half as wide as high, the shape of people's pictures, is room enough for a caption.
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
        blocks.insert(0, [_nothing(0, 0), *titles] if row_titles else titles)
    sheet = _pasted(blocks, gap=font.size)
    if title:
        heading = ImageFont.load_default(round(1.6 * font.size))
        line = _line(title, heading, INK, limit=max(sheet.width, 3 * cell_height))
        sheet = _pasted([[line], [sheet]], gap=font.size)
    return np.asarray(ImageOps.expand(sheet, round(1.5 * font.size), PAPER))


def check_place(path: Path, *, pictures: Sequence[Path]) -> None:
    """Sees to it that --sheet, `path`, is no picture and not in a folder of `pictures`, where it would become one.

    Raises:
      UserError: it is, or its name is not that of a PNG file.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--sheet is {path}, which does not end in .png; choose another name")
    for folder in pictures:
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the contact sheet {path} would lie among the pictures of {folder}; give another --sheet")


def save(path: Path, sheet: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes a sheet as PNG, whole or not at all; raises a UserError if it cannot be written."""
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, "PNG")
    files.write(path, png.getvalue())


def _width(cell, height):
    """Of the picture when it is scaled to a height."""
    return max(1, round(height * cell.picture.shape[1] / cell.picture.shape[0]))


def _block(cell, font, *, width, height):
    """A cell's framed picture and its caption, for a column whose pictures are up to `width` wide."""
    if cell is None:
        return _nothing(width + 2 * BORDER, height + 2 * BORDER)
    picture = Image.fromarray(cell.picture).resize((_width(cell, height), height), Image.Resampling.BICUBIC)
    framed = ImageOps.expand(ImageOps.expand(picture, SPACE, PAPER), FRAME, cell.frame or PAPER)
    lines = [_line(words, font, INK, limit=width) for words in cell.caption.splitlines()]
    return _pasted([[framed], *([line] for line in lines)], gap=0, wide=width + 2 * BORDER)


def _line(words, font, colour, *, limit):
    """A line of text, cut to `limit` pixels, that begins where a picture in its frame would."""
    shown = words = " ".join(words.split())
    while words and font.getlength(shown) > limit:
        words = words[:-1]
        shown = words.rstrip() + "…"
    image = _nothing(BORDER + math.ceil(font.getlength(shown)), round(1.35 * font.size))
    ImageDraw.Draw(image).text((BORDER, image.height / 2), shown, colour, font, anchor="lm")
    return image


def _pasted(images, *, gap, wide=0):
    """Images in rows as one; columns are as wide as their widest image, rows as high as their highest."""
    columns = zip_longest(*images)
    rights = [max([wide, *(image.width for image in column if image)]) + gap for column in columns]
    bottoms = [max(image.height for image in row) + gap for row in images]
    *lefts, right = accumulate(rights, initial=0)
    *tops, bottom = accumulate(bottoms, initial=0)
    sheet = _nothing(right - gap, bottom - gap)
    for top, row in zip(tops, images, strict=True):
        for left, image in zip(lefts, row, strict=False):
            sheet.paste(image, (left, top))
    return sheet


def _nothing(width, height):
    return Image.new("RGB", (width, height), PAPER)
