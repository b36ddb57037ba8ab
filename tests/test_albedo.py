import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import empty_place

from san_jax.synthesis import albedo, view
from san_jax.synthesis.view import View

SIZE, PIXEL = 64, 0.02  # pixels; metres


@pytest.fixture(scope="module")
def place():
    """Plain grey surfaces without any pattern, and no marks."""
    place = empty_place()
    plain = jax.tree.map(jnp.zeros_like, place.surfaces)
    grey = jnp.full((5, 3), 0.3)
    plain = plain._replace(colour=grey, other=grey, joint=grey, tile=jnp.full((5, 2), 40.0), pebble=jnp.full(5, 0.02))
    strip = place.strip._replace(middle=jnp.zeros(()), half=jnp.ones(()), kerb=jnp.zeros(()), cover=jnp.zeros(()))
    manhole = jnp.zeros(3).at[0].set(1e3)
    windows = place.windows._replace(width=jnp.zeros(()))
    bare = dict(strip=strip, windows=windows, manhole=manhole, litter=jnp.zeros(()))
    return place._replace(surfaces=plain, **bare)


@jax.jit
def _colours(place, layer, middle_v):
    v, u = jnp.meshgrid(middle_v + PIXEL * (jnp.arange(SIZE) - SIZE / 2), PIXEL * jnp.arange(SIZE), indexing="ij")
    on_ground = layer < view.BACK_WALL
    flat = jnp.zeros((SIZE, SIZE))
    seen = View(
        point=(u, jnp.where(on_ground, 0, v), jnp.where(on_ground, v, 9.0)),
        layer=jnp.full((SIZE, SIZE), layer),
        u=u,
        v=v,
        du=flat + PIXEL,
        dv=flat + PIXEL,
        normal=(flat, flat + 1, flat),
        solid=jnp.zeros((SIZE, SIZE), jnp.int32),
    )
    colours, gloss = albedo.albedo_of(place, seen)
    return jnp.stack(colours, -1), gloss, v, u


def colours(place, *, layer=view.STRIP, middle_v=0.0):
    return [np.asarray(each) for each in _colours(place, jnp.int32(layer), jnp.float32(middle_v))]


def test_joints_between_tiles_have_the_given_width(place):
    surfaces = place.surfaces._replace(
        tile=jnp.full((5, 2), 0.4), gap=jnp.full(5, 0.1), joint=jnp.zeros((5, 3)), bond=jnp.zeros(5)
    )
    got, *_ = colours(place._replace(surfaces=surfaces))
    shown = got[1:61, 1:61, 0]  # three periods
    stone = (0.3 / 0.4) ** 2
    tiles = (shown > 0.15).mean()
    assert tiles == pytest.approx(stone, abs=0.06)


def test_painted_line_lies_beside_the_edge_and_is_twelve_centimetres_wide(place):
    strip = place.strip._replace(cover=jnp.ones(()), line=jnp.float32(-0.4), dash=jnp.float32(100))
    strip = strip._replace(line_colour=jnp.ones(3))
    before, _, v, _ = colours(place, middle_v=1.0)
    after, *_ = colours(place._replace(strip=strip), middle_v=1.0)
    changed = np.abs(after - before).max(axis=-1) > 0.01
    assert np.all((v[changed] > 1 - 0.4 - PIXEL) & (v[changed] < 1 - 0.4 + 0.12 + PIXEL))
    assert changed.any(axis=1).sum() * PIXEL == pytest.approx(0.12, abs=2 * PIXEL)


def test_more_litter_covers_more_of_the_ground(place):
    clean, *_ = colours(place)
    leafy = [colours(place._replace(litter=jnp.float32(share), litter_colour=jnp.ones(3)))[0] for share in (0.3, 1.0)]
    few, many = ((np.abs(each - clean).max(axis=-1) > 0.05).mean() for each in leafy)
    assert 0 < few < many < 0.5


def test_windows_are_glossy_and_lie_in_walls_between_sill_and_top(place):
    windows = place.windows._replace(
        period=jnp.float32(0.6), width=jnp.float32(0.3), sill=jnp.float32(1.0), top=jnp.float32(1.4)
    )
    glazed = place._replace(windows=windows)
    _, gloss, v, _ = colours(glazed, layer=view.BACK_WALL, middle_v=1.2)
    pane = gloss > 0.15
    assert np.all((v[pane] > 1 - PIXEL) & (v[pane] < 1.4 + PIXEL))
    assert pane[np.abs(v - 1.2) < 0.15].mean() == pytest.approx(0.5, abs=0.12)
    assert colours(glazed, layer=view.STRIP)[1].max() == 0  # none in the ground
