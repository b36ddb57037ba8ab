"""Everything that is wrong with a list or folder, at once."""

import pytest
from own_pictures import noise, save, write_people

from tfds_builders import list_check


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path)


def test_check_lists_everything_that_is_wrong(people):
    shop = people.parent / "shop"
    (shop / "train/0_0.png").unlink()
    (shop / "train/0_1.png").write_bytes(b"text")
    (shop / "query/4_0.png").write_bytes((shop / "query/3_0.png").read_bytes())
    lines = people.read_text().replace("gallery/5_1.png,5", "gallery/5_1.png,2")
    people.write_text(lines.replace("gallery/4_1.png,4", "gallery/4_1.png,3"))
    faults, remarks = list_check.faults(str(people))
    assert faults == [
        f"{shop}/train/0_0.png cannot be read (No such file or directory); replace it, or take it out of the list",
        f"{shop}/train/0_1.png cannot be read (it is no picture, or damaged); replace it, or take it out of the list",
        f"2 pictures with the same content: {shop}/query/3_0.png (pid 3), {shop}/query/4_0.png (pid 4)",
        "1 people are in train and in the test (2); a score needs people who were not trained on",
        "1 queries of 1 people (4) have no gallery picture by another camera; they are left out of the scores",
    ]
    assert remarks == []


def test_check_of_a_list_that_is_in_order_finds_nothing(people):
    assert list_check.faults(str(people)) == ([], [])


def test_check_lists_the_faults_of_lines_too(people):
    people.write_text("path,pid\n,1\na.png,\n")
    assert list_check.faults(str(people))[0] == [
        "line 2: it has no path; name a picture",
        "line 3: a.png has no pid; give every picture a number or a string",
    ]


def test_check_names_a_single_camera_and_a_split_that_cannot_be_made(tmp_path):
    save(tmp_path / "shop/anna/a.png", noise(1))
    faults, _ = list_check.faults(str(tmp_path / "shop"))
    assert [fault.partition(",")[0].partition(";")[0] for fault in faults] == [
        "all pictures are by one camera",
        "shop shows one person",
    ]
