import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import walls

FAR, HALF_WIDTH = 11.0, 2.0


@pytest.fixture(scope="module")
def drawn():
    """Walls outdoors and indoors, [2, 300, 3 walls, 4 numbers]."""
    bounds = dict(height=jnp.array([2.0, 6.0]), far=jnp.float32(FAR), half_width=jnp.float32(HALF_WIDTH))
    draw = jax.vmap(lambda key, indoors: walls.random_walls(key, **bounds, indoors=indoors), in_axes=(0, None))
    both = jax.jit(jax.vmap(draw, in_axes=(None, 0)))(
        jax.random.split(jax.random.key(0), 300), jnp.array([False, True])
    )
    return np.asarray(both)


def test_walls_do_not_cut_the_walking_area(drawn):
    """The back wall meets the camera's axis behind the people; the side wall stands beside the camera."""
    back, side = drawn[:, :, 0], drawn[:, :, 1]
    assert np.all(back[..., 2] / back[..., 1] > FAR + 0.79)
    assert np.all(side[..., 2] >= HALF_WIDTH + 0.5)
    np.testing.assert_allclose(np.hypot(drawn[..., 0], drawn[..., 1]), 1, rtol=1e-5)
    assert np.all((drawn[:, :, :2, 3] >= 2) & (drawn[:, :, :2, 3] <= 6))


def test_back_walls_are_nearer_indoors_and_side_walls_are_on_either_side_or_missing(drawn):
    distance = drawn[:, :, 0, 2] / drawn[:, :, 0, 1] - FAR
    assert distance[0].max() > 8.5
    assert distance[1].max() < 5.01
    missing = drawn[:, :, 1, 2] == walls.NOWHERE
    assert missing.mean() == pytest.approx(0.55, abs=0.07)
    assert (drawn[:, :, 1, 0] > 0).mean() == pytest.approx(0.5, abs=0.07)


def test_windows_fit_into_their_period_and_are_as_frequent_as_given():
    draw = jax.jit(jax.vmap(lambda key, chance: walls.random_windows(key, chance=chance), in_axes=(0, None)))
    windows = draw(jax.random.split(jax.random.key(1), 300), jnp.float32(0.6))
    width, period = np.asarray(windows.width), np.asarray(windows.period)
    assert (width > 0).mean() == pytest.approx(0.6, abs=0.09)
    assert np.all(width <= 0.921 * period)
    assert np.all((windows.sill > 0) & (windows.top - windows.sill >= 1.1 - 1e-5))
    assert np.all((windows.glass > 0) & (windows.glass < windows.frame.max()))
    assert draw(jax.random.split(jax.random.key(1), 300), jnp.float32(0)).width.max() == 0
