"""Splits for lists that have none."""

import collections
from pathlib import Path

import numpy as np
import pytest

from san_jax.errors import UserError
from tfds_builders import people_split
from tfds_builders.people_list import PeopleList, Row


def listed(places):
    """A list with a picture for each (pid, camid)."""
    rows = [Row(path=Path(f"{n}.jpg"), pid=pid, camid=camid, name=str(n)) for n, (pid, camid) in enumerate(places)]
    return PeopleList("shop", Path(), tuple(rows))


def even(people, *, cameras, each):
    return listed([(pid, camid) for pid in range(people) for camid in range(cameras) for _ in range(each)])


def test_half_of_the_people_train_and_every_person_and_camera_of_the_others_has_a_query():
    rows = people_split.split(even(9, cameras=3, each=2)).rows
    by_split = collections.defaultdict(set)
    for row in rows:
        by_split[row.split].add(row.pid)
    assert len(by_split["train"]) == 4
    assert by_split["query"] == by_split["gallery"] == set(range(9)) - by_split["train"]
    queries = collections.Counter((row.pid, row.camid) for row in rows if row.split == "query")
    assert set(queries.values()) == {1}
    assert len(queries) == 5 * 3


@pytest.mark.parametrize("seed", range(20))
def test_no_query_is_without_a_match_whatever_the_list(seed):
    draw = np.random.default_rng(seed)
    places = [tuple(place) for place in draw.integers((8, 4), size=(40, 2)).tolist()]
    rows = people_split.split(listed(places)).rows
    gallery = {(row.pid, row.camid) for row in rows if row.split == "gallery"}
    for row in rows:
        if row.split == "query":
            assert any(pid == row.pid and camid != row.camid for pid, camid in gallery)
    assert not {row.pid for row in rows if row.split == "train"} & {pid for pid, _ in gallery}
    assert [row.path for row in rows] == [row.path for row in listed(places).rows]


def test_people_seen_by_one_camera_have_no_query_but_are_in_the_gallery():
    seen = [(pid, camid) for pid in range(6) for camid in (0, 1)] + [(pid, 0) for pid in range(6, 60)]
    rows = people_split.split(listed(seen)).rows
    assert {row.pid for row in rows if row.split == "query"} <= set(range(6))
    assert {row.pid for row in rows if row.split == "gallery"} - set(range(6))


def test_of_one_picture_by_each_of_two_cameras_one_is_query_and_one_gallery():
    rows = people_split.split(even(4, cameras=2, each=1)).rows
    assert collections.Counter(row.split for row in rows) == {"train": 4, "query": 2, "gallery": 2}


def test_one_camera_alone_gives_queries_with_a_match_by_it_and_says_how_to_score():
    made = people_split.split(even(6, cameras=1, each=3))
    assert collections.Counter(row.split for row in made.rows) == {"train": 9, "query": 3, "gallery": 6}
    assert made.remarks[2] == (
        "people seen by one camera: all; score with --same_camera=keep, or --config.scoring.same_camera=keep when "
        "training"
    )


def test_split_is_the_same_for_the_same_seed_alone():
    places = even(40, cameras=2, each=3)
    assert people_split.split(places) == people_split.split(places)
    assert people_split.split(places).rows != people_split.split(places, seed=1).rows


def test_people_who_are_added_move_hardly_anybody_to_the_other_half():
    def trained(people):
        return {row.pid for row in people_split.split(even(people, cameras=2, each=1)).rows if row.split == "train"}

    first, more = trained(100), trained(110)
    assert len(first) == 50
    assert len(first - more) <= 5
    assert len(first & more) >= 45


def test_three_lines_describe_the_split():
    places = [(pid, camid) for pid in range(4) for camid in (0, 1, 1)] + [("anna", 1), ("anna", 1), ("bob", 0)]
    sizes, alone, seen_once = people_split.split(listed(places)).remarks
    assert sizes.startswith("shop has no splits; made: 3 people with ")
    assert sizes.endswith(" gallery pictures of the other 3")
    assert alone == "people with one picture: 1"
    assert seen_once == "people seen by one camera: 2; as they cannot be found by another camera, they have no query"


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([(1, 0), (1, 1)], "shop shows one person; list pictures of several, or give every row a split"),
        ([(1, 0), (2, 1)], "shop: none of the 1 people drawn for the test has pictures by two cameras"),
        ([(1, 0), (2, 0)], "shop: none of the 1 people drawn for the test has two pictures"),
    ],
)
def test_list_of_which_no_test_can_be_made_is_refused(places, said):
    with pytest.raises(UserError) as caught:
        people_split.split(listed(places))
    assert str(caught.value).startswith(said)
