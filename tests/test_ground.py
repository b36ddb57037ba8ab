import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import ground

FAR = 12.0


def strips(*, kerb, line):
    def draw(key):
        half = jnp.array([2.0, 3.0])
        return ground.random_strip(key, half=half, kerb=jnp.float32(kerb), line=jnp.float32(line), far=jnp.float32(FAR))

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 400)))


@pytest.fixture(scope="module")
def drawn():
    return strips(kerb=0.3, line=1.0)


def test_half_of_the_streets_run_from_left_to_right_and_half_away_from_the_camera(drawn):
    level = np.abs(drawn.turn) <= 0.35
    assert level.mean() == pytest.approx(0.5, abs=0.1)
    assert np.all(np.abs(drawn.turn[~level] - np.pi / 2) <= 0.5)
    assert np.all((drawn.middle[level] > 0.5 * 0.93 * FAR - 2) & (drawn.middle[level] < FAR))  # where people walk


def test_kerbs_and_lines_have_the_given_probabilities(drawn):
    assert (drawn.kerb > 0).mean() == pytest.approx(0.3, abs=0.08)
    assert np.all((drawn.cover >= 0.4) & (drawn.cover <= 0.95))
    bare = strips(kerb=0.0, line=0.0)
    assert bare.kerb.max() == bare.cover.max() == 0


def test_width_is_in_its_range_and_lines_lie_near_the_edge(drawn):
    assert 2 <= drawn.half.min() < drawn.half.max() <= 3
    assert np.all((np.abs(drawn.line) >= 0.3) & (np.abs(drawn.line) <= 0.6))
