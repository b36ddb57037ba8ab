"""Things: objects that stand in a street and cast shadows, and occluders between a camera and a person.

A thing consists of up to five solids. Colours are linear light; the gamma of sRGB is taken as a square.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from san_jax.synthesis.dice import Dice
from san_jax.synthesis.solids import FAR, Solids, Vectors

PARTS_OF_A_THING = 5
THINGS_IN_SIGHT = 4  # things rendered in one picture, which is hardly wider than a person


class Things(NamedTuple):
    """The things of a place: trees, cars, bins, people in the distance.

    Attributes:
      solids: PARTS_OF_A_THING in a row for each thing.
      colours: colour of each solid, linear light.
      leafy: 1 for solids that show leaves, else 0.
      at: x and z of each thing on the ground, in metres.
      radius, height: of the upright cylinder that casts the thing's shadow, in metres.
    """

    solids: Solids
    colours: Float[Array, "S 3"]
    leafy: Float[Array, "S"]
    at: Float[Array, "T 2"]
    radius: Float[Array, "T"]
    height: Float[Array, "T"]


# Paints of parts: MAIN and SECOND are random for each thing, the others are nearly the same everywhere.
MAIN, SECOND, DARK, GLASS, METAL, WOOD, LEAF, LIGHT_LEAF, SOIL, SKIN, WHITE, ORANGE = range(12)
_PAINTS = np.square([
    (0.13, 0.13, 0.14), (0.17, 0.20, 0.23), (0.52, 0.53, 0.54), (0.36, 0.30, 0.24), (0.23, 0.32, 0.15),
    (0.36, 0.44, 0.20), (0.32, 0.26, 0.20), (0.74, 0.56, 0.46), (0.82, 0.82, 0.80), (0.86, 0.42, 0.16),
]).astype(np.float32)  # fmt: skip


class _Part(NamedTuple):
    """One solid of a thing, in the thing's own frame: x along, y up, z across; fields as in Solids, and its paint."""

    frame: np.ndarray
    origin: np.ndarray
    bottom: np.ndarray
    top: np.ndarray
    length: np.ndarray
    paint: np.ndarray


def _part(start, end, bottom, top, paint: int, *, wide=1.0, thick=1.0, high=1.0) -> _Part:
    """A rounded cone from one ball to another.

    Args:
      start, end: centres of the balls, in metres; the same point for a single ball.
      bottom, top: radii at the start and at the end, in metres.
      paint: MAIN to ORANGE.
      wide: factor on its width, sideways.
      thick: factor on its thickness, upwards; for upright cones, along z.
      high: factor along its axis, which is upright for a single ball.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = np.linalg.norm(end - start)
    along = (end - start) / length if length else np.array([0.0, 1, 0])
    side = np.cross(along, [0.0, 1, 0]) if abs(along[1]) < 0.99 else np.array([1.0, 0, 0])
    side /= np.linalg.norm(side)
    frame = np.stack([side / wide, along / high, np.cross(side, along) / thick])
    return _Part(*(np.asarray(x, np.float32) for x in (frame, start, bottom, top, length)), np.int32(paint))


def _ball(at, radius, paint: int, **stretched: float) -> _Part:
    return _part(at, at, radius, 0, paint, **stretched)



_BIN = [
    _part((0, 0.1, 0), (0, 0.78, 0), 0.24, 0.29, MAIN, thick=0.8),
    _ball((0, 0.86, 0), 0.33, DARK, thick=0.8, high=0.4),
    _ball((0, 0.92, 0), 0.3, MAIN, thick=0.8, high=0.4),
]
_WALKER = [
    _part((0, 1.55, 0), (0, 1.58, 0), 0.095, 0.1, SKIN, thick=0.85),
    _ball((0, 1.6, 0), 0.115, DARK, thick=0.9),
    _part((0, 1.0, 0), (0, 1.34, 0), 0.15, 0.19, MAIN, thick=0.6),
    _part((0.14, 0.07, 0.08), (0, 0.85, 0.07), 0.055, 0.09, SECOND),
    _part((-0.16, 0.07, -0.08), (0, 0.85, -0.07), 0.055, 0.09, SECOND),
]
_THINGS: dict[str, tuple[float, float, list[_Part]]] = {  # radius and height for the shadow, parts
    "tree": (0.5, 4.5, [
        _part((0, 0, 0), (0.1, 2.6, 0), 0.15, 0.1, WOOD),
        _ball((0, 0, 0), 0.6, SOIL, high=0.05),
        _ball((0, 3.6, 0), 1.5, LEAF),
        _ball((0.7, 3.2, 0.4), 1.1, LIGHT_LEAF),
        _ball((-0.6, 3.4, -0.5), 1.2, LEAF),
    ]),
    "bush": (0.8, 0.9, [
        _ball((0, 0.35, 0), 0.55, LEAF, wide=1.3),
        _ball((0.6, 0.25, 0.2), 0.45, LIGHT_LEAF),
        _ball((-0.6, 0.3, 0.1), 0.48, LEAF),
        _ball((0.1, 0.5, -0.2), 0.4, LIGHT_LEAF),
    ]),
    "planter": (0.55, 0.9, [
        _part((0, 0.1, 0), (0, 0.45, 0), 0.38, 0.46, MAIN, wide=1.4),
        _ball((0, 0.7, 0), 0.42, LEAF, wide=1.4),
        _ball((0.25, 0.85, 0.1), 0.28, LIGHT_LEAF),
        _ball((-0.3, 0.82, -0.1), 0.3, LEAF),
    ]),
    "lamp post": (0.1, 4.5, [
        _part((0, 0, 0), (0, 5.0, 0), 0.06, 0.045, METAL),
        _part((0, 0, 0), (0, 0.45, 0), 0.12, 0.1, METAL),
    ]),
    "sign": (0.2, 2.0, [
        _part((0, 0, 0), (0, 2.0, 0), 0.035, 0.035, METAL),
        _ball((0, 1.75, 0), 0.32, MAIN, thick=0.1),
        _ball((0, 0, 0), 0.2, DARK, high=0.2),
    ]),
    "bollard": (0.1, 0.9, [
        _part((0, 0, 0), (0, 0.8, 0), 0.075, 0.07, MAIN),
        _part((0, 0.62, 0), (0, 0.7, 0), 0.077, 0.077, WHITE),
    ]),
    "cone": (0.2, 0.5, [
        _part((0, 0.05, 0), (0, 0.6, 0), 0.15, 0.025, ORANGE),
        _part((0, 0.28, 0), (0, 0.36, 0), 0.11, 0.09, WHITE),
        _ball((0, 0.02, 0), 0.24, DARK, high=0.15),
    ]),
    "bin": (0.3, 0.95, _BIN),
    "car": (1.1, 1.1, [
        _part((-1.6, 0.58, 0), (1.55, 0.58, 0), 0.52, 0.5, MAIN, wide=1.65, thick=0.64),
        _part((-0.95, 0.98, 0), (0.55, 0.98, 0), 0.42, 0.45, GLASS, wide=1.62, thick=0.86),
        _part((-0.75, 1.27, 0), (0.3, 1.27, 0), 0.36, 0.36, MAIN, wide=1.65, thick=0.33),
        _part((-1.3, 0.31, -0.56), (-1.3, 0.31, 0.56), 0.32, 0.32, DARK),
        _part((1.3, 0.31, -0.56), (1.3, 0.31, 0.56), 0.32, 0.32, DARK),
    ]),
    "scooter": (0.4, 0.7, [
        _ball((-0.5, 0.24, 0), 0.24, DARK, thick=0.25),
        _ball((0.52, 0.24, 0), 0.24, DARK, thick=0.25),
        _part((-0.5, 0.5, 0), (0.05, 0.36, 0), 0.17, 0.12, MAIN, wide=0.8),
        _part((-0.6, 0.72, 0), (-0.05, 0.7, 0), 0.12, 0.1, DARK, thick=0.5),
        _part((0.5, 0.3, 0), (0.36, 0.98, 0), 0.09, 0.06, MAIN, wide=1.5),
    ]),
    "walker": (0.25, 1.6, _WALKER),
}  # fmt: skip

_OCCLUDERS: dict[str, list[_Part]] = {  # x is across the line of sight
    "pole": [
        _part((0, -0.2, 0), (0, 5.0, 0), 0.07, 0.06, METAL),
        _part((0, 0, 0), (0, 0.4, 0), 0.11, 0.1, METAL),
    ],
    "bin": _BIN,
    "bonnet": [
        _part((-1.3, 0.52, 0), (1.9, 0.52, 0), 0.48, 0.5, MAIN, wide=1.65, thick=0.62),
        _part((0.6, 0.9, 0), (2.1, 0.93, 0), 0.4, 0.45, GLASS, wide=1.6, thick=0.86),
        _part((-1.0, 0.31, -0.56), (-1.0, 0.31, 0.56), 0.32, 0.32, DARK),
    ],
    "railing": [
        _part((-1.5, 0.95, 0), (1.5, 0.95, 0), 0.03, 0.03, MAIN),
        _part((-1.5, 0.5, 0), (1.5, 0.5, 0), 0.02, 0.02, MAIN),
        _part((-1.0, 0, 0), (-1.0, 0.95, 0), 0.03, 0.03, MAIN),
        _part((0, 0, 0), (0, 0.95, 0), 0.03, 0.03, MAIN),
        _part((1.0, 0, 0), (1.0, 0.95, 0), 0.03, 0.03, MAIN),
    ],
    "walker": _WALKER,
}


def _stacked(rows: list):
    return jax.tree.map(lambda *fields: np.stack(fields), *rows)


def _padded(parts: list[_Part]) -> _Part:
    absent = _part((0, 0, 0), (0, 0, 0), 0, 0, MAIN)
    return _stacked(parts + [absent] * (PARTS_OF_A_THING - len(parts)))


KINDS = tuple(_THINGS)
_THING_TABLE = _stacked([_padded(parts) for _, _, parts in _THINGS.values()])
_THING_RADIUS = np.array([radius for radius, _, _ in _THINGS.values()], np.float32)
_THING_HEIGHT = np.array([height for _, height, _ in _THINGS.values()], np.float32)
_OCCLUDER_TABLE = _stacked([_padded(parts) for parts in _OCCLUDERS.values()])


def random_things(
    key: Key[Array, ""],
    kinds: Int[Array, "T"],
    *,
    near: Float[Array, ""],
    far: Float[Array, ""],
    half_width: Float[Array, ""],
    walls: Float[Array, "3 4"],
) -> Things:
    """Things behind or beside the area where people walk, never between it and the camera, and in front of the walls.

    Args:
      key: decides position, size and colours.
      kinds: indices into `KINDS`.
      near, far, half_width, walls: as in `street.Place`.
    """
    dice = Dice(*jax.random.split(key), count=320)
    count = len(kinds)
    radius, height = jnp.asarray(_THING_RADIUS)[kinds], jnp.asarray(_THING_HEIGHT)[kinds]
    behind = dice.between(0.0, 1.0, (count,)) < 0.55
    # Each thing has its own section of the length, so that few overlap.
    apart = (jnp.roll(jnp.arange(count), dice.index(count)) + dice.between(0.1, 0.9, (count,))) / count
    reach = dice.between(0.0, 1.0, (count,))
    room = jnp.maximum(walls[0, 2] - far - 2 * radius, 0.1)
    z = jnp.where(behind, far + radius + reach * room, near + apart * (far - near))
    side = jnp.where(behind, jnp.sign(apart - 0.5), jnp.sign(dice.between(-1.0, 1.0, (count,))))
    x = jnp.where(behind, (2 * apart - 1) * (half_width + 3), side * (half_width + 0.3 + radius + 2.5 * reach**2))
    hidden = (side * walls[1, 0] > 0) & (jnp.abs(x) + radius > walls[1, 2])  # would stand in or behind the side wall
    x = jnp.where(hidden & ~behind, -x, jnp.where(hidden, 0.5 * x, x))
    along = kinds == KINDS.index("car")
    yaw = jnp.where(along, dice.between(-0.2, 0.2, (count,)), dice.between(-jnp.pi, jnp.pi, (count,)))
    base = jnp.stack([x, jnp.zeros(count), z], axis=-1)
    parts = jax.tree.map(lambda field: jnp.asarray(field)[kinds], _THING_TABLE)
    solids = _stand(parts, at=base, yaw=yaw, scale=dice.between(0.88, 1.15, (count,)))
    colours = _painted(dice, parts.paint)
    flat = jax.tree.map(lambda field: field.reshape(-1, *field.shape[2:]), solids)
    leafy = ((parts.paint == LEAF) | (parts.paint == LIGHT_LEAF)).astype(jnp.float32)
    return Things(flat, colours.reshape(-1, 3), leafy.reshape(-1), base[:, ::2], radius, height)


def _stand(parts: _Part, *, at, yaw, scale) -> Solids:
    """The solids of things whose parts are [T P ...], scaled, turned around the vertical and moved."""
    cos, sin, zero, one = jnp.cos(yaw), jnp.sin(yaw), jnp.zeros_like(yaw), jnp.ones_like(yaw)
    turn = jnp.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=-1).reshape(*yaw.shape, 1, 3, 3)
    scale = scale[..., None]
    origin = at[..., None, :] + jnp.einsum("...ij,...j->...i", turn, parts.origin) * scale[..., None]
    return Solids(
        frame=parts.frame @ jnp.swapaxes(turn, -1, -2),
        origin=origin,
        bottom=parts.bottom * scale,
        top=parts.top * scale,
        length=parts.length * scale,
        capped=jnp.ones_like(parts.bottom),
    )


def _painted(dice: Dice, paint: Int[Array, "*t p"]) -> Float[Array, "*t p 3"]:
    """Colours of parts; each thing has two of its own, mostly grey, white or black, sometimes a strong colour."""
    things = paint.shape[:-1]
    value, strength = dice.between(0.12, 0.8, (*things, 2, 1)), dice.between(-0.8, 0.65, (*things, 2, 1))
    own = value * (1 - jnp.clip(strength, 0, 1) * dice.between(0.0, 1.0, (*things, 2, 3)))
    same = jnp.broadcast_to(jnp.sqrt(jnp.asarray(_PAINTS)), (*things, *_PAINTS.shape))
    colours = jnp.concatenate([own, same * jnp.exp(0.05 * dice.normal(*things, 1, 3))], axis=-2)
    return jnp.square(jnp.take_along_axis(colours, jnp.broadcast_to(paint[..., None], (*paint.shape, 3)), axis=-2))


def in_sight(things: Things, camera: Float[Array, "3"], directions: Vectors) -> Things:
    """The things nearest to the middle of the picture whose rays start at `camera` and have these directions."""
    middle_x, _, middle_z = (d[d.shape[0] // 2, d.shape[1] // 2] for d in directions)
    x, z = things.at[:, 0] - camera[0], things.at[:, 1] - camera[2]
    # Tangents of the angles to the middle; things behind the camera come last.
    ahead = x * middle_x + z * middle_z
    aside = jnp.abs(x * middle_z - z * middle_x) - things.radius * jnp.hypot(middle_x, middle_z)
    nearest = jax.lax.top_k(-jnp.where(ahead > 0, aside / jnp.maximum(ahead, 1e-3), FAR), THINGS_IN_SIGHT)[1]

    parts = (PARTS_OF_A_THING * nearest[:, None] + jnp.arange(PARTS_OF_A_THING)).reshape(-1)
    solids, colours, leafy = jax.tree.map(lambda field: field[parts], things[:3])
    return Things(solids, colours, leafy, *(field[nearest] for field in things[3:]))


def shade(
    things: Things,
    x: Float[Array, "..."],
    z: Float[Array, "..."],
    *,
    sun: Float[Array, "3"],
    sun_softness: Float[Array, ""],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Shares of the sky and of the sun that things hide from points of the ground.

    Args:
      things: the things of the place.
      x, z: the points, in metres.
      sun, sun_softness: as in `street.Place`.
    """
    contact, shadow = jnp.zeros_like(x), jnp.zeros_like(x)
    throw = -sun[::2] / jnp.maximum(sun[1], 0.2)
    for (at_x, at_z), radius, height in zip(things.at, things.radius, things.height, strict=True):
        dx, dz = x - at_x, z - at_z
        near = jnp.square(dx * dx + dz * dz) / (1.2 * radius + 0.1) ** 4
        contact = jnp.maximum(contact, 0.6 / (1 + 4 * near))
        reach = throw * height
        along = jnp.clip((dx * reach[0] + dz * reach[1]) / (reach @ reach + 1e-6), 0, 1)
        away = jnp.hypot(dx - along * reach[0], dz - along * reach[1])
        edge = 0.05 + 0.15 * along + 0.3 * sun_softness
        shadow = jnp.maximum(shadow, jnp.clip((radius - away) / edge + 0.5, 0, 1) * (1 - 0.3 * along))
    return contact, shadow


def occluders(
    key: Key[Array, ""],
    *,
    strength: Float[Array, ""],
    camera: Float[Array, "3"],
    person: Float[Array, "3"],
    height: Float[Array, ""],
) -> tuple[Solids, Float[Array, "5 3"]]:
    """One object between camera and person: a pole, a bin, a parked car, a railing, or another passer-by.

    Args:
      key: decides which object it is, and where it stands.
      strength: probability that there is one, 0 to 1; if not, all solids are absent.
      camera: position of the camera, in metres.
      person: position of the person, in metres; its y is ignored.
      height: height of the person, in metres.

    Returns:
      The solids, and their colours in linear light.
    """
    dice, names = Dice(*jax.random.split(key), count=96), list(_OCCLUDERS)
    kind = dice.index(len(names))
    parts = jax.tree.map(lambda field: jnp.asarray(field)[kind], _OCCLUDER_TABLE)
    towards = jnp.stack([camera[0] - person[0], jnp.float32(0), camera[2] - person[2]])
    towards = towards / jnp.linalg.norm(towards)
    across = jnp.stack([towards[2], jnp.float32(0), -towards[0]])
    side = 2 * dice.chance(0.5) - 1
    # Least and largest distance in front of the person, and to the side, in metres.
    ranges = {
        "pole": (0.5, 1.6, 0.0, 0.3),
        "bin": (0.4, 0.8, 0.0, 0.4),
        "bonnet": (1.2, 1.6, 0.2, 1.6),
        "railing": (0.5, 1.2, 0.0, 0.9),
        "walker": (0.3, 0.9, 0.3, 0.55),
    }
    low, high, inner, outer = jnp.array([ranges[name] for name in names])[kind]
    at = person * jnp.array([1, 0, 1]) + dice.between(low, high) * towards + side * dice.between(inner, outer) * across
    # A thing's x axis is across the line of sight, turned by a small random angle; passers-by face any direction.
    yaw = jnp.arctan2(-across[2], across[0]) + jnp.where(side > 0, 0.0, jnp.pi)
    walker = kind == names.index("walker")
    yaw = yaw + jnp.where(walker, dice.between(-jnp.pi, jnp.pi), dice.between(-0.35, 0.35))
    scale = jnp.where(walker, height / 1.7 * dice.between(0.92, 1.06), dice.between(0.9, 1.1))
    solids = _stand(parts, at=at, yaw=yaw, scale=scale)
    there = dice.chance(strength)
    return solids._replace(bottom=solids.bottom * there, top=solids.top * there), _painted(dice, parts.paint)
