"""Frames of a crowd: people who walk about in one place and hide each other, as its camera sees them.

A frame is cut into tiles, and a tile looks only at the people who can show, shade or darken something in it: the time
grows with the area that people cover, not with people times pixels.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, UInt8

from san_jax.synthesis import atlas, body, camera, lens, renderer, solids, studio
from san_jax.synthesis.backdrop import Backdrop, draw_backdrop
from san_jax.synthesis.body import Body
from san_jax.synthesis.camera import Box, Camera
from san_jax.synthesis.light import sky_share
from san_jax.synthesis.people import Person
from san_jax.synthesis.renderer import SAMPLES, Fragments
from san_jax.synthesis.scene import MARGIN, corners_of
from san_jax.synthesis.solids import FAR, Solids, Vectors
from san_jax.synthesis.street import Place
from san_jax.synthesis.studio import World

FRAME_RATE = 5  # frames a second
STEPS = 4  # of the walk, from frame to frame
STRIDE = 1.15  # metres in a cycle of two steps of stride 1
ROOM = 0.5  # metres between the axes of two people, who are pushed apart where they are nearer
TALLEST = 2.05  # metres; nobody is taller, hair included
REACH = 0.5  # metres that arms, bags and skirts may stand out of the area where people walk
TILE = 32  # height and width of a tile in pixels; a multiple of the 4 x 4 pixels that see the whole sun
CONTACT = 3.0  # metres; people hide less than a hundredth of the sky from points that are further away
NOBODY = -1
OF_CROWDS = 2**31 - 1  # folded into `World.passages`, where the passages of single people have the people's numbers

Carry = TypeVar("Carry")


class Frame(NamedTuple):
    """A picture of a crowd, and the people in it; people of whom nothing lies in the frame are left out.

    Attributes:
      picture: sRGB.
      person: number of each person, as for `people.person`.
      box: left, top, width and height of the smallest box around all of the person, hidden parts included; in pixels
        from the frame's upper left corner.
      visible: share of what the person would cover in the frame alone that others do not hide.
    """

    picture: UInt8[np.ndarray, "H W 3"]
    person: Int32[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]
    visible: Float[np.ndarray, "n"]


class Walkers(NamedTuple):
    """Where people are on their walks; metres, seconds and radians.

    Attributes:
      position: x and z.
      yaw: direction that they face and walk in; 0 along z, pi/2 along x.
      goal: x and z of the place they walk to, after which comes another.
      leg: number of goals that they have reached.
      pace: speed at which they like to walk.
      speed: that at which they walk, slower in a turn or a throng.
      phase: of the walking cycle.
    """

    position: Float[Array, "N 2"]
    yaw: Float[Array, "N"]
    goal: Float[Array, "N 2"]
    leg: Int32[Array, "N"]
    pace: Float[Array, "N"]
    speed: Float[Array, "N"]
    phase: Float[Array, "N"]


class Drawing(NamedTuple):
    """A crowd in linear light.

    Attributes:
      picture: linear light.
      shown: index of the person whom each of SAMPLES x SAMPLES rays per pixel meets first, or NOBODY.
      alone: number of rays in the picture that each person would meet without the others.
    """

    picture: Float[Array, "H W 3"]
    shown: Int32[Array, "SH SW"]
    alone: Int32[Array, "N"]


class _Bound(NamedTuple):
    """Upright cylinders around people: x and z of the axis, radius, height; metres."""

    at: Float[Array, "N 2"]
    radius: Float[Array, "N"]
    height: Float[Array, "N"]


class _Tile(NamedTuple):
    """What a tile shows: arrays as of a whole picture.

    Attributes:
      shown: as in `Drawing`.
      alone: as in `Drawing`.
      coverage, colour: share of each pixel that people cover, and their unlit colours times that share.
      facing, free, sky: of the light on people: how much they face the sun, whether one point of it is free, and the
        share of the sky's light.
      ground_free, ground_sky: on the ground, whether one point of the sun is free, and the share of the sky that is.
    """

    shown: Int32[Array, "S S"]
    alone: Int32[Array, "N"]
    coverage: Float[Array, "t t"]
    colour: Float[Array, "t t 3"]
    facing: Float[Array, "t t"]
    free: Float[Array, "t t"]
    sky: Float[Array, "t t"]
    ground_free: Float[Array, "t t"]
    ground_sky: Float[Array, "t t"]


def render_frames(world: World, *, camera: int, people: int, frames: int, height: int, width: int) -> Iterator[Frame]:
    """Frames of the first people of a world in one of its places, FRAME_RATE a second.

    A frame is a function of the world, the camera, the number of people and its own number, not of how many there are.

    Args:
      world: its trouble is not used.
      camera: row of the camera in `World.places`.
      people: number of people.
      frames: number of frames.
      height, width: of the frames, in pixels.
    """
    place = jax.tree.map(lambda field: field[camera], world.places)
    key = jax.random.fold_in(jax.random.fold_in(world.passages, OF_CROWDS), camera)
    walking, carriage, responding = jax.random.split(key, 3)
    persons, _ = studio.draw_people(world.people, np.arange(people, dtype=np.int32), side=atlas.SIZE)
    backdrop = _draw_place(place, height=height, width=width)
    walkers = set_out(walking, place, people)
    for number in range(frames):
        noise = jax.random.fold_in(responding, number)
        picture, box, alone, visible = jax.tree.map(
            np.asarray, _draw_frame(noise, carriage, persons, walkers, place, backdrop, height=height, width=width)
        )
        there = np.flatnonzero(alone)
        yield Frame(picture, there.astype(np.int32), box[there], visible[there] / alone[there])
        walkers = walk_on(walking, walkers, place)


@functools.partial(jax.jit, static_argnames=("height", "width"))
def _draw_place(place, *, height: int, width: int) -> Backdrop:
    """The place without people, as large as all tiles of a frame together."""
    seen_from, box = view_of(place, height=height, width=width)
    rows, columns = _tiles(height, width)
    directions = camera.rays(
        seen_from, _cut(box, height, width, 0, 0, rows * TILE, columns * TILE), height=rows * TILE, width=columns * TILE
    )
    return draw_backdrop(place, seen_from.position, directions, whole=True)


@functools.partial(jax.jit, static_argnames=("height", "width"))
def _draw_frame(noise, carriage, persons, walkers, place, backdrop, *, height: int, width: int):
    """A frame, and for each person the box in pixels, the rays that meet it alone, and those that meet it first."""
    seen_from, box = view_of(place, height=height, width=width)
    bodies = embody(carriage, persons, walkers)
    drawing = draw(bodies, persons.texture, place, backdrop, seen_from, box, height=height, width=width)
    picture = lens.respond(
        place.response, noise, drawing.picture, scale=_height_of_a_box(place, seen_from, box, height)
    )
    outlines = _outlines(bodies, seen_from)
    across, down = width / (box.right - box.left), height / (box.top - box.bottom)
    pixels = jnp.stack([
        (outlines.left - box.left) * across, (box.top - outlines.top) * down,
        (outlines.right - outlines.left) * across, (outlines.top - outlines.bottom) * down,
    ], axis=-1)  # fmt: skip
    visible = jax.vmap(lambda number: jnp.sum(drawing.shown == number))(jnp.arange(len(drawing.alone)))
    return picture, pixels, drawing.alone, visible


def view_of(place: Place, *, height: int, width: int) -> tuple[Camera, Box]:
    """The camera of a place, and the box with this aspect ratio that shows the whole area where people walk."""
    middle = jnp.stack([jnp.zeros(()), jnp.float32(TALLEST / 2), (place.near + place.far) / 2])
    seen_from = camera.look_at(jnp.stack([jnp.zeros(()), place.camera_height, jnp.zeros(())]), middle)
    corners = jnp.stack([
        jnp.stack([x, jnp.float32(y), z])
        for x in (-place.half_width - REACH, place.half_width + REACH)
        for y in (0.0, TALLEST)
        for z in (place.near - REACH, place.far + REACH)
    ])  # fmt: skip
    where = camera.project(seen_from, corners)
    low, high = where.min(axis=0), where.max(axis=0)
    centre, size = (low + high) / 2, high - low
    tall = jnp.maximum(size[1], size[0] * height / width) / 2
    wide = tall * width / height
    return seen_from, Box(centre[0] - wide, centre[0] + wide, centre[1] - tall, centre[1] + tall)


def _height_of_a_box(place: Place, seen_from: Camera, box: Box, height: int) -> Float[Array, ""]:
    """Height in pixels of a careful annotator's box around an average person in the middle of the area."""
    ends = jnp.stack([jnp.stack([jnp.zeros(()), jnp.float32(y), (place.near + place.far) / 2]) for y in (0.0, 1.7)])
    feet, head = camera.project(seen_from, ends)[:, 1]
    return (1 + 2 * MARGIN) * (head - feet) * height / (box.top - box.bottom)


@functools.partial(jax.jit, static_argnames="people")
def set_out(key: Key[Array, ""], place: Place, people: int) -> Walkers:
    """People at the beginning of their walks, spread over the area where people walk.

    Args:
      key: decides all of their walks.
      place: the place.
      people: number of people.
    """
    pace, phase, where = jax.random.split(jax.random.fold_in(key, OF_CROWDS), 3)
    low, high = corners_of(place)
    position = jax.random.uniform(where, (people, 2), minval=low, maxval=high)
    position = jax.lax.fori_loop(0, 100, lambda _, position: _apart(position, place), position)
    legs = jnp.zeros(people, jnp.int32)
    goal = _goals(key, place, legs, position)
    towards = goal - position
    pace = jax.random.uniform(pace, (people,), minval=1.1, maxval=1.5)
    phase = jax.random.uniform(phase, (people,), maxval=2 * jnp.pi)
    return Walkers(position, jnp.arctan2(towards[:, 0], towards[:, 1]), goal, legs, pace, pace, phase)


@jax.jit
def walk_on(key: Key[Array, ""], walkers: Walkers, place: Place) -> Walkers:
    """The same people a frame later; `key` and `place` are those with which they set out."""
    return jax.lax.fori_loop(0, STEPS, lambda _, walkers: _step(key, walkers, place), walkers)


def _step(key: Key[Array, ""], walkers: Walkers, place: Place) -> Walkers:
    """People turn towards their goals, and to the right of those who are in their way, and go where they face."""
    seconds = 1 / (FRAME_RATE * STEPS)
    towards = walkers.goal - walkers.position
    wanted = walkers.pace[:, None] * towards / (jnp.linalg.norm(towards, axis=-1, keepdims=True) + 0.1)
    wanted = wanted + _evasion(walkers.position, walkers.yaw)
    turn = jnp.arctan2(wanted[:, 0], wanted[:, 1]) - walkers.yaw
    turn = jnp.mod(turn + jnp.pi, 2 * jnp.pi) - jnp.pi
    yaw = walkers.yaw + jnp.clip(turn, -2.5 * seconds, 2.5 * seconds)
    speed = walkers.pace * jnp.maximum(jnp.cos(turn), 0.2)
    speed = walkers.speed + jnp.clip(speed - walkers.speed, -3.0 * seconds, 2.0 * seconds)
    position = _apart(walkers.position + seconds * speed[:, None] * _ahead(yaw), place)
    there = jnp.linalg.norm(walkers.goal - position, axis=-1) < 0.5
    leg = walkers.leg + there
    goal = jnp.where(there[:, None], _goals(key, place, leg, position), walkers.goal)
    phase = walkers.phase + 2 * jnp.pi * seconds * speed / (STRIDE * _stride(speed))
    return Walkers(position, yaw, goal, leg, walkers.pace, speed, jnp.mod(phase, 2 * jnp.pi))


def _stride(speed: Float[Array, "N"]) -> Float[Array, "N"]:
    """The stride at a speed: who walks slowly takes smaller steps, and fewer of them."""
    return 0.25 + 0.75 * speed / 1.3


def _goals(
    key: Key[Array, ""], place: Place, legs: Int32[Array, "N"], position: Float[Array, "N 2"]
) -> Float[Array, "N 2"]:
    """Where people go on each leg of their walks: of two points of the area, the one further away."""
    low, high = corners_of(place)

    def of(number, leg):
        one = jax.random.fold_in(jax.random.fold_in(key, number), leg)
        return jax.random.uniform(one, (2, 2), minval=low, maxval=high)

    goals = jax.vmap(of)(jnp.arange(len(legs)), legs)
    away = jnp.linalg.norm(goals - position[:, None], axis=-1)
    return jnp.take_along_axis(goals, jnp.argmax(away, axis=1)[:, None, None], axis=1)[:, 0]


def _evasion(position: Float[Array, "N 2"], yaw: Float[Array, "N"]) -> Float[Array, "N 2"]:
    """Velocity by which people give way to those whom they see near them: backwards and to one side, that of all."""
    apart, distance = _gaps(position)
    aside = jnp.stack([apart[..., 1], -apart[..., 0]], axis=-1)
    seen = jnp.clip(0.2 - (apart * _ahead(yaw)[:, None]).sum(-1), 0, 1)
    strength = seen * jnp.exp((ROOM - distance) / 0.3)
    return ((0.4 * apart + 1.2 * aside) * strength[..., None]).sum(axis=1)


def _ahead(yaw: Float[Array, "N"]) -> Float[Array, "N 2"]:
    """The unit vector in a direction."""
    return jnp.stack([jnp.sin(yaw), jnp.cos(yaw)], axis=-1)


def _apart(position: Float[Array, "N 2"], place: Place) -> Float[Array, "N 2"]:
    """People who are nearer to each other than ROOM are pushed apart, and kept in the area."""
    apart, distance = _gaps(position)
    position = position + 0.4 * (apart * jnp.maximum(ROOM - distance, 0)[..., None]).sum(axis=1)
    return jnp.clip(position, *corners_of(place))


def _gaps(position: Float[Array, "N 2"]) -> tuple[Float[Array, "N N 2"], Float[Array, "N N"]]:
    """The direction from each other person to each person, and the distance; FAR from oneself."""
    apart = position[:, None] - position
    distance = jnp.linalg.norm(apart + 1e-6, axis=-1)
    return apart / distance[..., None], jnp.where(jnp.eye(len(position), dtype=bool), FAR, distance)


def embody(carriage: Key[Array, ""], persons: Person, walkers: Walkers) -> Body:
    """The bodies of walking people, one in each row; the key decides how they hold themselves."""

    def one(number, person, yaw, position, phase, stride):
        pose = body.walking_pose(phase, stride=stride, carriage=jax.random.fold_in(carriage, number))
        return body.build(person.proportions, person.outfit, pose, yaw=yaw, position=position)

    numbers = jnp.arange(len(walkers.yaw))
    return jax.vmap(one)(numbers, persons, walkers.yaw, walkers.position, walkers.phase, _stride(walkers.speed))


def draw(
    bodies: Body,
    textures: Float[Array, "N 256 256 3"],
    place: Place,
    backdrop: Backdrop,
    seen_from: Camera,
    box: Box,
    *,
    height: int,
    width: int,
) -> Drawing:
    """People in front of a backdrop, lit, with their shadows on the ground and on each other.

    Args:
      bodies, textures: of the people, one in each row; sRGB in [0, 1].
      place: gives the light.
      backdrop: of the tiles that cover the picture, so up to TILE - 1 pixels larger at the bottom and on the right.
      seen_from, box: the camera, and the part of its picture.
      height, width: of the picture, in pixels.
    """
    rows, columns = _tiles(height, width)
    down, right = (TILE * each.ravel() for each in np.mgrid[:rows, :columns])
    boxes = _cut(box, height, width, down, right, down + TILE, right + TILE)
    grounds, on_ground = _split(backdrop.ground, TILE), _split(backdrop.on_ground, TILE)
    edges = jnp.stack([height - down, width - right], axis=-1)
    outlines, bound = _outlines(bodies, seen_from), _bound(bodies.solids)
    tiles = jax.lax.map(
        lambda tile: _draw_tile(bodies, textures, outlines, bound, place, seen_from, *tile),
        (boxes, edges, grounds, on_ground),
    )
    alone = tiles.alone.sum(axis=0)
    whole = jax.tree.map(lambda field: _joined(field, rows, columns), tiles._replace(alone=None))
    sun = whole.facing * renderer.averaged(whole.free)
    light = sun[..., None] * place.sun_colour + whole.sky[..., None] * place.sky_colour
    kept = renderer.kept_on_ground(renderer.averaged(whole.ground_free), whole.ground_sky, place, backdrop)
    picture = whole.colour * light + (1 - whole.coverage[..., None]) * backdrop.colour * kept
    return Drawing(picture[:height, :width], whole.shown[: SAMPLES * height, : SAMPLES * width], alone)


def _tiles(height: int, width: int) -> tuple[int, int]:
    """The number of rows and columns of tiles."""
    return -(-height // TILE), -(-width // TILE)


def _cut(box: Box, height: int, width: int, top, left, bottom, right) -> Box:
    """The part of a box between these rows and columns, of `height` and `width`; may go beyond it."""
    across, down = (box.right - box.left) / width, (box.top - box.bottom) / height
    return Box(box.left + across * left, box.left + across * right, box.top - down * bottom, box.top - down * top)


def _split(plane: Float[Array, "H W ..."], side: int) -> Float[Array, "tiles side side ..."]:
    """Cuts a plane into square tiles, row by row."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    blocks = plane.reshape(rows, side, columns, side, *plane.shape[2:])
    return jnp.swapaxes(blocks, 1, 2).reshape(rows * columns, side, side, *plane.shape[2:])


def _joined(tiles: Array, rows: int, columns: int) -> Array:
    """Puts tiles together again; the inverse of `_split`."""
    side = tiles.shape[1]
    blocks = jnp.swapaxes(tiles.reshape(rows, columns, *tiles.shape[1:]), 1, 2)
    return blocks.reshape(rows * side, columns * side, *tiles.shape[3:])


def _outlines(bodies: Body, seen_from: Camera) -> Box:
    """The box around each person, in tangents."""
    return jax.vmap(lambda own: camera.outline(seen_from, own))(bodies.solids)


def _bound(groups: Solids) -> _Bound:
    """A cylinder from the ground upwards around each row of solids."""
    squash = 1 / jnp.linalg.norm(groups.frame, axis=-1)
    upper = groups.origin + groups.frame[..., 1, :] * (jnp.square(squash[..., 1]) * groups.length)[..., None]
    ends = jnp.concatenate([groups.origin, upper], axis=1)
    radii = jnp.concatenate([groups.bottom, groups.top], axis=1) * jnp.tile(squash.max(-1), (1, 2))
    # An open solid ends in the circles of its mantle, which are wider than its balls.
    radii = radii * jnp.tile(jnp.where(groups.capped > 0, 1, jnp.sqrt(1 + jnp.square(solids.slope_of(groups)))), (1, 2))
    at = ends[:, 0, ::2]
    away = jnp.linalg.norm(ends[..., ::2] - at[:, None], axis=-1)
    present = radii > 0
    return _Bound(
        at,
        jnp.max(jnp.where(present, away + radii, 0), axis=1),
        jnp.max(jnp.where(present, ends[..., 1] + radii, 0), axis=1),
    )


def _draw_tile(bodies, textures, outlines, bound, place, seen_from, box, edges, ground, on_ground) -> _Tile:
    """What one tile shows; `edges` are the rows and columns of its pixels that lie in the picture."""
    in_tile = (outlines.left < box.right) & (outlines.right > box.left)
    in_tile &= (outlines.bottom < box.top) & (outlines.top > box.bottom)
    fine, each = jnp.arange(SAMPLES * TILE), len(bodies.solids.length[0])
    counted = (fine[:, None] < SAMPLES * edges[0]) & (fine < SAMPLES * edges[1])

    def nearer(number, found):
        shown, colours, alone = found
        one = _row(bodies, number)
        nothing = jax.tree.map(lambda field: field[:0], one.solids)
        mine = renderer.fragments(one, nothing, seen_from, box, height=SAMPLES * TILE, width=SAMPLES * TILE)
        own = jnp.square(renderer.unlit(textures[number], mine))
        alone = alone.at[number].set(jnp.sum(mine.person & counted))
        mine, closer = mine._replace(solid=mine.solid + number * each), mine.distance < shown.distance
        shown = jax.tree.map(
            lambda new, old: jnp.where(closer if new.ndim == 2 else closer[..., None], new, old), mine, shown
        )
        return shown, jnp.where(closer[..., None], own, colours), alone

    flat, size = jax.tree.map(lambda field: field.reshape(-1, *field.shape[2:]), bodies.solids), (len(fine), len(fine))
    nobody = Fragments(
        jnp.full(size, FAR), jnp.zeros(size, jnp.int32), jnp.zeros(size, bool), jnp.zeros(size, jnp.int32),
        jnp.zeros((*size, 2)),
    )  # fmt: skip
    nobody = nobody, jnp.zeros((*size, 3)), jnp.zeros(len(bound.radius), jnp.int32)
    shown, colours, alone = _over(in_tile, nearer, nobody)
    points, normals = renderer.surface(flat, shown, seen_from, box)
    coverage = renderer.binned(shown.person.astype(jnp.float32)[..., None])
    on_people, (x, y, z) = coverage[..., 0] > 0, jnp.moveaxis(ground, -1, 0)
    light = functools.partial(_free_and_open, bodies, bound, place)
    free, sky = light(renderer.raised(points, normals), points, normals, on_people)
    upwards = tuple(jnp.array([0.0, 1.0, 0.0]))
    ground_free, ground_sky = light((x, y + 0.005, z), (x, y, z), upwards, on_ground > 0)
    return _Tile(
        shown=jnp.where(shown.person, shown.solid // each, NOBODY),
        alone=alone,
        coverage=coverage[..., 0],
        colour=renderer.binned(colours),
        facing=renderer.facing_sun(normals, place),
        free=free,
        sky=sky_share(normals[1]) * sky,
        ground_free=ground_free,
        ground_sky=ground_sky,
    )


def _free_and_open(
    bodies: Body,
    bound: _Bound,
    place: Place,
    starts: Vectors,
    points: Vectors,
    normals: Vectors,
    wanted: Bool[Array, "t t"],
) -> tuple[Float[Array, "t t"], Float[Array, "t t"]]:
    """Whether nobody hides a pixel's point of the sun, and the share of the sky that nobody hides.

    Args:
      bodies, bound, place: the people, cylinders around them, and the light.
      starts, points, normals: where rays to the sun start, the points on the surface, and its normals.
      wanted: pixels of which they are needed; the others are free and open where nobody else is needed for these.
    """
    towards = renderer.towards_sun(place, *wanted.shape)

    def less_sun(number, free):
        hits = solids.trace(_row(bodies.solids, number), starts, towards)
        return free & (hits.distance >= FAR)

    def less_sky(number, share):
        return share * renderer.openness(_row(bodies.balls, number), points, normals)

    shades, near = jax.vmap(lambda one: _reaches(one, starts, towards, wanted))(bound)
    free = _over(shades, less_sun, jnp.ones(wanted.shape, bool))
    return jnp.where(wanted, free, True).astype(jnp.float32), _over(near, less_sky, jnp.ones(wanted.shape))


def _reaches(bound: _Bound, points: Vectors, towards: Vectors, wanted) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether a cylinder may hide the sun from any of the points that are wanted, and whether it is near to any."""
    x, y, z = points[0] - bound.at[0], points[1], points[2] - bound.at[1]
    dx, dy, dz = towards  # dy > 0, or there is no sun
    rise = jnp.maximum(bound.height - y, 0) / jnp.maximum(dy, 1e-3)  # length of the ray below the cylinder's top
    along = jnp.clip(-(x * dx + z * dz) / jnp.maximum(dx * dx + dz * dz, 1e-9), 0, rise)
    shades = jnp.hypot(x + along * dx, z + along * dz) < bound.radius
    return jnp.any(shades & wanted), jnp.any((jnp.hypot(x, z) < CONTACT) & wanted)


def _over(chosen: Bool[Array, "N"], step: Callable[[Int32[Array, ""], Carry], Carry], start: Carry) -> Carry:
    """The outcome of a step for each person that is chosen, in order; the others take no time.

    A scan with a condition would copy what is carried for each of them.
    """
    order = jnp.argsort(~chosen)
    return jax.lax.fori_loop(0, chosen.sum(), lambda place, carry: step(order[place], carry), start)


def _row(group, number: Int32[Array, ""]):
    return jax.tree.map(lambda field: field[number], group)
