import jax
import jax.numpy as jnp
import numpy as np
from places import empty_place, random_place, random_places, seen

from san_jax.synthesis import camera, solids
from san_jax.synthesis.backdrop import draw_backdrop


def test_backdrop_colours_are_finite_and_differ_from_place_to_place():
    backdrops = jax.vmap(lambda place: seen(place)[0])(random_places())
    colour = np.asarray(backdrops.colour)
    assert np.all(np.isfinite(colour))
    assert colour.min() >= 0
    assert colour.max() < 3
    means = np.sqrt(colour).mean(axis=(1, 2))
    apart = np.abs(means[:, None] - means[None]).max(axis=-1)
    assert np.median(apart) > 0.1


def test_ground_points_are_where_the_rays_meet_the_ground():
    place = random_place(3)
    backdrop, position, directions = seen(place)
    x, y, z = np.moveaxis(np.asarray(backdrop.ground), -1, 0)
    assert np.all(np.isfinite(backdrop.ground))
    assert np.all(y == 0)
    dx, dy, dz = (np.asarray(d) for d in directions)
    distance = np.asarray(position)[1] / -dy
    below = dy < -0.01
    np.testing.assert_allclose(x[below], (distance * dx)[below], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(z[below], (distance * dz)[below], rtol=1e-3)


def test_camera_that_looks_down_in_an_empty_place_sees_only_open_ground():
    backdrop, _, _ = seen(empty_place())
    assert np.all(np.asarray(backdrop.on_ground) == 1)


def test_rays_above_the_horizon_meet_no_ground_and_stay_finite():
    backdrop, _, _ = seen(empty_place(), middle=8.0)
    assert np.all(np.asarray(backdrop.on_ground) == 0)
    assert np.all(np.isfinite(backdrop.ground))
    assert np.all(np.isfinite(backdrop.colour))


def test_wall_hides_the_ground_behind_it():
    place = empty_place()
    wall = place._replace(walls=place.walls.at[0].set(jnp.array([0.0, 1.0, 9.0, 10.0])))
    backdrop, _, _ = seen(wall)
    open_ground = np.asarray(backdrop.on_ground)
    assert np.all(np.asarray(backdrop.ground)[open_ground > 0][:, 2] < 9.01)
    assert np.all(np.asarray(backdrop.ground)[open_ground == 0][:, 2] > 8.99)
    assert 0 < open_ground.mean() < 1


def test_thing_hides_the_ground_and_darkens_it_at_its_foot():
    place = empty_place()
    ball = place.things._replace(
        at=place.things.at.at[0].set(jnp.array([0.0, 8.0])),
        radius=jnp.full_like(place.things.radius, 0.3),
        height=jnp.full_like(place.things.height, 0.6),
        solids=place.things.solids._replace(
            origin=place.things.solids.origin.at[0].set(jnp.array([0.0, 0.3, 8.0])),
            frame=place.things.solids.frame.at[0].set(jnp.eye(3)),
            bottom=place.things.solids.bottom.at[0].set(0.3),
            length=place.things.solids.length.at[0].set(0.0),
        ),
    )
    overcast = place._replace(sun_softness=jnp.float32(1))
    without, _, _ = seen(overcast)
    with_ball, position, directions = seen(overcast._replace(things=ball))
    hits = solids.trace(ball.solids, tuple(position), directions)
    covered = np.asarray(hits.distance) < solids.FAR
    np.testing.assert_array_equal(np.asarray(with_ball.on_ground) == 0, covered)
    change = np.asarray(with_ball.colour / without.colour).mean(axis=-1)
    from_foot = np.linalg.norm(np.asarray(with_ball.ground)[..., ::2] - [0, 8], axis=-1)
    assert np.all(change[~covered & (from_foot < 0.4)] < 0.9)
    assert np.all(change <= 1.001, where=~covered)


def test_whole_backdrop_shows_things_that_a_narrow_one_leaves_out():
    """Seven balls in a row; a narrow picture draws the four that are nearest to its middle."""
    place = empty_place()
    x = jnp.linspace(-3, 3, 7)
    at = jnp.stack([x, jnp.full(7, 8.0)], axis=-1)
    first = 5 * jnp.arange(7)
    solid = place.things.solids
    origin = solid.origin.at[first].set(jnp.stack([x, jnp.full(7, 0.3), jnp.full(7, 8.0)], axis=-1))
    frame = jnp.broadcast_to(jnp.eye(3), solid.frame.shape)
    balls = solid._replace(frame=frame, origin=origin, bottom=solid.bottom.at[first].set(0.3), length=0 * solid.length)
    place = place._replace(things=place.things._replace(solids=balls, at=at))
    view = camera.look_at(jnp.array([0.0, 3.0, 0.0]), jnp.array([0.0, 0.3, 8.0]))
    box = camera.Box(*map(jnp.float32, (-0.5, 0.5, -0.25, 0.25)))
    seen_balls = []
    for whole in (False, True):
        directions = camera.rays(view, box, height=32, width=64)
        draw = jax.jit(draw_backdrop, static_argnames="whole")
        on_ground = np.asarray(draw(place, view.position, directions, whole=whole).on_ground)
        seen_balls.append((np.diff(on_ground[16]) < 0).sum())
    assert seen_balls == [4, 7]
