"""Folders of pictures, read as lists."""

import collections

import numpy as np
import pytest
from array_source import encoded

from san_jax.errors import UserError
from tfds_builders import layouts

PICTURE = encoded(np.zeros((4, 2, 3), np.uint8))


def folder(place, *paths):
    for path in paths:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(PICTURE)
    return place


def labels(listed):
    return [(row.name, row.pid, row.camid, row.split) for row in listed.rows]


def test_layout_of_market_1501_keeps_distractors_and_leaves_junk_out(tmp_path):
    folder(
        tmp_path / "Market",
        "bounding_box_train/0002_c1s1_000451_03.png",
        "query/0003_c2s1_000001_00.png",
        "bounding_box_test/0003_c6s4_000002_01.png",
        "bounding_box_test/0000_c1s1_000003_02.png",
        "bounding_box_test/-1_c1s1_000004_01.png",
        "gt_bbox/0002_c1s1_000451_03.png",
    )
    listed = layouts.read(tmp_path / "Market")
    assert labels(listed) == [
        ("bounding_box_train/0002_c1s1_000451_03", 2, 1, "train"),
        ("query/0003_c2s1_000001_00", 3, 2, "query"),
        ("bounding_box_test/0000_c1s1_000003_02", 0, 1, "gallery"),
        ("bounding_box_test/0003_c6s4_000002_01", 3, 6, "gallery"),
    ]
    assert listed.stem == "Market"
    sizes = "1 train pictures, 1 query pictures, 2 gallery pictures; 1 pictures with pid -1 are left out"
    assert listed.remarks == (f"{tmp_path / 'Market'}: Market-1501's layout: {sizes}",)


def test_remarks_name_what_is_not_read(tmp_path):
    folder(tmp_path / "shop", "train/anna/a.png", "query/bob/b.png", "notes/c.png", "train/anna/d.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shop/train/carl").symlink_to(tmp_path / "elsewhere")
    shop = tmp_path / "shop"
    assert layouts.read(shop).remarks == (
        f"{shop}: a folder for each of train, query: 1 train pictures, 1 query pictures",
        f"{shop}: not read: notes",
        f"{shop}/train: 1 file is ignored, not being pictures: anna/d.txt",
        f"{shop}/train: links to folders are not followed: carl",
        f"{shop}: all pictures count as taken by camera 0; data.pattern reads cameras from their names",
    )


def test_market_names_in_folders_of_people_give_their_cameras(tmp_path):
    listed = layouts.read(folder(tmp_path, "train/0002/0002_c3s1_0_0.png", "query/7/0007_c2_1.png", "query/7/8_c1.png"))
    assert [(row.pid, row.camid) for row in listed.rows] == [("0002", 3), (7, 2), (7, 0)]


def test_folder_for_each_split_with_market_names_or_a_folder_a_person(tmp_path):
    folder(tmp_path, "train/0007/a.png", "query/0008_c2.png", "gallery/anna/x/b.png")
    assert labels(layouts.read(tmp_path)) == [
        ("train/0007/a", "0007", 0, "train"),
        ("query/0008_c2", 8, 2, "query"),
        ("gallery/anna/x/b", "anna", 0, "gallery"),
    ]


def test_folder_a_person_keeps_their_names(tmp_path):
    listed = layouts.read(folder(tmp_path, "0007/a.png", "7/b.png", "anna/c.png"))
    assert labels(listed) == [("0007/a", "0007", 0, ""), ("7/b", 7, 0, ""), ("anna/c", "anna", 0, "")]
    assert not listed.has_splits


def test_pattern_gives_cameras_beside_the_people_of_folders(tmp_path):
    listed = layouts.read(folder(tmp_path, "anna/c3_1.png", "bob/hall/c4_2.png"), pattern=r"c(?P<camid>\d)_")
    assert [(row.pid, row.camid) for row in listed.rows] == [("anna", 3), ("bob", 4)]


def test_pattern_gives_people_of_a_flat_folder(tmp_path):
    listed = layouts.read(folder(tmp_path, "p7-cam2-1.png", "p8-cam1-2.png"), pattern=r"p(?P<pid>\d+)-cam(?P<camid>\d)")
    assert collections.Counter((row.pid, row.camid) for row in listed.rows) == {(7, 2): 1, (8, 1): 1}


@pytest.mark.parametrize(
    ("paths", "pattern", "said"),
    [
        (("a.png", "b/c.png"), "", "a.png does not say who it shows (1 of 2 pictures); give a folder for each person"),
        (("a/c1.png", "a/2.png"), r"c(?P<camid>\d)", "a/2.png does not say who it shows (1 of 2 pictures)"),
        (("bounding_box_train/1_c1.png", "bounding_box_test/2_c1.png"), "", "bounding_box_train, but no query"),
        (("train/a/b.png", "test/a/b.png"), "", "has the folder test, which is no person and none of train, query"),
        (("cam_a/1.bmp", "cam_b/1.bmp"), "", "has the folder cam_a, which is no person"),
        (("query/x.png",), "", "query: x.png does not say who it shows (1 of 1 pictures)"),
        (("a/b.png",), "(", "data.pattern '(' is no regular expression (missing ), unterminated subpattern"),
        (("a/b.png",), "a", "data.pattern 'a' has the groups none; write (?P<pid>...) and (?P<camid>...), or one of"),
        (("a/b.png",), "(?P<person>a)", "data.pattern '(?P<person>a)' has the groups person; write"),
        ((), "", "holds no pictures"),
    ],
)
def test_folder_that_cannot_be_understood_is_one_line(paths, pattern, said, tmp_path):
    with pytest.raises(UserError) as caught:
        layouts.read(folder(tmp_path, *paths), pattern=pattern)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
