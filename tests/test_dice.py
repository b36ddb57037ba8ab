import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import dice
from san_jax.synthesis.dice import Dice


def rolled(roll, times=4000):
    keys = jax.random.split(jax.random.key(0), times)
    return np.asarray(jax.jit(jax.vmap(lambda key: roll(Dice(*jax.random.split(key), count=8))))(keys))


def test_numbers_are_uniform_between_their_bounds():
    numbers = rolled(lambda own: own.between(2.0, 5.0, (2, 2)))
    assert numbers.shape == (4000, 2, 2)
    assert 2 <= numbers.min() < 2.01
    assert 4.99 < numbers.max() < 5
    np.testing.assert_allclose(np.quantile(numbers, [0.25, 0.5, 0.75]), [2.75, 3.5, 4.25], atol=0.05)
    assert abs(np.corrcoef(numbers[:, 0, 0], numbers[:, 0, 1])[0, 1]) < 0.06


def test_normal_numbers_have_mean_zero_and_deviation_one():
    numbers = rolled(lambda own: own.normal(2))
    assert abs(numbers.mean()) < 0.05
    assert abs(numbers.std() - 1) < 0.05


def test_chance_index_and_weighted_have_the_given_probabilities():
    assert abs(rolled(lambda own: own.chance(0.3)).mean() - 0.3) < 0.03
    np.testing.assert_allclose(np.bincount(rolled(lambda own: own.index(5))) / 4000, 0.2, atol=0.03)
    shares = np.bincount(rolled(lambda own: own.weighted((1, 0, 3))), minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.25, 0, 0.75], atol=0.03)
    assert set(rolled(lambda own: own.one_of((3, 5, 8)))) == {3, 5, 8}


def test_every_number_is_used_once():
    own = Dice(jax.random.key(0), count=4)
    first, rest = own.between(0, 1), own.between(0, 1, (3,))
    assert len({float(first), *map(float, rest)}) == 4
    with pytest.raises(AssertionError, match="draw more numbers at once"):
        own.chance(0.5)


@pytest.fixture(scope="module")
def grid():
    return jnp.meshgrid(jnp.arange(-40.0, 40.0), jnp.arange(-40.0, 40.0))


def test_numbers_of_cells_are_uniform_and_uncorrelated(grid):
    numbers, others = (np.asarray(dice.per_cell(*grid, jnp.uint32(seed))) for seed in (1, 2))
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02
    for other in (others, np.roll(numbers, 1, axis=0), np.roll(numbers, 1, axis=1), numbers.T):
        assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.05


def test_noise_interpolates_between_the_cells_numbers_without_steps(grid):
    seed = jnp.uint32(3)
    np.testing.assert_allclose(dice.noise(*grid, seed), dice.per_cell(*grid, seed), atol=1e-6)
    along = np.asarray(dice.noise(jnp.linspace(0, 20, 2001), jnp.full(2001, 0.3), seed))
    assert np.abs(np.diff(along)).max() < 0.016  # a slope of at most 1.5 per cell
    assert along.std() > 0.1
