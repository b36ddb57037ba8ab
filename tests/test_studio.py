import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import people, studio
from san_jax.synthesis.studio import AT_ONCE, Moment

pytestmark = pytest.mark.slow  # because of compilation

DRESSER = jax.random.key(5)
SIZE = dict(height=32, width=16)  # programs of this size, six cameras and small textures are shared with other tests


def snapshot(person, shot, setting, *, height, width):
    """A corner of the texture, with the shot and the setting as numbers in its first pixel."""
    corner = jnp.round(255 * person.texture[64 : 64 + height, 64 : 64 + width]).astype(jnp.uint8)
    return corner.at[0, 0].set(jnp.stack([shot, setting, 0]).astype(jnp.uint8))


def snapshots(numbers, shots, **options):
    numbers, shots = np.array(numbers, np.int32), np.array(shots, np.int32)
    return list(studio.render(snapshot, jnp.int32(7), DRESSER, numbers, shots, **SIZE, **options))


def shots_of(world, moments):
    moments = Moment(*(np.array(column, np.int32) for column in zip(*moments, strict=True)))
    setting = studio.before_a_camera, world, world.people
    return [picture for picture, _ in studio.render(*setting, moments.person, moments, **SIZE, texture_side=32)]


@pytest.fixture(scope="module")
def world():
    return studio.make_world(jax.random.key(1), cameras=6, occlusion=0.0, sloppiness=0.0)


def test_every_person_is_drawn_in_their_own_texture():
    drawn = jax.jit(lambda number: people.person(DRESSER, number))(3)
    ((picture, texture),) = snapshots([3], [0])
    wanted = np.round(255 * np.asarray(drawn.texture)).astype(np.uint8)
    assert np.abs(texture.astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal(picture[1:], texture[65 : 64 + SIZE["height"], 64 : 64 + SIZE["width"]])


@pytest.mark.parametrize("per_person", [1, 3])
def test_pictures_come_in_order_across_calls_with_setting_and_shot(per_person):
    numbers = np.repeat(np.arange(AT_ONCE + 3), per_person)
    pairs = snapshots(numbers, np.arange(len(numbers)))
    assert [picture[0, 0].tolist() for picture, _ in pairs] == [[shot, 7, 0] for shot in range(len(numbers))]
    alone = {number: snapshots([number], [0])[0][1] for number in (0, AT_ONCE - 1, AT_ONCE, AT_ONCE + 2)}
    for number, texture in alone.items():
        for _, same in pairs[number * per_person : (number + 1) * per_person]:
            np.testing.assert_array_equal(same, texture)


def test_pictures_of_one_person_share_a_texture_and_others_do_not():
    (_, a), (_, b), (_, c) = snapshots([4, 4, 2], [0, 1, 2])
    assert a is b
    assert (a != c).any()


def test_people_who_come_back_have_the_same_texture():
    textures = [texture for _, texture in snapshots([*range(AT_ONCE), *range(4)], range(AT_ONCE + 4))]
    for first, again in zip(textures[:4], textures[AT_ONCE:], strict=True):
        np.testing.assert_array_equal(first, again)


def test_smaller_texture_is_the_mean_of_the_large_one():
    ((_, large),) = snapshots([3], [0])
    ((_, small),) = snapshots([3], [0], texture_side=32)
    means = large.reshape(32, 8, 32, 8, 3).mean((1, 3))
    assert small.shape == (32, 32, 3)
    assert np.abs(small - means).max() <= 1


def test_picture_depends_only_on_its_moment_not_on_the_others_of_the_call(world):
    moments = [(person, camera, index) for person in range(AT_ONCE + 1) for camera in (0, 2) for index in (1, 2)]
    pictures = dict(zip(moments, shots_of(world, moments), strict=True))
    for alone in [(0, 0, 1), (5, 2, 2), (AT_ONCE, 0, 1)]:
        np.testing.assert_array_equal(shots_of(world, [alone])[0], pictures[alone])
    assert len({picture.tobytes() for picture in pictures.values()}) == len(moments)


def test_worlds_of_one_key_differ_only_in_their_trouble(world):
    moments = [(person, 1, 1) for person in range(8)]
    calm = shots_of(world, moments)
    troubled = studio.make_world(jax.random.key(1), cameras=6, occlusion=1.0, sloppiness=0.0)
    changed = [np.abs(a.astype(int) - b).mean() for a, b in zip(calm, shots_of(troubled, moments), strict=True)]
    assert np.median(changed) > 2
    again = studio.make_world(jax.random.key(1), cameras=6, occlusion=0.0, sloppiness=0.0)
    np.testing.assert_array_equal(shots_of(again, moments), calm)
