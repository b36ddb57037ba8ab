import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import solids
from san_jax.synthesis.solids import FAR, Solids

RAYS = 800
ALONG = np.linspace(0, 1, 200)
trace, normals = jax.jit(solids.trace), jax.jit(solids.normals)


def random_solids(number, seed=0):
    """Rounded cones, some of them balls, rotated, moved and squashed, within about half a metre of the origin."""
    rng = np.random.default_rng(seed)
    squash = rng.uniform(0.5, 1.6, (number, 3))
    bottom, top = rng.uniform(0.02, 0.4, (2, number))
    length = 1.1 * np.abs(top - bottom) + rng.uniform(0, 0.6, number)
    length[::4] = 0
    fields = dict(
        frame=np.linalg.qr(rng.normal(size=(number, 3, 3)))[0] / squash[..., None],
        origin=rng.uniform(-0.5, 0.5, (number, 3)),
        bottom=bottom,
        top=np.where(length > 0, top, bottom),
        length=length,
        capped=np.ones(number),
    )
    return Solids(**{name: jnp.asarray(value, jnp.float32) for name, value in fields.items()})


def random_rays(seed=1):
    """Rays from all sides towards points near the origin; directions are not of unit length."""
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(3, RAYS))
    starts *= 4 / np.linalg.norm(starts, axis=0)
    directions = (rng.uniform(-0.8, 0.8, (3, RAYS)) - starts) * rng.uniform(0.1, 2, RAYS)
    return starts.astype(np.float32), directions.astype(np.float32)


def planes(vectors):
    return tuple(jnp.asarray(x, jnp.float32) for x in vectors)


def signed_distance(group, index, points):
    """In the frame of one solid: distance to the union of balls whose radius changes linearly along its axis."""
    frame, origin, bottom, top, length, _ = (np.asarray(field[index], np.float64) for field in group)
    x, y, z = frame @ (points - origin[:, None])
    across = np.square(x) + np.square(z)
    balls = np.sqrt(across[:, None] + np.square(y[:, None] - ALONG * length)) - bottom - ALONG * (top - bottom)
    return balls.min(axis=1)


def march(group, index, starts, directions):
    """Ray marching to one solid by its signed distance: distances of the hits, and the closest approach of each ray."""
    frame = np.asarray(group.frame[index], np.float64)
    speed = np.linalg.norm(frame @ directions, axis=0)
    distance, nearest = np.zeros(RAYS), np.full(RAYS, np.inf)
    for _ in range(80):
        free = signed_distance(group, index, starts + distance * directions)
        nearest = np.minimum(nearest, free)
        distance += np.where(distance * speed < 50, free / speed, 0)
    return np.where(nearest < 1e-4, distance, FAR), nearest


def ball(*, at=(0.0, 0.0, 0.0), radius=0.5):
    one = jnp.ones(1)
    return Solids(jnp.eye(3)[None], jnp.array([at]), radius * one, radius * one, 0 * one, one)


def cone(*, capped):
    """A cone 1 m high, its lower and wider end at the origin."""
    one = jnp.ones(1)
    return Solids(jnp.eye(3)[None], jnp.zeros((1, 3)), 0.5 * one, 0.25 * one, one, capped * one)


def test_rays_hit_the_same_solids_as_ray_marching():
    group = random_solids(8)
    starts, directions = random_rays()
    marched = [march(group, index, starts, directions) for index in range(8)]
    distances, nearest = (np.stack(each) for each in zip(*marched, strict=True))
    clear = ((nearest < 1e-4) | (nearest > 3e-3)).all(axis=0)  # marching stalls where a ray only just misses
    assert clear.mean() > 0.9
    hits = trace(group, planes(starts), planes(directions))
    met = distances.min(axis=0) < FAR
    assert 0.3 < met[clear].mean() < 0.95
    np.testing.assert_array_equal((hits.distance < FAR)[clear], met[clear])
    length = np.linalg.norm(directions, axis=0)
    gap = np.abs(np.asarray(hits.distance) - distances.min(axis=0)) * length
    assert gap[clear & met].max() < 2e-3
    first, second = np.sort(distances, axis=0)[:2]
    told_apart = clear & met & ((second - first) * length > 4e-3)
    np.testing.assert_array_equal(np.asarray(hits.solid)[told_apart], distances.argmin(axis=0)[told_apart])


def test_distance_is_in_lengths_of_the_direction():
    starts, directions = planes([[0], [0], [-3]]), planes([[0], [0], [0.25]])
    assert trace(ball(radius=0.5), starts, directions).distance[0] == pytest.approx(10, rel=1e-5)


def test_rays_may_share_one_start():
    group = random_solids(8)
    _, directions = random_rays()
    start = np.array([0.3, 0.2, 4.0])
    towards = planes(directions * [[1], [1], [0]] - [[0], [0], [4]])
    one = trace(group, planes(start), towards)
    many = trace(group, planes(np.repeat(start[:, None], RAYS, 1)), towards)
    assert (one.distance < FAR).any()
    np.testing.assert_array_equal(one.solid, many.solid)
    np.testing.assert_allclose(one.distance, many.distance, rtol=1e-5)


def test_solids_behind_a_ray_are_not_hit():
    starts, directions = planes([[0], [0], [-3]]), planes([[0], [0], [-1]])
    hits = trace(ball(), starts, directions)
    assert hits.distance[0] == FAR
    assert hits.solid[0] == 0


def test_nearest_solid_is_given_by_its_index_in_the_concatenated_groups():
    starts, directions = planes([[0, 0], [0, 0], [-5, -5]]), planes([[0, 0.5], [0, 0], [1, 1]])
    group = solids.concatenate(ball(at=(0.0, 0.0, 2.0)), ball(at=(0.0, 0.0, -2.0)), ball(at=(2.5, 0.0, 0.0)))
    hits = trace(group, starts, directions)
    np.testing.assert_array_equal(hits.solid, [1, 2])
    assert hits.distance[0] == pytest.approx(2.5, rel=1e-5)


def test_absent_solids_are_not_hit():
    """Not even by rays straight through the points to which they shrink."""
    group = random_solids(8)
    absent = group._replace(bottom=0 * group.bottom, top=0 * group.top)
    starts, directions = random_rays()
    centres = np.asarray(group.origin)[np.arange(RAYS) % 8].T
    for towards in (directions, centres - starts):
        np.testing.assert_array_equal(trace(absent, planes(starts), planes(towards)).distance, FAR)


def test_cone_without_caps_is_open_at_its_ends_and_closed_at_its_side():
    """Two rays along the axis, one oblique through both ends, and one against the side."""
    starts = planes([[0.1, 0.1, -0.2, 2], [-3, 3, -3, 0.5], [0, 0, 0, 0]])
    directions = planes([[0, 0, 0.05, -1], [1, -1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(trace(cone(capped=0), starts, directions).distance < FAR, [False, False, False, True])
    np.testing.assert_array_equal(trace(cone(capped=1), starts, directions).distance < FAR, True)


def test_side_of_a_cone_without_caps_joins_both_radii():
    heights = np.array([0.01, 0.25, 0.5, 0.99, -0.01, 1.01])
    starts = planes((np.full(6, 2.0), heights, np.zeros(6)))
    directions = planes((np.full(6, -1.0), np.zeros(6), np.zeros(6)))
    got = np.asarray(trace(cone(capped=0), starts, directions).distance)
    # At the heights of the centres, the side, which touches both balls, is wider than the balls.
    slope = -0.25 / np.sqrt(1 - 0.25**2)
    np.testing.assert_allclose(got[:4], 2 - (0.5 * np.sqrt(1 + slope**2) + slope * heights[:4]), atol=1e-5)
    np.testing.assert_array_equal(got[4:], FAR)


def test_normals_are_the_gradient_of_the_signed_distance():
    group = random_solids(8)
    starts, directions = random_rays()
    hits = trace(group, planes(starts), planes(directions))
    points = starts + np.asarray(hits.distance) * directions
    got = np.stack(normals(group, hits.solid, planes(points)))
    np.testing.assert_allclose(np.linalg.norm(got, axis=0), 1, atol=1e-5)
    checked = 0
    for index in range(8):
        mine = np.asarray((hits.solid == index) & (hits.distance < FAR))
        checked += mine.sum()
        steps = 1e-3 * np.eye(3)[:, :, None]
        slope = np.stack(
            [
                signed_distance(group, index, points[:, mine] + step)
                - signed_distance(group, index, points[:, mine] - step)
                for step in steps
            ]
        )
        expected = slope / np.linalg.norm(slope, axis=0)
        assert (np.sum(expected * got[:, mine], axis=0) > 0.999).all()
    assert checked > RAYS / 3


def test_ray_from_just_above_a_surface_hits_the_solid_only_if_it_points_inwards():
    group = jax.tree.map(lambda field: field[1:2], random_solids(2))
    starts, directions = random_rays()
    directions += np.asarray(group.origin).T
    hits = trace(group, planes(starts), planes(directions))
    met = np.asarray(hits.distance < FAR)
    assert met.sum() > RAYS / 10
    points = (starts + np.asarray(hits.distance) * directions)[:, met]
    out = np.stack(normals(group, hits.solid[met], planes(points)))
    towards = np.random.default_rng(2).normal(size=out.shape)
    towards *= np.sign(np.sum(towards * out, axis=0))
    raised = planes(points + 0.012 * out)
    np.testing.assert_array_equal(trace(group, raised, planes(towards)).distance, FAR)
    np.testing.assert_array_equal(trace(group, raised, planes(0.1 * towards - out)).distance < FAR, True)


def test_turned_multiplies_by_one_matrix_or_by_one_per_point():
    rng = np.random.default_rng(0)
    matrices, vectors = rng.normal(size=(3, 3, 7)).astype(np.float32), rng.normal(size=(3, 7)).astype(np.float32)
    np.testing.assert_allclose(
        np.stack(solids.turned(jnp.asarray(matrices[..., 0]), planes(vectors))), matrices[..., 0] @ vectors, rtol=1e-4
    )
    each = np.einsum("ijn,jn->in", matrices, vectors)
    np.testing.assert_allclose(np.stack(solids.turned(jnp.asarray(matrices), planes(vectors))), each, rtol=1e-4)
