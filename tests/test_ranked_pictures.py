import dataclasses

import numpy as np
import pytest
from array_source import ArraySource

from san_jax.drawing import contact_sheet
from san_jax.report import ranked_pictures
from san_jax.scoring.evaluation import RetrievalSet


@pytest.fixture
def test_set():
    """Queries 0, 1 and 2 by camera 0, 1, 0; a gallery with two pictures of each by cameras 0 and 1."""
    return RetrievalSet("test/people", ArraySource([0, 1, 2]), ArraySource([0, 0, 1, 1, 2, 2], seed=0))


def feats(*numbers):
    return np.array([[number, 0] for number in numbers], np.float32)


def test_nearest_are_in_order_of_distance_without_the_query_pid_by_the_query_camera(test_set):
    query, gallery = feats(0.0, 1.0, 2.0), feats(0.0, 0.1, 1.2, 1.1, 2.0, 2.5)
    found = ranked_pictures.top_rows(test_set, np.array([2, 0]), query, gallery, first=4)
    # Row 4 is person 2 by camera 0, as the query; row 0 is person 0 by camera 0.
    np.testing.assert_array_equal(found, [[5, 2, 3, 1], [1, 3, 2, 4]])


def test_keeping_the_same_camera_leaves_out_only_the_query_picture_itself(test_set):
    kept = dataclasses.replace(test_set, same_camera="keep")
    kept.gallery.names[:] = ["a", "b", "c", "d", kept.query.names[2], "f"]
    query, gallery = feats(0.0, 1.0, 2.0), feats(0.0, 0.1, 1.2, 1.1, 2.0, 2.5)
    found = ranked_pictures.top_rows(kept, np.array([2, 0]), query, gallery, first=3)
    np.testing.assert_array_equal(found, [[5, 2, 3], [0, 1, 3]])


def test_small_gallery_gives_fewer_pictures_than_requested(test_set):
    query, gallery = feats(0.0, 1.0, 2.0), feats(0.0, 0.1, 1.2, 1.1, 2.0, 2.5)
    [found] = ranked_pictures.top_rows(test_set, np.array([2]), query, gallery, first=6)
    np.testing.assert_array_equal(found, [5, 2, 3, 1, 0])
    [row] = ranked_pictures.sheet_rows(test_set, np.array([2]), query, gallery, first=6, height=20, width=10)
    assert [cell.frame for cell in row] == [None, contact_sheet.GREEN, *[contact_sheet.RED] * 4]


def test_equal_distances_are_in_gallery_order(test_set):
    found = ranked_pictures.top_rows(test_set, np.array([1]), feats(0, 0, 0), feats(1, 1, 1, 1, 1, 1), first=5)
    np.testing.assert_array_equal(found, [[0, 1, 2, 4, 5]])


def test_rows_show_the_query_unframed_and_matches_framed_by_correctness(test_set):
    query, gallery = feats(0.0, 1.0, 2.0), feats(0.0, 0.1, 1.2, 1.1, 2.0, 2.5)
    rows = ranked_pictures.sheet_rows(test_set, np.array([0, 2]), query, gallery, first=3, height=20, width=10)
    assert [[cell.frame for cell in row] for row in rows] == [
        [None, contact_sheet.GREEN, contact_sheet.RED, contact_sheet.RED],
        [None, contact_sheet.GREEN, contact_sheet.RED, contact_sheet.RED],
    ]
    assert {cell.picture.shape for row in rows for cell in row} == {(20, 10, 3)}
    for row, pid in zip(rows, (0, 2), strict=True):
        person = np.random.default_rng([0, pid]).integers(40, 216, 3)
        np.testing.assert_allclose(row[0].picture.mean((0, 1)), person, atol=8)
        np.testing.assert_allclose(row[1].picture.mean((0, 1)), person, atol=8)
