import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import camera, solids, street

HEIGHT, WIDTH = 64, 32


def seen(place, middle=0.85):
    """The place as a backdrop of something at z = 8 and some height, and the rays."""
    return _seen(place, jnp.float32(middle))


@jax.jit
def _seen(place, middle):
    position = jnp.stack([jnp.zeros(()), place.camera_height, jnp.zeros(())])
    target = jnp.stack([jnp.zeros(()), middle, jnp.float32(8)])
    tall = 1.1 / jnp.linalg.norm(target - position)
    box = camera.Box(-tall / 2, tall / 2, -tall, tall)
    directions = camera.rays(camera.look_at(position, target), box, height=HEIGHT, width=WIDTH)
    return street.backdrop(place, position, directions), position, directions


@pytest.fixture(scope="module")
def places():
    return jax.jit(jax.vmap(street.random_place))(jax.random.split(jax.random.key(0), 48))


@pytest.fixture(scope="module")
def backdrops(places):
    return jax.vmap(lambda place: seen(place)[0])(places)


@pytest.fixture(scope="module")
def empty_place(places):
    """A place without walls and things."""
    place = jax.tree.map(lambda field: field[0], places)
    bare = place.things.solids._replace(bottom=0 * place.things.solids.bottom, top=0 * place.things.solids.top)
    away = place.things.at + 1000
    return place._replace(
        walls=place.walls.at[:, 2].set(street.NOWHERE), things=place.things._replace(solids=bare, at=away)
    )


def test_people_walk_where_the_camera_can_see_them(places):
    assert np.all((places.camera_height >= 2.2) & (places.camera_height <= 5))
    assert np.all((places.near >= 5) & (places.near < places.far) & (places.far <= 16))
    assert np.all((places.half_width >= 1) & (places.half_width <= 4))


def test_light_comes_from_above_and_shows_white_below_one(places):
    np.testing.assert_allclose(np.linalg.norm(places.sun, axis=-1), 1, rtol=1e-5)
    assert np.all(places.sun[:, 1] > 0.3)
    white = np.mean(places.sun_colour * places.sun[:, 1:2] + places.sky_colour, axis=-1)
    assert np.all((white > 0.45) & (white < 1))
    assert np.all((places.sun_softness >= 0) & (places.sun_softness <= 1))


def test_backdrop_is_light_and_differs_from_place_to_place(backdrops):
    colour = np.asarray(backdrops.colour)
    assert np.all(np.isfinite(colour))
    assert colour.min() >= 0
    assert colour.max() < 3
    means = np.sqrt(colour).mean(axis=(1, 2))
    apart = np.abs(means[:, None] - means[None]).max(axis=-1)
    assert np.median(apart) > 0.1


def test_ground_is_where_the_rays_meet_it(places):
    place = jax.tree.map(lambda field: field[3], places)
    backdrop, position, directions = seen(place)
    x, y, z = np.moveaxis(np.asarray(backdrop.ground), -1, 0)
    assert np.all(np.isfinite(backdrop.ground))
    assert np.all(y == 0)
    dx, dy, dz = (np.asarray(d) for d in directions)
    distance = np.asarray(position)[1] / -dy
    below = dy < -0.01
    np.testing.assert_allclose(x[below], (distance * dx)[below], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(z[below], (distance * dz)[below], rtol=1e-3)


def test_open_ground_is_all_that_a_camera_sees_that_looks_down_in_an_empty_place(empty_place):
    backdrop, _, _ = seen(empty_place)
    assert np.all(np.asarray(backdrop.on_ground) == 1)


def test_above_the_horizon_is_no_ground_and_its_points_are_finite(empty_place):
    backdrop, _, _ = seen(empty_place, middle=8.0)
    assert np.all(np.asarray(backdrop.on_ground) == 0)
    assert np.all(np.isfinite(backdrop.ground))
    assert np.all(np.isfinite(backdrop.colour))


def test_wall_hides_the_ground_behind_it(empty_place):
    wall = empty_place._replace(walls=empty_place.walls.at[0].set(jnp.array([0.0, 1.0, 9.0, 10.0])))
    backdrop, _, _ = seen(wall)
    open_ground = np.asarray(backdrop.on_ground)
    assert np.all(np.asarray(backdrop.ground)[open_ground > 0][:, 2] < 9.01)
    assert np.all(np.asarray(backdrop.ground)[open_ground == 0][:, 2] > 8.99)
    assert 0 < open_ground.mean() < 1


def test_thing_hides_the_ground_and_darkens_it_at_its_foot(empty_place):
    ball = empty_place.things._replace(
        at=empty_place.things.at.at[0].set(jnp.array([0.0, 8.0])),
        radius=jnp.full_like(empty_place.things.radius, 0.3),
        height=jnp.full_like(empty_place.things.height, 0.6),
        solids=empty_place.things.solids._replace(
            origin=empty_place.things.solids.origin.at[0].set(jnp.array([0.0, 0.3, 8.0])),
            frame=empty_place.things.solids.frame.at[0].set(jnp.eye(3)),
            bottom=empty_place.things.solids.bottom.at[0].set(0.3),
            length=empty_place.things.solids.length.at[0].set(0.0),
        ),
    )
    overcast = empty_place._replace(sun_softness=jnp.float32(1))
    without, _, _ = seen(overcast)
    with_ball, position, directions = seen(overcast._replace(things=ball))
    hits = solids.trace(ball.solids, tuple(position), directions)
    covered = np.asarray(hits.distance) < solids.FAR
    np.testing.assert_array_equal(np.asarray(with_ball.on_ground) == 0, covered)
    change = np.asarray(with_ball.colour / without.colour).mean(axis=-1)
    from_foot = np.linalg.norm(np.asarray(with_ball.ground)[..., ::2] - [0, 8], axis=-1)
    assert np.all(change[~covered & (from_foot < 0.4)] < 0.9)
    assert np.all(change <= 1.001, where=~covered)


def test_relighting_changes_the_light_a_little_and_nothing_that_stands(places):
    later = jax.vmap(street.relight)(places, jax.random.split(jax.random.key(5), 48))
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
