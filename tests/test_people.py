import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import people

PAIRS = 200
person = jax.jit(people.person)


@pytest.fixture(scope="module")
def crowd():
    """Outfits and proportions of 2 * PAIRS people, without the textures, which take most of the time."""

    def looks(number):
        return people.person(jax.random.key(0), number)[:2]

    numbers = jnp.arange(2 * PAIRS).reshape(PAIRS, 2)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(jax.vmap(looks)))(numbers))


@pytest.fixture(scope="module")
def has_double(crowd):
    """Whether the second person of each pair has the colours of the first."""
    skin = crowd[0].skin
    return (skin[:, 0] == skin[:, 1]).all(axis=-1)


def test_same_number_gives_the_same_person():
    first, again = (person(jax.random.key(3), jnp.int32(7)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_person_is_the_same_alone_and_under_vmap(crowd):
    alone = person(jax.random.key(0), jnp.int32(7))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y[3, 1], rtol=1e-5, atol=1e-6), alone[:2], crowd)


def test_another_number_or_world_gives_another_person():
    world, other_world = jax.random.key(3), jax.random.key(4)
    textures = [person(key, jnp.int32(number)).texture for key, number in ((world, 7), (world, 12), (other_world, 7))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(textures[one] - textures[other]).mean() > 0.02


def test_four_in_ten_have_a_double(has_double):
    assert has_double.mean() == pytest.approx(people.DOUBLES, abs=0.1)


def test_doubles_wear_the_same_colours_but_differ_in_body_and_print(crowd, has_double):
    outfits, proportions = crowd
    for field in (outfits.female, outfits.hair, outfits.shoe_colour, outfits.skirt, outfits.sleeve):
        np.testing.assert_array_equal(field[has_double, 0], field[has_double, 1])
    for own in (proportions, outfits.print):
        differ = [(field[:, 0] != field[:, 1]).reshape(PAIRS, -1).any(axis=1) for field in jax.tree.leaves(own)]
        assert np.any(differ, axis=0).all()


def test_people_of_different_pairs_differ(crowd):
    skin, hair = (field.reshape(2 * PAIRS, 3) for field in (crowd[0].skin, crowd[0].hair))
    first_of_pairs = np.concatenate([skin, hair], axis=1)[::2]
    assert len(np.unique(first_of_pairs.round(5), axis=0)) == PAIRS
