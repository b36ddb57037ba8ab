import boxed_frames
import pytest

from san_jax.commands import own_pictures
from san_jax.data.crops import Wanted
from san_jax.errors import UserError

GIVEN = {"boxes": None, "query_boxes": None, "boxes_format": "auto", "by_track": False} | dict.fromkeys(Wanted._fields)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"margin": 0.0}, "--margin is about boxes, and there are none; give --boxes, too"),
        ({"by_track": True}, "--by_track is about boxes, and there are none"),
        ({"boxes_format": "mot"}, "--boxes_format is given without --boxes"),
        ({"boxes": "gt.txt", "margin": 2.0}, "--margin is 2.0; give a number from 0 to 1"),
        ({"query_boxes": "gt.txt", "min_height": -1.0}, "--min_height is -1.0; give a number of 0 or more"),
    ],
)
def test_flag_without_effect_or_out_of_range_is_refused(given, error):
    with pytest.raises(UserError) as raised:
        own_pictures.check_box_flags(GIVEN | given, "by_track")
    assert error in str(raised.value)


def test_flags_that_are_given_replace_the_defaults():
    own_pictures.check_box_flags(GIVEN, "by_track")
    assert own_pictures.wanted_of(GIVEN | {"margin": 0.0, "min_score": 0.5}) == Wanted(margin=0.0, min_score=0.5)


def test_list_gives_boxes_cameras_and_times(tmp_path):
    boxed_frames.write_frames(tmp_path / "frames")
    lines = [
        "path,pid,camid,time,x,y,w,h",
        "frames/000001.png,7,door,2026-11-28T14:03:00,150,10,100,20",
        "frames/000002.png,8,hall,,,,,",
    ]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    found = own_pictures.open_crops(tmp_path / "people.csv", None, GIVEN, flag="--boxes")
    first, second = found.crops
    assert (first.box, first.camid, first.time) == ((150, 10, 200, 30), "door", "2026-11-28T14:03:00")
    assert (second.box, second.camid, second.time) == (None, "hall", "")
    assert found.image(first).size == (50, 20)


@pytest.mark.parametrize(
    ("place", "boxes", "error"),
    [
        ("people.csv", "gt.txt", "people.csv is a list, which has its own boxes in the columns x, y, w, h; leave out"),
        ("film.mp4", None, "film.mp4 is a video; say where people are in its frames by --boxes"),
        ("outside.csv", None, "the box of frames/000001-900,0,5,5 lies outside its picture; correct the list"),
        ("nowhere", None, "nowhere cannot be read (No such file or directory); give a folder of pictures"),
        ("nowhere", "gt.txt", "nowhere cannot be read (No such file or directory); give a folder of pictures"),
        ("frames", "nothing.txt", "nothing.txt cannot be read (No such file or directory); give a file of boxes"),
    ],
)
def test_place_that_holds_no_people_is_refused(place, boxes, error, tmp_path):
    boxed_frames.write_mot(tmp_path / "gt.txt")
    boxed_frames.write_frames(tmp_path / "frames")
    (tmp_path / "outside.csv").write_text("path,pid,x,y,w,h\nframes/000001.png,7,900,0,5,5\n")
    with pytest.raises(UserError) as raised:
        own_pictures.open_crops(tmp_path / place, boxes and str(tmp_path / boxes), GIVEN, flag="--boxes")
    assert error in str(raised.value)


def test_one_picture_will_do_for_a_query_only(tmp_path):
    frames = boxed_frames.write_frames(tmp_path / "frames")
    one = own_pictures.open_crops(frames / "000001.png", None, GIVEN, flag="--query_boxes", one_will_do=True)
    assert [crop.name for crop in one.crops] == ["000001.png"]
    with pytest.raises(UserError, match="cannot be read"):
        own_pictures.open_crops(frames / "000001.png", None, GIVEN, flag="--boxes")
