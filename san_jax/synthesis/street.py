"""Places: the street that a camera watches, its light, and what is behind the people in it.

Everything is drawn by formulas at the points that rays meet: surfaces laid in tiles, grain and blotches of value noise,
things made of a few solids. Patterns are averaged over what a pixel covers. Colours are linear light, where the square
root stands for the gamma of sRGB: linear = sRGB ** 2.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key

from san_jax.synthesis.dice import Dice, noise, per_cell
from san_jax.synthesis.lens import Response, random_response
from san_jax.synthesis.solids import FAR, Hits, Vectors, dot, normals, trace
from san_jax.synthesis.things import KINDS, Things, in_sight, random_things, shade

NOWHERE = 1e3  # metres to a wall that is not there


class Surface(NamedTuple):
    """What a plane is laid with: `colour` that turns into `other`, in tiles with joints between them.

    Attributes:
      colour, other, joint: linear.
      tile: size along the street (or wall), and across it (or up), in metres.
      bond: by how much of a tile one row is shifted against the next.
      gap: width of the joints, in metres.
      unlike: how much of `other` whole tiles have, at most.
      blotch: how much of `other` and of shade there is in patches of about a metre.
      grain: shade of the fine grain, relative.
      pebble: size of the grain, in metres.
      gloss: share of the light that is mirrored at a grazing view.
    """

    colour: Float[Array, "*n 3"]
    other: Float[Array, "*n 3"]
    joint: Float[Array, "*n 3"]
    tile: Float[Array, "*n 2"]
    bond: Float[Array, "*n"]
    gap: Float[Array, "*n"]
    unlike: Float[Array, "*n"]
    blotch: Float[Array, "*n"]
    grain: Float[Array, "*n"]
    pebble: Float[Array, "*n"]
    gloss: Float[Array, "*n"]


class Strip(NamedTuple):
    """The ground's layout: a strip of one surface between two fields of another, with kerbs and a painted line.

    Attributes:
      turn: of the street against the camera, in radians; 0 runs from left to right.
      middle, half: of the strip, across the street, in metres.
      kerb: its width, in metres; 0 for none.
      line: where a painted line is, in metres outwards from the strip's edge; negative inside.
      dash: length of the line's dashes, in metres.
      line_colour: linear.
      cover: 0 to 1, how worn the paint is: 0 leaves no line.
    """

    turn: Float[Array, ""]
    middle: Float[Array, ""]
    half: Float[Array, ""]
    kerb: Float[Array, ""]
    line: Float[Array, ""]
    dash: Float[Array, ""]
    line_colour: Float[Array, "3"]
    cover: Float[Array, ""]


class Windows(NamedTuple):
    """Openings in the walls, every `period` metres; `width` 0 for none. All in metres; colours linear."""

    period: Float[Array, ""]
    width: Float[Array, ""]
    sill: Float[Array, ""]
    top: Float[Array, ""]
    glass: Float[Array, "3"]
    frame: Float[Array, "3"]


class Place(NamedTuple):
    """A street as one camera sees it, which stands at (0, camera_height, 0) and looks along +z. Metres, linear light.

    A white surface whose normal is n shows about sun_colour * max(n . sun, 0) + sky_colour * sky_share(n_y).

    Attributes:
      camera_height: above the ground.
      near, far, half_width: people walk at z in [near, far] and |x| <= half_width.
      sun: unit vector towards the light.
      sun_softness: 0 for the hard shadows of noon, 1 for an overcast sky.
      surfaces: of the strip, of the ground beside it, of the back wall, of the side wall, of the trees far behind.
      walls: of the three upright planes, a row each: x and z of the normal, distance from the origin, height.
      lamps: length and width of a ceiling's cells with one lamp each, height; 0 out of doors.
      litter: share of quarter-metre cells of the ground with a leaf or a spot.
      litter_colour: linear.
      manhole: x, z and radius.
      seed: of all noise.
    """

    camera_height: Float[Array, ""]
    near: Float[Array, ""]
    far: Float[Array, ""]
    half_width: Float[Array, ""]
    sun: Float[Array, "3"]
    sun_colour: Float[Array, "3"]
    sky_colour: Float[Array, "3"]
    sun_softness: Float[Array, ""]
    surfaces: Surface
    strip: Strip
    walls: Float[Array, "3 4"]
    windows: Windows
    lamps: Float[Array, "3"]
    litter: Float[Array, ""]
    litter_colour: Float[Array, "3"]
    manhole: Float[Array, "3"]
    things: Things
    response: Response
    seed: Int32[Array, ""]


class Backdrop(NamedTuple):
    """A place without people.

    Attributes:
      colour: linear light.
      ground: the point of the ground in the pixel's direction, in metres; far away, but finite, above the horizon.
      on_ground: 1 where the pixel sees the ground, else 0.
    """

    colour: Float[Array, "H W 3"]
    ground: Float[Array, "H W 3"]
    on_ground: Float[Array, "H W"]


def sky_share(up: Float[Array, "..."]) -> Float[Array, "..."]:
    """The share of the sky's light on a surface whose normal has y = `up`; the ground gives light too."""
    return 0.7 + 0.3 * up


# Colours of the tables are sRGB, as one picks them.


def _surface(
    colour, other, *, joint=(0.4, 0.4, 0.4), tile=(40.0, 40.0), bond=0.0, gap=0.0, unlike=0.0, blotch=0.2, grain=0.1,
    pebble=0.02, gloss=0.0
) -> Surface:  # fmt: skip
    linear = [np.square(c).astype(np.float32) for c in (colour, other, joint)]
    rest = [np.asarray(x, np.float32) for x in (tile, bond, gap, unlike, blotch, grain, pebble, gloss)]
    return Surface(*linear, *rest)


_SURFACES = {
    "asphalt": _surface((0.42, 0.42, 0.43), (0.33, 0.33, 0.34), blotch=0.5, grain=0.35, pebble=0.025, gloss=0.04),
    "old asphalt": _surface((0.53, 0.52, 0.50), (0.40, 0.39, 0.37), blotch=0.8, grain=0.3, pebble=0.03),
    "concrete": _surface((0.66, 0.65, 0.61), (0.52, 0.50, 0.46), joint=(0.3, 0.29, 0.27), tile=(3.6, 3.0), gap=0.025,
                         unlike=0.25, blotch=0.6, grain=0.1),
    "slabs": _surface((0.66, 0.65, 0.63), (0.55, 0.53, 0.50), joint=(0.36, 0.35, 0.32), tile=(0.6, 0.4), gap=0.016,
                      bond=0.5, unlike=0.7, blotch=0.4, grain=0.12),
    "square slabs": _surface((0.62, 0.62, 0.61), (0.50, 0.50, 0.50), joint=(0.32, 0.32, 0.30), tile=(0.5, 0.5),
                             gap=0.018, unlike=0.5, blotch=0.5, grain=0.12),
    "chequered slabs": _surface((0.67, 0.64, 0.58), (0.53, 0.40, 0.35), joint=(0.40, 0.36, 0.33), tile=(0.3, 0.3),
                                gap=0.01, unlike=1.0, blotch=0.2, grain=0.1),
    "red bricks": _surface((0.60, 0.40, 0.33), (0.48, 0.34, 0.30), joint=(0.45, 0.40, 0.35), tile=(0.22, 0.11),
                           bond=0.5, gap=0.012, unlike=0.9, blotch=0.3, grain=0.15),
    "grey bricks": _surface((0.57, 0.56, 0.55), (0.45, 0.42, 0.41), joint=(0.35, 0.34, 0.32), tile=(0.2, 0.1), bond=0.5,
                            gap=0.012, unlike=0.9, blotch=0.3, grain=0.15),
    "yellow bricks": _surface((0.70, 0.60, 0.44), (0.60, 0.50, 0.40), joint=(0.42, 0.38, 0.32), tile=(0.24, 0.12),
                              gap=0.012, unlike=0.8, blotch=0.3, grain=0.12),
    "gravel": _surface((0.60, 0.56, 0.49), (0.50, 0.45, 0.37), blotch=0.5, grain=0.45, pebble=0.035),
    "soil": _surface((0.48, 0.41, 0.33), (0.37, 0.36, 0.22), blotch=0.9, grain=0.4, pebble=0.05),
    "grass": _surface((0.33, 0.43, 0.20), (0.45, 0.44, 0.26), blotch=0.8, grain=0.55, pebble=0.05),
    "ground cover": _surface((0.24, 0.34, 0.17), (0.36, 0.42, 0.20), blotch=0.7, grain=0.75, pebble=0.09),
    "white tiles": _surface((0.80, 0.79, 0.76), (0.74, 0.72, 0.68), joint=(0.56, 0.55, 0.52), tile=(0.6, 0.6),
                            gap=0.008, unlike=0.4, blotch=0.2, grain=0.03, gloss=0.6),
    "beige tiles": _surface((0.74, 0.67, 0.57), (0.66, 0.58, 0.48), joint=(0.45, 0.40, 0.34), tile=(0.8, 0.8),
                            gap=0.008, unlike=0.5, blotch=0.3, grain=0.08, gloss=0.5),
    "granite": _surface((0.58, 0.57, 0.57), (0.46, 0.46, 0.47), joint=(0.36, 0.36, 0.36), tile=(0.9, 0.6),
                        gap=0.008, unlike=0.5, blotch=0.2, grain=0.2, pebble=0.015, gloss=0.35),
    "linoleum": _surface((0.55, 0.58, 0.57), (0.47, 0.51, 0.51), tile=(2.0, 30.0), gap=0.006, blotch=0.3, grain=0.06,
                         gloss=0.5),
    "brick wall": _surface((0.55, 0.34, 0.28), (0.43, 0.27, 0.24), joint=(0.62, 0.58, 0.53), tile=(0.25, 0.075),
                           bond=0.5, gap=0.012, unlike=0.9, blotch=0.3, grain=0.12),
    "plaster": _surface((0.78, 0.75, 0.69), (0.66, 0.62, 0.56), blotch=0.5, grain=0.05),
    "coloured plaster": _surface((0.72, 0.60, 0.45), (0.62, 0.52, 0.40), blotch=0.5, grain=0.05),
    "concrete wall": _surface((0.60, 0.59, 0.57), (0.46, 0.45, 0.43), joint=(0.33, 0.32, 0.31), tile=(2.4, 1.2),
                              gap=0.02, unlike=0.4, blotch=0.8, grain=0.08),
    "tiled wall": _surface((0.78, 0.76, 0.72), (0.66, 0.62, 0.56), joint=(0.52, 0.50, 0.47), tile=(0.24, 0.06),
                           gap=0.008, unlike=0.5, blotch=0.4, grain=0.03, gloss=0.1),
    "stone wall": _surface((0.60, 0.57, 0.52), (0.44, 0.42, 0.40), joint=(0.35, 0.33, 0.30), tile=(0.55, 0.3),
                           bond=0.37, gap=0.025, unlike=1.0, blotch=0.5, grain=0.2, pebble=0.04),
    "shutter": _surface((0.56, 0.59, 0.62), (0.46, 0.49, 0.53), joint=(0.36, 0.38, 0.41), tile=(2.8, 0.1), gap=0.03,
                        unlike=0.1, blotch=0.4, grain=0.03),
    "boards": _surface((0.50, 0.40, 0.31), (0.40, 0.31, 0.24), joint=(0.2, 0.16, 0.13), tile=(0.14, 9.0), gap=0.012,
                       unlike=0.9, blotch=0.4, grain=0.12),
    "hedge": _surface((0.25, 0.35, 0.18), (0.16, 0.24, 0.11), blotch=0.8, grain=0.9, pebble=0.07),
    "fence": _surface((0.24, 0.31, 0.20), (0.33, 0.36, 0.27), joint=(0.2, 0.22, 0.22), tile=(0.13, 1.3), gap=0.03,
                      blotch=0.9, grain=0.6, pebble=0.15),
    "trees": _surface((0.26, 0.34, 0.20), (0.40, 0.46, 0.36), blotch=0.9, grain=0.7, pebble=0.5),
}  # fmt: skip
_SURFACE_TABLE = jax.tree.map(lambda *fields: np.stack(fields), *_SURFACES.values())


class _Scene(NamedTuple):
    """A kind of place; one of each four is taken."""

    strip: tuple[str, str, str, str]
    beside: tuple[str, str, str, str]
    wall: tuple[str, str, str, str]
    things: tuple[str, ...]
    half: tuple[float, float]  # of the strip, in metres, from and to
    kerb: float  # chance
    line: float  # chance
    windows: float  # chance
    wall_height: tuple[float, float]
    indoors: bool = False


_SCENES = (
    _Scene(  # a road
        ("asphalt", "asphalt", "old asphalt", "concrete"), ("slabs", "square slabs", "grass", "red bricks"),
        ("brick wall", "hedge", "tiled wall", "fence"),
        ("car", "car", "lamp post", "tree", "scooter", "walker", "bin"),
        half=(2.5, 5.0), kerb=0.9, line=0.7, windows=0.6, wall_height=(2.0, 6.0)),
    _Scene(  # a pavement
        ("slabs", "square slabs", "red bricks", "grey bricks"), ("asphalt", "asphalt", "old asphalt", "asphalt"),
        ("plaster", "shutter", "stone wall", "concrete wall"),
        ("car", "bin", "bollard", "bollard", "sign", "walker", "walker"),
        half=(1.5, 3.5), kerb=1.0, line=0.6, windows=0.8, wall_height=(3.0, 7.0)),
    _Scene(  # a park
        ("gravel", "asphalt", "yellow bricks", "concrete"), ("grass", "grass", "ground cover", "soil"),
        ("hedge", "hedge", "trees", "boards"),
        ("tree", "tree", "bush", "bush", "lamp post", "bin", "walker"),
        half=(1.0, 2.5), kerb=0.4, line=0.0, windows=0.0, wall_height=(1.0, 3.5)),
    _Scene(  # a square
        ("chequered slabs", "granite", "square slabs", "yellow bricks"),
        ("granite", "slabs", "grey bricks", "square slabs"),
        ("tiled wall", "concrete wall", "plaster", "coloured plaster"),
        ("planter", "planter", "walker", "walker", "bin", "sign", "tree"),
        half=(2.0, 6.0), kerb=0.1, line=0.0, windows=0.9, wall_height=(3.5, 7.0)),
    _Scene(  # a hall
        ("white tiles", "beige tiles", "linoleum", "granite"), ("granite", "beige tiles", "white tiles", "granite"),
        ("plaster", "tiled wall", "coloured plaster", "plaster"),
        ("bin", "planter", "walker", "walker", "walker", "sign", "planter"),
        half=(2.5, 7.0), kerb=0.0, line=0.15, windows=0.6, wall_height=(3.5, 5.0), indoors=True),
    _Scene(  # a yard
        ("concrete", "old asphalt", "asphalt", "concrete"), ("soil", "gravel", "concrete", "grass"),
        ("concrete wall", "shutter", "fence", "boards"),
        ("car", "cone", "cone", "bin", "scooter", "walker", "lamp post"),
        half=(3.0, 6.0), kerb=0.3, line=0.5, windows=0.4, wall_height=(2.0, 5.0)),
)  # fmt: skip


def random_place(key: Key[Array, ""]) -> Place:
    """A street, a yard, a path in a park or a hall, with its camera; vmappable."""
    keys = iter(jax.random.split(key, 16))
    dice = Dice(*jax.random.split(next(keys)))
    scene = dice.index(len(_SCENES))
    indoors = jnp.array([s.indoors for s in _SCENES])[scene]
    kinds = jnp.array([[KINDS.index(name) for name in s.things] for s in _SCENES])[scene]
    near = dice.between(5.0, 8.0)
    far = near + dice.between(3.0, 8.0)
    half_width = dice.between(1.5, 3.5)
    sun, sun_colour, sky_colour, softness = _random_light(next(keys), indoors)
    walls = _random_walls(next(keys), scene, far=far, half_width=half_width, indoors=indoors)
    return Place(
        camera_height=jnp.where(indoors, dice.between(2.3, 3.2), dice.between(2.5, 5.0)),
        near=near,
        far=far,
        half_width=half_width,
        sun=sun,
        sun_colour=sun_colour,
        sky_colour=sky_colour,
        sun_softness=softness,
        surfaces=_random_surfaces(next(keys), scene),
        strip=_random_strip(next(keys), scene, far=far),
        walls=walls,
        windows=_random_windows(next(keys), scene),
        lamps=indoors * jnp.stack([dice.between(2.0, 4.0), dice.between(1.2, 3.0), jnp.float32(3.0)]),
        litter=jnp.where(indoors, 0.0, dice.between(-0.05, 0.12)),
        litter_colour=jnp.square(jnp.array([0.45, 0.36, 0.2]) * dice.between(0.5, 1.6)),
        manhole=jnp.stack([dice.between(-4.0, 4.0), dice.between(5.0, 18.0), 0.33 * (1 - indoors) * dice.chance(0.5)]),
        things=random_things(next(keys), kinds, near=near, far=far, half_width=half_width, walls=walls),
        response=random_response(next(keys)),
        seed=dice.index(1 << 20),
    )


def _of(scene: Int[Array, ""], field: str) -> Float[Array, "..."]:
    """A number, or a pair of numbers, of the scenes' table."""
    return jnp.array([getattr(s, field) for s in _SCENES], jnp.float32)[scene]


def _random_light(key, indoors):
    dice = Dice(*jax.random.split(key))
    cloudy = jnp.where(dice.chance(0.4), dice.between(0.85, 1.0), dice.between(0.0, 0.5))
    softness = jnp.where(indoors, dice.between(0.7, 1.0), cloudy)
    height, azimuth = dice.between(0.45, 1.25), dice.between(-jnp.pi, jnp.pi)
    height = jnp.where(indoors, 1.3, height)
    level = jnp.stack([jnp.cos(height) * jnp.sin(azimuth), jnp.sin(height), jnp.cos(height) * jnp.cos(azimuth)])
    total = dice.between(0.6, 0.9)
    direct = (1 - softness) * 0.6 + 0.15  # share of the light that has a direction
    low = jnp.clip((0.9 - height) / 0.5, 0, 1)  # a low sun is yellow
    warm = jnp.array([1.0, 0.94, 0.85]) ** (1 + 2 * low)
    cool = jnp.array([0.92, 0.97, 1.06]) ** dice.between(0.0, 1.2)
    lamp = jnp.exp(0.1 * dice.between(-1.0, 1.0) * jnp.array([1.0, 0.2, -1.2]))
    sun_colour = total * direct / jnp.sin(height) * jnp.where(indoors, lamp, warm)
    return level, sun_colour, total * (1 - direct) * jnp.where(indoors, lamp, cool), softness


def _random_surfaces(key, scene):
    dice = Dice(*jax.random.split(key))
    names = list(_SURFACES)
    choices = jnp.array([[[names.index(n) for n in kinds] for kinds in (s.strip, s.beside, s.wall)] for s in _SCENES])
    strip, beside, wall = (choices[scene, row, dice.index(4)] for row in range(3))
    side = jnp.where(dice.chance(0.5), wall, choices[scene, 2, dice.index(4)])
    chosen = jnp.stack([strip, beside, wall, side, jnp.int32(names.index("trees"))])
    surfaces = jax.tree.map(lambda field: jnp.asarray(field)[chosen], _SURFACE_TABLE)
    shade, tint = jnp.exp(0.2 * dice.normal(5, 1)), jnp.exp(0.045 * dice.normal(5, 3))

    def tinted(colour):
        return jnp.minimum(colour * shade * tint, 0.8)

    return surfaces._replace(
        colour=tinted(surfaces.colour),
        other=tinted(surfaces.other),
        joint=tinted(surfaces.joint),
        tile=surfaces.tile * dice.between(0.85, 1.25, (5, 1)),
        grain=surfaces.grain * dice.between(0.6, 1.2, (5,)),
    )


def _random_strip(key, scene, *, far):
    dice = Dice(*jax.random.split(key))
    low, high = _of(scene, "half")
    turn = jnp.where(dice.chance(0.5), dice.between(-0.35, 0.35), jnp.pi / 2 + dice.between(-0.5, 0.5))
    yellow = dice.chance(0.4)[..., None]
    return Strip(
        turn=turn,
        # Across the street lies z where it runs from left to right, and x where it runs away from the camera.
        middle=jnp.cos(turn) * dice.between(0.55, 0.9) * far + jnp.sin(turn) * dice.between(-2.0, 2.0),
        half=dice.between(low, high),
        kerb=dice.chance(_of(scene, "kerb")) * dice.between(0.1, 0.2),
        line=jnp.where(dice.chance(0.5), dice.between(0.35, 0.6), -dice.between(0.3, 0.6)),
        dash=jnp.where(dice.chance(0.3), 2.0, 100.0),
        line_colour=yellow * jnp.square(jnp.array([0.8, 0.66, 0.3])) + (1 - yellow) * jnp.square(jnp.full(3, 0.82)),
        cover=dice.chance(_of(scene, "line")) * dice.between(0.4, 0.95),
    )


def _random_walls(key, scene, *, far, half_width, indoors):
    dice = Dice(*jax.random.split(key))
    low, high = _of(scene, "wall_height")
    turn = dice.between(-0.3, 0.3)
    behind = far + jnp.where(indoors, dice.between(0.8, 5.0), dice.between(1.0, 9.0))
    left = 2 * dice.chance(0.5) - 1
    aside = jnp.where(dice.chance(0.45), half_width + dice.between(0.5, 3.0), NOWHERE)
    slant = left * jnp.pi / 2 + turn
    return jnp.stack([
        jnp.stack([jnp.sin(turn), jnp.cos(turn), behind * jnp.cos(turn), dice.between(low, high)]),
        jnp.stack([jnp.sin(slant), jnp.cos(slant), aside, dice.between(low, high)]),
        jnp.stack([jnp.float32(0), jnp.float32(1), dice.between(35.0, 70.0), dice.between(5.0, 12.0)]),
    ])  # fmt: skip


def _random_windows(key, scene):
    dice = Dice(*jax.random.split(key))
    shop = dice.chance(0.5)
    period = dice.between(1.6, 3.6)
    sill = jnp.where(shop, dice.between(0.1, 0.5), dice.between(0.8, 1.2))
    return Windows(
        period=period,
        width=dice.chance(_of(scene, "windows")) * period * jnp.where(shop, 0.92, dice.between(0.4, 0.65)),
        sill=sill,
        top=sill + jnp.where(shop, dice.between(2.0, 2.6), dice.between(1.1, 1.6)),
        glass=jnp.square(dice.between(0.16, 0.34) * jnp.exp(0.08 * dice.normal(3))),
        frame=jnp.square(jnp.where(dice.chance(0.5), 0.75, 0.25) * jnp.exp(0.05 * dice.normal(3))),
    )


def draw_together(places: Place, variety: Float[Array, ""]) -> Place:
    """Places, in rows, whose light and lenses differ less.

    Args:
      places: as drawn.
      variety: 0 gives all the mean light and the mean lens, 1 leaves them.
    """

    def nearer(field):
        middle = field.mean(axis=0)
        return middle + variety * (field - middle)

    return places._replace(
        sun_colour=nearer(places.sun_colour),
        sky_colour=nearer(places.sky_colour),
        response=jax.tree.map(nearer, places.response),
    )


def relight(place: Place, key: Key[Array, ""]) -> Place:
    """The same place some minutes or hours later: light and exposure differ a little."""
    dice = Dice(*jax.random.split(key))
    turn, lift = 0.25 * dice.normal(), 0.06 * dice.normal()
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    x, y, z = place.sun
    sun = jnp.stack([cos * x + sin * z, jnp.maximum(y + lift, 0.3), cos * z - sin * x])
    bright = jnp.exp(0.12 * dice.normal())
    gains = place.response.gains * jnp.exp(0.06 * dice.normal() + 0.02 * dice.normal(3))
    return place._replace(
        sun=sun / jnp.linalg.norm(sun),
        sun_colour=place.sun_colour * bright * jnp.exp(0.12 * dice.normal()),
        sky_colour=place.sky_colour * bright,
        response=place.response._replace(gains=gains),
    )


class _View(NamedTuple):
    """What the pixels meet, before light; [H W] each.

    Attributes:
      point: x, y and z.
      layer: 0 and 1 the ground's surfaces, 2 back wall, 3 side wall, 4 trees far off, 5 sky, 6 a thing.
      u, v: along the surface, in metres.
      du, dv: how far a pixel reaches along u and v.
      out: x, y, z of the normal.
      solid: index of the thing's part.
    """

    point: Vectors
    layer: Int32[Array, "H W"]
    u: Float[Array, "H W"]
    v: Float[Array, "H W"]
    du: Float[Array, "H W"]
    dv: Float[Array, "H W"]
    out: Vectors
    solid: Int32[Array, "H W"]


def backdrop(place: Place, camera: Float[Array, "3"], directions: Vectors) -> Backdrop:
    """A place as a camera sees it, lit, with the shadows of its own things.

    Args:
      place: where.
      camera: where the rays start, in metres.
      directions: of the rays, x, y and z, broadcastable to [H W]; steps from pixel to pixel are the same everywhere
        in the picture, as `camera.rays` makes them.
    """
    directions = tuple(jnp.broadcast_arrays(*directions))
    place = place._replace(things=in_sight(place.things, camera, directions))
    steps = [[d[1, 0] - d[0, 0] for d in directions], [d[0, 1] - d[0, 0] for d in directions]]
    met = _by_bands(lambda *rays: _meet(place, camera, rays), *directions)
    hits = trace(place.things.solids, tuple(camera), directions)
    view = _by_bands(lambda met, hits, *rays: _look(place, camera, rays, steps, met, hits), met, hits, *directions)
    albedo, gloss = _by_bands(lambda view: _albedo(place, view), view)
    light = _by_bands(lambda view, gloss, *directions: _light(place, view, directions, gloss), view, gloss, *directions)
    colour = _by_bands(lambda albedo, light: _lit(place, albedo, light), albedo, light)
    return Backdrop(colour, jnp.stack(met.ground, axis=-1), (view.layer < 2).astype(jnp.float32))


def _by_bands(stage: Callable, *planes):
    """stage(*planes), some rows at a time.

    XLA fuses one stage into the next, and then computes it anew for everything that reads it, 30 times slower in all.
    It does not fuse into or out of a loop.
    """
    height = jax.tree.leaves(planes)[0].shape[0]
    bands = math.gcd(height, 8)
    split = jax.tree.map(lambda plane: plane.reshape(bands, height // bands, *plane.shape[1:]), planes)
    drawn = jax.lax.map(lambda band: stage(*band), split)
    return jax.tree.map(lambda plane: plane.reshape(height, *plane.shape[2:]), drawn)


class _Met(NamedTuple):
    """Where rays end on planes: 0 the ground, 1 to 3 the walls, 4 the sky."""

    distance: Float[Array, "H W"]
    plane: Int32[Array, "H W"]
    ground: Vectors


def _planes(place: Place):
    """Normal, and the two axes along which it is laid, of the ground and the walls."""
    cos, sin, up = jnp.cos(place.strip.turn), jnp.sin(place.strip.turn), (0.0, 1.0, 0.0)
    walls = [((-x, 0.0, -z), (z, 0.0, -x), up) for x, z, _, _ in place.walls]
    return [(up, (cos, 0.0, -sin), (sin, 0.0, cos)), *walls]


def _meet(place: Place, camera, directions) -> _Met:
    dx, dy, dz = directions
    distance = camera[1] / jnp.maximum(-dy, 1e-3)
    ground = (camera[0] + distance * dx, jnp.zeros_like(dx), camera[2] + distance * dz)
    distance = jnp.where(dy < -1e-3, distance, FAR)
    plane = jnp.where(dy < -1e-3, 0, 4)
    for number, (x, z, offset, height) in enumerate(place.walls, start=1):
        towards = x * dx + z * dz
        reach = (offset - x * camera[0] - z * camera[2]) / jnp.maximum(towards, 1e-6)
        hit = (towards > 1e-6) & (reach < distance) & (camera[1] + reach * dy < height) & (offset < NOWHERE)
        distance, plane = jnp.where(hit, reach, distance), jnp.where(hit, number, plane)
    return _Met(distance, plane, ground)


def _look(place: Place, camera, directions, steps, met: _Met, hits: Hits) -> _View:
    planes, plane = _planes(place), met.plane
    thing = hits.distance < met.distance
    distance = jnp.minimum(hits.distance, met.distance)
    point = tuple(c + distance * d for c, d in zip(camera, directions, strict=True))

    def of_plane(field, axis):
        chosen = planes[0][field][axis]
        for number in (1, 2, 3):
            chosen = jnp.where(plane == number, planes[number][field][axis], chosen)
        return chosen

    out, across, along = (tuple(of_plane(field, axis) for axis in range(3)) for field in range(3))
    slope = jnp.minimum(dot(out, directions), -1e-3)
    reach = []
    for axis in (across, along):
        # From pixel to pixel the point moves with the ray's step, and along the ray until it is on the plane again.
        moves = (dot(axis, step) - dot(out, step) / slope * dot(axis, directions) for step in steps)
        reach.append(jnp.minimum(distance * sum(jnp.abs(move) for move in moves), 1e4))
    u, v = dot(across, point), dot(along, point)
    beside = jnp.abs(v - place.strip.middle) > place.strip.half
    layer = jnp.where(plane == 0, beside.astype(jnp.int32), plane + 1)
    pixel = jnp.sqrt(dot(steps[0], steps[0])) * distance
    round_about = normals(place.things.solids, hits.solid, point)
    return _View(
        point=point,
        layer=jnp.where(thing, 6, layer),
        u=jnp.where(thing, point[0] + 0.7 * point[2], u),
        v=jnp.where(thing, point[1] + 0.7 * point[2], v),
        du=jnp.where(thing, pixel, reach[0]),
        dv=jnp.where(thing, pixel, reach[1]),
        out=tuple(jnp.where(thing, r, o) for r, o in zip(round_about, out, strict=True)),
        solid=hits.solid,
    )


def _albedo(place: Place, view: _View):
    """Colour under white light as three planes, and the mirror's share."""
    surfaces, layer = place.surfaces, view.layer

    def of_layer(values, *, thing):
        chosen = jnp.where(layer == 6, thing, values[0])
        for number in range(1, 5):
            chosen = jnp.where(layer == number, values[number], chosen)
        return chosen

    tile, bond, gap = surfaces.tile, of_layer(surfaces.bond, thing=0.0), of_layer(surfaces.gap, thing=0.0)
    wide, high = of_layer(tile[:, 0], thing=100.0), of_layer(tile[:, 1], thing=100.0)
    u, v = view.u, view.v
    row = jnp.floor(v / high)
    blur = jnp.clip(2 * view.dv / high - 0.5, 0, 1)  # where rows cannot be told apart
    shifted = u / wide + bond * row
    upright = _lines(shifted, view.du / wide, gap / wide)
    upright = upright + blur * (gap / wide - upright)
    level = _lines(v / high, view.dv / high, gap / high)
    joint = upright + level - upright * level

    seed = place.seed.astype(jnp.uint32) + 0x51 * layer.astype(jnp.uint32)
    apart = jnp.clip(1.5 - jnp.maximum(view.du / wide, view.dv / high), 0, 1)
    single = 0.5 + apart * (per_cell(jnp.floor(shifted), row, seed) - 0.5)
    spread = jnp.maximum(view.du, view.dv)
    broad = noise(u / 1.7, v / 1.7, seed + 1) * 0.65 + noise(u / 0.41, v / 0.41, seed + 2) * 0.35
    pebble = of_layer(surfaces.pebble, thing=0.06)
    grain = 0.0
    for octave, size in ((3, pebble), (4, 3 * pebble)):
        visible = jnp.clip(1.4 - 0.5 * spread / size, 0, 1)
        grain = grain + visible * (noise(u / size, v / size, seed + octave) - 0.5)

    patches = of_layer(surfaces.blotch, thing=0.1)
    patch = jnp.clip(3.2 * (broad - 0.5) + 0.5, 0, 1)
    mix = jnp.clip(of_layer(surfaces.unlike, thing=0.0) * single + 0.6 * patches * patch, 0, 1)
    rough = of_layer(surfaces.grain, thing=0.05 + 0.9 * place.things.leafy[view.solid])
    shade = (1 + rough * grain) * (1 - 0.35 * patches * (1 - patch))
    own = place.things.colours[view.solid]
    albedo = []
    for c in range(3):
        colour, other = (of_layer(f[:, c], thing=own[..., c]) for f in (surfaces.colour, surfaces.other))
        colour = (colour + mix * (other - colour)) * shade
        albedo.append(colour + joint * (of_layer(surfaces.joint[:, c], thing=0.0) - colour))
    gloss = of_layer(surfaces.gloss, thing=0.0)
    paved = pebble < 0.05  # by grain: neither earth nor leaves
    albedo = _marked(place, view, albedo, worn=broad, paved=paved, seed=seed)
    return _glazed(place, view, albedo, gloss, solid=paved)


def _marked(place: Place, view: _View, albedo, *, worn, paved, seed):
    """Kerbs, painted lines, a manhole, leaves, cracks and the grime at the foot of walls."""
    strip, (x, height, z) = place.strip, view.point
    on_ground = view.layer < 2
    outwards = jnp.abs(view.v - strip.middle) - strip.half

    def band(start, width):
        low, high = jnp.maximum(outwards - view.dv / 2, start), jnp.minimum(outwards + view.dv / 2, start + width)
        return jnp.where(on_ground, jnp.clip((high - low) / jnp.maximum(view.dv, 1e-3), 0, 1), 0)

    def over(mask, colour):
        return [a + mask * (c - a) for a, c in zip(albedo, colour, strict=True)]

    dashes = 1 - _lines(view.u / (2.5 * strip.dash), view.du / (2.5 * strip.dash), 0.6)
    dashes = jnp.where(strip.dash > 50, 1, dashes) * paved
    albedo = over(band(strip.line, 0.12) * dashes * strip.cover * jnp.clip(0.4 + 1.3 * worn, 0, 1), strip.line_colour)
    kerb = 0.42 * (1 - 0.5 * _lines(view.u, view.du, 0.015)) * (0.7 + 0.5 * worn)
    albedo = over(band(0.0, strip.kerb), (kerb, kerb, 0.95 * kerb))
    albedo = over(0.7 * band(-0.04, 0.04) * (strip.kerb > 0), (0.03, 0.03, 0.03))  # the gutter

    away = jnp.hypot(x - place.manhole[0], z - place.manhole[1]) / jnp.maximum(place.manhole[2], 1e-3)
    softness = spread = jnp.maximum(view.du, view.dv) / 0.33
    lid = jnp.where(on_ground, jnp.clip((1 - away) / spread + 0.5, 0, 1), 0)
    ring = jnp.clip(1 - jnp.abs(away - 0.93) / (0.06 + softness), 0, 1)
    pattern = 0.5 + jnp.clip(1 - spread / 0.2, 0, 1) * 0.5 * jnp.sin(60 * x) * jnp.sin(60 * z)
    iron = 0.10 + 0.04 * pattern - 0.06 * ring
    albedo = over(lid * (place.manhole[2] > 0), (iron, iron, iron))

    cell_u, cell_v = jnp.floor(4 * view.u), jnp.floor(4 * view.v)
    lot, aside, size = (per_cell(cell_u, cell_v, seed + n) for n in (11, 12, 13))
    from_leaf = jnp.hypot(4 * view.u - cell_u - 0.25 - 0.5 * aside, (4 * view.v - cell_v - 0.25 - 0.5 * size)) / 4
    radius = 0.015 + 0.03 * size
    blurred = radius + 0.5 * jnp.sqrt(view.du * view.dv)
    leaf = jnp.clip(2 - 2 * from_leaf / blurred, 0, 1) * jnp.square(radius / blurred) * (lot < place.litter)
    albedo = over(jnp.where(on_ground, leaf, 0), place.litter_colour * 1.0)

    torn = jnp.clip(6 * (noise(view.u / 2.9, view.v / 2.9, seed + 14) - 0.62), 0, 1)
    wander = noise(view.u / 1.1, view.v / 0.7, seed + 15) + 0.35 * worn
    crack = jnp.clip(1 - jnp.abs(wander - 0.65) / (0.012 + 0.04 * spread), 0, 1) * jnp.clip(1.2 - 3 * spread, 0, 1)
    sooty = jnp.where(on_ground & paved, 0.45 * torn * crack, 0)
    foot = jnp.where((view.layer == 2) | (view.layer == 3), 0.45 * jnp.clip(1 - height / (0.25 + 0.5 * worn), 0, 1), 0)
    return [a * (1 - sooty) * (1 - foot) for a in albedo]


def _glazed(place: Place, view: _View, albedo, gloss, *, solid):
    """Windows in the walls that are solid, not hedges; the pane's shine rises with height, as the sky in it does."""
    windows = place.windows
    on_wall = ((view.layer == 2) | (view.layer == 3)) & (windows.width > 0) & solid

    def inside(margin):
        """How much of the pixel is in the opening, made wider by a margin."""
        wide = (windows.width + 2 * margin) / windows.period
        columns = _lines(view.u / windows.period + wide / 2, view.du / windows.period, wide)
        top, bottom = view.v + view.dv / 2, view.v - view.dv / 2
        rows = jnp.minimum(top, windows.top + margin) - jnp.maximum(bottom, windows.sill - margin)
        return jnp.where(on_wall, columns * jnp.clip(rows / jnp.maximum(view.dv, 1e-3), 0, 1), 0)

    frame, pane = inside(0.06), inside(0.0)
    number = jnp.floor(view.u / windows.period + 0.5)
    bright = 0.4 + 1.5 * per_cell(number, 0 * number, place.seed.astype(jnp.uint32) + 21) * jnp.clip(view.v / 2, 0.1, 1)
    bright = bright + 1.2 * jnp.square(noise(view.u * 1.3 + view.v, view.v * 0.8, place.seed.astype(jnp.uint32) + 22))
    albedo = [a + frame * (f - a) for a, f in zip(albedo, windows.frame, strict=True)]
    albedo = [a + pane * (g * bright - a) for a, g in zip(albedo, windows.glass, strict=True)]
    return albedo, gloss + pane * (0.3 - gloss)


class _Light(NamedTuple):
    """What reaches a pixel, [H W] each: shares of sun and sky, light that is mirrored, and haze before it all."""

    sun: Float[Array, "H W"]
    sky: Float[Array, "H W"]
    mirror: Float[Array, "H W"]
    haze: Float[Array, "H W"]


def _light(place: Place, view: _View, directions, gloss) -> _Light:
    x, _, z = view.point
    facing = jnp.maximum(dot(view.out, place.sun), 0)
    on_ground = view.layer < 2
    contact, shadow = shade(place.things, x, z, sun=place.sun, sun_softness=place.sun_softness)
    contact, shadow = jnp.where(on_ground, contact, 0), jnp.where(on_ground, shadow, 0)
    # It is darker where ground and wall meet.
    corner = sum(jnp.exp(-jnp.abs(d - x * nx - z * nz) / 0.35) for nx, nz, d, _ in place.walls[:2])
    wall = (view.layer == 2) | (view.layer == 3)
    corner = jnp.where(on_ground, 0.3 * jnp.minimum(corner, 1), jnp.where(wall, 0.25 * jnp.exp(-view.v / 0.3), 0))
    sky = sky_share(view.out[1]) * (1 - contact) * (1 - corner)
    sun = facing * (1 - shadow * (1 - 0.8 * place.sun_softness)) * (1 - contact)
    # The mirror image of the sky, or of the ceiling's lamps.
    dx, dy, dz = directions
    length = jnp.sqrt(dx * dx + dy * dy + dz * dz)
    grazing = jnp.clip(1 + dot(view.out, directions) / length, 0, 1) ** 3
    down = jnp.maximum(-dy, 0.03)
    cell_u, cell_v, rise = place.lamps
    period_u, period_v = jnp.maximum(cell_u, 0.1), jnp.maximum(cell_v, 0.1)
    lamps = _lines((x + rise * dx / down) / period_u, 0.5 / period_u, 0.35)
    lamps = lamps * _lines((z + rise * dz / down) / period_v, 1.0 / period_v, 0.3)
    mirror = gloss * grazing * jnp.where(rise > 0, 0.25 + 1.6 * lamps, 0.8)
    haze = jnp.where(view.layer == 5, 1.0, 1 - jnp.exp(-jnp.hypot(x, z) / 250))
    return _Light(sun, sky, mirror, haze)


def _lit(place: Place, albedo, light: _Light) -> Float[Array, "H W 3"]:
    colour = []
    for a, sun, sky in zip(albedo, place.sun_colour, place.sky_colour, strict=True):
        seen = a * (sun * light.sun + sky * light.sky) + light.mirror * (sky + 0.5 * sun)
        colour.append(seen + light.haze * (1.1 * sky + 0.2 * sun - seen))
    return jnp.stack(colour, axis=-1)


def _lines(position, reach, share):
    """How much of [position - reach / 2, position + reach / 2] is in the first `share` of a period, which is 1."""
    reach = jnp.maximum(reach, 1e-3)

    def up_to(x):
        whole = jnp.floor(x)
        return whole * share + jnp.minimum(x - whole, share)

    return jnp.clip((up_to(position + reach / 2) - up_to(position - reach / 2)) / reach, 0, 1)
