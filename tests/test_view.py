import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import empty_place

from san_jax.synthesis import camera, solids, view

HEIGHT, WIDTH = 32, 16
BOX = camera.Box(*map(jnp.float32, (-0.2, 0.2, -0.4, 0.4)))


@jax.jit
def _viewed(place):
    position = jnp.array([0.0, 3.0, 0.0])
    looking = camera.look_at(position, jnp.array([0.0, 1.0, 8.0]))
    directions = camera.rays(looking, BOX, height=HEIGHT, width=WIDTH)
    directions = tuple(jnp.broadcast_arrays(*directions))
    steps = [[d[1, 0] - d[0, 0] for d in directions], [d[0, 1] - d[0, 0] for d in directions]]
    met = view.meet(place, position, directions)
    hits = solids.trace(place.things.solids, tuple(position), directions)
    return view.look(place, position, directions, steps, met, hits)


def viewed(*, turn=0.0, walls=None):
    """An empty place with a street that is 2 m wide at z = 8, seen from 3 m above the ground."""
    place = empty_place()
    strip = place.strip._replace(turn=jnp.float32(turn), middle=jnp.float32(8), half=jnp.float32(1))
    return _viewed(place._replace(strip=strip, walls=place.walls if walls is None else walls))


def test_street_is_a_separate_layer_between_its_edges():
    seen = viewed()
    z = np.asarray(seen.point[2])
    ground = np.asarray(seen.on_ground)
    on_street = np.asarray(seen.layer) == view.STRIP
    np.testing.assert_array_equal(on_street, ground & (np.abs(z - 8) <= 1))
    assert on_street.any()
    assert np.all(np.asarray(seen.layer)[ground & ~on_street] == view.BESIDE)
    assert np.all(np.asarray(seen.layer)[~ground] == view.SKY)


def test_coordinates_are_metres_along_and_across_a_turned_street():
    seen = viewed(turn=0.3)
    x, _, z = (np.asarray(each) for each in seen.point)
    ground = np.asarray(seen.on_ground) & (z < 50)
    np.testing.assert_allclose(np.asarray(seen.u)[ground], (x * np.cos(0.3) - z * np.sin(0.3))[ground], atol=1e-4)
    np.testing.assert_allclose(np.asarray(seen.v)[ground], (x * np.sin(0.3) + z * np.cos(0.3))[ground], atol=1e-4)


def test_extent_of_a_pixel_is_the_distance_to_its_neighbours():
    seen = viewed(turn=0.3)
    for coordinate, extent in ((seen.u, seen.du), (seen.v, seen.dv)):
        coordinate, extent = np.asarray(coordinate)[-10:], np.asarray(extent)[-10:]
        down, right = np.abs(np.diff(coordinate, axis=0))[:, :-1], np.abs(np.diff(coordinate, axis=1))[:-1]
        np.testing.assert_allclose(extent[:-1, :-1], down + right, rtol=0.1)


def test_wall_is_seen_up_to_its_height():
    walls = empty_place().walls.at[0].set(jnp.array([0.0, 1.0, 9.0, 2.0]))
    seen = viewed(walls=walls)
    wall = np.asarray(seen.layer) == view.BACK_WALL
    _, y, z = (np.asarray(each)[wall] for each in seen.point)
    np.testing.assert_allclose(z, 9, rtol=1e-5)
    assert y.min() > -1e-3
    assert 1.7 < y.max() < 2
    np.testing.assert_allclose(np.asarray(seen.v)[wall], y, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(seen.on_wall), wall)
    for axis, wanted in zip(seen.normal, (0, 0, -1), strict=True):
        np.testing.assert_allclose(np.asarray(axis)[wall], wanted, atol=1e-6)


@pytest.mark.parametrize("reach", [0.001, 0.3, 1.0, 2.6])
def test_stripes_are_averaged_over_a_pixel(reach):
    position = np.linspace(-1.3, 1.7, 40)
    samples = position[:, None] + reach * (np.arange(4000) + 0.5) / 4000 - reach / 2
    wanted = (samples % 1 < 0.3).mean(axis=1)
    got = view.stripes(jnp.asarray(position, jnp.float32), jnp.float32(reach), 0.3)
    np.testing.assert_allclose(got, wanted, atol=2e-3)
