"""Results of a search as files for other programs: CSV, JSON, or the features themselves."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from san_jax import files
from san_jax.data.crops import Crop
from san_jax.errors import UserError
from san_jax.gallery.finds import Find

SUFFIXES = (".csv", ".json", ".npz")
COLUMNS = ("query", "rank", "path", "camid", "time", "distance")
OF_BOXES = ("frame", "track", "x", "y", "w", "h")  # further columns, where the gallery has boxes


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
    if any(path.resolve() == other.resolve() for other in pictures):
        raise UserError(f"--output is {path}, which is searched; choose another name")
    files.check_place(path)


def write(
    path: Path,
    queries: Sequence[Crop],
    gallery: Sequence[Crop],
    found: Sequence[Sequence[Find]],
    *,
    query_feats: Float32[np.ndarray, "Q D"],
    feats: Float32[np.ndarray, "G D"],
) -> None:
    """Writes the results of a search, atomically, in the format of the suffix.

    .csv and .json name every picture found; .npz holds the features of the whole gallery (`feats`, `path`) and of the
    queries (`query_feats`, `query_path`), float32, for a search by other means.

    Raises:
      UserError: the file cannot be written.
    """
    if path.suffix.lower() == ".npz":
        content = io.BytesIO()
        names = {"path": [crop.label for crop in gallery], "query_path": [crop.label for crop in queries]}
        arrays = {name: np.array(labels, str) for name, labels in names.items()}
        np.savez(content, feats=feats, query_feats=query_feats, **arrays)
        files.write(path, content.getvalue())
        return
    boxed = any(crop.box for crop in gallery)
    rows = [
        _row(query, rank, find, boxed=boxed)
        for query, of_query in zip(queries, found, strict=True)
        for rank, find in enumerate(of_query, 1)
    ]
    files.write(path, _csv(rows) if path.suffix.lower() == ".csv" else json.dumps(rows, indent=2) + "\n")


def _row(query: Crop, rank: int, find: Find, *, boxed: bool) -> dict[str, Any]:
    crop = find.crop
    values = (query.label, rank, str(crop.frame.path), crop.camid, crop.time, round(find.distance, 6))
    row = dict(zip(COLUMNS, values, strict=True))
    if not boxed:
        return row
    left, top, right, bottom = crop.box or (0, 0, 0, 0)
    box = (left, top, right - left, bottom - top) if crop.box else (None,) * 4
    return row | dict(zip(OF_BOXES, (crop.frame.number or None, crop.track, *box), strict=True))


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    written = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    written.writeheader()
    written.writerows(rows)
    return text.getvalue()
