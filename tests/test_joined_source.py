import numpy as np
from array_source import ArraySource

from san_jax.data.joined_source import JoinedSource

FIRST, SECOND = ArraySource([0, 0, 1, 2], name="a"), ArraySource([0, 1, 1], name="b", textures=False)
JOINED = JoinedSource.of([FIRST, SECOND])


def test_pids_and_camids_of_two_sets_do_not_overlap():
    assert JOINED.name == "a,b"
    np.testing.assert_array_equal(JOINED.pids, [0, 0, 1, 2, 3, 4, 4])
    np.testing.assert_array_equal(JOINED.camids, [0, 1, 0, 1, 2, 3, 2])
    assert JOINED.pids.dtype == np.int32


def test_pids_with_gaps_or_near_the_end_of_int32_are_renumbered():
    gaps, large = ArraySource([5, 5, 9], name="a"), ArraySource([2**31 - 1, 3, 3], name="b")
    joined = JoinedSource.of([gaps, large])
    np.testing.assert_array_equal(joined.pids, [0, 0, 1, 3, 2, 2])
    assert joined[3]["pid"] == 3


def test_people_of_two_sets_follow_each_other_in_the_order_of_their_pids():
    joined = JoinedSource.of([ArraySource([5, 9, 9]), ArraySource([7, 3])])
    assert joined.people == ["test/5", "test/9", "test/3", "test/7"]


def test_records_agree_with_the_columns_and_keep_their_pictures():
    for row in range(len(JOINED)):
        record, part = JOINED[row], (FIRST, SECOND)[row >= 4][row % 4]
        assert (record["pid"], record["camid"]) == (JOINED.pids[row], JOINED.camids[row])
        assert record["image"] == part["image"]
        assert record["name"] == JOINED.names[row]


def test_joined_set_has_textures_only_if_all_have():
    assert not JOINED.has_textures
    assert JoinedSource.of([FIRST, FIRST]).has_textures


def test_single_set_is_returned_unchanged():
    assert JoinedSource.of([FIRST]) is FIRST
