"""Everything that is wrong with a list or folder of pictures, at once."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from san_jax.data import threads
from san_jax.errors import UserError
from tfds_builders import file_builder, layouts, people_split
from tfds_builders.people_list import ListFault, PeopleList, Row

NAMED = 5  # people that a line names


def faults(place: str, *, pattern: str = "") -> tuple[list[str], list[str]]:
    """What is wrong with a list or folder, and remarks on what is not: a line each.

    Args:
      place: path of the list or folder.
      pattern: for folders, as in `layouts.read`.

    Raises:
      UserError: the list or folder cannot be read at all.
    """
    try:
        listed = layouts.read_own(place, pattern=pattern)
    except ListFault as error:
        return error.faults, []
    found = [*_faults_of_files(listed), *_faults_of_splits(listed)]
    remarks = list(listed.remarks)
    if not listed.has_splits:
        try:
            remarks = list(people_split.split(listed).remarks)
        except UserError as error:
            found.append(str(error))
    return found, remarks


def _faults_of_files(listed: PeopleList) -> Iterator[str]:
    """Files that are missing or no pictures, boxes outside them, and pictures with the same content."""
    tasks = [(row.path, row.box) for row in listed.rows]
    tasks += [(texture, None) for texture in dict.fromkeys(row.texture for row in listed.rows) if texture]
    with ThreadPoolExecutor(threads.num_threads(None)) as pool:
        checked = tqdm(pool.map(_digest, tasks), total=len(tasks), unit=" files", leave=False, disable=None)
        results = list(zip(tasks, checked, strict=True))
    yield from (str(result) for _, result in results if isinstance(result, UserError))
    by_content = defaultdict(list)
    for row, (_, result) in zip(listed.rows, results, strict=False):
        if isinstance(result, str):
            by_content[result].append(row)
    for same in by_content.values():
        if len(same) > 1:
            yield f"{len(same)} pictures with the same content: {', '.join(map(_described, same))}"


def _digest(task: tuple[Path, tuple[float, float, float, float] | None]) -> str | UserError:
    """Digest of a picture as it would be stored, or why it cannot be."""
    try:
        return hashlib.sha256(file_builder.stored_picture(*task)).hexdigest()
    except UserError as error:
        return error


def _described(row: Row) -> str:
    return f"{row.path} (pid {row.pid})"


def _some_of(pids: Collection[int | str]) -> str:
    """The first few of some pids, in words."""
    words = sorted(map(str, pids))
    return f"{', '.join(words[:NAMED])}{' and others' if len(words) > NAMED else ''}"


def _faults_of_splits(listed: PeopleList) -> Iterator[str]:
    """People on both sides of the test, queries that cannot find anybody, and a single camera."""
    people = defaultdict(set)
    for row in listed.rows:
        people[row.split].add(row.pid)
    if both := people["train"] & (people["query"] | people["gallery"]):
        named = _some_of(both)
        yield f"{len(both)} people are in train and in the test ({named}); a score needs people who were not trained on"
    cameras_of = defaultdict(set)
    for row in listed.rows:
        if row.split == "gallery":
            cameras_of[row.pid].add(row.camid)
    unmatched = [row for row in listed.rows if row.split == "query" and not cameras_of[row.pid] - {row.camid}]
    if lost := {row.pid for row in unmatched}:
        yield (
            f"{len(unmatched)} queries of {len(lost)} people ({_some_of(lost)}) have no gallery picture by another "
            "camera; they are left out of the scores"
        )
    cameras = Counter(row.camid for row in listed.rows)
    if len(cameras) == 1:
        yield (
            "all pictures are by one camera, so that by the usual rule no query has a match; give camids, or score "
            "with same_camera=keep"
        )
