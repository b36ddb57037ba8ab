import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import tailor, wardrobe
from san_jax.synthesis.atlas import CHARTS

PEOPLE = 32
FRONT_OF_TRUNK, BACK_OF_TRUNK = np.s_[108:, :84], np.s_[108:, 84:168]
paint = jax.jit(tailor.texture)
paint_all = jax.jit(lambda outfits: jax.lax.map(tailor.texture, outfits))  # less memory than vmap
dress = jax.jit(wardrobe.random_outfit)
dress_all = jax.jit(jax.vmap(wardrobe.random_outfit))


def keys(seed, number=PEOPLE):
    return jax.random.split(jax.random.key(seed), number)


@pytest.fixture(scope="module")
def outfits():
    return dress_all(keys(0), keys(1))


@pytest.fixture(scope="module")
def textures(outfits):
    return np.asarray(paint_all(outfits))


@pytest.fixture(scope="module")
def lookalikes():
    """Textures of the same colours with different details."""
    return np.asarray(paint_all(dress_all(keys(0), keys(2))))


def colour(*rgb):
    return jnp.array(rgb, jnp.float32)


def plainly_dressed(**changes):
    """A man in a black top and trousers, with some fields changed."""
    outfit = dress(*keys(3, 2))
    black = outfit.top._replace(ground=colour(0, 0, 0), figure=colour(1, 1, 1), pattern=jnp.int32(wardrobe.PLAIN),
                                mixed=jnp.array(False), face=jnp.int32(wardrobe.BOTH_FACES), period=jnp.float32(0.08))
    fields = dict(female=False, skirt=0, top=black, sleeve=2, hem=0, neckline_depth=0.01, neckline_width=0, opening=0,
                  closure=wardrobe.NO_CLOSURE, pockets=wardrobe.NO_POCKET, hood=False, contrast_sleeves=False,
                  bag=wardrobe.NO_BAG, trousers=black, leg_length=2, fade=0, side_stripe=False, under_sleeve=0,
                  print=outfit.print._replace(size=jnp.float32(0), colour=colour(1, 0, 0)), skin=colour(0, 1, 0))
    return outfit._replace(**jax.tree.map(jnp.asarray, fields | changes))


def with_top(**changes):
    top = plainly_dressed().top
    return plainly_dressed(top=top._replace(**{name: jnp.asarray(value) for name, value in changes.items()}))


def chart(texture, part):
    top, left, height, width, _ = CHARTS[part]
    return np.asarray(texture)[top : top + height, left : left + width]


def histograms(textures):
    """Histograms of 4 x 4 x 4 colours shared linearly between neighbouring bins, so that bin edges do not matter."""
    place = textures[:, ::3, ::3].reshape(len(textures), -1, 3) * 3
    near = np.maximum(0, 1 - np.abs(place[..., None] - np.arange(4)))
    red, green, blue = np.moveaxis(near, 2, 0)
    return np.einsum("bnr,bng,bnc->brgc", red, green, blue, optimize=True).reshape(len(textures), -1) / place.shape[1]


def test_textures_are_finite_colours(textures):
    assert textures.shape == (PEOPLE, 256, 256, 3)
    assert textures.dtype == np.float32
    assert np.isfinite(textures).all()
    assert textures.min() >= 0
    assert textures.max() <= 1


def test_texture_does_not_depend_on_the_batch(outfits, textures):
    one = jax.tree.map(lambda field: field[5], outfits)
    np.testing.assert_allclose(paint(one), textures[5], atol=1e-3)


def test_people_who_share_colours_differ_in_details_that_no_histogram_shows(textures, lookalikes):
    between = histograms(textures), histograms(lookalikes)
    alike = np.abs(between[0] - between[1]).sum(1)
    others = np.abs(between[0] - np.roll(between[1], 1, axis=0)).sum(1)
    assert np.median(alike) < 0.06
    assert alike.max() < 0.2
    assert np.median(others) > 10 * np.median(alike)
    seen = (np.abs(textures - lookalikes).max(-1) > 0.2).mean((1, 2))  # texels of a clearly different colour
    assert np.mean(seen > 0.01) > 0.9
    assert np.median(seen) > 0.05


def test_faces_of_one_sex_have_the_same_features():
    face = np.s_[25:75, 60:108]  # excludes the hair
    first, second, woman = (
        np.asarray(paint(dress(*keys(seed, 2))._replace(
            female=jnp.array(female), skin=colour(0.8, 0.6, 0.5), hair_length=jnp.float32(0.2), fringe=jnp.float32(0)
        )))[face] for seed, female in ((0, False), (1, False), (2, True))
    )
    assert np.abs(first - second).max() < 0.06  # the skin's unevenness
    assert (np.abs(first - woman).max(-1) > 0.1).mean() > 0.05
    assert first[:, :10].mean() > first[20:30, 8:20].mean() + 0.02  # eyes and brows are darker than the cheek


@pytest.mark.parametrize("pattern", wardrobe.BANDS + wardrobe.BLOCKS)
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_every_pattern_covers_its_share(pattern, share):
    trunk = chart(paint(with_top(pattern=pattern, share=share)), "trunk")
    assert np.mean(trunk > 0.4) == pytest.approx(share, abs=0.04)


def test_mixed_checks_have_the_colours_of_mixed_stripes():
    shares = [
        np.histogram(chart(paint(with_top(pattern=pattern, share=0.6, mixed=True)), "trunk"), (0, 0.3, 0.7, 1.1))[0]
        for pattern in (wardrobe.CHECKS, wardrobe.ACROSS)
    ]
    np.testing.assert_allclose(*(share / share.sum() for share in shares), atol=0.05)


def test_light_half_continues_on_the_arm_of_its_side():
    texture = paint(with_top(pattern=wardrobe.LEFT, share=0.5))
    assert chart(texture, "left_upper_arm").mean() > 0.6
    assert chart(texture, "right_upper_arm").mean() < 0.1


@pytest.mark.parametrize(
    ("face", "front", "back"), [(wardrobe.FRONT, 1, 0), (wardrobe.BACK, 0, 1), (wardrobe.BOTH_FACES, 1, 1)]
)
@pytest.mark.parametrize("shape", [wardrobe.BLOB, wardrobe.LINES, wardrobe.BADGE])
def test_print_covers_half_of_its_box_on_its_side_of_the_trunk(face, front, back, shape):
    mark = plainly_dressed().print._replace(size=jnp.float32(0.24), stretch=jnp.float32(1), face=jnp.int32(face),
                                            shape=jnp.int32(shape), angle=jnp.float32(0), along=jnp.float32(0.6))
    red = np.asarray(paint(plainly_dressed(print=mark)))[..., 0] > 0.5
    box = 0.24**2 / (tailor.TRUNK_GIRTH * tailor.TRUNK_LENGTH) * 148 * 168
    for half, printed in ((FRONT_OF_TRUNK, front), (BACK_OF_TRUNK, back)):
        assert red[half].sum() / box == pytest.approx(printed / 2, abs=0.15)


def test_sleeves_and_legs_end_where_they_should():
    texture = paint(plainly_dressed(sleeve=1.0, leg_length=1.0, sock_height=0))
    for covered, bare in (("left_upper_arm", "left_forearm"), ("right_thigh", "right_shin")):
        assert chart(texture, covered)[:-4, :, 1].mean() < 0.15
        assert chart(texture, bare)[4:-4, :, 1].mean() > 0.8


def test_knee_length_skirt_covers_thighs_and_open_coat_shows_trousers_in_front():
    white = plainly_dressed().top._replace(ground=colour(1, 1, 1))
    closed = paint(plainly_dressed(skirt=1.0, skirt_cloth=white))
    opened = paint(plainly_dressed(skirt=1.0, skirt_cloth=white, opening=0.5))
    assert chart(closed, "left_thigh").min(-1)[10:35].min() > 0.5
    assert chart(closed, "left_shin")[8:-8].max() < 0.3
    assert chart(opened, "left_thigh")[10:35, 20:24].max() < 0.3


def test_chart_of_a_missing_bag_is_grey():
    assert (chart(paint(plainly_dressed()), "bag") == 0.5).all()
    assert chart(paint(plainly_dressed(bag=wardrobe.BACKPACK)), "bag").std() > 0.01
