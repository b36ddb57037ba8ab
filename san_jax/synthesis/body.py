"""Bodies: proportions, poses within the limits of the joints, and the solids that make up a posed body.

A skeleton of 20 joints (pelvis, waist, neck, head; and shoulder, elbow, wrist, fingers, hip, knee, ankle, toes on each
side) is covered by rounded cones; hair, skirt and bag are solids too. The surface of a solid is textured by one part of
the atlas.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from san_jax.synthesis import atlas
from san_jax.synthesis.solids import Solids, Vectors, turned
from san_jax.synthesis.wardrobe import Outfit

LEFT, RIGHT = 0, 1  # also the order of the pairs in a pose
SIDES = ("left", "right")


class Proportions(NamedTuple):
    """The shape of a body.

    Attributes:
      stature: height from sole to crown, in metres.
      girth: factor on the thickness of trunk and limbs.
      shoulders, hips: factors on the widths of shoulders and hips.
      legs: factor on the legs' share of the stature.
      bust: how far the bust stands out in front of the chest, in metres; 0 for none.
    """

    stature: Float[Array, ""]
    girth: Float[Array, ""]
    shoulders: Float[Array, ""]
    hips: Float[Array, ""]
    legs: Float[Array, ""]
    bust: Float[Array, ""]


class Pose(NamedTuple):
    """Angles of the joints, in radians; pairs are left, right. At 0 a body stands straight and its arms hang.

    Attributes:
      lean: of the trunk, forwards.
      twist: of the chest against the pelvis, to the left.
      nod, turn: of the head, downwards and to the left.
      hip, spread: of the thighs, forwards and outwards.
      knee: flexion.
      shoulder, lift: of the upper arms, forwards and outwards.
      elbow: flexion.
    """

    lean: Float[Array, ""]
    twist: Float[Array, ""]
    nod: Float[Array, ""]
    turn: Float[Array, ""]
    hip: Float[Array, "2"]
    spread: Float[Array, "2"]
    knee: Float[Array, "2"]
    shoulder: Float[Array, "2"]
    lift: Float[Array, "2"]
    elbow: Float[Array, "2"]


# Range of each angle in the street, in degrees; the joints themselves allow more.
LIMITS = Pose(
    lean=(-5, 25),
    twist=(-20, 20),
    nod=(-15, 40),
    turn=(-60, 60),
    hip=(-30, 55),
    spread=(0, 15),
    knee=(0, 75),
    shoulder=(-45, 80),
    lift=(3, 40),
    elbow=(0, 130),
)


class Skin(NamedTuple):
    """Maps points on the surfaces of solids to the atlas; one entry per solid.

    Attributes:
      frame, origin: map from the world to the frame of the part, in which the part is unrolled around y.
      low, high: y of the part's lower and upper end in that frame, in metres.
      part: index into `atlas.PARTS`; for a skirt, which covers four parts, that of the left thigh.
      skirt: whether the solid is a skirt, whose left half is mapped to the left leg and whose right half to the right.
    """

    frame: Float[Array, "*S 3 3"]
    origin: Float[Array, "*S 3"]
    low: Float[Array, "*S"]
    high: Float[Array, "*S"]
    part: Int32[Array, "*S"]
    skirt: Bool[Array, "*S"]


class Balls(NamedTuple):
    """Spheres that approximate a body for ambient occlusion; metres."""

    centre: Float[Array, "n 3"]
    radius: Float[Array, "n"]


class Body(NamedTuple):
    """A posed body in the world: its solids, their map to the atlas, and spheres that approximate it."""

    solids: Solids
    skin: Skin
    balls: Balls


def random_proportions(key: Key[Array, ""], female: Bool[Array, ""]) -> Proportions:
    """Proportions of an adult, thin to stout; the mean stature is 1.63 m for women and 1.76 m for men."""
    stature, girth, *rest = jax.random.normal(key, (5,))
    girth = jnp.exp(0.13 * jnp.clip(girth, -1.6, 2.2) + 0.02)
    shoulders, hips, legs = (jnp.clip(x, -2, 2) for x in rest)
    return Proportions(
        stature=jnp.where(female, 1.63, 1.76) + 0.065 * jnp.clip(stature, -2.3, 2.3),
        girth=girth,
        shoulders=jnp.where(female, 0.9, 1.03) + 0.04 * shoulders,
        hips=jnp.where(female, 1.04, 0.96) + 0.04 * hips,
        legs=1 + 0.025 * legs,
        bust=jnp.where(female, 0.02 + 0.03 * jnp.clip(girth - 0.8, 0, 0.5), 0.0),
    )


def random_pose(key: Key[Array, ""]) -> Pose:
    """A random moment of walking (two thirds) or standing; one in three people bends an arm or both in front."""
    kind, phase, small, arm = jax.random.split(key, 4)
    noise = jax.random.normal(small, (16,))
    walks = jax.random.uniform(kind) < 0.67
    pose = jax.tree.map(
        lambda walking, standing: jnp.where(walks, walking, standing),
        _walking(2 * jnp.pi * jax.random.uniform(phase), stride=1 + 0.15 * noise[0]),
        _standing(noise[1:7]),
    )
    return _carried(pose, arm, noise[7:15])


def walking_pose(phase: Float[Array, ""], *, stride: Float[Array, ""], carriage: Key[Array, ""]) -> Pose:
    """A moment of walking, by somebody who holds head and arms in the same way all the time.

    Args:
      phase: in radians; the cycle of two steps has the period 2 pi.
      stride: length of the steps; 1 is usual, near 0 the person stands.
      carriage: key of how head, trunk and arms are held, which one in three people bend in front of them.
    """
    arm, small = jax.random.split(carriage)
    return _carried(_walking(phase, stride), arm, jax.random.normal(small, (8,)))


def _carried(pose: Pose, arm: Key[Array, ""], noise: Float[Array, "8"]) -> Pose:
    """The pose with arms held as `_holding` does, and small deviations of trunk, head and arms."""
    pose = _holding(pose, arm)
    return within_limits(
        pose._replace(
            lean=pose.lean + 0.03 * noise[0],
            twist=pose.twist + 0.05 * noise[1],
            nod=pose.nod + 0.12 * noise[2],
            turn=0.25 * noise[3],
            lift=pose.lift + 0.05 * jnp.abs(noise[4:6]),
            elbow=pose.elbow + 0.1 * jnp.abs(noise[6:8]),
        )
    )


def _walking(phase: Float[Array, ""], stride: Float[Array, ""]) -> Pose:
    """A moment of the walking cycle; the left leg is foremost at a quarter of the cycle."""
    phases = phase + jnp.array([0, jnp.pi])
    swing = jnp.maximum(jnp.cos(phases + 0.4), 0)  # a leg that swings forward is bent
    return Pose(
        lean=jnp.deg2rad(4.0),
        twist=-jnp.deg2rad(7.0) * jnp.sin(phase),
        nod=jnp.deg2rad(5.0),
        turn=jnp.zeros(()),
        hip=stride * jnp.deg2rad(20 * jnp.sin(phases) + 6),
        spread=jnp.deg2rad(jnp.full(2, 2.0)),
        knee=stride * jnp.deg2rad(6 + 44 * swing**2),
        shoulder=-stride * jnp.deg2rad(22 * jnp.sin(phases)),
        lift=jnp.deg2rad(jnp.full(2, 8.0)),
        elbow=jnp.deg2rad(18 - 12 * jnp.sin(phases)),
    )


def _standing(noise: Float[Array, "6"]) -> Pose:
    return Pose(
        lean=jnp.deg2rad(1.0),
        twist=jnp.zeros(()),
        nod=jnp.deg2rad(8.0),
        turn=jnp.zeros(()),
        hip=jnp.deg2rad(3.0 + 3 * noise[:2]),
        spread=jnp.deg2rad(4.0 + 2 * jnp.abs(noise[2:4])),
        knee=jnp.deg2rad(4.0 + 3 * jnp.abs(noise[:2])),
        shoulder=jnp.deg2rad(2.0 + 5 * noise[4:]),
        lift=jnp.deg2rad(jnp.full(2, 8.0)),
        elbow=jnp.deg2rad(12.0 + 5 * jnp.abs(noise[4:])),
    )


def _holding(pose: Pose, key: Key[Array, ""]) -> Pose:
    """One arm or both, bent in front of the body with probability 0.35, as with a telephone, a parcel or a strap."""
    which, how = jax.random.split(key)
    bent = jnp.array([[0, 0], [0, 0], [1, 0], [0, 1], [1, 1]], bool)
    bent = bent[jax.random.choice(which, 5, p=jnp.array([0.4, 0.25, 0.12, 0.12, 0.11]))]
    bend = jax.random.uniform(how, (), minval=65.0, maxval=115.0)
    return pose._replace(
        shoulder=jnp.where(bent, jnp.deg2rad(bend / 4), pose.shoulder),
        elbow=jnp.where(bent, jnp.deg2rad(bend), pose.elbow),
    )


def within_limits(pose: Pose) -> Pose:
    """The pose with every angle clipped to LIMITS."""
    return Pose(*(jnp.clip(angle, *map(jnp.deg2rad, limits)) for angle, limits in zip(pose, LIMITS, strict=True)))


def build(
    proportions: Proportions,
    outfit: Outfit,
    pose: Pose,
    *,
    yaw: Float[Array, ""],
    position: Float[Array, "2"],
) -> Body:
    """A dressed body whose lowest point is on the ground.

    Args:
      proportions: shape of the body.
      outfit: only what changes the body's outline is used.
      pose: angles of the joints.
      yaw: direction that the body faces, in radians; 0 along z, pi/2 along x.
      position: x and z of the pelvis, in metres.
    """
    builder = _Builder(proportions, outfit)
    pelvis = _turn_y(yaw)
    builder.trunk(pelvis, pose)
    builder.head(pose)
    for side in (LEFT, RIGHT):
        builder.arm(side, pose)
        builder.leg(side, pelvis, pose)
    builder.skirt(pelvis, pose)
    builder.bag(pelvis)
    return builder.body(position)


class _Piece(NamedTuple):
    """A solid between two points. The frames of all pieces are computed at once, which compiles ten times faster."""

    lower: Float[Array, "3"]
    upper: Float[Array, "3"]
    front: Float[Array, "3"]  # direction of its z axis, which is made orthogonal to the line between the points
    bottom: Float[Array, ""]
    top: Float[Array, ""]
    across: Float[Array, ""]  # factors on its size along its x and z axes
    depth: Float[Array, ""]
    capped: Float[Array, ""]
    part: Int32[Array, ""]


class _Builder:
    """Collects the pieces of a body whose pelvis is at the origin. Lengths are fractions of the stature."""

    def __init__(self, proportions: Proportions, outfit: Outfit):
        self.shape, self.outfit = proportions, outfit
        self.wide = proportions.girth * outfit.trunk_width
        self.hips = 0.093 * proportions.hips * self.wide
        self.pieces: list[_Piece] = []
        self.skins: dict[int, Skin] = {}  # by piece; of those that are not unrolled around their own axis
        self.joints: dict[str, Array] = {}
        self.frames: dict[str, Array] = {}
        self.balls: list[tuple] = []

    def trunk(self, pelvis, pose):
        """Adds the lower and the upper trunk, each unrolled around its own axis, the bust and the shoulders."""
        shape, wide = self.shape, self.wide
        spine = pelvis @ _turn_x(pose.lean)
        chest = spine @ _turn_y(pose.twist) @ _turn_x(0.3 * pose.lean)
        waist = 0.085 * spine[:, 1]
        neck = waist + _at(chest, 0, 0.215, -0.005)
        girdle = 0.098 * shape.shoulders
        self.frames["chest"] = chest
        self.joints |= {"waist": waist, "neck": neck}
        lower = self.skin("trunk", spine, jnp.zeros(3), low=-0.06, high=0.31)
        upper = self.skin("trunk", chest, waist, low=-0.145, high=0.225)
        bottom, top = _at(spine, 0, 0.02, 0), _at(spine, 0, 0.095, 0)
        self.put(bottom, top, spine, self.hips, 0.083 * wide, depth=0.74, skin=lower)
        bottom, top = waist - _at(chest, 0, 0.01, 0), waist + _at(chest, 0, 0.115, 0)
        self.put(bottom, top, chest, 0.080 * wide, 0.92 * girdle * wide, depth=0.68, skin=upper)
        bust = waist + _at(chest, 0, 0.115, 0.032 + shape.bust / shape.stature)
        self.put(bust, bust, chest, jnp.where(shape.bust > 0, 0.036 * wide, 0), across=1.75, skin=upper)
        thick = 0.034 * jnp.sqrt(wide)
        for name, sign in zip(SIDES, (1, -1), strict=True):
            shoulder = neck + _at(chest, sign * 0.092 * shape.shoulders, -0.034, 0)
            self.put(shoulder, neck + _at(chest, sign * 0.022, -0.016, -0.004), chest, thick, 0.95 * thick, skin=upper)
            self.joints |= {f"{name}_shoulder": shoulder, f"{name}_hip": _at(pelvis, sign * 0.052 * shape.hips, 0, 0)}
        self.balls += [
            (jnp.zeros(3), 0.75 * self.hips),
            (waist, 0.065 * wide),
            (waist + _at(chest, 0, 0.11, 0), 0.8 * girdle * wide),
        ]

    def head(self, pose):
        """Adds neck, head and nose; and the hair, a cap that leaves the face free and a part that hangs down behind."""
        chest, neck = self.frames["chest"], self.joints["neck"]
        head = chest @ _turn_y(pose.turn) @ _turn_x(pose.nod)
        base = neck + _at(head, 0, 0.022, 0.010)
        self.put(neck - _at(chest, 0, 0.025, 0), base + _at(head, 0, 0.02, 0), head, 0.037, 0.033, part="neck")
        skin = self.skin("head", head, base, low=-0.012, high=0.135)
        jaw, skull = base + _at(head, 0, 0.026, 0.012), base + _at(head, 0, 0.077, 0.012)
        self.put(jaw, skull, head, 0.036, 0.055, across=0.8, skin=skin)
        nose, bridge = base + _at(head, 0, 0.045, 0.058), base + _at(head, 0, 0.063, 0.060)
        self.put(nose, bridge, head, 0.008, 0.005, across=0.8, skin=skin)
        length, volume = self.outfit.hair_length, self.outfit.hair_volume / self.shape.stature
        cap = base + _at(head, 0, 0.084, -0.001 - volume)
        self.put(cap, cap, head, 0.055 + volume, across=0.82, skin=skin)
        root = base + _at(head, 0, 0.075, -0.012)
        end = base + _at(head, 0, 0.075, -0.024) - _at(chest, 0, 0.19, 0.023) * length
        thin, thick = jnp.where(length > 0.1, jnp.stack([jnp.float32(0.034), 0.048 + 0.5 * volume]), 0)
        self.put(end, root, head, thin, thick, across=1.05, skin=skin)
        self.balls.append((base + _at(head, 0, 0.065, 0), 0.055))

    def arm(self, side, pose):
        """Adds upper arm, forearm and hand; the forearm hangs slightly inwards and the palm faces the thigh."""
        name, outwards = SIDES[side], 1 - 2 * side
        thick = jnp.sqrt(self.shape.girth) * self.outfit.sleeve_width
        upper = self.frames["chest"] @ _turn_z(outwards * pose.lift[side]) @ _turn_x(-pose.shoulder[side])
        inwards = _turn_z(-0.6 * outwards * pose.lift[side]) @ _turn_y(-0.35 * outwards)
        fore = upper @ inwards @ _turn_x(-pose.elbow[side])
        shoulder = self.joints[f"{name}_shoulder"]
        elbow = shoulder - _at(upper, 0, 0.168, 0)
        wrist = elbow - _at(fore, 0, 0.142, 0)
        fingers = wrist - _at(fore, 0, 0.075, 0)
        self.joints[f"{name}_fingers"] = fingers
        self.put(elbow, shoulder, upper, 0.0265 * thick, 0.0335 * thick, part=f"{name}_upper_arm")
        self.put(wrist, elbow, fore, 0.0185 * thick, 0.0265 * thick, part=f"{name}_forearm")
        self.put(fingers, wrist - _at(fore, 0, 0.02, 0), fore, 0.0145, 0.0215, across=0.6, part=f"{name}_hand")
        self.balls += [((shoulder + elbow) / 2, 0.032 * thick), ((elbow + wrist) / 2, 0.024 * thick)]

    def leg(self, side, pelvis, pose):
        """Adds thigh, shin and foot; the foot's angle is between flat on the ground and perpendicular to the shin."""
        name, outwards = SIDES[side], 1 - 2 * side
        thick = jnp.sqrt(self.shape.girth) * self.outfit.leg_width
        thigh = pelvis @ _turn_z(outwards * pose.spread[side]) @ _turn_x(-pose.hip[side])
        shin = thigh @ _turn_x(pose.knee[side])
        foot = shin @ _turn_x(0.6 * (pose.hip[side] - pose.knee[side])) @ _turn_y(0.1 * outwards)
        hip = self.joints[f"{name}_hip"]
        knee = hip - _at(thigh, 0, 0.24, 0) * self.shape.legs
        ankle = knee - _at(shin, 0, 0.235, 0) * self.shape.legs
        heel = ankle - _at(foot, 0, 0.018, 0.012)
        toes = heel + _at(foot, 0, -0.007, 0.108)
        self.joints |= {f"{name}_heel": heel, f"{name}_toes": toes}
        self.put(knee, hip, thigh, 0.0365 * thick, 0.055 * thick * jnp.sqrt(self.shape.girth), part=f"{name}_thigh")
        self.put(ankle, knee, shin, 0.0255 * thick, 0.0365 * thick, depth=1.1, part=f"{name}_shin")
        # Feet are unrolled around their length; the instep counts as the front.
        instep = jnp.stack([foot[:, 0], -foot[:, 2], foot[:, 1]], axis=1)
        self.put(toes, heel, instep, 0.0185, 0.0225, across=1.1, part=f"{name}_foot")
        self.balls += [((hip + knee) / 2, 0.05 * thick), ((knee + ankle) / 2, 0.037 * thick), ((heel + toes) / 2, 0.03)]

    def skirt(self, pelvis, pose):
        """Adds a skirt, which hangs from the hips; its hem is wider in a long stride."""
        outfit, thigh = self.outfit, 0.24 * self.shape.legs
        length = outfit.skirt * thigh + 0.06
        stride = jnp.abs(jnp.sin(pose.hip[LEFT]) - jnp.sin(pose.hip[RIGHT])) / 2
        hanging = pelvis @ _turn_x(-0.5 * jnp.mean(pose.hip))
        top = _at(hanging, 0, 0.05, 0)
        hem = self.hips * outfit.flare + 0.25 * stride * length
        skin = self.skin("left_thigh", hanging, jnp.zeros(3), low=-thigh, high=0.0, skirt=True)
        hem, waist = jnp.where(outfit.skirt > 0, jnp.stack([hem, self.hips]), 0)
        self.put(top - hanging[:, 1] * length, top, hanging, hem, waist, depth=0.82, capped=False, skin=skin)

    def bag(self, pelvis):
        """Adds a bag on the back, at the right hip or in the right hand."""
        chest, sideways = self.frames["chest"], pelvis @ _turn_y(jnp.pi / 2)
        on_back = self.joints["waist"] + _at(chest, 0, 0.045, -0.04 - 0.068 * self.wide)
        at_hip = _at(pelvis, -0.115 * self.shape.hips * self.shape.girth, -0.02, 0.01)
        in_hand = self.joints["right_fingers"] - jnp.array([0, 0.17, 0])
        kind = jnp.clip(self.outfit.bag - 1, 0, 2)
        frame = jnp.stack([chest, sideways, sideways])[kind]
        place = jnp.stack([on_back, at_hip, in_hand])[kind]
        width, length, depth = jnp.array([[0.085, 0.1, 0.62], [0.085, 0.06, 0.42], [0.095, 0.08, 0.4]])[kind]
        width = jnp.where(self.outfit.bag > 0, width, 0)
        skin = self.skin("bag", frame, place, low=-width, high=length + width)
        self.put(place, place + frame[:, 1] * length, frame, width, 0.9 * width, depth=depth, skin=skin)

    def put(self, lower, upper, frame, bottom, top=None, *, part=None, skin=None, across=1.0, depth=1.0, capped=True):
        """Adds a solid, or a ball if `upper` is `lower`; it is unrolled around its own axis unless `skin` is given."""
        if upper is lower:
            upper, top = lower + 1e-4 * frame[:, 1], bottom
        if skin is not None:
            self.skins[len(self.pieces)] = skin
        number = jnp.int32(atlas.PARTS.index(part) if skin is None else 0)
        numbers = (jnp.asarray(x, jnp.float32) for x in (bottom, top, across, depth, capped))
        self.pieces.append(_Piece(lower, upper, frame[:, 2], *numbers, number))

    def skin(self, part, frame, origin, *, low, high, skirt=False):
        """The map to the atlas of a solid whose part is unrolled around another axis than the solid's own."""
        low, high = (jnp.asarray(x, jnp.float32) for x in (low, high))
        return Skin(frame.T, origin, low, high, jnp.int32(atlas.PARTS.index(part)), jnp.asarray(skirt))

    def body(self, position) -> Body:
        """The body in metres, standing on the ground."""
        pieces = jax.tree.map(lambda *fields: jnp.stack(fields), *self.pieces)
        line = pieces.upper - pieces.lower
        length = jnp.linalg.norm(line, axis=-1)
        up = line / length[:, None]
        right = jnp.cross(up, pieces.front)
        right = right / jnp.linalg.norm(right, axis=-1, keepdims=True)
        frame = jnp.stack([right, up, jnp.cross(right, up)], axis=1)
        squash = jnp.stack([pieces.across, jnp.ones(len(length)), pieces.depth], axis=-1)
        low, high = -0.6 * pieces.bottom, length + 0.4 * pieces.top
        skin = Skin(frame, pieces.lower, low, high, pieces.part, jnp.zeros(len(length), bool))
        places = jnp.array(list(self.skins))
        skin = jax.tree.map(lambda own, *given: own.at[places].set(jnp.stack(given)), skin, *self.skins.values())
        solids = Solids(frame / squash[..., None], pieces.lower, pieces.bottom, pieces.top, length, pieces.capped)
        soles = jnp.stack([self.joints[f"{name}_{end}"][1] for name in SIDES for end in ("heel", "toes")])
        moved = jnp.stack([position[0], self.shape.stature * (0.021 - jnp.min(soles)), position[1]])
        return self.placed(solids, skin, moved)

    def placed(self, solids, skin, moved) -> Body:
        """The body, scaled from fractions of the stature to metres and moved."""
        unit = self.shape.stature
        centres, radii = zip(*self.balls, strict=True)
        return Body(
            Solids(solids.frame, unit * solids.origin + moved, *(unit * x for x in solids[2:5]), solids.capped),
            skin._replace(origin=unit * skin.origin + moved, low=unit * skin.low, high=unit * skin.high),
            Balls(unit * jnp.stack(centres) + moved, unit * jnp.array(radii, jnp.float32)),
        )


def _at(frame: Float[Array, "3 3"], x, y, z) -> Float[Array, "3"]:
    """A vector given in a frame: x to the left, y upwards, z to the front."""
    return frame[:, 0] * x + frame[:, 1] * y + frame[:, 2] * z


def locate(
    skin: Skin, solid: Int32[Array, "*n"], points: Vectors
) -> tuple[Int32[Array, "*n"], Float[Array, "*n"], Float[Array, "*n"]]:
    """The part of the atlas, the angle around it and the height along it, for points on surfaces.

    Args:
      skin: of all solids.
      solid: index of the solid on whose surface each point lies.
      points: in the world, in metres.

    Returns:
      Index into `atlas.PARTS`; angle in radians, 0 in front and pi/2 on the left; height, 0 at the lower end to 1 at
      the upper end.
    """
    moved = tuple(point - origin[solid] for point, origin in zip(points, skin.origin.T, strict=True))
    x, y, z = turned(jnp.moveaxis(skin.frame, 0, -1)[..., solid], moved)
    low, high, part = skin.low[solid], skin.high[solid], skin.part[solid]
    angle, along = jnp.arctan2(x, z), (y - low) / (high - low)
    # A skirt continues below the knee, and from the left leg to the right.
    below, skirt = along < 0, skin.skirt[solid]
    part = jnp.where(skirt, part + (x < 0) + 2 * below, part)
    return part, angle, jnp.clip(jnp.where(skirt & below, along + 1, along), 0, 1)


def _turn_x(angle: float | Float[Array, ""]) -> Float[Array, "3 3"]:
    """Rotation about x, which turns y towards z."""
    return _turn(angle, 1, 2)


def _turn_y(angle: float | Float[Array, ""]) -> Float[Array, "3 3"]:
    """Rotation about y, which turns z towards x."""
    return _turn(angle, 2, 0)


def _turn_z(angle: float | Float[Array, ""]) -> Float[Array, "3 3"]:
    """Rotation about z, which turns x towards y."""
    return _turn(angle, 0, 1)


def _turn(angle: float | Float[Array, ""], first: int, second: int) -> Float[Array, "3 3"]:
    quarter = np.zeros((3, 3), np.float32)
    quarter[second, first], quarter[first, second] = 1, -1
    return np.eye(3, dtype=np.float32) + jnp.sin(angle) * quarter + (1 - jnp.cos(angle)) * (quarter @ quarter)
