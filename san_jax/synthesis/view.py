"""What the pixels of a place show, before colour and light: which surface, at which point and at which angle.

`stripes` averages periodic patterns over what a pixel covers, so that distant ones blur instead of flickering.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from san_jax.synthesis.solids import FAR, Hits, Vectors, dot, normals
from san_jax.synthesis.street import Place
from san_jax.synthesis.walls import NOWHERE

# Layers of a view: first the rows of `Place.surfaces`, then what has no such row.
STRIP, BESIDE, BACK_WALL, SIDE_WALL, TREES, SKY, THING = range(7)


class View(NamedTuple):
    """What every pixel shows.

    Attributes:
      point: x, y and z of the point, in metres.
      layer: STRIP to THING.
      u, v: coordinates of the point on its surface: along and across the street, or along and up a wall; in metres.
      du, dv: extent of the pixel in u and v, in metres.
      normal: x, y and z of the surface's unit normal.
      solid: index of the solid that is seen; only meaningful where the layer is THING.
    """

    point: Vectors
    layer: Int32[Array, "H W"]
    u: Float[Array, "H W"]
    v: Float[Array, "H W"]
    du: Float[Array, "H W"]
    dv: Float[Array, "H W"]
    normal: Vectors
    solid: Int32[Array, "H W"]

    @property
    def on_ground(self) -> Bool[Array, "H W"]:
        """Whether the pixel shows the ground."""
        return self.layer < BACK_WALL

    @property
    def on_wall(self) -> Bool[Array, "H W"]:
        """Whether the pixel shows one of the two walls."""
        return (self.layer == BACK_WALL) | (self.layer == SIDE_WALL)


class Met(NamedTuple):
    """Where rays meet the planes of a place.

    Attributes:
      distance: in lengths of the ray's direction.
      plane: 0 for the ground, 1 to 3 for the rows of `Place.walls`, 4 for the sky.
      ground: x, y and z where the ray meets the ground, through walls; finite above the horizon too.
    """

    distance: Float[Array, "H W"]
    plane: Int32[Array, "H W"]
    ground: Vectors


def meet(place: Place, camera: Float[Array, "3"], directions: Vectors) -> Met:
    """Where rays from the camera first meet the ground or a wall.

    Args:
      place: the place; its things are ignored.
      camera: start of the rays, in metres.
      directions: x, y and z of the rays, [H W] each, of any length.
    """
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
    return Met(distance, plane, ground)


def look(place: Place, camera: Float[Array, "3"], directions: Vectors, steps: list, met: Met, hits: Hits) -> View:
    """What the pixels show: the nearer of a plane and a thing.

    Args:
      place: the place.
      camera, directions: as in `meet`.
      steps: x, y and z by which directions change from a pixel to the one below, and to the one on its right.
      met: what `meet` returns.
      hits: where the rays meet the solids of the things.
    """
    planes, plane = _planes(place), met.plane
    thing = hits.distance < met.distance
    distance = jnp.minimum(hits.distance, met.distance)
    point = tuple(c + distance * d for c, d in zip(camera, directions, strict=True))

    def of_plane(field, axis):
        chosen = planes[0][field][axis]
        for number in (1, 2, 3):
            chosen = jnp.where(plane == number, planes[number][field][axis], chosen)
        return chosen

    normal, across, along = (tuple(of_plane(field, axis) for axis in range(3)) for field in range(3))
    slope = jnp.minimum(dot(normal, directions), -1e-3)
    reach = []
    for axis in (across, along):
        # From pixel to pixel the point moves with the ray's step, and along the ray until it is on the plane again.
        moves = (dot(axis, step) - dot(normal, step) / slope * dot(axis, directions) for step in steps)
        reach.append(jnp.minimum(distance * sum(jnp.abs(move) for move in moves), 1e4))
    u, v = dot(across, point), dot(along, point)
    beside = jnp.abs(v - place.strip.middle) > place.strip.half
    layer = jnp.where(plane == 0, beside.astype(jnp.int32), plane + 1)
    pixel = jnp.sqrt(dot(steps[0], steps[0])) * distance
    of_thing = normals(place.things.solids, hits.solid, point)
    return View(
        point=point,
        layer=jnp.where(thing, THING, layer),
        u=jnp.where(thing, point[0] + 0.7 * point[2], u),
        v=jnp.where(thing, point[1] + 0.7 * point[2], v),
        du=jnp.where(thing, pixel, reach[0]),
        dv=jnp.where(thing, pixel, reach[1]),
        normal=tuple(jnp.where(thing, t, n) for t, n in zip(of_thing, normal, strict=True)),
        solid=hits.solid,
    )


def _planes(place: Place):
    """The normal and the axes of u and v, for the ground and each wall."""
    cos, sin, up = jnp.cos(place.strip.turn), jnp.sin(place.strip.turn), (0.0, 1.0, 0.0)
    walls = [((-x, 0.0, -z), (z, 0.0, -x), up) for x, z, _, _ in place.walls]
    return [(up, (cos, 0.0, -sin), (sin, 0.0, cos)), *walls]


def stripes(position: Float[Array, "..."], reach: Float[Array, "..."], share) -> Float[Array, "..."]:
    """How much of each pixel is covered by stripes of period 1.

    Args:
      position: centre of the pixel, in periods.
      reach: width of the pixel, in periods.
      share: width of a stripe, which begins at every whole number.
    """
    reach = jnp.maximum(reach, 1e-3)

    def up_to(x):
        whole = jnp.floor(x)
        return whole * share + jnp.minimum(x - whole, share)

    return jnp.clip((up_to(position + reach / 2) - up_to(position - reach / 2)) / reach, 0, 1)
