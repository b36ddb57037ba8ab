"""Results of a search as files for other programs: CSV, JSON, or the features themselves."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from san_jax import files
from san_jax.data.crops import Crop
from san_jax.errors import UserError
from san_jax.gallery.finds import Find

SUFFIXES = (".csv", ".json", ".npz", ".npy")
COLUMNS = ("query", "rank", "path", "camid", "time", "distance")
OF_FEATS = ("row", "path", "camid", "time")  # columns of the list of pictures beside an .npy file
OF_BOXES = ("frame", "track", "x", "y", "w", "h")  # further columns, where the gallery has boxes
Blocks = Callable[[], Iterator[Float[np.ndarray, "_ D"]]]


def check_place(path: Path, *, pictures: Sequence[Path]) -> None:
    """Checks a name for results.

    Args:
      path: of the file.
      pictures: files and folders that must not be overwritten.

    Raises:
      UserError: its suffix is none of SUFFIXES, it is one of `pictures`, or it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output is {path}, which does not end in {', '.join(SUFFIXES)}; choose another name")
    for place in (path, _list_beside(path)) if path.suffix.lower() == ".npy" else (path,):
        if any(place.resolve() == other.resolve() for other in pictures):
            what = "is" if place == path else f"would overwrite {place}, which is"
            raise UserError(f"--output is {path}, which {what} searched; choose another name")
        files.check_place(place)


def write(
    path: Path,
    queries: Sequence[Crop],
    gallery: Sequence[Crop],
    found: Sequence[Sequence[Find]],
    *,
    query_feats: Float32[np.ndarray, "Q D"],
    feats: Blocks,
) -> None:
    """Writes the results of a search, atomically, in the format of the suffix.

    .csv and .json name every picture found. .npz holds the features of the whole gallery (`feats`, `path`) and of the
    queries (`query_feats`, `query_path`); .npy those of the gallery alone, and a .csv beside it names the pictures of
    its rows. Features have the dtype of the index: float32, or float16. Neither file needs to fit into memory.

    Args:
      path: of the file; its suffix is one of SUFFIXES.
      queries, gallery: their pictures.
      found: what `finds` returns.
      query_feats: of the queries.
      feats: the features of the gallery, some rows at a time.

    Raises:
      UserError: the file cannot be written.
    """
    boxed = any(crop.box for crop in gallery)
    match path.suffix.lower():
        case ".npz":
            names = {"path": [crop.label for crop in gallery], "query_path": [crop.label for crop in queries]}
            arrays = {"query_feats": query_feats, **{name: np.array(labels, str) for name, labels in names.items()}}
            with files.replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
                _write_archive(archive, arrays, feats, len(gallery))
        case ".npy":
            files.write(_list_beside(path), csv_of([_described(row, crop, boxed) for row, crop in enumerate(gallery)]))
            with files.replacing(path) as part, part.open("wb") as file:
                _write_array(file, feats, len(gallery))
        case suffix:
            rows = table_of(queries, found, boxed=boxed)
            files.write(path, csv_of(rows) if suffix == ".csv" else json.dumps(rows, indent=2) + "\n")


def _list_beside(path):
    return path.with_suffix(".csv")


def _write_archive(archive, arrays, feats, num_rows):
    for name, array in arrays.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, array)
    with archive.open("feats.npy", "w", force_zip64=True) as entry:
        _write_array(entry, feats, num_rows)


def _write_array(file, blocks, num_rows):
    """Writes blocks of rows as one array."""
    for number, block in enumerate(blocks()):
        if not number:
            about = {"descr": np.lib.format.dtype_to_descr(block.dtype), "fortran_order": False}
            np.lib.format.write_array_header_2_0(file, about | {"shape": (num_rows, block.shape[1])})
        file.write(np.ascontiguousarray(block).data)


def table_of(queries: Sequence[Crop], found: Sequence[Sequence[Find]], *, boxed: bool) -> list[dict[str, Any]]:
    """A row for every picture found for every query; `boxed` adds the columns OF_BOXES to COLUMNS."""
    return [
        _row(query, rank, find, boxed=boxed)
        for query, of_query in zip(queries, found, strict=True)
        for rank, find in enumerate(of_query, 1)
    ]


def _row(query: Crop, rank: int, find: Find, *, boxed: bool) -> dict[str, Any]:
    crop = find.crop
    values = (query.label, rank, str(crop.frame.path), crop.camid, crop.time, round(find.distance, 6))
    return dict(zip(COLUMNS, values, strict=True)) | (_of_box(crop) if boxed else {})


def _described(row: int, crop: Crop, boxed: bool) -> dict[str, Any]:
    values = (row, str(crop.frame.path), crop.camid, crop.time)
    return dict(zip(OF_FEATS, values, strict=True)) | (_of_box(crop) if boxed else {})


def _of_box(crop: Crop) -> dict[str, Any]:
    left, top, right, bottom = crop.box or (0, 0, 0, 0)
    box = (left, top, right - left, bottom - top) if crop.box else (None,) * 4
    return dict(zip(OF_BOXES, (crop.frame.number or None, crop.track, *box), strict=True))


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows, of which there is at least one, as CSV."""
    text = io.StringIO()
    written = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    written.writeheader()
    written.writerows(rows)
    return text.getvalue()
