"""Places: random streets, yards, parks and halls, and the light in them, as plain numbers.

`backdrop.py` renders them. Colours are linear light; the gamma of sRGB is taken as a square: linear = sRGB ** 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32, Key

from san_jax.synthesis.dice import Dice
from san_jax.synthesis.ground import Strip, random_strip
from san_jax.synthesis.lens import Response, random_response
from san_jax.synthesis.surfaces import Surface, indices, random_surfaces
from san_jax.synthesis.things import KINDS, Things, random_things
from san_jax.synthesis.walls import Windows, random_walls, random_windows


class Place(NamedTuple):
    """A place seen by one camera, which stands at (0, camera_height, 0) and looks along +z. Metres, linear light.

    A white surface with normal n shows about sun_colour * max(n . sun, 0) + sky_colour * light.sky_share(n_y).

    Attributes:
      camera_height: height of the camera above the ground.
      near, far, half_width: people walk at z in [near, far] and |x| <= half_width.
      sun: unit vector towards the sun, or towards the lamps of a hall.
      sun_colour, sky_colour: light of the sun, and light from all directions.
      sun_softness: 0 gives hard shadows, 1 the soft ones of an overcast sky.
      surfaces: of the street, of the ground beside it, of the back wall, of the side wall, and of distant trees.
      strip: where the street runs.
      walls: three upright planes, as `walls.random_walls` returns them.
      windows: of the back wall and the side wall.
      lamps: length and width of the cells of a ceiling that hold one lamp each, and its height above the floor;
        zeros outdoors.
      litter: share of the quarter-metre cells of the ground that hold a leaf or a spot.
      litter_colour: colour of the leaves.
      manhole: x, z and radius; radius 0 for none.
      things: objects that stand there.
      response: how the camera turns light into a picture.
      seed: seed of all noise in the patterns.
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


class _Scene(NamedTuple):
    """A kind of place.

    Attributes:
      strip, beside, wall: candidates for the surfaces of the street, the ground beside it and the walls; one of each is
        chosen at random.
      things: kinds of the objects that stand there; each entry is one object.
      half: least and largest half width of the street, in metres.
      kerb, line, windows: probabilities that there are any.
      wall_height: least and largest, in metres.
      indoors: whether there are lamps and a near back wall in place of sun and sky.
    """

    strip: tuple[str, str, str, str]
    beside: tuple[str, str, str, str]
    wall: tuple[str, str, str, str]
    things: tuple[str, ...]
    half: tuple[float, float]
    kerb: float
    line: float
    windows: float
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
    """A place of a random kind, with its camera; works under vmap."""
    keys = iter(jax.random.split(key, 16))
    dice = Dice(*jax.random.split(next(keys)))
    scene = dice.index(len(_SCENES))
    indoors = jnp.array([s.indoors for s in _SCENES])[scene]
    kinds = jnp.array([[KINDS.index(name) for name in s.things] for s in _SCENES])[scene]
    near = dice.between(5.0, 8.0)
    far = near + dice.between(3.0, 8.0)
    half_width = dice.between(1.5, 3.5)
    sun, sun_colour, sky_colour, softness = _random_light(next(keys), indoors)
    height = _of(scene, "wall_height")
    walls = random_walls(next(keys), height=height, far=far, half_width=half_width, indoors=indoors)
    candidates = {field: _surfaces_of(scene, field) for field in ("strip", "beside", "wall")}
    half, kerb, line = (_of(scene, field) for field in ("half", "kerb", "line"))
    return Place(
        camera_height=jnp.where(indoors, dice.between(2.3, 3.2), dice.between(2.5, 5.0)),
        near=near,
        far=far,
        half_width=half_width,
        sun=sun,
        sun_colour=sun_colour,
        sky_colour=sky_colour,
        sun_softness=softness,
        surfaces=random_surfaces(next(keys), **candidates),
        strip=random_strip(next(keys), half=half, kerb=kerb, line=line, far=far),
        walls=walls,
        windows=random_windows(next(keys), chance=_of(scene, "windows")),
        lamps=indoors * jnp.stack([dice.between(2.0, 4.0), dice.between(1.2, 3.0), jnp.float32(3.0)]),
        litter=jnp.where(indoors, 0.0, dice.between(-0.05, 0.12)),
        litter_colour=jnp.square(jnp.array([0.45, 0.36, 0.2]) * dice.between(0.5, 1.6)),
        manhole=jnp.stack([dice.between(-4.0, 4.0), dice.between(5.0, 18.0), 0.33 * (1 - indoors) * dice.chance(0.5)]),
        things=random_things(next(keys), kinds, near=near, far=far, half_width=half_width, walls=walls),
        response=random_response(next(keys)),
        seed=dice.index(1 << 20),
    )


def _of(scene: Int[Array, ""], field: str) -> Float[Array, "..."]:
    """A number, or a pair of numbers, of one kind of place."""
    return jnp.array([getattr(s, field) for s in _SCENES], jnp.float32)[scene]


def _surfaces_of(scene: Int[Array, ""], field: str) -> Int[Array, "4"]:
    """The candidates for a surface of one kind of place, as indices."""
    return jnp.array([indices(getattr(s, field)) for s in _SCENES])[scene]


def _random_light(key, indoors):
    """Direction, colour, sky colour and softness of the sun, or of the lamps of a hall; as in `Place`."""
    dice = Dice(*jax.random.split(key))
    cloudy = jnp.where(dice.chance(0.4), dice.between(0.85, 1.0), dice.between(0.0, 0.5))
    softness = jnp.where(indoors, dice.between(0.7, 1.0), cloudy)
    height, azimuth = dice.between(0.45, 1.25), dice.between(-jnp.pi, jnp.pi)
    height = jnp.where(indoors, 1.3, height)
    level = jnp.stack([jnp.cos(height) * jnp.sin(azimuth), jnp.sin(height), jnp.cos(height) * jnp.cos(azimuth)])
    total = dice.between(0.6, 0.9)
    direct = (1 - softness) * 0.6 + 0.15  # share of the light that comes from the sun
    low = jnp.clip((0.9 - height) / 0.5, 0, 1)  # a low sun is yellow
    warm = jnp.array([1.0, 0.94, 0.85]) ** (1 + 2 * low)
    cool = jnp.array([0.92, 0.97, 1.06]) ** dice.between(0.0, 1.2)
    lamp = jnp.exp(0.1 * dice.between(-1.0, 1.0) * jnp.array([1.0, 0.2, -1.2]))
    sun_colour = total * direct / jnp.sin(height) * jnp.where(indoors, lamp, warm)
    return level, sun_colour, total * (1 - direct) * jnp.where(indoors, lamp, cool), softness


def draw_together(places: Place, variety: Float[Array, ""]) -> Place:
    """Reduces how much light and lenses differ between places.

    Args:
      places: one in each row.
      variety: 0 gives all places the mean light and the mean lens, 1 changes nothing.
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
    """The same place minutes or hours later, with slightly different light and exposure."""
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
