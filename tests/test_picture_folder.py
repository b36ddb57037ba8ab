import io

import numpy as np
import pytest
from array_source import encoded
from PIL import Image

from san_jax import picture_folder
from san_jax.data import input_pipeline
from san_jax.errors import UserError

ORIENTATION = 0x0112  # EXIF


def test_pictures_of_a_tree_are_found_in_order_and_nothing_else(tmp_path):
    names = ["b.JPG", "a.png", "sub/c.jpeg", "sub/deep/d.bmp", "e.webp", "notes.txt", "f.npy", "png", "g.png.part"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in picture_folder.find(tmp_path)]
    assert found == ["a.png", "b.JPG", "e.webp", "sub/c.jpeg", "sub/deep/d.bmp"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere", r"nowhere cannot be read .No such file or directory.; give a folder of pictures"),
        ("file", r"file cannot be read .Not a directory.; give a folder of pictures"),
        ("empty", r"empty holds no pictures .*\.webp.; give a folder that does"),
    ],
)
def test_what_is_no_folder_of_pictures_is_named(name, error, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=error):
        picture_folder.find(tmp_path / name)


def test_picture_is_decoded_as_the_data_sets_are():
    picture = np.random.default_rng(0).integers(0, 256, (50, 21, 3), np.uint8)
    expected = input_pipeline.decode(encoded(picture), height=32, width=16)
    np.testing.assert_array_equal(picture_folder.decode(encoded(picture), height=32, width=16), expected)


def turned(picture):
    """As a phone stores it that was held sideways: pixels turned, and a note how to turn them back."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 6
    Image.fromarray(np.rot90(picture).copy()).save(file, "PNG", exif=exif)
    return file.getvalue()


def test_photograph_of_a_turned_phone_is_upright(tmp_path):
    picture = np.zeros((40, 20, 3), np.uint8)
    picture[:20] = 255
    np.testing.assert_array_equal(picture_folder.decode(turned(picture), height=40, width=20), picture)
    (tmp_path / "a.png").write_bytes(turned(picture))
    np.testing.assert_array_equal(picture_folder.thumbnail(tmp_path / "a.png", height=40), picture)


def test_array_is_filled_or_the_reason_told_in_one_line(tmp_path):
    whole = encoded(np.full((4, 2, 3), 7, np.uint8))
    into = np.zeros((8, 4, 3), np.uint8)
    assert picture_folder.decode_into(lambda: b"no picture", into) == "it is no picture"
    assert picture_folder.decode_into((tmp_path / "a.png").read_bytes, into) == "No such file or directory"
    assert not into.any()
    cut = picture_folder.decode_into(lambda: whole[:-20], into)
    assert cut
    assert "\n" not in cut
    assert picture_folder.decode_into(lambda: whole, into) == ""
    assert (into == 7).all()


def test_damaged_data_set_is_no_reason_but_an_end():
    def damaged():
        raise UserError("prepare it again")

    with pytest.raises(UserError, match="prepare it again"):
        picture_folder.decode_into(damaged, np.zeros((8, 4, 3), np.uint8))


@pytest.mark.parametrize(("size", "width"), [((40, 20), 5), ((20, 40), 20), ((10, 500), 20), ((500, 1), 1)])
def test_thumbnail_keeps_proportions_up_to_twice_as_wide_as_high(size, width, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(np.full((*size, 3), 9, np.uint8)))
    found = picture_folder.thumbnail(tmp_path / "a.png", height=10)
    assert found.shape == (10, width, 3)
    assert (found == 9).all()


def test_thumbnail_of_what_cannot_be_read_is_grey(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert np.unique(picture_folder.thumbnail(tmp_path / "a.png", height=10)).tolist() == [200]
