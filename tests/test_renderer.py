import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from san_jax.synthesis import atlas, body, camera, renderer, solids, wardrobe
from san_jax.synthesis.backdrop import Backdrop
from san_jax.synthesis.body import Pose
from san_jax.synthesis.camera import Box
from san_jax.synthesis.solids import Solids
from san_jax.synthesis.street import Place

HEIGHT, WIDTH = 64, 32
BOX = Box(*map(jnp.float32, (-0.12, 0.12, -0.24, 0.24)))
FRONT, BACK, FROM_THEIR_LEFT = np.pi, 0.0, np.pi / 2  # yaw of the person in front of a camera that looks along z


fragments = jax.jit(renderer.fragments, static_argnames=("height", "width"))
paint, unlit, trace = jax.jit(renderer.paint), jax.jit(renderer.unlit), jax.jit(solids.trace)
view = camera.look_at(jnp.array([0.0, 4.0, -4.0]), jnp.array([0.0, 0.9, 0.0]))


@pytest.fixture(scope="module")
def stand():
    """Builds a person standing at the origin, arms slightly away from the body."""
    outfit = jax.jit(wardrobe.random_outfit)(jax.random.key(0), jax.random.key(1))
    outfit = outfit._replace(skirt=jnp.zeros_like(outfit.skirt), bag=jnp.zeros_like(outfit.bag))
    shape = jax.jit(body.random_proportions)(jax.random.key(2), outfit.female)
    pairs = ("hip", "spread", "knee", "shoulder", "lift", "elbow")
    pose = Pose(**{name: jnp.zeros(2 if name in pairs else ()) for name in Pose._fields})
    pose = pose._replace(lift=jnp.full(2, 0.5), spread=jnp.full(2, 0.15))
    build = jax.jit(body.build)
    return lambda yaw: build(shape, outfit, pose, yaw=jnp.float32(yaw), position=jnp.zeros(2))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).random((256, 256, 3), np.float32)


def pole(radius):
    """A pole in front of the person, from the ground upwards; none with radius 0."""
    one = jnp.ones(1)
    at = jnp.array([[0.1, 0.0, -1.0]])
    return Solids(jnp.eye(3)[None], at, radius * one, radius * one, 3 * one, one)


NOTHING = pole(0)


def look(somebody, *, occluders=NOTHING, height=HEIGHT, width=WIDTH):
    return jax.tree.map(np.asarray, fragments(somebody, occluders, view, BOX, height=height, width=width))


def light(*, sun=(0.0, 1.0, 0.0), strength=1.0, sky=0.0, softness=0.0):
    """A place with only its light set."""
    sun = jnp.array(sun) / jnp.linalg.norm(jnp.array(sun))
    return Place(**dict.fromkeys(Place._fields))._replace(
        sun=sun, sun_colour=jnp.full(3, strength), sky_colour=jnp.full(3, sky), sun_softness=jnp.float32(softness)
    )


def empty_ground(*, colour=1.0, on_ground=True):
    """A ground plane of one colour without walls, seen by the camera."""
    x, y, z = (np.asarray(each) for each in camera.rays(view, BOX, height=HEIGHT, width=WIDTH))
    distance = np.where(y < -1e-3, 4 / np.maximum(-y, 1e-3), 1e3)
    points = np.stack([distance * x, 0 * y, distance * z - 4], axis=-1)
    sees = on_ground * (y < -1e-3)
    return Backdrop(jnp.full(points.shape, colour), jnp.asarray(points, jnp.float32), jnp.asarray(sees, jnp.float32))


def picture(somebody, texture, place, backdrop, *, occluders=NOTHING):
    painting = paint(somebody, texture, occluders, jnp.array([[0, 1.0, 0]]), place, backdrop, view, BOX)
    return np.asarray(painting.picture)


def coverage(somebody):
    """Fraction of each pixel that the person covers, from 2 x 2 rays."""
    samples = look(somebody, height=2 * HEIGHT, width=2 * WIDTH).person
    return samples.reshape(HEIGHT, 2, WIDTH, 2).mean(axis=(1, 3))


def plain(*colour):
    return jnp.broadcast_to(jnp.array(colour, jnp.float32), (256, 256, 3))


def bilinear(texture, row, column):
    """Bilinear lookup, one axis after the other."""
    rows = np.clip(np.floor(row), 0, 254).astype(int), np.clip(np.floor(column), 0, 254).astype(int)
    down, right = row - rows[0], column - rows[1]
    got = 0
    for i, weight_down in ((0, 1 - down), (1, down)):
        for j, weight_right in ((0, 1 - right), (1, right)):
            got = got + (weight_down * weight_right)[..., None] * texture[rows[0] + i, rows[1] + j]
    return got


@pytest.mark.parametrize("yaw", [FRONT, BACK, FROM_THEIR_LEFT])
def test_unlit_picture_is_the_texture_at_the_returned_uv(stand, noise, yaw):
    shown = look(stand(yaw))
    expected = np.where(shown.person[..., None], bilinear(noise, *np.moveaxis(shown.uv, -1, 0)), 0)
    assert 0.08 < shown.person.mean() < 0.5
    np.testing.assert_allclose(unlit(noise, shown), expected, atol=2e-5)


@pytest.mark.parametrize("yaw", [FRONT, BACK, FROM_THEIR_LEFT])
def test_uv_lies_in_the_chart_of_the_part(stand, yaw):
    shown = look(stand(yaw))
    row, column = np.moveaxis(shown.uv[shown.person], -1, 0)
    top, left, height, width, _ = np.array(list(atlas.CHARTS.values()))[shown.part[shown.person]].T
    assert (row >= top).all()
    assert (row <= top + height - 1).all()
    assert (column >= left).all()
    assert (column <= left + width - 1).all()
    assert len(np.unique(shown.part[shown.person])) >= 10


def test_pixels_without_a_person_have_no_part_uv_or_distance(stand):
    shown = look(stand(FRONT))
    assert not shown.part[~shown.person].any()
    assert not shown.uv[~shown.person].any()
    np.testing.assert_array_equal(shown.distance[~shown.person], np.float32(solids.FAR))


@pytest.mark.parametrize(("yaw", "columns"), [(FRONT, (0, 84)), (BACK, (84, 168))])
def test_trunk_shows_its_front_from_the_front_and_its_back_from_behind(stand, yaw, columns):
    shown = look(stand(yaw))
    column = shown.uv[shown.person & (shown.part == atlas.PARTS.index("trunk")), 1]
    assert len(column) > 50
    assert np.mean((column >= columns[0]) & (column < columns[1])) > 0.97


def test_left_side_of_a_face_is_on_the_viewers_right(stand):
    shown = look(stand(FRONT), height=4 * HEIGHT, width=4 * WIDTH)
    head = shown.person & (shown.part == atlas.PARTS.index("head"))
    x = np.broadcast_to(np.arange(4 * WIDTH) - 2 * WIDTH + 0.5, head.shape)[head]
    column = shown.uv[head, 1]
    sides = np.abs(column - 83.5) > 4
    np.testing.assert_array_equal((column > 83.5)[sides], (x > 0)[sides])
    assert sides.sum() > 100
    assert np.corrcoef(x, column)[0, 1] > 0.8


def test_left_hand_is_on_the_viewers_right_from_the_front_and_left_from_behind(stand):
    for yaw, sign in ((FRONT, 1), (BACK, -1)):
        shown = look(stand(yaw), height=2 * HEIGHT, width=2 * WIDTH)
        for side, towards in (("left", sign), ("right", -sign)):
            _, x = np.nonzero(shown.person & (shown.part == atlas.PARTS.index(f"{side}_forearm")))
            assert len(x) > 5
            assert ((x - WIDTH) * towards > 0).all()


def test_occluder_hides_the_person_behind_it(stand, noise):
    somebody = stand(FRONT)
    free, hidden = look(somebody), look(somebody, occluders=pole(0.15))
    pole_seen = hidden.solid == len(somebody.solids.length)
    assert 0.1 < pole_seen.mean() < 0.5
    assert (pole_seen & free.person).sum() > 50
    assert not hidden.person[pole_seen].any()
    np.testing.assert_array_equal(hidden.person[~pole_seen], free.person[~pole_seen])
    lit = picture(somebody, noise, light(strength=0.0, sky=1.0), empty_ground(), occluders=pole(0.15))
    inside = pole_seen & np.roll(pole_seen, 1, 1) & np.roll(pole_seen, -1, 1)
    assert lit[inside, 1].min() > 0.2
    assert not lit[inside][:, [0, 2]].any()


def test_coverage_of_edge_pixels_is_the_fraction_of_their_samples(stand):
    somebody = stand(FRONT)
    got = picture(somebody, plain(0, 0, 0), light(), empty_ground(on_ground=False))
    covered = coverage(somebody)
    np.testing.assert_allclose(got, np.repeat(1 - covered[..., None], 3, -1), atol=1e-6)
    assert ((covered > 0) & (covered < 1)).sum() > 50


def test_colours_of_the_texture_are_lit_linearly(stand):
    somebody = stand(FRONT)
    seen = coverage(somebody) == 1
    white, grey = (picture(somebody, plain(*3 * [value]), light(sky=0.5), empty_ground())[seen] for value in (1.0, 0.5))
    np.testing.assert_allclose(grey, white / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        picture(somebody, plain(1, 1, 1), light(strength=2.0, sky=1.0), empty_ground())[seen],
        2 * white,
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("side", [1, -1])
def test_shadow_falls_away_from_the_sun_and_the_side_towards_it_is_lit(stand, side):
    """With side 1 the sun is at +x, on the viewer's left. Rays traced in the test show where it is hidden."""
    somebody, backdrop = stand(FRONT), empty_ground()
    got = picture(somebody, plain(1, 1, 1), light(sun=(side, 1.5, -0.3), sky=0.1), backdrop)[..., 0]
    shown = look(somebody)
    ground = np.asarray(backdrop.on_ground > 0) & (coverage(somebody) == 0)
    assert np.median(np.asarray(backdrop.ground)[ground & (got < 0.5), 0]) * side < -0.2
    sun = np.broadcast_to(np.array([side, 1.5, -0.3]), backdrop.ground.shape)
    starts, towards = (tuple(jnp.moveaxis(jnp.asarray(x, jnp.float32), -1, 0)) for x in (backdrop.ground, sun))
    hidden = np.asarray(trace(somebody.solids, starts, towards).distance < solids.FAR)
    # Neighbouring pixels share their sun visibility, so a shadow may be off by two pixels.
    assert got[ground & ~ndimage.maximum_filter(hidden, 5)].min() > 0.85
    inside = ground & ndimage.minimum_filter(hidden, 3)
    assert inside.sum() > 20
    assert got[inside].max() < 0.6
    assert got[inside].mean() < 0.3
    column = np.broadcast_to(np.arange(WIDTH), shown.person.shape)
    trunk = shown.person & (shown.part == atlas.PARTS.index("trunk"))
    left, right = got[trunk & (column < WIDTH / 2)], got[trunk & (column >= WIDTH / 2)]
    assert side * (left.mean() - right.mean()) > 0.1


def test_softer_suns_have_wider_penumbras(stand):
    backdrop = empty_ground()
    widths = []
    for softness in (0.0, 0.3, 1.0):
        got = picture(stand(FRONT), plain(1, 1, 1), light(sun=(1, 1.5, -0.3), softness=softness), backdrop)[..., 0]
        ground = np.asarray(backdrop.on_ground > 0) & (coverage(stand(FRONT)) == 0)
        widths.append(((got > 0.05) & (got < 0.95))[ground].sum())
    assert widths[0] < widths[1] < widths[2]


def test_sky_light_is_occluded_on_the_ground_at_the_feet_but_not_far_away(stand):
    backdrop = empty_ground()
    got = picture(stand(FRONT), plain(1, 1, 1), light(strength=0.0, sky=1.0), backdrop)[..., 0]
    ground = np.asarray(backdrop.on_ground > 0) & (coverage(stand(FRONT)) == 0)
    away = np.linalg.norm(np.asarray(backdrop.ground)[..., ::2], axis=-1)
    assert got[ground & (away < 0.35)].min() < 0.8
    assert got[ground & (away > 3)].min() > 0.97
    assert got[ground].max() <= 1


def test_background_that_is_not_ground_keeps_its_light(stand):
    somebody = stand(FRONT)
    away = coverage(somebody) == 0
    got = picture(somebody, plain(1, 0, 0), light(sun=(1, 1, 0), sky=0.2), empty_ground(colour=0.3, on_ground=False))
    np.testing.assert_allclose(got[away], 0.3, rtol=1e-6)


def test_pictures_are_deterministic_bit_for_bit(stand, noise):
    one, other = (
        picture(stand(FRONT), noise, light(sun=(1, 1, 0), sky=0.2, softness=0.5), empty_ground()) for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("yaw", "seen", "hidden"), [(FRONT, 0, 84), (BACK, 84, 0)])
def test_squares_of_texels_are_seen_on_the_side_that_faces_the_camera(stand, yaw, seen, hidden):
    """The left half of the trunk's chart, 84 texels wide, is the front, the right half the back."""
    squares = np.asarray(jax.jit(renderer.seen_squares)(look(stand(yaw), height=2 * HEIGHT, width=2 * WIDTH)))
    assert squares.shape == (64, 64)
    top, _, height, *_ = atlas.CHARTS["trunk"]
    rows = slice((top + 20) // 4, (top + height - 20) // 4)
    middle = [squares[rows, (left + 20) // 4 : (left + 64) // 4] for left in (seen, hidden)]
    assert middle[0].mean() > 0.9
    assert not middle[1].any()


def test_nothing_is_seen_of_a_hidden_person(stand):
    wall = pole(3.0)
    assert not look(stand(FRONT), occluders=wall).person.any()
    assert not np.asarray(jax.jit(renderer.seen_squares)(look(stand(FRONT), occluders=wall))).any()
