import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import atlas
from san_jax.synthesis.atlas import CHARTS, PARTS, SIZE

ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
locate, sample = jax.jit(atlas.locate), jax.jit(atlas.sample)


@pytest.fixture(scope="module")
def texels():
    return atlas.texels()


@pytest.fixture(scope="module")
def body_points():
    """Points on all parts, some with angles of several turns, some beyond the ends of their part."""
    rng = np.random.default_rng(0)
    part = rng.integers(0, len(PARTS), 20_000)
    angle, along = rng.uniform(-20, 20, part.shape), rng.uniform(-0.2, 1.2, part.shape)
    return jnp.asarray(part), jnp.asarray(angle, jnp.float32), jnp.asarray(along, jnp.float32)


def place(part, angle=0.0, along=0.5):
    """Row and column of one body point."""
    row, column = locate(jnp.int32(PARTS.index(part)), jnp.float32(angle), jnp.float32(along))
    return float(row), float(column)


def test_charts_tile_the_atlas_without_gap_or_overlap():
    charts = np.zeros((SIZE, SIZE), int)
    for top, left, height, width, _ in CHARTS.values():
        assert top + height <= SIZE
        assert left + width <= SIZE
        charts[top : top + height, left : left + width] += 1
    np.testing.assert_array_equal(charts, 1)


def test_texels_of_a_chart_belong_to_its_part(texels):
    for number, (top, left, height, width, _) in enumerate(CHARTS.values()):
        np.testing.assert_array_equal(texels.part[top : top + height, left : left + width], number)


def test_locate_inverts_texels(texels):
    row, column = locate(*texels)
    np.testing.assert_allclose(row, ROWS, atol=1e-3)
    # The right edge of a chart is the same line of the body as its left edge, and is located there.
    left, width = np.array([(chart.left, chart.width) for chart in CHARTS.values()]).T[..., texels.part]
    np.testing.assert_allclose((column - left + 0.5) % (width - 1), (COLUMNS - left + 0.5) % (width - 1), atol=1e-3)


def test_body_points_are_located_at_their_angle_and_height(body_points):
    part, angle, along = (np.asarray(x) for x in body_points)
    row, column = (np.asarray(x) for x in locate(*body_points))
    top, left, height, width, turn = np.array(list(CHARTS.values()))[part].T
    turned = 2 * np.pi * ((column - left) / (width - 1) - turn)
    np.testing.assert_allclose(np.exp(1j * turned), np.exp(1j * angle), atol=1e-4)
    np.testing.assert_allclose(1 - (row - top) / (height - 1), np.clip(along, 0, 1), atol=1e-5)


def test_sample_at_a_texel_is_the_texel():
    texture = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
    got = sample(texture, jnp.asarray(ROWS, jnp.float32), jnp.asarray(COLUMNS, jnp.float32))
    np.testing.assert_array_equal(got, texture)


def test_sample_between_texels_is_bilinear():
    rng = np.random.default_rng(0)
    row, column = (rng.uniform(0, SIZE - 1, 1000).astype(np.float32) for _ in range(2))
    # A bilinear lookup is exact for functions that are linear along each axis.
    texture = np.stack([ROWS, COLUMNS, ROWS * COLUMNS / SIZE], axis=-1).astype(np.float32)
    got = sample(texture, row, column)
    np.testing.assert_allclose(got, np.stack([row, column, row * column / SIZE], axis=-1), atol=1e-2)


def test_no_lookup_leaves_its_chart(texels, body_points):
    part = body_points[0]
    of_parts = jax.nn.one_hot(texels.part, len(PARTS))
    np.testing.assert_allclose(sample(of_parts, *locate(*body_points)), jax.nn.one_hot(part, len(PARTS)), atol=1e-5)


def test_head_is_at_the_top_left_and_the_trunk_below_it():
    row, column = place("head")
    assert row < 92
    assert column == pytest.approx(83.5)
    assert place("neck")[0] > row
    front, back = place("trunk"), place("trunk", np.pi)
    assert front[0] == back[0] > place("neck")[0]
    assert front[1] == pytest.approx(167 / 4)
    assert back[1] == pytest.approx(167 * 3 / 4)


def test_limbs_are_in_the_right_third_left_before_right_and_upper_above_lower():
    downwards = ["thigh", "shin", "upper_arm", "forearm", "hand", "foot"]
    for side, low, high in (("left", 168, 212), ("right", 212, 256)):
        places = [place(f"{side}_{part}") for part in downwards]
        assert all(low <= column < high for _, column in places)
        rows = [row for row, _ in places]
        assert rows == sorted(rows)
    assert place("bag") > (220, 168)


@pytest.mark.parametrize("part", PARTS)
def test_upper_end_is_at_the_top_and_the_persons_left_on_the_right_of_the_front(part):
    assert place(part, along=1.0)[0] == CHARTS[part].top
    assert place(part, along=0.0)[0] == CHARTS[part].top + CHARTS[part].height - 1
    assert place(part, np.pi / 4)[1] > place(part)[1] > place(part, -np.pi / 4)[1]
