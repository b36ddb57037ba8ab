import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.scoring import tiles


def plain_counts(distmat, distance, columns):
    """For each picture, the lower ones, and the equal ones in columns before it."""
    counts = np.zeros(columns.shape, int)
    for place, (at, column) in enumerate(zip(distance.ravel(), columns.ravel(), strict=True)):
        row = distmat[place // columns.shape[1]]
        others = np.arange(len(row)) != column
        before = np.arange(len(row)) < column
        counts.flat[place] = np.sum((row < at) & others) + np.sum((row == at) & before)
    return counts


@pytest.mark.parametrize("num_columns", [1, 255, 256, 257, 700, 3 * tiles.BLOCK])
def test_nearer_pictures_are_counted_in_every_part_of_a_tile(num_columns):
    """With many equal distances, 0 among them, for pictures of this tile and of those before and after it."""
    rng = np.random.default_rng(num_columns)
    distmat = rng.integers(0, 4, (6, num_columns)).astype(np.float32)
    inside = rng.integers(0, num_columns, (6, 5))
    columns = np.concatenate([inside, inside - num_columns, inside + num_columns, [[0, num_columns - 1]] * 6], axis=1)
    distance = rng.integers(0, 4, columns.shape).astype(np.float32)
    here = (columns >= 0) & (columns < num_columns)
    own = np.take_along_axis(distmat, np.where(here, columns, 0), axis=1)
    distance = np.where(here, own, distance)
    found = jax.jit(tiles.num_nearer_in_tile)(distmat, distance, jnp.asarray(columns, jnp.int32))
    np.testing.assert_array_equal(found, plain_counts(distmat, distance, columns))


@pytest.mark.parametrize("column", [0, 300, 699])
def test_picture_does_not_count_as_nearer_than_itself_if_its_distance_is_computed_with_other_last_bits(column):
    distmat = np.full((1, 700), 2.0, np.float32)
    distmat[0, column] = np.nextafter(np.float32(1), np.float32(0))
    found = tiles.num_nearer_in_tile(distmat, jnp.ones((1, 1)), jnp.full((1, 1), column, jnp.int32))
    np.testing.assert_array_equal(found, [[0]])
