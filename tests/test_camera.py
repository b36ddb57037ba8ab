import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import camera
from san_jax.synthesis.camera import Box
from san_jax.synthesis.solids import Solids


def random_camera(seed):
    rng = np.random.default_rng(seed)
    position, target = rng.uniform(-5, 5, (2, 3)).astype(np.float32)
    return camera.look_at(jnp.asarray(position), jnp.asarray(target)), target


def box(left, right, bottom, top):
    return Box(*map(jnp.float32, (left, right, bottom, top)))


def project_ahead(points):
    """Projects points in front of a camera that is two metres high and looks along z."""
    ahead = camera.look_at(jnp.array([0.0, 2.0, 0.0]), jnp.array([0.0, 2.0, 9.0]))
    return np.asarray(camera.project(ahead, jnp.asarray(points, jnp.float32)))


@pytest.mark.parametrize("seed", range(4))
def test_camera_has_no_roll_and_its_axis_meets_the_target(seed):
    seen_from, target = random_camera(seed)
    axes = np.stack([seen_from.right, seen_from.up, -seen_from.forward])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(axes) == pytest.approx(1, abs=1e-5)  # right-handed: the axis comes towards the viewer
    assert seen_from.right[1] == pytest.approx(0, abs=1e-6)
    assert seen_from.up[1] > 0
    np.testing.assert_allclose(camera.project(seen_from, jnp.asarray(target)), 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_points_on_the_rays_are_projected_onto_their_pixels(seed):
    seen_from, _ = random_camera(seed)
    directions = camera.rays(seen_from, box(-0.2, 0.3, -0.1, 0.5), height=6, width=5)
    distance = np.random.default_rng(seed).uniform(0.5, 20, (6, 5, 1))
    points = seen_from.position + distance * np.stack(directions, axis=-1)
    got = camera.project(seen_from, jnp.asarray(points, jnp.float32))
    np.testing.assert_allclose(got[..., 0], np.tile(np.linspace(-0.15, 0.25, 5), (6, 1)), atol=2e-5)
    np.testing.assert_allclose(got[..., 1], np.tile(np.linspace(0.45, -0.05, 6)[:, None], (1, 5)), atol=2e-5)


def test_left_hand_of_a_person_facing_the_camera_is_on_the_viewers_right():
    """The camera looks along z; a person facing it faces -z and has their left at -x."""
    left_hand, right_hand = project_ahead([(-0.5, 1, 5), (0.5, 1, 5)])
    assert left_hand[0] == pytest.approx(0.1)
    assert right_hand[0] == pytest.approx(-0.1)


def test_points_above_the_axis_are_in_the_upper_rows_of_the_picture():
    above, below = project_ahead([(0, 3, 5), (0, 1, 5)])
    assert above[1] == pytest.approx(0.2)
    assert below[1] == pytest.approx(-0.2)
    seen_from, _ = random_camera(0)
    _, upwards, _ = camera.rays(seen_from, box(-0.2, 0.2, -0.4, 0.4), height=8, width=4)
    assert (np.diff(upwards, axis=0) < 0).all()


def test_rays_of_a_finer_grid_average_to_those_of_the_coarser_grid():
    seen_from, _ = random_camera(1)
    rays = jax.jit(camera.rays, static_argnames=("height", "width"))
    view = box(-0.2, 0.2, -0.4, 0.4)
    coarse = np.stack(rays(seen_from, view, height=8, width=4))
    fine = np.stack(rays(seen_from, view, height=16, width=8))
    np.testing.assert_allclose(fine.reshape(3, 8, 2, 4, 2).mean(axis=(2, 4)), coarse, atol=1e-6)


def test_outline_of_a_squashed_ball_is_that_of_the_points_on_it():
    """A ball off the axis, three times as wide as deep; its points are projected one by one."""
    squash, centre = np.array([1.2, 1.0, 0.4]), np.array([2.0, 1.0, 5.0])
    turn = np.array([[np.cos(0.5), 0, np.sin(0.5)], [0, 1, 0], [-np.sin(0.5), 0, np.cos(0.5)]])
    one, zero = jnp.ones(1), jnp.zeros(1)
    frame = jnp.asarray(turn / squash[:, None], jnp.float32)[None]
    ball = Solids(frame, jnp.asarray(centre, jnp.float32)[None], 0.5 * one, zero, zero, one)
    ahead = camera.look_at(jnp.array([0.0, 2.0, 0.0]), jnp.array([0.0, 2.0, 9.0]))
    points = np.random.default_rng(0).normal(size=(200_000, 3))
    points = centre + 0.5 * (points / np.linalg.norm(points, axis=1, keepdims=True) * squash) @ turn
    where = project_ahead(points)
    got = camera.outline(ahead, ball)
    (left, bottom), (right, top) = where.min(axis=0), where.max(axis=0)
    np.testing.assert_allclose(got, (left, right, bottom, top), atol=1e-4)
