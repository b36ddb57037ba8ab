import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import body, camera, people, renderer, scene, street
from san_jax.synthesis.camera import Box
from san_jax.synthesis.scene import Trouble

HEIGHT, WIDTH = 64, 32
BOXES = 2000
CAREFUL = Box(*map(jnp.float32, (-0.1, 0.1, -0.25, 0.15)))


def trouble(*, occlusion=0.0, sloppiness=0.0):
    return Trouble(jnp.float32(occlusion), jnp.float32(sloppiness))


@pytest.fixture(scope="module")
def person():
    return jax.jit(people.person)(jax.random.key(0), jnp.int32(3))


@pytest.fixture(scope="module")
def places():
    return jax.jit(jax.vmap(street.random_place))(jax.random.split(jax.random.key(0), 2))


@pytest.fixture(scope="module")
def shoot(person, places):
    """Returns a function that takes a picture of the person in one of two places."""
    take = jax.jit(scene.on_a_walk, static_argnames=("height", "width"))

    def shoot(key, place=0, **troubles):
        place = jax.tree.map(lambda field: field[place], places)
        walk = scene.Walk(jnp.float32(1), jnp.stack([jnp.float32(0), (place.near + place.far) / 2]))
        return np.asarray(
            take(jax.random.key(key), person, place, walk, trouble(**troubles), height=HEIGHT, width=WIDTH)
        )

    return shoot


@pytest.fixture(scope="module")
def sloppy_boxes():
    draw = jax.jit(jax.vmap(lambda key: scene.random_box(key, CAREFUL, jnp.float32(1))))
    return jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(0), BOXES)))


def far_from(one, other):
    """Mean difference of two pictures, in levels."""
    return np.abs(one.astype(int) - other.astype(int)).mean()


def test_picture_is_uint8(shoot):
    got = shoot(0)
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert got.dtype == np.uint8
    assert got.std() > 10


def test_same_key_gives_the_same_picture_and_another_key_a_different_one(shoot):
    np.testing.assert_array_equal(shoot(0), shoot(0))
    assert far_from(shoot(0), shoot(1)) > 5


def test_another_place_gives_a_different_picture(shoot):
    assert far_from(shoot(0), shoot(0, place=1)) > 10


def test_trouble_changes_pictures(shoot):
    careful = shoot(0)
    assert far_from(careful, shoot(0, sloppiness=1.0)) > 3
    hidden = [far_from(shoot(key), shoot(key, occlusion=1.0)) for key in range(4)]
    assert max(hidden) > 5


def test_careful_box_is_unchanged():
    for seed in range(3):
        got = scene.random_box(jax.random.key(seed), CAREFUL, jnp.float32(0))
        np.testing.assert_allclose(got, CAREFUL, atol=1e-7)


def test_sloppy_boxes_have_the_documented_spread(sloppy_boxes):
    left, right, bottom, top = sloppy_boxes
    middle, wide = (left + right) / 2, right - left
    assert middle.mean() == pytest.approx(0, abs=0.002)
    assert middle.std() == pytest.approx(0.1 * 0.2, rel=0.1)
    assert np.log(wide).std() == pytest.approx(0.1 * np.sqrt(2), rel=0.1)
    # The top moves by half the change of the height and by the whole shift.
    assert top.std() == pytest.approx(np.hypot(0.05 * 0.4, 0.1 * 0.2), rel=0.1)
    assert (bottom < top).all()


def test_one_in_four_sloppy_boxes_cuts_off_part_of_the_legs(sloppy_boxes):
    """It loses 0.3 of half the height on average; the top edge does not change."""
    assert sloppy_boxes.top.mean() == pytest.approx(0.15, abs=0.003)
    assert sloppy_boxes.bottom.mean() == pytest.approx(-0.25 + 0.25 * 0.3 * 0.2, abs=0.003)


def test_box_holds_all_of_the_person_and_is_twice_as_high_as_wide(person):
    """The person is rendered in a box 1.5 times as large, at 96 x 48 pixels."""

    def see(key):
        posing, shape, where = jax.random.split(key, 3)
        proportions = body.random_proportions(shape, person.outfit.female)
        low, high = jnp.array([[-2, 1, 4, 0], [2, 5, 20, 6.3]])
        x, height, distance, yaw = jax.random.uniform(where, (4,), minval=low, maxval=high)
        pose, position = body.random_pose(posing), jnp.stack([x, distance])
        somebody = body.build(proportions, person.outfit, pose, yaw=yaw, position=position)
        seen_from = camera.look_at(jnp.array([0, 1, 0]) * height, jnp.stack([x, proportions.stature / 2, distance]))
        box = scene.box_around(somebody, seen_from)
        nothing = jax.tree.map(lambda field: field[:0], somebody.solids)
        wide, tall = (box.right - box.left) / 4, (box.top - box.bottom) / 4
        larger = Box(box.left - wide, box.right + wide, box.bottom - tall, box.top + tall)
        return box, renderer.fragments(somebody, nothing, seen_from, larger, height=96, width=48).person

    box, shown = jax.jit(lambda keys: jax.lax.map(see, keys))(jax.random.split(jax.random.key(0), 32))
    np.testing.assert_allclose(box.top - box.bottom, 2 * (box.right - box.left), rtol=1e-5)
    shown = np.asarray(shown)
    inside = np.zeros((96, 48), bool)
    inside[16:80, 8:40] = True
    assert not (shown & ~inside).any()
    rows = shown.any(axis=2)
    assert rows[:, 16:22].any(axis=1).mean() > 0.8  # heads and feet are near the edges
    assert rows[:, 74:80].any(axis=1).mean() > 0.8


def test_walks_begin_in_the_walking_area_and_go_in_all_directions(places):
    place = jax.tree.map(lambda field: field[0], places)
    walks = jax.jit(jax.vmap(lambda key: scene.random_walk(key, place)))(jax.random.split(jax.random.key(0), 500))
    x, z = np.asarray(walks.start).T
    assert np.abs(x).max() <= place.half_width
    assert place.near <= z.min() < z.max() <= place.far
    assert np.ptp(x) > 1.8 * place.half_width
    assert np.ptp(z) > 0.9 * (place.far - place.near)
    quarters = np.histogram(np.asarray(walks.yaw), bins=4, range=(0, 2 * np.pi))[0]
    assert quarters.sum() == 500
    assert quarters.min() > 80


def test_person_is_in_the_middle_of_a_pair_picture_before_the_photograph(person):
    """Pictures of a person all in white in front of a black photograph."""
    photograph = jnp.zeros((40, 40, 3), jnp.uint8)
    white = person._replace(texture=jnp.ones_like(person.texture))
    take = jax.jit(scene.anywhere, static_argnames=("height", "width"))
    got = np.stack(
        [take(jax.random.key(key), white, height=HEIGHT, width=WIDTH, photograph=photograph)[0] for key in range(4)]
    )
    assert got.shape == (4, HEIGHT, WIDTH, 3)
    assert got.dtype == np.uint8
    brightness = got.mean(axis=(0, 3))
    assert brightness[8:40, 14:18].min() > 80
    assert max(brightness[:, :2].max(), brightness[:, -2:].max(), brightness[:2].max(), brightness[-2:].max()) < 40
