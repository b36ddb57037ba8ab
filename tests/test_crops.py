import boxed_frames
import numpy as np
import pytest
from boxed_frames import write_frames, write_mot

from san_jax.data import crops
from san_jax.data.crops import Crop, Wanted
from san_jax.data.frames import Frame
from san_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_frames(tmp_path / "frames")


@pytest.fixture
def boxes(tmp_path):
    return write_mot(tmp_path / "gt.txt")


def test_box_is_cut_out_of_its_frame_and_nothing_else(folder, boxes):
    found = crops.in_boxes(folder, boxes, wanted=Wanted(margin=0.0))
    assert [crop.track for crop in found.crops] == ["3", "7", "3", "7"]
    assert found.crops[0].name == "000001.png-10,20,20,60"
    assert found.crops[0].label == f"{folder}/000001.png, box 10,20,20,60"
    for crop, read, (*_, w, h, colour) in zip(found.crops, found.readers(), boxed_frames.PEOPLE, strict=True):
        into = np.zeros((12, 6, 3), np.uint8)
        assert read(into) == ""
        assert (into == colour).all()
        assert found.image(crop).size == (w, h)
    assert found.remarks == (f"{boxes}: 4 boxes of 2 tracks in 2 frames",)


def test_file_of_boxes_in_the_folder_of_frames_is_not_called_ignored(folder):
    found = crops.in_boxes(folder, write_mot(folder / "gt.txt"))
    assert found.remarks == (f"{folder}/gt.txt: 4 boxes of 2 tracks in 2 frames",)
    (folder / "notes.md").write_text("words")
    assert "1 file is ignored, not being pictures: notes.md" in crops.in_boxes(folder, folder / "gt.txt").remarks[0]


def test_margin_is_a_share_of_the_box_and_ends_at_the_frame(folder, boxes):
    found = crops.in_boxes(folder, boxes, wanted=Wanted(margin=0.25))
    assert found.crops[0].box == (5, 5, 35, 95)
    assert found.crops[1].box == (112, 0, 158, 100)  # 7.5 and 20 pixels wider on each side


@pytest.mark.parametrize(
    ("lines", "wanted", "said"),
    [
        (["1,3,10,20,20,60,0.2"], Wanted(), "1 of 2 boxes are left out: 1 have a score below 0.3 (--min_score)"),
        (["1,3,10,20,20,60,0.2"], Wanted(min_score=0.9), "2 of 2"),
        (["1,3,10,20,20,31"], Wanted(), "1 are lower than 32 pixels (--min_height)"),
        (["1,3,10,20,20,60,1,1,0.29"], Wanted(), "1 show less than 30 % of the person (--min_visible)"),
        (["1,3,10,20,20,60,1,8,1"], Wanted(), "1 are not people, by their class"),
        (["1,3,210,20,20,60", "1,4,-50,20,20,60"], Wanted(), "2 lie outside their frame"),
        (["1,7,120,10,30,80,0.9"], Wanted(), "1 come twice"),
    ],
)
def test_boxes_that_are_left_out_are_counted_with_the_reason(lines, wanted, said, folder, tmp_path):
    (tmp_path / "det.txt").write_text("\n".join(["1,7,120,10,30,80,0.8", *lines]))
    if wanted.min_score > 0.8:
        said = r"none of the 2 boxes of .*det\.txt is left: 2 have a score below 0\.9 \(--min_score\)"
        with pytest.raises(UserError, match=said):
            crops.in_boxes(folder, tmp_path / "det.txt", wanted=wanted)
        return
    found = crops.in_boxes(folder, tmp_path / "det.txt", wanted=wanted)
    assert len(found) == 1
    assert said in found.remarks[0]


def test_unreadable_frame_is_reported_by_each_of_its_boxes_and_not_before(folder, boxes):
    (folder / "000002.png").write_bytes(b"no picture")
    found = crops.in_boxes(folder, boxes)
    assert [read(np.zeros((4, 2, 3), np.uint8)) for read in found.readers()] == ["", "", *["it is no picture"] * 2]
    assert found.image(found.crops[2]) is None


def test_thumbnails_are_read_frame_by_frame_whatever_the_order(folder, boxes):
    found, read = crops.in_boxes(folder, boxes, wanted=Wanted(margin=0.0)), []
    found.__dict__["_frame"] = lambda frame: read.append(frame.path.name) or found.source.image(frame)
    small = found.thumbnails(list(reversed(found.crops)) * 2, height=10)
    assert set(small) == set(found.crops)
    assert small[found.crops[0]].shape == (10, 3, 3)
    assert (small[found.crops[0]] == boxed_frames.PEOPLE[0][-1]).all()
    assert read == ["000001.png", "000001.png", "000002.png", "000002.png"]


def test_whole_files_are_crops_without_a_box(folder):
    found = crops.in_folder(folder)
    assert found.crops == tuple(Crop(Frame(folder / name), name) for name in ("000001.png", "000002.png"))
    one = crops.of_file(folder / "000001.png")
    into = np.zeros((boxed_frames.TALL, boxed_frames.WIDE, 3), np.uint8)
    assert one.readers()[0](into) == ""
    np.testing.assert_array_equal(into, boxed_frames.frame(1))
    assert one.image(one.crops[0]).size == boxed_frames.SIZE
    assert one.crops[0].label == str(folder / "000001.png")


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (Wanted(margin=-0.1), r"--margin is -0\.1; give a number from 0 to 1$"),
        (Wanted(margin=float("nan")), r"--margin is nan"),
        (Wanted(min_height=-1.0), r"--min_height is -1\.0; give a number of 0 or more$"),
        (Wanted(min_visible=2.0), r"--min_visible is 2\.0; give a number from 0 to 1$"),
        (Wanted(min_score=float("nan")), r"--min_score is nan"),
    ],
)
def test_value_out_of_range_is_refused(wanted, error, folder, boxes):
    with pytest.raises(UserError, match=error):
        crops.in_boxes(folder, boxes, wanted=wanted)


def test_box_touches_the_pixels_that_it_covers_in_part():
    assert crops.inside((1.5, 2.0, 3.0, 2.2), (100, 100)) == (1, 2, 5, 5)
    assert crops.inside((-5.0, -5.0, 200.0, 200.0), (100, 50)) == (0, 0, 100, 50)
    assert crops.inside((100.0, 0.0, 5.0, 5.0), (100, 50)) is None
