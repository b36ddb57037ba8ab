import numpy as np
import pytest
from PIL import Image

from san_jax.commands import crowd_folder
from san_jax.errors import UserError
from san_jax.synthesis.crowd import Frame

BOXES = np.float32([[10.126, 20, 30, 60.5], [-1.5, 2, 3, 4]])
FRAME = Frame(np.full((24, 32, 3), 90, np.uint8), np.int32([0, 4]), BOXES, np.float32([1, 0.257]))


def test_lines_are_those_of_mot16():
    assert crowd_folder.lines_of(7, FRAME) == [
        "7,1,10.13,20.00,30.00,60.50,1,1,1.00",
        "7,5,-1.50,2.00,3.00,4.00,1,1,0.26",
    ]


def test_folder_holds_frames_from_one_and_their_truth(tmp_path):
    folder = tmp_path / "new" / "crowd"
    crowd_folder.check(folder, "settings")
    crowd_folder.write(folder, [FRAME, FRAME], "settings")
    assert sorted(path.name for path in folder.iterdir()) == ["000001.jpg", "000002.jpg", "gt.txt"]
    wanted = crowd_folder.lines_of(1, FRAME) + crowd_folder.lines_of(2, FRAME)
    assert (folder / "gt.txt").read_text().splitlines() == wanted
    with Image.open(folder / "000002.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 24))
        assert np.abs(np.asarray(picture).astype(int) - 90).max() <= 2


def test_a_folder_of_the_same_crowd_may_be_written_again_even_if_it_is_not_whole(tmp_path):
    crowd_folder.write(tmp_path, [FRAME, FRAME], "settings")
    crowd_folder.check(tmp_path, "settings")
    (tmp_path / "gt.txt").unlink()
    crowd_folder.check(tmp_path, "settings")


@pytest.mark.parametrize("name", ["notes.txt", "000003.png", "000003.jpg"])
def test_a_folder_with_another_file_is_refused(tmp_path, name):
    crowd_folder.write(tmp_path, [FRAME], "settings")
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"holds files already: {name} is not of this crowd; give --crowd another"):
        crowd_folder.check(tmp_path, "settings")


def test_a_folder_of_another_crowd_or_with_only_a_truth_is_refused(tmp_path):
    crowd_folder.write(tmp_path / "other", [FRAME, FRAME], "other settings")
    with pytest.raises(UserError, match=r"000001\.jpg and 1 more are not of this crowd"):
        crowd_folder.check(tmp_path / "other", "settings")
    Image.fromarray(FRAME.picture).save(tmp_path / "000001.jpg")
    with pytest.raises(UserError, match="not of this crowd"):
        crowd_folder.check(tmp_path, "settings")
    (tmp_path / "mot").mkdir()
    (tmp_path / "mot" / "gt.txt").touch()
    with pytest.raises(UserError, match=r"gt\.txt is not of this crowd"):
        crowd_folder.check(tmp_path / "mot", "settings")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*gt\.txt \(.*file is not a folder\)"):
        crowd_folder.check(tmp_path / "file", "settings")
