import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.synthesis import atlas, body, solids, wardrobe
from san_jax.synthesis.body import LIMITS, Pose

BODIES = 128
LIMBS = [f"{side}_{part}" for side in ("left", "right") for part in ("thigh", "shin", "upper_arm", "forearm", "hand")]


build = jax.jit(body.build)
build_all = jax.jit(jax.vmap(lambda *which, yaw, position: body.build(*which, yaw=yaw, position=position)))
trace, locate = jax.jit(solids.trace), jax.jit(body.locate)


def number(part):
    return atlas.PARTS.index(part)


def keys(seed):
    return jax.random.split(jax.random.key(seed), BODIES)


@pytest.fixture(scope="module")
def outfits():
    return jax.jit(jax.vmap(wardrobe.random_outfit))(keys(0), keys(1))


@pytest.fixture(scope="module")
def shapes(outfits):
    return jax.jit(jax.vmap(body.random_proportions))(keys(2), outfits.female)


@pytest.fixture(scope="module")
def poses():
    return jax.jit(jax.vmap(body.random_pose))(keys(3))


@pytest.fixture(scope="module")
def bodies(shapes, outfits, poses):
    """Many bodies, facing all directions, one metre from the origin."""
    yaw = jnp.linspace(0, 2 * jnp.pi, BODIES)
    position = jnp.stack([jnp.sin(yaw), jnp.cos(yaw)], axis=-1)
    return jax.tree.map(np.asarray, build_all(shapes, outfits, poses, yaw=yaw, position=position))


def upright(**changes):
    """A pose with arms and legs straight down, except for the given angles."""
    pairs = ("hip", "spread", "knee", "shoulder", "lift", "elbow")
    still = {name: jnp.zeros(2 if name in pairs else ()) for name in Pose._fields}
    return Pose(**still | {name: jnp.asarray(angle, jnp.float32) for name, angle in changes.items()})


def one(group, index=0):
    return jax.tree.map(lambda field: jnp.asarray(field[index]), group)


@pytest.fixture(scope="module")
def dressed(shapes, outfits):
    """Builds a body at the origin from the first shape and outfit, with some fields of the outfit changed."""

    def dressed(pose, *, yaw=0.0, **changes):
        outfit = one(outfits)
        changes = dict(skirt=0, bag=wardrobe.NO_BAG, hair_length=0) | changes
        changes = {name: jnp.asarray(value, getattr(outfit, name).dtype) for name, value in changes.items()}
        outfit = outfit._replace(**changes)
        return jax.tree.map(np.asarray, build(one(shapes), outfit, pose, yaw=jnp.float32(yaw), position=jnp.zeros(2)))

    return dressed


def reaches(group):
    """World points of both end balls of every solid, and its vertical extent from there; NaN for absent solids."""
    axes = np.linalg.inv(np.asarray(group.frame, np.float64))
    upper = group.origin + axes[..., 1] * group.length[..., None]
    # Without caps the discs at the ends remain.
    upwards = axes[..., 1, :] * np.stack([np.ones_like(group.capped), group.capped, np.ones_like(group.capped)], -1)
    there = np.where((group.bottom > 0) | (group.top > 0), np.linalg.norm(upwards, axis=-1), np.nan)
    return np.stack([group.origin, upper]), np.stack([group.bottom, group.top]) * there


def grid(points=64, reach=1.0):
    """Rays along -z towards the front of a body at the origin; with `reach` -1 along +z, towards its back."""
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, points), np.linspace(0.01, 2, points))
    starts = tuple(map(jnp.asarray, (x, y, np.full_like(x, 5 * reach))))
    return starts, tuple(map(jnp.asarray, (0 * x, 0 * x, np.full_like(x, -reach))))


def seen(person, **view):
    """Part, angle and height along the part where rays meet the body, the points, and whether they meet it."""
    starts, directions = grid(**view)
    hits = trace(person.solids, starts, directions)
    points = tuple(start + hits.distance * step for start, step in zip(starts, directions, strict=True))
    return *map(np.asarray, locate(person.skin, hits.solid, points)), points, np.asarray(hits.distance < solids.FAR)


def test_joints_stay_within_their_limits(poses):
    for name, angle in poses._asdict().items():
        low, high = np.deg2rad(getattr(LIMITS, name))
        assert low - 1e-6 <= angle.min() <= angle.max() <= high + 1e-6, name
        assert angle.std() > 0.01, name


def test_angles_beyond_the_limits_are_moved_into_them():
    far = Pose(*(jnp.full(angle.shape, 9.0) for angle in upright()))
    for sign, end in ((1, 1), (-1, 0)):
        moved = body.within_limits(jax.tree.map(lambda angle, sign=sign: sign * angle, far))
        for name, angle in moved._asdict().items():
            np.testing.assert_allclose(angle, np.deg2rad(getattr(LIMITS, name)[end]), rtol=1e-6)


def test_statures_are_those_of_adults(outfits, shapes):
    female, stature = np.asarray(outfits.female) > 0, np.asarray(shapes.stature)
    assert stature[female].mean() == pytest.approx(1.63, abs=0.03)
    assert stature[~female].mean() == pytest.approx(1.76, abs=0.03)
    assert 1.45 < stature.min() < stature.max() < 1.95
    assert (np.asarray(shapes.bust)[~female] == 0).all()
    assert (np.asarray(shapes.bust)[female] > 0).all()


def test_bodies_are_finite_for_every_key(bodies):
    assert all(np.isfinite(field).all() for field in jax.tree.leaves(bodies))


def test_lowest_point_is_on_the_ground(bodies):
    points, reach = reaches(bodies.solids)
    lowest = np.nanmin(points[..., 1] - reach, axis=(0, 2))
    assert lowest.shape == (BODIES,)
    assert -0.005 < lowest.min() < lowest.max() < 0.01


def test_top_of_the_head_is_at_the_stature(dressed, shapes):
    points, reach = reaches(dressed(upright()).solids)
    assert np.nanmax(points[..., 1] + reach) == pytest.approx(float(shapes.stature[0]), rel=0.03)


def test_body_stands_at_its_position(bodies):
    around = np.linspace(0, 2 * np.pi, BODIES)
    trunk = bodies.solids.origin[:, 0]  # the pelvis
    np.testing.assert_allclose(trunk[:, 0], np.sin(around), atol=0.03)
    np.testing.assert_allclose(trunk[:, 2], np.cos(around), atol=0.03)


def test_body_faces_its_yaw(dressed):
    pose = upright(hip=[0.3, -0.2], elbow=[1, 0.2])
    x, y, z = np.moveaxis(dressed(pose).solids.origin, -1, 0)
    to_x = dressed(pose, yaw=np.pi / 2).solids.origin
    np.testing.assert_allclose(to_x, np.stack([z, y, -x], axis=-1), atol=1e-5)


def test_limbs_keep_their_lengths_in_every_pose(shapes, outfits, poses):
    def same_person(field):
        return jnp.broadcast_to(field[0], field.shape)

    shape, outfit = jax.tree.map(same_person, (shapes, outfits))
    nowhere = dict(yaw=jnp.zeros(BODIES), position=jnp.zeros((BODIES, 2)))
    built = build_all(shape, outfit, poses, **nowhere)
    unskirted = ~np.asarray(built.skin.skirt[0])
    limbs = unskirted & np.isin(built.skin.part[0], [number(part) for part in LIMBS])
    assert limbs.sum() == len(LIMBS)
    for field in (built.solids.length, built.solids.bottom, built.solids.top):
        np.testing.assert_allclose(field[:, limbs], np.tile(field[:1, limbs], (BODIES, 1)), rtol=1e-4)
    assert np.ptp(np.asarray(built.solids.origin)[:, limbs], axis=0).max() > 0.1


def test_limbs_are_connected_at_the_joints(bodies):
    """An upper arm's lower end is the forearm's upper end, a thigh's the shin's; heels are near the shins."""
    lower, upper = reaches(bodies.solids)[0]
    place = {
        part: np.flatnonzero((bodies.skin.part[0] == number(part)) & ~bodies.skin.skirt[0]) for part in atlas.PARTS
    }
    for side in ("left", "right"):
        for above, below in (("upper_arm", "forearm"), ("thigh", "shin")):
            end, start = lower[:, place[f"{side}_{above}"]], upper[:, place[f"{side}_{below}"]]
            np.testing.assert_allclose(end, start, atol=1e-4)
        heel, ankle = upper[:, place[f"{side}_foot"]], lower[:, place[f"{side}_shin"]]
        assert np.linalg.norm(heel - ankle, axis=-1).max() < 0.06


def test_mirrored_pose_gives_the_mirrored_body(dressed):
    pose = upright(twist=0.2, turn=0.4, hip=[0.5, -0.2], spread=[0.1, 0.2], knee=[0.8, 0.1], shoulder=[0.9, -0.3],
                   lift=[0.1, 0.5], elbow=[0.3, 1.8])  # fmt: skip
    swapped = {name: angle[::-1] for name, angle in pose._asdict().items() if angle.ndim}
    mirrored = dressed(pose._replace(twist=-pose.twist, turn=-pose.turn, **swapped))
    part, angle, along, points, met = seen(dressed(pose))
    other_part, other_angle, other_along, other_points, other_met = (
        x[:, ::-1] if isinstance(x, np.ndarray) else [np.asarray(plane)[:, ::-1] for plane in x] for x in seen(mirrored)
    )
    assert met.mean() > 0.1
    assert (met != other_met).mean() < 2e-3  # rounding at the outline
    both = met & other_met
    depth = np.abs(np.asarray(points[2]) - other_points[2])[both]
    assert np.quantile(depth, 0.99) < 1e-3
    swap = {number(a): number(b) for a, b in zip(atlas.PARTS, map(other_side, atlas.PARTS), strict=True)}
    same = both & (np.vectorize(swap.get)(part) == other_part)
    assert same.sum() > 0.99 * both.sum()
    turned_back = np.abs(np.angle(np.exp(1j * (angle + other_angle))))[same]
    assert np.quantile(turned_back, 0.99) < 1e-2
    assert np.quantile(np.abs(along - other_along)[same], 0.99) < 1e-2


def other_side(part):
    sides = {"left": "right", "right": "left"}
    side, _, rest = part.partition("_")
    return f"{sides[side]}_{rest}" if side in sides else part


def test_positive_angles_move_the_parts_in_the_expected_directions(dressed):
    def place_of(part, **angles):
        person = dressed(upright(**angles))
        where = np.flatnonzero((person.skin.part == number(part)) & ~person.skin.skirt)[-1]
        return person.solids.origin[where] - person.solids.origin[0]

    def moved(part, **angles):
        return place_of(part, **angles) - place_of(part)

    left, up, front = np.eye(3)
    assert moved("left_shin", hip=[0.5, 0]) @ front > 0.2
    assert moved("left_shin", spread=[0.2, 0]) @ left > 0.1
    assert moved("right_shin", spread=[0, 0.2]) @ left < -0.1
    assert moved("left_shin", knee=[0.8, 0]) @ front < -0.2
    assert moved("left_forearm", shoulder=[0.5, 0]) @ front > 0.1
    assert moved("right_forearm", lift=[0, 0.4]) @ left < -0.1
    assert moved("left_hand", elbow=[1.5, 0]) @ front > 0.15
    assert moved("left_hand", elbow=[1.5, 0]) @ up > 0.15
    assert moved("head", lean=0.3) @ front > 0.1
    assert np.abs(moved("left_shin", hip=[0, 0.5], knee=[0, 0.5], elbow=[1, 1])).max() < 1e-4


def test_front_of_the_trunk_is_at_angle_zero_and_its_left_at_a_quarter_turn(dressed):
    part, angle, _, points, met = seen(dressed(upright()))
    trunk = met & (part == number("trunk"))
    assert trunk.sum() > 100
    assert (np.abs(angle[trunk]) < np.pi / 2 + 0.1).all()
    x = np.asarray(points[0])
    assert np.corrcoef(x[trunk], angle[trunk])[0, 1] > 0.9
    part, angle, _, _, met = seen(dressed(upright()), reach=-1.0)
    trunk = met & (part == number("trunk"))
    assert (np.abs(angle[trunk]) > np.pi / 2 - 0.1).all()


def test_coordinate_along_a_part_grows_with_height(dressed):
    part, _, along, points, met = seen(dressed(upright(lift=[0.4, 0.4])))
    for name in ("head", "trunk", "left_thigh", "right_shin", "left_upper_arm", "right_forearm"):
        mine = met & (part == number(name))
        assert mine.sum() >= 20, name
        assert np.corrcoef(np.asarray(points[1])[mine], along[mine])[0, 1] > 0.95, name
        assert 0 <= along[mine].min() < 0.35, name
        assert 0.65 < along[mine].max() <= 1, name


def test_left_half_of_a_skirt_is_mapped_to_the_left_leg_and_its_lower_end_to_the_shin(dressed):
    person = dressed(upright(), skirt=1.6)
    skirt = int(np.flatnonzero(person.skin.skirt)[0])
    hem = person.solids.origin[skirt, 1]
    angle, height = np.meshgrid(np.linspace(-3, 3, 40), np.linspace(0, person.solids.length[skirt], 31))
    points = tuple(jnp.asarray(x) for x in (0.2 * np.sin(angle), hem + height, 0.2 * np.cos(angle)))
    part, found, along = map(np.asarray, locate(person.skin, jnp.full(angle.shape, skirt), points))
    knee = person.skin.origin[skirt, 1] + person.skin.low[skirt]
    left, below = angle > 0, hem + height < knee
    assert 0.2 < below.mean() < 0.5
    for leg, mine in (("left", left), ("right", ~left)):
        np.testing.assert_array_equal(part[mine & below], number(f"{leg}_shin"))
        np.testing.assert_array_equal(part[mine & ~below], number(f"{leg}_thigh"))
    np.testing.assert_allclose(found, angle, atol=1e-4)
    upwards = np.diff(along, axis=0)
    within = np.diff(below.astype(int), axis=0) == 0
    assert (upwards[within] >= 0).all()
    assert (upwards[~within] < -0.5).all()  # from the top of the shin to the bottom of the thigh


@pytest.mark.parametrize("changes", [dict(skirt=1), dict(bag=wardrobe.BACKPACK), dict(hair_length=0.8)])
def test_skirt_backpack_and_long_hair_each_add_one_solid(dressed, changes):
    def solids_there(person):
        return ((person.solids.bottom > 0) | (person.solids.top > 0)).sum()

    assert solids_there(dressed(upright(), **changes)) == solids_there(dressed(upright())) + 1


def test_bags_hang_where_they_are_carried(dressed):
    def bag(kind):
        person = dressed(upright(), bag=kind)
        return person.solids.origin[person.skin.part == number("bag")][0] - person.solids.origin[0]

    backpack, shoulder_bag, hand_bag = map(bag, (wardrobe.BACKPACK, wardrobe.SHOULDER_BAG, wardrobe.HAND_BAG))
    assert backpack[1] > 0.1
    assert backpack[2] < -0.1
    assert shoulder_bag[0] < -0.1
    assert hand_bag[0] < -0.1
    assert hand_bag[1] < shoulder_bag[1] - 0.1


def test_spheres_for_ambient_occlusion_do_not_reach_beyond_head_and_ground(bodies):
    low, high = (bodies.balls.centre[..., 1] + sign * bodies.balls.radius for sign in (-1, 1))
    points, reach = reaches(bodies.solids)
    assert low.min() > -0.03
    assert (high.max(axis=1) < np.nanmax(points[..., 1] + reach, axis=(0, 2)) + 0.02).all()


def test_a_walk_keeps_its_carriage_and_repeats_after_a_cycle():
    walk = jax.jit(jax.vmap(lambda phase, key: body.walking_pose(phase, stride=jnp.float32(1), carriage=key)))
    phases = jnp.linspace(0, 2 * jnp.pi, BODIES)
    for seed in range(3):
        pose = jax.tree.map(np.asarray, walk(phases, jnp.broadcast_to(jax.random.key(seed), (BODIES,))))
        for steady in (pose.nod, pose.turn, pose.lean):
            assert np.ptp(steady) < 1e-6
        assert np.ptp(pose.hip, axis=0).min() > 0.5
        for angle in pose:
            np.testing.assert_allclose(angle[0], angle[-1], atol=1e-5)
            assert np.abs(np.diff(angle, axis=0)).max() < 0.12  # no jumps
    nods = walk(jnp.zeros(BODIES), keys(6)).nod
    assert np.std(nods) > 0.05
