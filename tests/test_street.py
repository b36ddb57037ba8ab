import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import COUNT, random_places

from san_jax.synthesis import street


@pytest.fixture(scope="module")
def places():
    return random_places()


def test_people_walk_where_the_camera_can_see_them(places):
    assert np.all((places.camera_height >= 2.2) & (places.camera_height <= 5))
    assert np.all((places.near >= 5) & (places.near < places.far) & (places.far <= 16))
    assert np.all((places.half_width >= 1) & (places.half_width <= 4))


def test_light_comes_from_above_and_renders_white_below_one(places):
    np.testing.assert_allclose(np.linalg.norm(places.sun, axis=-1), 1, rtol=1e-5)
    assert np.all(places.sun[:, 1] > 0.3)
    white = np.mean(places.sun_colour * places.sun[:, 1:2] + places.sky_colour, axis=-1)
    assert np.all((white > 0.45) & (white < 1))
    assert np.all((places.sun_softness >= 0) & (places.sun_softness <= 1))


def test_relighting_changes_the_light_a_little_but_not_the_scene(places):
    later = jax.vmap(street.relight)(places, jax.random.split(jax.random.key(5), COUNT))
    np.testing.assert_allclose(np.linalg.norm(later.sun, axis=-1), 1, rtol=1e-5)
    ratio = np.asarray(later.sky_colour / places.sky_colour)
    assert 0.05 < ratio.std() < 0.3
    for field in ("things", "walls", "surfaces", "strip", "camera_height"):
        jax.tree.map(np.testing.assert_array_equal, getattr(later, field), getattr(places, field))


def test_places_drawn_together_keep_their_streets_and_share_light_and_lens(places):
    alike = street.draw_together(places, jnp.float32(0.0))
    for field in jax.tree.leaves((alike.sun_colour, alike.sky_colour, alike.response)):
        np.testing.assert_allclose(field, jnp.broadcast_to(field[0], field.shape), rtol=1e-6)
    np.testing.assert_array_equal(alike.sun, places.sun)
    np.testing.assert_allclose(alike.response.gains[0], places.response.gains.mean(axis=0), rtol=1e-5)
    as_drawn = street.draw_together(places, jnp.float32(1.0))
    np.testing.assert_allclose(as_drawn.response.gains, places.response.gains, rtol=1e-5)
