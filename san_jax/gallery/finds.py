"""Results of a search in a gallery: as a table of names and distances, and as a contact sheet."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from san_jax.data import picture_folder
from san_jax.data.crops import Crop
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import GREY, INK, Cell

FINDS_IN_A_ROW, MOST_ROWS = 10, 60  # in the contact sheet
CELL_HEIGHT = 192  # pixels
LETTERS = 12  # characters of a name in each line under a picture
THE_SAME = "the same file"


class Find(NamedTuple):
    """A gallery picture, its displayed name, its distance to the query, and whether it is the query itself."""

    crop: Crop
    name: str
    distance: float
    is_query: bool


def finds(
    queries: Sequence[Crop],
    gallery: Sequence[Crop],
    names: Sequence[str],
    *,
    rows: Int[np.ndarray, "Q k"],
    distances: Float[np.ndarray, "Q k"],
) -> list[list[Find]]:
    """The results of every query, nearest first.

    Args:
      queries: the queries.
      gallery: the gallery's pictures.
      names: what tables call them.
      rows: rows of `gallery`, as `scoring.nearest.nearest` returns them.
      distances: distances to these pictures.
    """
    found = []
    for query, query_rows, query_distances in zip(queries, rows.tolist(), distances.tolist(), strict=True):
        itself = _place(query)
        found.append(
            [
                Find(gallery[row], _printable(names[row]), distance, _place(gallery[row]) == itself)
                for row, distance in zip(query_rows, query_distances, strict=True)
            ]
        )
    return found


def _place(crop):
    return crop.frame.path.resolve(), crop.frame.number, crop.box


def table(queries: Sequence[str], found: Sequence[Sequence[Find]]) -> str:
    """Rank, distance and name of the pictures found for every query."""
    blocks = []
    for query, of_query in zip(queries, found, strict=True):
        lines = [
            f"{rank:6d}  {find.distance:10.4f}  {find.name}{_remark(find)}" for rank, find in enumerate(of_query, 1)
        ]
        blocks.append("\n".join([_printable(query), f"{'rank':>6}  {'distance':>10}  picture", *lines]))
    return "\n\n".join(blocks)


def sheet(
    queries: Sequence[Crop],
    found: Sequence[Sequence[Find]],
    *,
    title: str,
    query_image: Callable[[Crop], Image.Image | None],
    image: Callable[[Crop], Image.Image | None],
) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """A contact sheet, and how many of the queries are on it: the first ones, in at most MOST_ROWS rows.

    The query is on the left, in a dark frame, followed by the pictures found for it, by rank; long lists continue in
    the next row. A picture that is the query itself has a grey frame and says so.

    Args:
      queries, found: as for `finds`, and its results.
      title: of the sheet.
      query_image, image: give the picture of a query, and of the gallery; None if it cannot be read.
    """
    rows_each = min(-(-len(found[0]) // FINDS_IN_A_ROW), MOST_ROWS)
    shown = min(MOST_ROWS // rows_each, len(queries))
    rows = []
    for query, of_query in zip(queries[:shown], found[:shown], strict=True):
        cells = [_cell(find, rank, image) for rank, find in enumerate(of_query[: rows_each * FINDS_IN_A_ROW], 1)]
        picture = picture_folder.thumbnail(query_image(query), height=CELL_HEIGHT)
        left = Cell(picture, f"query\n{_folded(query, Path(query.name).name)}", INK)
        for start in range(0, len(cells), FINDS_IN_A_ROW):
            rows.append([None if start else left, *cells[start : start + FINDS_IN_A_ROW]])
    return contact_sheet.compose(rows, title=_ascii(title), cell_height=CELL_HEIGHT), shown


def _remark(find):
    return f"  ({THE_SAME})" if find.is_query else ""


def _cell(find, rank, image):
    what = THE_SAME if find.is_query else f"{find.distance:.4f}"
    picture = picture_folder.thumbnail(image(find.crop), height=CELL_HEIGHT)
    return Cell(picture, f"#{rank}  {what}\n{_folded(find.crop, find.crop.name)}", GREY if find.is_query else None)


def _folded(crop, name):
    """Track and name of a picture as lines under it: the track, the end of its folder's name, its stem."""
    path = Path(_printable(name))
    stem, folder = _ascii(path.stem), _ascii(path.parent.as_posix())
    pieces = [stem[start : start + LETTERS] for start in range(0, len(stem), LETTERS)]
    above = [f"track {_ascii(crop.track)}"[:LETTERS]] if crop.track else []
    return "\n".join([*above, *([f"{folder[-LETTERS:]}/"] if path.parent.name else []), *pieces])


def _printable(name):
    """The name as one line of printable characters."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "�" for letter in decoded)


def _ascii(name):
    return name.encode("ascii", "replace").decode()
