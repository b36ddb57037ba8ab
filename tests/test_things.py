import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import solids, things

NEAR, FAR, HALF_WIDTH = 6.0, 11.0, 2.0  # where people walk
BACK_WALL, SIDE_WALL = 14.0, 4.0


@pytest.fixture(scope="module")
def crowds():
    """200 places with things of all kinds, a back wall and a wall on the left or the right."""

    def crowd(key, side):
        kinds = jax.random.randint(key, (7,), 0, len(things.KINDS))
        walls = jnp.array([[0, 1, BACK_WALL, 4], [0, 0, SIDE_WALL, 4], [0, 1, 50, 8]]).at[1, 0].set(side)
        bounds = dict(near=jnp.float32(NEAR), far=jnp.float32(FAR), half_width=jnp.float32(HALF_WIDTH))
        return things.random_things(key, kinds, **bounds, walls=walls), kinds

    return jax.jit(jax.vmap(crowd))(jax.random.split(jax.random.key(0), 200), jnp.tile(jnp.array([-1.0, 1.0]), 100))


def test_things_stand_behind_or_beside_the_walking_area(crowds):
    x, z = np.moveaxis(np.asarray(crowds[0].at), -1, 0)
    assert np.all((z > FAR) | (np.abs(x) > HALF_WIDTH))


def test_things_behind_the_walking_area_stand_before_the_back_wall(crowds):
    radius, z = np.asarray(crowds[0].radius), np.asarray(crowds[0].at)[..., 1]
    assert np.all((z + radius)[z > FAR] < BACK_WALL + 0.11)
    assert 0.4 < np.mean(z > FAR) < 0.7


def test_parts_of_a_thing_are_near_its_place_and_as_many_as_its_kind_has(crowds):
    crowd, kinds = crowds
    origin = np.asarray(crowd.solids.origin).reshape(200, 7, things.PARTS_OF_A_THING, 3)
    present = np.asarray(crowd.solids.bottom).reshape(200, 7, -1) > 0
    away = np.linalg.norm(origin[..., ::2] - np.asarray(crowd.at)[:, :, None], axis=-1)
    assert away[present].max() < 2.2
    signs, cars = (np.asarray(kinds) == things.KINDS.index(kind) for kind in ("sign", "car"))
    assert np.all(present[signs].sum(-1) == 3)
    assert np.all(present[cars].sum(-1) == 5)


def test_trees_have_leaves_and_cars_have_none(crowds):
    leafy = np.asarray(crowds[0].leafy).reshape(200, 7, -1).sum(-1)
    trees, cars = (np.asarray(crowds[1]) == things.KINDS.index(kind) for kind in ("tree", "car"))
    assert np.all(leafy[trees] == 3)
    assert np.all(leafy[cars] == 0)


def test_shadow_falls_away_from_the_sun_and_is_darkest_at_the_foot(crowds):
    post = jax.tree.map(lambda field: field[0], crowds[0])
    post = post._replace(at=jnp.zeros((7, 2)), radius=jnp.full(7, 0.1), height=jnp.full(7, 2.0))
    x = jnp.linspace(-3, 3, 61)
    sun = jnp.array([0.6, 0.8, 0.0])
    contact, shadow = (
        np.asarray(share) for share in jax.jit(things.shade)(post, x, 0 * x, sun=sun, sun_softness=jnp.float32(0))
    )
    assert np.all(shadow[np.asarray(x) > 0.3] == 0)
    assert np.all(shadow[(x > -1.4) & (x < -0.1)] > 0.6)
    assert np.all(shadow[np.asarray(x) < -1.8] == 0)  # 2 m * 0.6 / 0.8 is 1.5 m
    assert np.argmax(contact) == 30
    assert contact[0] < 0.01


def test_things_in_sight_are_those_nearest_to_the_middle(crowds):
    x = jnp.array([0.0, 5.0, -1.0, 0.5, -6.0, 2.0, 0.0])
    z = jnp.array([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, -9.0])  # the last is behind the camera
    row = jax.tree.map(lambda field: field[0], crowds[0])
    row = row._replace(at=jnp.stack([x, z], axis=-1), radius=jnp.full(7, 0.1))
    directions = tuple(jnp.full((4, 4), value) for value in (0.0, -0.1, 1.0))
    seen = things.in_sight(row, jnp.array([0.0, 3.0, 0.0]), directions)
    np.testing.assert_array_equal(seen.at[:, 0], [0, 0.5, -1, 2])
    np.testing.assert_array_equal(seen.colours[5:10], row.colours[15:20])


def hidden_share(strength, key):
    """Fraction that occluders hide of a slim person 1.7 m tall, their colours, and whether there are any."""
    position, person = jnp.array([0.0, 3.0, 0.0]), jnp.array([0.5, 0.0, 9.0])
    hiding, colours = things.occluders(key, strength=strength, camera=position, person=person, height=jnp.float32(1.7))
    points = person + jnp.stack(
        jnp.meshgrid(jnp.linspace(-0.2, 0.2, 9), jnp.linspace(0.05, 1.65, 33), jnp.zeros(1)), -1
    ).reshape(-1, 3)
    hits = solids.trace(hiding, tuple(position), tuple((points - position).T))
    return (hits.distance < 1).mean(), colours, jnp.any(hiding.bottom > 0)


@pytest.fixture(scope="module")
def occluded():
    return jax.jit(jax.vmap(hidden_share, in_axes=(None, 0)))


def test_strength_is_the_fraction_of_people_with_an_occluder(occluded):
    keys = jax.random.split(jax.random.key(0), 400)
    for strength in (0.0, 0.3, 1.0):
        _, _, present = occluded(jnp.float32(strength), keys)
        assert abs(float(present.mean()) - strength) < 0.07
    assert float(occluded(jnp.float32(0), keys)[0].max()) == 0


def test_occluders_hide_part_of_the_person_but_never_all(occluded):
    hidden, colours, _ = occluded(jnp.float32(1), jax.random.split(jax.random.key(1), 400))
    hidden = np.asarray(hidden)
    assert np.mean(hidden > 0.02) > 0.8
    assert 0.1 < hidden.mean() < 0.5
    assert hidden.max() < 0.95
    assert np.all((np.asarray(colours) >= 0) & (np.asarray(colours) <= 1))
