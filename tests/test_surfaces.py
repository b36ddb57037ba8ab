import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import surfaces

STRIP, BESIDE, WALL = (jnp.array(surfaces.indices(names)) for names in (["asphalt"], ["grass", "slabs"], ["hedge"] * 4))


@pytest.fixture(scope="module")
def drawn():
    draw = jax.jit(jax.vmap(lambda key: surfaces.random_surfaces(key, strip=STRIP, beside=BESIDE, wall=WALL)))
    return jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(0), 200)))


def test_indices_are_positions_in_the_table():
    names = list(surfaces.SURFACES)
    assert surfaces.indices(names) == list(range(len(names)))
    with pytest.raises(ValueError, match="marble"):
        surfaces.indices(["marble"])


def test_every_part_of_a_place_has_one_of_its_candidates_and_the_last_has_trees(drawn):
    pebble = [surfaces.SURFACES[name].pebble for name in ("asphalt", "hedge", "hedge", "trees")]
    np.testing.assert_array_equal(drawn.pebble[:, [0, 2, 3, 4]], np.tile(pebble, (200, 1)))
    grass = drawn.pebble[:, 1] == surfaces.SURFACES["grass"].pebble
    assert 70 < grass.sum() < 130
    np.testing.assert_array_equal(drawn.pebble[~grass, 1], surfaces.SURFACES["slabs"].pebble)


def test_surfaces_vary_around_the_table_and_stay_darker_than_white(drawn):
    asphalt = surfaces.SURFACES["asphalt"]
    for ratio in (drawn.colour[:, 0] / asphalt.colour, drawn.other[:, 0] / asphalt.other):
        assert np.exp(np.log(ratio).mean()) == pytest.approx(1, abs=0.06)
        assert 0.15 < np.log(ratio).std() < 0.27
    scale = drawn.tile[:, 0] / asphalt.tile
    assert 0.85 <= scale.min() < scale.max() <= 1.25
    assert max(drawn.colour.max(), drawn.other.max(), drawn.joint.max()) <= 0.8
