"""Results of a search in a gallery: as a table of names and distances, and as a contact sheet."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from san_jax.data import picture_folder
from san_jax.data.crops import Crop
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import GREY, INK, Cell

FINDS_IN_A_ROW, MOST_ROWS = 10, 60  # in the contact sheet
CELL_HEIGHT = 192  # pixels
LETTERS = 12  # characters of a name in each line under a picture
THE_SAME = "the same file"
Thumbnails = Callable[..., Mapping[Crop, np.ndarray]]
BEYOND = "        --------  beyond the threshold:"


class Find(NamedTuple):
    """A picture found.

    Attributes:
      crop: the gallery picture.
      name: what tables call it.
      distance: to the query.
      is_query: whether it is the query itself.
      is_beyond: whether its distance is above the threshold.
    """

    crop: Crop
    name: str
    distance: float
    is_query: bool
    is_beyond: bool = False


def finds(
    queries: Sequence[Crop | None],
    gallery: Sequence[Crop],
    names: Sequence[str],
    *,
    rows: Int[np.ndarray, "Q k"],
    distances: Float[np.ndarray, "Q k"],
    threshold: float | None = None,
) -> list[list[Find]]:
    """The results of every query, nearest first.

    Args:
      queries: the query pictures; None for a query that is the mean of several.
      gallery: the gallery's pictures.
      names: what tables call them.
      rows: rows of `gallery`, as `scoring.nearest.nearest` returns them.
      distances: distances to these pictures.
      threshold: the distance up to which pictures are taken for the same person; None if unknown.
    """
    found, limit = [], np.inf if threshold is None else threshold
    for query, query_rows, query_distances in zip(queries, rows.tolist(), distances.tolist(), strict=True):
        itself = query and _place(query)
        found.append(
            [
                Find(gallery[row], printable(names[row]), distance, _place(gallery[row]) == itself, distance > limit)
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
        lines = [f"{rank:6d}  {find.distance:10.4f}  {_line(find)}" for rank, find in enumerate(of_query, 1)]
        if beyond := sum(find.is_beyond for find in of_query):
            lines.insert(len(lines) - beyond, BEYOND)
        blocks.append("\n".join([printable(query), f"{'rank':>6}  {'distance':>10}  picture", *lines]))
    return "\n\n".join(blocks)


def sheet(
    queries: Sequence[Crop],
    found: Sequence[Sequence[Find]],
    *,
    title: str,
    query_thumbnails: Thumbnails,
    thumbnails: Thumbnails,
) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """A contact sheet, and how many of the queries are on it: the first ones, in at most MOST_ROWS rows.

    The query is on the left, in a dark frame, followed by the pictures found for it, by rank; long lists continue in
    the next row. A picture that is the query itself has a grey frame and says so.

    Args:
      queries: the picture that is shown for each query.
      found: what `finds` returns.
      title: of the sheet.
      query_thumbnails, thumbnails: give small pictures of queries, and of the gallery, as `Crops.thumbnails`.
    """
    rows_each = min(-(-len(found[0]) // FINDS_IN_A_ROW), MOST_ROWS)
    shown = min(MOST_ROWS // rows_each, len(queries))
    queries, found = queries[:shown], [of_query[: rows_each * FINDS_IN_A_ROW] for of_query in found[:shown]]
    small = thumbnails((find.crop for of_query in found for find in of_query), height=CELL_HEIGHT)
    small_queries = query_thumbnails(queries, height=CELL_HEIGHT)
    rows = []
    for query, of_query in zip(queries, found, strict=True):
        cells = [_cell(find, rank, small[find.crop]) for rank, find in enumerate(of_query, 1)]
        left = Cell(small_queries[query], f"query\n{_folded(query, Path(query.name).name)}", INK)
        for start in range(0, len(cells), FINDS_IN_A_ROW):
            rows.append([None if start else left, *cells[start : start + FINDS_IN_A_ROW]])
    return contact_sheet.compose(rows, title=_ascii(title), cell_height=CELL_HEIGHT), shown


def _line(find):
    return f"{find.name}  ({THE_SAME})" if find.is_query else find.name


def _cell(find, rank, picture):
    what = THE_SAME if find.is_query else f"{find.distance:.4f}"
    lines = [f"#{rank}  {what}", *(["beyond"] if find.is_beyond else []), _folded(find.crop, find.crop.name)]
    return Cell(picture, "\n".join(lines), GREY if find.is_query else None)


def _folded(crop, name):
    """Lines under a picture: its track, the end of its folder's name, and its name without the suffix of a picture."""
    path = Path(printable(name.rpartition("-")[0] if crop.box else name))  # without the box
    stem = _ascii(path.stem if path.suffix.lower() in picture_folder.suffixes() else path.name)
    folder = _ascii(path.parent.as_posix())
    pieces = [stem[start : start + LETTERS] for start in range(0, len(stem), LETTERS)]
    above = [f"track {_ascii(crop.track)}"[:LETTERS]] if crop.track else []
    return "\n".join([*above, *([f"{folder[-LETTERS:]}/"] if path.parent.name else []), *pieces])


def printable(name):
    """The name as one line of printable characters."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "�" for letter in decoded)


def _ascii(name):
    return name.encode("ascii", "replace").decode()
