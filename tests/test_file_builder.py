"""Pictures of files as they are stored."""

import io

import numpy as np
import pytest
from own_pictures import noise, save
from PIL import Image

from san_jax.errors import UserError
from tfds_builders.file_builder import stored_picture


def test_pictures_are_stored_as_a_viewer_shows_them(tmp_path):
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be turned by 90 degrees
    picture = noise(3)
    shown = lambda path: np.asarray(Image.open(io.BytesIO(stored_picture(path))))  # noqa: E731
    turned = save(tmp_path / "turned.png", picture, exif=rotated)
    np.testing.assert_array_equal(shown(turned), np.rot90(picture, -1))
    clear = save(tmp_path / "clear.png", np.zeros((4, 4, 4), np.uint8))
    np.testing.assert_array_equal(shown(clear), np.full((4, 4, 3), 255))
    grey = save(tmp_path / "grey.png", picture[:, :, 0])
    np.testing.assert_array_equal(shown(grey), np.repeat(picture[:, :, :1], 3, axis=2))
    photograph = save(tmp_path / "photograph.jpg", picture)
    assert stored_picture(photograph) == photograph.read_bytes()


def test_box_outside_the_picture_is_named(tmp_path):
    path = save(tmp_path / "a.png", noise(1))
    with pytest.raises(UserError, match=r"a.png: the box 6,1,2,2 lies outside the picture of 6 x 12 pixels; correct"):
        stored_picture(path, (6.0, 1.0, 2.0, 2.0))
