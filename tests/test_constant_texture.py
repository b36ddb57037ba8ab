import numpy as np
import pytest
from array_source import ArraySource, encoded

from san_jax.errors import UserError
from san_jax.training.constant_texture import reconstruction_loss


class Textures(ArraySource):
    """Plain textures, one for each brightness."""

    def __init__(self, brightness):
        super().__init__(range(len(brightness)), name="test/textures")
        self._brightness = brightness

    def __getitem__(self, row):
        return super().__getitem__(row) | {"texture": encoded(np.full((8, 8, 3), self._brightness[row], np.uint8))}


def loss_of(source, rows, *, side=8):
    return reconstruction_loss(source, np.array(rows, np.int32), side=side)


def test_loss_is_the_mean_distance_from_the_median_texture():
    """A quarter of the steps' pictures is white, the rest black: black is the median."""
    found = loss_of(Textures([0, 255]), [[0, 0], [1, 0]] * 500)
    assert found == pytest.approx(2 / 4, abs=0.12)  # of two hundred pictures, 38 to 62 are white


def test_textures_that_are_all_the_same_have_no_loss():
    assert loss_of(Textures([90, 90, 90]), [[0, 1, 2]]) == 0


def test_pictures_count_as_often_as_a_run_uses_them():
    seldom, often = (loss_of(Textures([0, 255]), [[0] * n + [1]]) for n in (99, 1))
    assert seldom < 0.1 < 0.8 < often <= 1


def test_unreadable_texture_is_named():
    class Broken(Textures):
        def __getitem__(self, row):
            return super().__getitem__(row) | {"texture": b"no picture"}

    with pytest.raises(UserError, match="test/textures: the texture of 000_000 cannot be decoded"):
        loss_of(Broken([0]), [[0]])


def test_textures_are_compared_at_the_networks_size():
    """Fine stripes are grey when they are small, so there is nothing left to learn."""
    stripes = np.tile(np.array([[0, 255], [0, 255]], np.uint8), (32, 32))[:, :, None].repeat(3, axis=2)

    class Striped(Textures):
        def __getitem__(self, row):
            return super().__getitem__(row) | {"texture": encoded(stripes if row else 255 - stripes)}

    large, small = (loss_of(Striped([0, 1]), [[0, 1]], side=side) for side in (64, 8))
    assert large > 0.8
    assert small < 0.1
