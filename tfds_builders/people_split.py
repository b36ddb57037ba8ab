"""A split for lists that have none: half of the people to train on, queries and gallery of the others."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from san_jax.errors import UserError
from tfds_builders.people_list import PeopleList, Row


def split(listed: PeopleList, *, seed: int = 0) -> PeopleList:
    """The same rows with splits, and lines that describe them.

    Half of the people, drawn by a hash of their pids, are for training. Of each other person one picture by each camera
    is a query and the rest is gallery, but no query is left without a picture to be found: one by another camera or, if
    the whole list has one camera, any other.

    Args:
      listed: rows without splits.
      seed: of the draw.

    Raises:
      UserError: there are fewer than two people, or no person of the test half could be found again.
    """
    by_person: dict[int | str, list[int]] = {}
    for number, row in enumerate(listed.rows):
        by_person.setdefault(row.pid, []).append(number)
    if len(by_person) < 2:
        raise UserError(f"{listed.stem} shows one person; list pictures of several, or give every row a split")
    # By a hash of each pid, so that people who are added later move hardly anybody to the other half.
    draws = {pid: _draw(seed, pid) for pid in by_person}
    trained = set(sorted(by_person, key=draws.get)[: len(by_person) // 2])
    one_camera = len({row.camid for row in listed.rows}) == 1
    queries: set[int] = set()
    for pid, own in by_person.items():
        if pid not in trained:
            queries |= _queries(listed.rows, own, one_camera=one_camera, draw=np.random.default_rng(draws[pid]))
    if not queries:
        wanted = "two pictures" if one_camera else "pictures by two cameras"
        raise UserError(
            f"{listed.stem}: none of the {len(by_person) - len(trained)} people drawn for the test has {wanted}, so "
            "none could be found again; list more, or give every row a split"
        )
    rows = tuple(
        dataclasses.replace(row, split="train" if row.pid in trained else "query" if number in queries else "gallery")
        for number, row in enumerate(listed.rows)
    )
    lines = described(rows, stem=listed.stem, one_camera=one_camera)
    return dataclasses.replace(listed, rows=rows, remarks=(*listed.remarks, *lines))


def _draw(seed: int, pid: int | str) -> int:
    """A random number that is a function of the seed and the pid, which may be a number or a word."""
    return int.from_bytes(hashlib.sha256(repr((seed, pid)).encode(errors="surrogatepass")).digest()[:8])


def _queries(rows: Sequence[Row], own: Sequence[int], *, one_camera: bool, draw: np.random.Generator) -> set[int]:
    """Numbers of the rows of one person, `own`, that become queries."""
    by_camera: dict[int | str, list[int]] = {}
    for number in own:
        by_camera.setdefault(rows[number].camid, []).append(number)
    chosen: set[int] = set()
    for pictures in by_camera.values():
        tried = chosen | {int(draw.choice(pictures))}
        gallery = [number for number in own if number not in tried]
        if all(any(one_camera or rows[g].camid != rows[q].camid for g in gallery) for q in tried):
            chosen = tried
    return chosen


def described(rows: Sequence[Row], *, stem: str, one_camera: bool) -> list[str]:
    """Three lines on a split that was made: its sizes, people with one picture, people seen by one camera."""
    sizes = Counter(row.split for row in rows)
    trained = {row.pid for row in rows if row.split == "train"}
    pictures = Counter(row.pid for row in rows)
    cameras = Counter(pid for pid, _ in {(row.pid, row.camid) for row in rows})
    alone = sum(number == 1 for number in pictures.values())
    seen_once = sum(number == 1 for number in cameras.values())
    if one_camera:
        consequence = "all; score with --same_camera=keep, or --config.scoring.same_camera=keep when training"
    else:
        consequence = f"{seen_once}; as they cannot be found by another camera, they have no query"
    return [
        f"{stem} has no splits; made: {len(trained)} people with {sizes['train']} pictures for training, "
        f"{sizes['query']} queries and {sizes['gallery']} gallery pictures of the other {len(pictures) - len(trained)}",
        f"people with one picture: {alone}",
        f"people seen by one camera: {consequence}",
    ]
