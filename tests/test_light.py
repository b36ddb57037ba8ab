import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import empty_place

from san_jax.synthesis import light, view
from san_jax.synthesis.view import View

X, Z = 4, 40  # metres of ground, in pixels of a tenth of a metre


def ground_view(layer=view.STRIP):
    x, z = (jnp.asarray(each, jnp.float32) / 10 for each in np.mgrid[0 : 10 * X, 0 : 10 * Z])
    flat = jnp.zeros_like(x)
    point, normal = (x, flat, z), (flat, flat + 1, flat)
    layer = jnp.full(x.shape, layer, jnp.int32)
    return View(point, layer, x, z, flat + 0.1, flat + 0.1, normal, jnp.zeros_like(layer))


def lit_ground(place, *, layer=view.STRIP, gloss=0.0, down=-0.2):
    seen = ground_view(layer)
    directions = (0 * seen.u, 0 * seen.u + down, 0 * seen.u + 1)
    return jax.tree.map(np.asarray, jax.jit(light.light_on)(place, seen, directions, 0 * seen.u + gloss))


def test_open_ground_gets_all_of_the_sky_and_the_cosine_of_the_sun():
    place = empty_place()._replace(sun=jnp.array([0.6, 0.8, 0.0]))
    on_ground = lit_ground(place)
    np.testing.assert_allclose(on_ground.sky, 1, atol=1e-4)
    np.testing.assert_allclose(on_ground.sun, 0.8, rtol=1e-3)
    assert on_ground.mirror.max() == 0


def test_ground_is_darkest_where_it_meets_a_wall():
    place = empty_place()
    place = place._replace(walls=place.walls.at[0].set(jnp.array([0.0, 1.0, 39.9, 4.0])))
    sky = lit_ground(place).sky.mean(axis=0)
    assert np.all(np.diff(sky[300:]) <= 1e-6)
    assert sky[-1] == pytest.approx(0.7, abs=1e-3)
    assert sky[350] > 0.99


def test_glossy_floor_mirrors_more_at_a_grazing_angle_and_shows_ceiling_lamps():
    place = empty_place()
    steep, flat = (lit_ground(place, gloss=0.5, down=down).mirror.mean() for down in (-2.0, -0.1))
    assert steep < 0.01 < flat
    hall = lit_ground(place._replace(lamps=jnp.array([2.0, 2.0, 3.0])), gloss=0.5, down=-0.1).mirror
    assert hall.max() > 2 * hall.min() > 0


def test_haze_grows_with_distance_and_covers_the_sky():
    haze = lit_ground(empty_place()).haze[0]
    assert np.all(np.diff(haze) >= 0)
    assert haze[-1] == pytest.approx(1 - np.exp(-39.9 / 250), rel=1e-3)
    assert np.all(lit_ground(empty_place(), layer=view.SKY).haze == 1)


def test_white_surface_shows_sun_plus_sky():
    place = empty_place()
    shape = (2, 2)
    white, full, none = jnp.ones(shape), jnp.ones(shape), jnp.zeros(shape)
    shown = light.lit(place, (white,) * 3, light.Light(full, full, none, none))
    np.testing.assert_allclose(shown[0, 0], place.sun_colour + place.sky_colour, rtol=1e-6)
