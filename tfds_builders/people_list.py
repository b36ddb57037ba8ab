"""Lists of people's pictures: CSV or TSV files, read row by row, with everything that is wrong with them.

Columns, in any order, named in the first line:

    path        of the picture, relative to the list
    pid         who it shows: any number or word
    camid       which camera took it: any number or word; 0 if there is no such column
    split       train, query or gallery; without it, `people_split` makes one
    texture     of a training picture: its texture image, relative to the list
    time        when it was taken, ISO 8601
    x,y,w,h     a box in the picture, in pixels of the upright picture, from its left and top
"""

import csv
import dataclasses
import datetime
import difflib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from san_jax import files
from san_jax.errors import UserError
from tfds_builders.record import whole_label

SUFFIXES = (".csv", ".tsv")
BOX = ("x", "y", "w", "h")
COLUMNS = ("path", "pid", "camid", "split", "texture", "time", *BOX)
MEANT = {"camera": "camid", "cam": "camid", "person": "pid", "id": "pid", "image": "path", "file": "path"}  # refused
SPLITS = ("train", "query", "gallery")


class ListFault(UserError):
    """Something wrong with a list.

    Attributes:
      faults: one line for each fault, which begins with the list's line number where there is one.
    """

    def __init__(self, path: Path, faults: Sequence[str]):
        more = f" ({len(faults)} faults; python -m tfds_builders --check {path} lists them)" if len(faults) > 1 else ""
        super().__init__(f"{path}: {faults[0]}{more}")
        self.faults = list(faults)


@dataclasses.dataclass(frozen=True)
class Row:
    """A picture of a person.

    Attributes:
      path: of the picture.
      pid, camid: as `whole_label` gives them.
      name: of the picture, unique in its list: the path without its suffix, and the box ("crowd/0012-5,3,10,20").
      split: train, query or gallery; "" if the list has no splits.
      texture: of the texture image; None if there is none.
      time: ISO 8601; "" if the list does not say.
      box: x, y, w, h in pixels; None for the whole picture.
    """

    path: Path
    pid: int | str
    camid: int | str
    name: str
    split: str = ""
    texture: Path | None = None
    time: str = ""
    box: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class PeopleList:
    """Rows in their order, and where they come from.

    Attributes:
      stem: the word for the list in the data set's name.
      base: the folder to which its paths are relative.
      rows: its pictures.
      remarks: lines that say how the list or folder was understood.
    """

    stem: str
    base: Path
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the rows say to which split they belong."""
        return bool(self.rows[0].split)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with the rows, and with the size or time of any of their files.

        They do not depend on where the list and its files are, as long as they are moved together.

        Raises:
          UserError: a file is missing.
        """
        found = hashlib.sha256()
        for row in self.rows:
            files_of_row = [path for path in (row.path, row.texture) if path]
            places = [os.path.relpath(path, self.base) for path in files_of_row]
            values = dataclasses.asdict(row) | {"path": places[0], "texture": places[1:]}
            states = [_state(path) for path in files_of_row]
            found.update(json.dumps([values, states], sort_keys=True).encode(errors="surrogatepass"))
        return found.hexdigest()[:8]


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # ValueError: the name holds a NUL
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({why}); correct the list, or put the file there") from error
    return found.st_size, found.st_mtime_ns


def is_list(name: str) -> bool:
    """Whether a name is that of a list, by its suffix."""
    return name.lower().endswith(SUFFIXES)


def read(path: Path) -> PeopleList:
    """The rows of a list.

    Raises:
      ListFault: names the first fault and the number of all.
      UserError: the file cannot be read.
    """
    header, lines = _lines(path)
    if faults := _faults_of_header(header):
        raise ListFault(path, faults)
    rows = {}
    for number, cells in lines:
        try:
            rows[number] = _row(path.parent, header, cells)
        except UserError as error:
            faults.append(f"line {number}: {error}")
    faults = faults or _faults_together(rows)
    if faults:
        raise ListFault(path, faults)
    unused = [name for name in header if name and name not in COLUMNS]
    remarks = (f"{path}: columns without a use here: {', '.join(unused)}",) if unused else ()
    return PeopleList(path.stem, path.parent, tuple(with_unique_names(rows.values())), remarks)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as a list that `read` understands, with absolute paths and the columns that any of them uses.

    Raises:
      UserError: it cannot be written, or the name of a picture is no UTF-8.
    """
    rows = list(rows)
    for row in rows:
        try:
            os.path.abspath(row.path).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"the name {os.fspath(row.path)!r} is no UTF-8, as lists are; rename it") from error
    cells = [
        {
            "path": os.path.abspath(row.path),
            "pid": row.pid,
            "camid": row.camid,
            "split": row.split,
            "texture": os.path.abspath(row.texture) if row.texture else "",
            "time": row.time,
            **dict(zip(BOX, map(_digits, row.box), strict=True) if row.box else {}),
        }
        for row in rows
    ]
    used = [column for column in COLUMNS if any(row.get(column, "") != "" for row in cells)]
    text = io.StringIO()
    written = csv.DictWriter(text, used, restval="", extrasaction="ignore", lineterminator="\n")
    written.writeheader()
    written.writerows(cells)
    files.write(path, text.getvalue())


def with_unique_names(rows: Iterable[Row]) -> list[Row]:
    """The same rows; where a name comes again, "-2", "-3" and so on is appended to it."""
    rows, taken = list(rows), set()
    names = {row.name for row in rows}
    for place, row in enumerate(rows):
        name, number = row.name, 1
        while name in taken or (number > 1 and name in names):
            number += 1
            name = f"{row.name}-{number}"
        taken.add(name)
        if name != row.name:
            rows[place] = dataclasses.replace(row, name=name)
    return rows


def name_of(path: str) -> str:
    """The name of a picture from its path in a list: without suffix, and without what leads out of a folder."""
    pure = PurePath(path)
    return "/".join([*(part for part in pure.parts[:-1] if part not in (pure.anchor, "..")), pure.stem])


def _digits(number: float) -> str:
    """A number in as many digits as it needs, without an exponent."""
    return np.format_float_positional(number, trim="-")


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, in lower case, and the cells of each line that is not empty, with its number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a list that exists") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason}); save it as UTF-8") from error
    if text.lower().startswith("sep="):  # Excel's own line
        text = "\n" + text.partition("\n")[2]
    first = text.lstrip("\r\n").partition("\n")[0]
    form = dict(delimiter=max("\t;,", key=first.count), skipinitialspace=True, strict=True)
    reader = csv.reader(io.StringIO(text, newline=""), **form)
    try:
        # Spreadsheets write empty lines below a table.
        found = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is no CSV ({error}); correct it") from error
    if not found:
        raise UserError(f"{path} is empty; its first line names the columns: path,pid,camid")
    return [name.strip().lower() for name in found[0][1]], found[1:]


def _faults_of_header(header: Sequence[str]) -> list[str]:
    """What is wrong with the names of the columns."""
    faults = []
    for name in header:
        near = difflib.get_close_matches(name, [column for column in COLUMNS if column not in BOX], n=1, cutoff=0.7)
        near = [MEANT[name]] if name in MEANT else near
        if name not in COLUMNS and near:
            faults.append(f"there is no column {name}; did you mean {near[0]}?")
        if name and header.count(name) > 1:
            faults.append(f"the column {name} comes twice; name it once")
    for needed in ("path", "pid"):
        if needed not in header:
            faults.append(f"the first line has no column {needed}; it names the columns, such as path,pid,camid")
    boxed = [name for name in BOX if name in header]
    if 0 < len(boxed) < len(BOX):
        faults.append(f"of a box it has only {', '.join(boxed)}; give x, y, w and h, or none of them")
    return list(dict.fromkeys(faults))


def _row(folder: Path, header: Sequence[str], cells: Sequence[str]) -> Row:
    """A row from the cells of a line.

    Raises:
      UserError: what is wrong with them.
    """
    if len(cells) != len(header):
        raise UserError(f"it has {len(cells)} cells, and the first line {len(header)}; quote cells that hold a comma")
    found = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    if not found["path"]:
        raise UserError("it has no path; name a picture")
    texture, box = found.get("texture"), _box([found.get(name, "") for name in BOX])
    return Row(
        path=folder / files.at_home(found["path"], known=False),
        pid=whole_label(found["pid"], field="pid", name=found["path"]),
        camid=whole_label(found.get("camid", "0"), field="camid", name=found["path"]),
        name=name_of(found["path"]) + (f"-{','.join(map(_digits, box))}" if box else ""),
        split=_split(found.get("split", "")),
        texture=folder / files.at_home(texture, known=False) if texture else None,
        time=_time(found.get("time", "")),
        box=box,
    )


def _split(cell: str) -> str:
    if cell and cell.lower() not in SPLITS:
        raise UserError(f"the split {cell!r} is none of {', '.join(SPLITS)}")
    return cell.lower()


def _time(cell: str) -> str:
    if not cell:
        return ""
    try:
        return datetime.datetime.fromisoformat(cell).isoformat()
    except ValueError as error:
        raise UserError(f"the time {cell!r} is not in ISO 8601, such as 2026-11-28T14:03:00") from error


def _box(cells: Sequence[str]) -> tuple[float, float, float, float] | None:
    if not any(cells):
        return None
    try:
        x, y, w, h = map(float, cells)
    except ValueError as error:
        raise UserError(f"the box {','.join(cells)} is not four numbers; give x, y, w and h in pixels") from error
    if not all(map(math.isfinite, (x + w, y + h))) or w <= 0 or h <= 0:
        raise UserError(f"the box {','.join(cells)} has no area; give x, y, w and h in pixels")
    return x, y, w, h


def _faults_together(rows: Mapping[int, Row]) -> list[str]:
    """What is wrong with rows, line number -> row, that are right one by one."""
    if not rows:
        return ["it lists no pictures; give each a line"]
    faults, first = [], {}
    for number, row in rows.items():
        other = first.setdefault((row.path, row.box), number)
        if other != number:
            faults.append(f"line {number}: {row.path} is in line {other} already; list every picture once")
    without = [number for number, row in rows.items() if not row.split]
    if 0 < len(without) < len(rows):
        faults.append(f"line {without[0]}: it has no split, and others have; give all of them one, or none")
    trained = {number: row for number, row in rows.items() if row.split in ("", "train")}
    without = [number for number, row in trained.items() if not row.texture]
    if 0 < len(without) < len(trained):
        faults.append(f"line {without[0]}: it has no texture, and others have; give all training pictures one, or none")
    return faults
