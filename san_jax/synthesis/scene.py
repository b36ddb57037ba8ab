"""One picture: a person in a place, a camera, a box around the person, and the camera's response to the light."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

from san_jax.synthesis import body, camera, lens, renderer, street, things
from san_jax.synthesis.backdrop import draw_backdrop
from san_jax.synthesis.body import Body
from san_jax.synthesis.camera import Box, Camera
from san_jax.synthesis.people import Person
from san_jax.synthesis.street import Place

MARGIN = 0.06  # space above and below a person in an annotator's box, as a share of the person's height


class Trouble(NamedTuple):
    """Difficulties of the pictures, each from 0 to 1.

    Attributes:
      occlusion: share of the pictures in which an object may hide part of the person.
      sloppiness: how inaccurate the boxes are, like a detector's: off centre, too large or too small, feet cut off.
    """

    occlusion: Float[Array, ""]
    sloppiness: Float[Array, ""]


class Shot(NamedTuple):
    """A picture, and which squares of 4 x 4 texels of the person's texture it shows."""

    picture: UInt8[Array, "H W 3"]
    seen: Bool[Array, "64 64"]


class Walk(NamedTuple):
    """A person's walk past one camera.

    Attributes:
      yaw: direction, in radians; 0 along z, pi/2 along x.
      start: x and z where it begins, in metres.
    """

    yaw: Float[Array, ""]
    start: Float[Array, "2"]


def random_walk(key: Key[Array, ""], place: Place) -> Walk:
    """A walk through a place, in a random direction."""
    yaw, start = jax.random.split(key)
    low, high = corners_of(place)
    return Walk(jax.random.uniform(yaw, maxval=2 * jnp.pi), jax.random.uniform(start, (2,), minval=low, maxval=high))


def corners_of(place: Place) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """The least and the largest x and z of the area where people walk."""
    return jnp.stack([-place.half_width, place.near]), jnp.stack([place.half_width, place.far])


def on_a_walk(
    key: Key[Array, ""], person: Person, place: Place, walk: Walk, trouble: Trouble, *, height: int, width: int
) -> UInt8[Array, "{height} {width} 3"]:
    """A picture of a walking person, about three metres at most from the walk's start.

    Args:
      key: decides the moment, the pose and the box; each key gives another moment of the walk.
      person, place, walk: the person, the place and the walk through it.
      trouble: what makes the picture hard.
      height, width: of the picture, in pixels.
    """
    moment, aside, turn, rest = jax.random.split(key, 4)
    steps = 3 * jax.random.uniform(moment)
    position = walk.start + steps * jnp.stack([jnp.sin(walk.yaw), jnp.cos(walk.yaw)])
    position = position + 0.3 * jax.random.normal(aside, (2,))
    position = jnp.clip(position, *corners_of(place))
    yaw = walk.yaw + 0.35 * jax.random.normal(turn)
    return _shot(rest, person, place, trouble, position=position, yaw=yaw, height=height, width=width).picture


def anywhere(
    key: Key[Array, ""],
    person: Person,
    *,
    height: int,
    width: int,
    photograph: UInt8[Array, "h w 3"] | None = None,
) -> Shot:
    """A picture to pair with the person's texture: a random place, pose and view, the person centred and unoccluded.

    Args:
      key: decides everything but the person.
      person: the person.
      height, width: of the picture, in pixels.
      photograph: background instead of a street; sRGB.
    """
    where, walk, rest = jax.random.split(key, 3)
    place = street.random_place(where)
    walk = random_walk(walk, place)
    none = Trouble(jnp.zeros(()), jnp.zeros(()))
    return _shot(
        rest, person, place, none, position=walk.start, yaw=walk.yaw, height=height, width=width, photograph=photograph
    )


def _shot(key, person, place, trouble, *, position, yaw, height, width, photograph=None):
    posing, time, boxing, hiding, responding, cropping = jax.random.split(key, 6)
    place = street.relight(place, time)
    somebody = body.build(person.proportions, person.outfit, body.random_pose(posing), yaw=yaw, position=position)
    middle = jnp.stack([position[0], person.proportions.stature / 2, position[1]])
    seen_from = camera.look_at(jnp.stack([jnp.zeros(()), place.camera_height, jnp.zeros(())]), middle)
    box = random_box(boxing, box_around(somebody, seen_from), trouble.sloppiness)
    occluders, colours = things.occluders(
        hiding, strength=trouble.occlusion, camera=seen_from.position, person=middle, height=person.proportions.stature
    )
    directions = camera.rays(seen_from, box, height=height, width=width)
    backdrop = draw_backdrop(place, seen_from.position, directions)
    if photograph is not None:
        backdrop = backdrop._replace(colour=lens.photograph(photograph, cropping, height=height, width=width))
    painting = renderer.paint(somebody, person.texture, occluders, colours, place, backdrop, seen_from, box)
    return Shot(lens.respond(place.response, responding, painting.picture), painting.seen)


def box_around(somebody: Body, seen_from: Camera) -> Box:
    """The box of a careful annotator: twice as high as wide, with the person in the middle."""
    solids = somebody.solids
    upper = solids.origin + solids.frame[:, 1] * solids.length[:, None]  # a solid's y is never squashed
    ends = jnp.concatenate([solids.origin, upper])
    radii = jnp.concatenate([solids.bottom, solids.top])
    present = jnp.tile((solids.bottom > 0) | (solids.top > 0), 2)[:, None]
    depth = (ends - seen_from.position) @ seen_from.forward
    where, reach = camera.project(seen_from, ends), (radii / depth)[:, None]
    low = jnp.min(jnp.where(present, where - reach, jnp.inf), axis=0)
    high = jnp.max(jnp.where(present, where + reach, -jnp.inf), axis=0)
    centre, size = (low + high) / 2, high - low
    tall = jnp.maximum(size[1] * (1 + 2 * MARGIN), 2 * size[0])
    return Box(centre[0] - tall / 4, centre[0] + tall / 4, centre[1] - tall / 2, centre[1] + tall / 2)


def random_box(key: Key[Array, ""], box: Box, sloppiness: Float[Array, ""]) -> Box:
    """The box of a careless annotator or of a detector.

    Args:
      key: decides the errors.
      box: the box of a careful annotator.
      sloppiness: 0 returns the box unchanged. At 1 the errors have these standard deviations: a tenth of the width and
        a twentieth of the height in position, a tenth in size, a tenth in aspect ratio; and one box in four loses the
        feet.
    """
    shift, size, cut, depth = jax.random.split(key, 4)
    wide, tall = box.right - box.left, box.top - box.bottom
    off = sloppiness * jax.random.normal(shift, (2,)) * jnp.stack([0.1 * wide, 0.05 * tall])
    scale = jnp.exp(0.1 * sloppiness * jax.random.normal(size, (2,)))
    x, y = (box.left + box.right) / 2 + off[0], (box.bottom + box.top) / 2 + off[1]
    wide, tall = wide * scale[0] * scale[1] / 2, tall * scale[0] / 2
    is_cut = jax.random.uniform(cut) < 0.25 * sloppiness
    lost = jnp.where(is_cut, jax.random.uniform(depth, minval=0.1, maxval=0.5), 0.0)  # of half the height
    return Box(x - wide, x + wide, y - tall * (1 - lost), y + tall)
