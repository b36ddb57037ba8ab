"""Folders of pictures in the layouts that people have, read as lists.

    bounding_box_train/ query/ bounding_box_test/       Market-1501's layout: 0002_c1s1_000451_03.jpg
    train/ query/ gallery/                              one or more of them; in each, file names or a folder a person
    PERSON/picture.jpg                                  a folder a person, with further folders in it or not

File names are understood by a pattern, a regular expression with the groups `pid` and `camid` that is searched for in
the path of a picture below its part of the layout. Without one, names in the first two layouts are taken for
Market-1501's, and folders for people, whose pictures are all by camera 0.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from san_jax import files
from san_jax.data import picture_folder
from san_jax.errors import UserError
from tfds_builders import people_list
from tfds_builders.people_list import PeopleList, Row, name_of, with_unique_names
from tfds_builders.record import whole_label

MARKET = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
SPLIT_FOLDERS = {split: split for split in ("train", "query", "gallery")}
MARKET_NAMES = r"(?P<pid>-1|\d+)_c(?P<camid>\d+)"
JUNK = -1  # the pid of pictures that Market-1501 leaves out of its scores: neither right nor wrong
GROUPS = {"pid", "camid"}
# Parts of releases in other layouts, which would be taken for people.
NO_PEOPLE = {"test", "val", "probe", "cam_a", "cam_b", "mask_train_v2", "mask_test_v2"}
NO_PEOPLE |= {"partial_body_images", "whole_body_images", "images"}


def read_own(place: str, *, pattern: str = "") -> PeopleList:
    """The rows of a list, by its suffix, or of a folder.

    Args:
      place: path of the list or folder.
      pattern: for folders, as in `read`.

    Raises:
      UserError: it cannot be read, or something is wrong with it; a `people_list.ListFault` for a list.
    """
    path = files.at_home(place, known=False)
    return people_list.read(path) if people_list.is_list(place) else read(path, pattern=pattern)


def read(folder: Path, *, pattern: str = "") -> PeopleList:
    """The pictures of a folder.

    Args:
      folder: in one of the layouts above.
      pattern: regular expression for the paths of pictures, with a group `pid`, `camid` or both; "" for the default.

    Raises:
      UserError: the pattern is none, the layout is none of the above, or a path does not fit the pattern.
    """
    groups = _groups_of(pattern)
    parts, what, unread = _layout_of(folder)
    rows, remarks = [], [f"{folder}: not read: {', '.join(unread)}" if unread else ""]
    for name, split in parts.items():
        listing = picture_folder.list_files(folder / name)
        rows += _rows(folder, name, split, listing.pictures, pattern=pattern, groups=groups)
        remarks += [listing.remark(folder / name), _remark_on_links(folder / name)]
    kept = [row for row in rows if row.pid != JUNK]
    if not kept:
        raise UserError(f"{folder} holds no pictures but those with pid {JUNK}; give a folder that does")
    if {row.camid for row in kept} == {0}:
        remarks.append(
            f"{folder}: all pictures count as taken by camera 0; data.pattern reads cameras from their names"
        )
    counted = Counter(row.split for row in kept)
    sizes = ", ".join(f"{number} {split} pictures".replace("  ", " ") for split, number in counted.items())
    junk = f"; {len(rows) - len(kept)} pictures with pid {JUNK} are left out" if len(kept) < len(rows) else ""
    lines = (f"{folder}: {what}: {sizes}{junk}", *filter(None, remarks))
    return PeopleList(folder.resolve().name or "folder", folder, tuple(with_unique_names(kept)), lines)


def _layout_of(folder: Path) -> tuple[dict[str, str], str, list[str]]:
    """The layout of a folder: the split of each part, in words, and the folders that are not read.

    Raises:
      UserError: a part is missing, or a folder is a part of another layout.
    """
    inside = sorted(path.name for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))
    if boxes := [name for name in inside if name.startswith("bounding_box")]:
        if missing := [name for name in MARKET if name not in inside]:
            raise UserError(f"{folder} has {', '.join(boxes)}, but no {', '.join(missing)}; add what is missing")
        return MARKET, "Market-1501's layout", []
    parts = {name: split for name, split in SPLIT_FOLDERS.items() if name in inside}
    others = [name for name in inside if name not in parts]
    if strange := [name for name in others if name.lower() in NO_PEOPLE]:
        raise UserError(
            f"{folder} has the folder {strange[0]}, which is no person and none of train, query, gallery; rename it, "
            "or write a list (.csv)"
        )
    if parts:
        return parts, f"a folder for each of {', '.join(parts)}", others
    return {"": ""}, "a folder a person", []


def _remark_on_links(folder: Path) -> str:
    """A line that names the links to folders in a folder; "" if there are none."""
    linked = [path.name for path in _entries(folder) if path.is_symlink() and path.is_dir()]
    return f"{folder}: links to folders are not followed: {', '.join(linked)}" if linked else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); give a folder of pictures") from error


def _groups_of(pattern: str) -> set[str]:
    """The names of the groups of a pattern; none if it is empty."""
    if not pattern:
        return set()
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise UserError(f"data.pattern {pattern!r} is no regular expression ({error}); see docs/data.md") from error
    if not groups or not groups <= GROUPS:
        raise UserError(
            f"data.pattern {pattern!r} has the groups {', '.join(sorted(groups)) or 'none'}; "
            "write (?P<pid>...) and (?P<camid>...), or one of them"
        )
    return groups


def _rows(
    folder: Path, part: str, split: str, pictures: Sequence[Path], *, pattern: str, groups: set[str]
) -> list[Row]:
    """The pictures of one part of a layout."""
    rows, misfits = [], []
    for path in pictures:
        below = path.relative_to(folder / part)
        try:
            below.as_posix().encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{folder / part}: the name {below.as_posix()!r} is no UTF-8; rename it") from error
        person = below.parts[0] if len(below.parts) > 1 else None  # the folder that may name the person
        named = re.match(MARKET_NAMES, below.name)
        wanted = pattern or ("" if person or not split else MARKET_NAMES)
        match = re.search(wanted, below.as_posix())
        found = {name: value for name, value in match.groupdict().items() if value is not None} if match else {}
        if person and named and not pattern and named["pid"].lstrip("0") == person.lstrip("0"):
            found = {"camid": str(int(named["camid"]))}
        pid = found.get("pid", None if "pid" in groups else person)
        if pid is None or ("camid" in groups and "camid" not in found):
            misfits.append(below.as_posix())
            continue
        is_number = wanted == MARKET_NAMES
        labels = {
            "pid": _label(pid, is_number=is_number),
            "camid": _label(found.get("camid", "0"), is_number=is_number),
        }
        rows.append(Row(path=path, name=name_of(str(path.relative_to(folder))), split=split, **labels))
    if misfits:
        where = folder / part
        raise UserError(
            f"{where}: {misfits[0]} does not say who it shows ({len(misfits)} of {len(misfits) + len(rows)} pictures); "
            r"give a folder for each person, or a pattern for the names, such as --config.data.pattern="
            r"'(?P<pid>-?\d+)_c(?P<camid>\d+)'"
        )
    return rows


def _label(text: str, *, is_number: bool) -> int | str:
    """A label from a part of a path. In Market-1501's names digits are numbers; elsewhere 0007 and 7 are two people."""
    return int(text) if is_number else whole_label(text, field="pid", name=text)
