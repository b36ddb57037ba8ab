import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import camera, crowd, people, renderer, solids, street, studio
from san_jax.synthesis.backdrop import Backdrop
from san_jax.synthesis.crowd import NOBODY, SAMPLES
from san_jax.synthesis.street import Place

HEIGHT, WIDTH = 96, 160  # three by five tiles
PEOPLE = 3
VIEW = camera.look_at(jnp.array([0.0, 3.0, 0.0]), jnp.array([0.0, 1.0, 8.0]))
BOX = camera.Box(*map(jnp.float32, (-0.5, 0.5, -0.3, 0.3)))
SMALL = dict(height=HEIGHT, width=WIDTH)

draw = jax.jit(crowd.draw, static_argnames=("height", "width"))
paint, trace, outline = jax.jit(renderer.paint), jax.jit(solids.trace), jax.jit(camera.outline)


@pytest.fixture(scope="module")
def stand():
    """Places people on the ground: bodies and textures, one in each row."""
    dress = jax.jit(people.person)
    embody = jax.jit(lambda *walk: crowd.embody(jax.random.key(1), *walk))

    def stand(*positions):
        persons = [dress(jax.random.key(5), jnp.int32(number)) for number in range(len(positions))]
        persons = jax.tree.map(lambda *fields: jnp.stack(fields), *persons)
        zero = jnp.zeros(len(positions))
        at = jnp.array(positions, jnp.float32)
        legs = jnp.zeros(len(positions), jnp.int32)
        walkers = crowd.Walkers(at, zero + 2.0, at, legs, zero, zero + 1.3, zero + 0.5)
        return embody(persons, walkers), persons.texture

    return stand


def light(*, sun=(0.6, 1.0, -0.3), strength=0.7, sky=0.3, softness=0.2):
    """A place with only its light set."""
    sun = jnp.array(sun) / jnp.linalg.norm(jnp.array(sun))
    return Place(**dict.fromkeys(Place._fields))._replace(
        sun=sun, sun_colour=jnp.full(3, strength), sky_colour=jnp.full(3, sky), sun_softness=jnp.float32(softness)
    )


def empty_ground():
    """White ground without walls, seen by the camera."""
    x, y, z = (np.asarray(each) for each in camera.rays(VIEW, BOX, **SMALL))
    distance = np.where(y < -1e-3, 3 / np.maximum(-y, 1e-3), 1e3)
    points = np.stack([distance * x, 0 * y, distance * z], axis=-1)
    return Backdrop(jnp.ones(points.shape), jnp.asarray(points, jnp.float32), jnp.asarray(y < -1e-3, jnp.float32))


def drawn(somebody, place, backdrop=None, **size):
    drawing = draw(*somebody, place, backdrop or empty_ground(), VIEW, BOX, **(size or SMALL))
    return jax.tree.map(np.asarray, drawing)


def visible(drawing):
    """The share of each person that is visible."""
    return np.array([(drawing.shown == number).sum() for number in range(len(drawing.alone))]) / drawing.alone


def row(group, number):
    return jax.tree.map(lambda field: field[number], group)


def test_the_nearest_of_all_people_is_shown_by_every_ray(stand):
    bodies, textures = stand((0.0, 6.0), (0.2, 7.0), (-0.4, 9.0))
    drawing = drawn((bodies, textures), light())
    rays = camera.rays(VIEW, BOX, height=SAMPLES * HEIGHT, width=SAMPLES * WIDTH)
    each = [trace(row(bodies.solids, number), tuple(VIEW.position), rays).distance for number in range(3)]
    distance = np.stack(each)
    nearest = np.where(distance.min(axis=0) < solids.FAR, distance.argmin(axis=0), NOBODY)
    # Rays that a tile computes differ in their last bits, which a ray along an edge may show.
    assert (drawing.shown != nearest).sum() <= 3
    np.testing.assert_allclose(drawing.alone, (distance < solids.FAR).sum(axis=(1, 2)), atol=3)
    assert len(np.unique(nearest)) == 4


def test_the_one_in_front_hides_the_one_behind_and_not_the_other_way_round(stand):
    for near in (0, 1):
        shares = visible(drawn(stand(*((0.1, 6.0 if number == near else 8.0) for number in range(2))), light()))
        assert shares[near] == 1
        assert 0 < shares[1 - near] < 0.7


def test_people_apart_are_visible_as_a_whole_and_their_samples_are_those_of_people(stand):
    drawing = drawn(stand((-1.5, 7.0), (0.0, 7.0), (1.5, 7.0)), light())
    np.testing.assert_array_equal(visible(drawing), 1)
    assert drawing.alone.sum() == (drawing.shown != NOBODY).sum() > 2000


@pytest.mark.parametrize("softness", [0.0, 1.0])
def test_one_person_is_drawn_as_in_a_picture_of_one_person(stand, softness):
    """Neighbouring pixels share their sun; where they show no person, a picture of one takes points far away."""
    bodies, textures = stand((0.3, 6.0))
    place = light(softness=softness)
    got = drawn((bodies, textures), place)
    nothing = jax.tree.map(lambda field: field[0, :0], bodies.solids)
    wanted = paint(row(bodies, 0), textures[0], nothing, jnp.ones((1, 3)), place, empty_ground(), VIEW, BOX)
    away = np.abs(got.picture - np.asarray(wanted.picture)).max(axis=-1)
    assert np.quantile(away, 0.99) < 0.01
    assert away.max() < 0.3


def test_tiles_leave_no_trace(stand, monkeypatch, traced_anew):
    somebody = stand((0.0, 6.0), (0.3, 7.0), (-0.9, 8.0))
    pictures = []
    for tile in (16, 32):
        monkeypatch.setattr(crowd, "TILE", tile)
        pictures.append(
            jax.jit(lambda *given: crowd.draw(*given, **SMALL))(*somebody, light(), empty_ground(), VIEW, BOX)
        )
    # Rays that graze somebody may fall to either side by rounding, which differs between programs.
    assert (pictures[0].shown == pictures[1].shown).mean() > 0.9999
    np.testing.assert_allclose(pictures[0].alone, pictures[1].alone, atol=4)
    assert (np.abs(pictures[0].picture - pictures[1].picture) < 0.005).mean() > 0.999


def test_rays_outside_of_a_frame_that_ends_within_a_tile_are_not_counted(stand):
    somebody = stand((0.0, 6.0), (1.2, 7.0))
    cut = dict(height=80, width=144)
    box = camera.Box(
        BOX.left, BOX.left + (BOX.right - BOX.left) * 0.9, BOX.top - (BOX.top - BOX.bottom) * 80 / 96, BOX.top
    )
    drawing = jax.tree.map(np.asarray, draw(*somebody, light(), empty_ground(), VIEW, box, **cut))
    whole = drawn(somebody, light())
    assert drawing.picture.shape == (80, 144, 3)
    inside = whole.shown[:160, :288]
    assert (drawing.shown == inside).mean() > 0.999
    np.testing.assert_allclose(visible(drawing), 1)
    assert drawing.alone[0] == pytest.approx((inside == 0).sum(), rel=0.01)


def test_people_cast_shadows_on_the_ground_and_on_each_other(stand):
    lit = light(sky=0.1)
    alone = drawn(stand((0.0, 7.0)), lit)
    ground = np.asarray(empty_ground().on_ground > 0) & ~covered(alone)
    left = np.asarray(empty_ground().ground)[..., 0] < -0.3  # away from the sun, which is at +x
    near = np.abs(np.asarray(empty_ground().ground)[..., 2] - 7.2) < 0.2
    assert alone.picture[ground & left & near].min() < 0.4
    right = np.asarray(empty_ground().ground)[..., 0] > 0.5
    assert alone.picture[ground & right & near].min() > 0.6
    # Somebody between a low sun and the person, who hides hardly anything of them from the camera.
    low = light(sun=(0.8, 0.3, -1.0), sky=0.1)
    alone, shaded = drawn(stand((0.0, 7.0)), low), drawn(stand((0.0, 7.0), (0.72, 6.1)), low)
    assert visible(shaded)[0] > 0.9
    both = covered(alone) & (shaded.shown[::2, ::2] == 0)
    assert shaded.picture[both].mean() < 0.8 * alone.picture[both].mean()


def covered(drawing):
    return (drawing.shown != NOBODY).reshape(HEIGHT, 2, WIDTH, 2).any(axis=(1, 3))


def test_boxes_hold_all_rays_that_meet_a_person_and_are_tight(stand):
    for x in (-2.0, 0.0, 2.5):
        somebody = stand((x, 6.0))
        shown = drawn(somebody, light()).shown == 0
        assert shown.sum() > 1000
        box = outline(VIEW, row(somebody[0].solids, 0))
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        left, right = ((np.array([box.left, box.right]) - BOX.left) / (BOX.right - BOX.left)) * SAMPLES * WIDTH
        top, bottom = ((BOX.top - np.array([box.top, box.bottom])) / (BOX.top - BOX.bottom)) * SAMPLES * HEIGHT
        for low, first, last, high in ((left, columns[0], columns[-1], right), (top, rows[0], rows[-1], bottom)):
            assert -0.51 < first - low < 2
            assert -0.51 < high - 1 - last < 2


@pytest.fixture(scope="module")
def place():
    return jax.jit(street.random_place)(jax.random.key(3))


def walked(place, *, frames=40, number=8, seed=0):
    key = jax.random.key(seed)
    states = [crowd.set_out(key, place, number)]
    for _ in range(frames):
        states.append(crowd.walk_on(key, states[-1], place))
    return jax.tree.map(lambda *fields: np.stack(fields), *states)


def test_people_walk_within_the_area_and_not_through_each_other(place):
    walk = walked(place)
    x, z = np.moveaxis(walk.position, -1, 0)
    assert np.abs(x).max() <= place.half_width
    assert place.near <= z.min() < z.max() <= place.far
    gaps = np.linalg.norm(walk.position[:, :, None] - walk.position[:, None], axis=-1) + 9 * np.eye(8)
    assert gaps.min() > 0.4
    assert walk.leg[-1].min() >= 1


def test_people_walk_where_they_face_without_jumps(place):
    walk = walked(place)
    steps = np.diff(walk.position, axis=0)
    lengths = np.linalg.norm(steps, axis=-1)
    assert lengths.max() < 1.5 / crowd.FRAME_RATE + 0.15
    assert np.median(lengths) > 0.9 / crowd.FRAME_RATE
    ahead = np.stack([np.sin(walk.yaw[1:]), np.cos(walk.yaw[1:])], axis=-1)
    assert np.median((steps * ahead).sum(-1) / lengths) > 0.95
    turns = np.abs((np.diff(walk.yaw, axis=0) + np.pi) % (2 * np.pi) - np.pi)
    assert turns.max() < 0.6
    assert (walked(place, frames=1, seed=1).position[0] != walk.position[0]).all()


def test_all_of_the_area_is_in_view_and_frames_have_square_pixels(place):
    view, box = jax.jit(lambda place: crowd.view_of(place, height=HEIGHT, width=WIDTH))(place)
    assert (box.right - box.left) / (box.top - box.bottom) == pytest.approx(WIDTH / HEIGHT, rel=1e-4)
    for x in (-place.half_width, place.half_width):
        for y in (0.0, 2.0):
            for z in (place.near, place.far):
                across, up = camera.project(view, jnp.stack([x, jnp.float32(y), z]))
                assert box.left < across < box.right
                assert box.bottom < up < box.top


@pytest.fixture(scope="module")
def world():
    return studio.make_world(jax.random.key(1), cameras=2, occlusion=0.0, sloppiness=0.0)


def frames_of(world, *, number=2, seen_by=0):
    return list(crowd.render_frames(world, camera=seen_by, people=PEOPLE, frames=number, height=90, width=160))


@pytest.mark.slow  # because of compilation
def test_frames_show_all_people_and_do_not_depend_on_their_number(world):
    frames = frames_of(world)
    for frame in frames:
        assert (frame.picture.shape, frame.picture.dtype) == ((90, 160, 3), np.uint8)
        np.testing.assert_array_equal(frame.person, range(PEOPLE))
        left, top, wide, tall = frame.box.T
        assert min(left.min(), top.min()) > 0
        assert (left + wide).max() < 160
        assert (top + tall).max() < 90
        assert (tall > 1.2 * wide).all()
        assert frame.visible.max() == 1
        assert frame.visible.min() > 0
    (alone,) = frames_of(world, number=1)
    for field, same in zip(alone, frames[0], strict=True):
        np.testing.assert_array_equal(field, same)
    assert (frames[0].picture != frames[1].picture).mean() > 0.3  # noise
    assert np.abs(frames[1].box - frames[0].box).max() > 1


@pytest.mark.slow  # because of compilation
def test_another_camera_shows_the_same_people_in_another_place(world, monkeypatch):
    asked = []

    def draw_people(dresser, numbers, **size):
        asked.append((jax.random.key_data(dresser).tolist(), numbers.tolist()))
        return drawing(dresser, numbers, **size)

    drawing = studio.draw_people
    monkeypatch.setattr(studio, "draw_people", draw_people)
    one, other = (frames_of(world, number=1, seen_by=seen_by)[0] for seen_by in (0, 1))
    assert asked == 2 * [(jax.random.key_data(world.people).tolist(), [0, 1, 2])]
    assert np.abs(one.picture.astype(int) - other.picture).mean() > 10
    assert np.abs(one.box - other.box).max() > 5
