"""Rounded cones under affine maps, the shapes that everything is made of, and their intersections with rays.

In its own frame a rounded cone is the convex hull of two balls on the y axis: radius `bottom` at 0, radius `top` at
`length`. The affine map from the world turns, moves and squashes it: a trunk is wider than deep, a head an ellipsoid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

FAR = 1e6  # distance of rays that meet nothing
# x, y and z of many points or directions, as three arrays of one shape; XLA vectorises these, but not rows of three.
Vectors = tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]


class Solids(NamedTuple):
    """Rounded cones; every field has one entry per solid.

    Attributes:
      frame: linear part of the map from the world to the solid's own frame: own = frame @ (world - origin).
      origin: centre of the bottom ball, in metres.
      bottom, top: radii of the balls, in metres of the own frame; if neither is positive, the solid is absent.
      length: distance between the balls' centres, larger than the difference of the radii; 0 for a single ball of
        radius `bottom`.
      capped: 1; or 0 to leave out the balls, as for a skirt that is open at its hem: rays see only its outside.
    """

    frame: Float[Array, "*S 3 3"]
    origin: Float[Array, "*S 3"]
    bottom: Float[Array, "*S"]
    top: Float[Array, "*S"]
    length: Float[Array, "*S"]
    capped: Float[Array, "*S"]


class Hits(NamedTuple):
    """The first solid that each ray meets.

    Attributes:
      distance: in lengths of the ray's direction; FAR where the ray meets nothing.
      solid: index of the solid; 0 where the ray meets nothing.
    """

    distance: Float[Array, "*rays"]
    solid: Int32[Array, "*rays"]


def concatenate(*groups: Solids) -> Solids:
    """All solids of the groups, in order."""
    return jax.tree.map(lambda *fields: jnp.concatenate(fields), *groups)


def trace(solids: Solids, starts: Vectors, directions: Vectors) -> Hits:
    """Where rays first meet a solid.

    Args:
      solids: the solids of the scene.
      starts: start of each ray, outside all solids; scalars if all rays start at one point.
      directions: of any length, which is the unit of the distances returned.
    """
    shape = directions[0].shape
    missed = Hits(jnp.full(shape, FAR), jnp.zeros(shape, jnp.int32))

    # One solid after the other, which takes memory for two numbers per ray instead of two per ray and solid.
    def nearer(hits: Hits, one: tuple[Int32[Array, ""], Solids]) -> tuple[Hits, None]:
        index, solid = one
        moved = tuple(start - origin for start, origin in zip(starts, solid.origin, strict=True))
        distance = _first_hit(solid, turned(solid.frame, moved), turned(solid.frame, directions))
        closer = distance < hits.distance
        return Hits(jnp.where(closer, distance, hits.distance), jnp.where(closer, index, hits.solid)), None

    return jax.lax.scan(nearer, missed, (jnp.arange(len(solids.length), dtype=jnp.int32), solids))[0]


def turned(matrix: Float[Array, "3 3 ..."], vectors: Vectors) -> Vectors:
    """The matrix times every vector; if the matrix has further axes, each vector is multiplied by its own matrix."""
    x, y, z = vectors
    return tuple(row[0] * x + row[1] * y + row[2] * z for row in matrix)


def dot(first, second) -> Float[Array, "..."]:
    """Scalar products; vectors are given as x, y and z in any kind of sequence."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def slope_of(solid: Solids) -> Float[Array, "*S"]:
    """Growth of the mantle's radius with y; the mantle is the cone that touches both balls."""
    sine = jnp.clip((solid.top - solid.bottom) / jnp.maximum(solid.length, 1e-6), -0.999, 0.999)
    return sine / jnp.sqrt(1 - sine**2)


def _first_hit(solid: Solids, start: Vectors, direction: Vectors) -> Float[Array, "..."]:
    """Distance to the mantle or the balls of one solid, in its own frame."""
    (ox, oy, oz), (dx, dy, dz) = start, direction
    slope = slope_of(solid)
    stretch = jnp.sqrt(1 + slope**2)
    # The mantle: x^2 + z^2 = (radius at y)^2, between the circles in which it touches the balls.
    radius, growth = solid.bottom * stretch + slope * oy, slope * dy
    low = -solid.capped * solid.bottom * slope / stretch
    high = solid.length - solid.capped * solid.top * slope / stretch
    distance = _root(
        dx * dx + dz * dz - growth * growth,
        ox * dx + oz * dz - radius * growth,
        ox * ox + oz * oz - radius * radius,
    )
    height = oy + distance * dy
    mantle = jnp.where((height > low) & (height < high), distance, FAR)
    # Where the mantle is, the balls lie inside the hull and are never hit first.
    square, along, offset = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz
    bottom = _root(square, along, offset - jnp.square(solid.bottom))
    top = _root(
        square, along - solid.length * dy, offset - 2 * solid.length * oy + solid.length**2 - jnp.square(solid.top)
    )
    balls = jnp.where(solid.capped > 0, jnp.minimum(bottom, top), FAR)
    return jnp.where((solid.bottom > 0) | (solid.top > 0), jnp.minimum(mantle, balls), FAR)


def _root(a: Float[Array, "..."], b: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
    """The first positive t with a t^2 + 2 b t + c = 0, or FAR; c > 0, since rays start outside."""
    discriminant = b * b - a * c
    nearest = (-b - jnp.sqrt(jnp.maximum(discriminant, 0))) / a
    return jnp.where((discriminant > 0) & (nearest > 0), nearest, FAR)


def normals(solids: Solids, index: Int32[Array, "*n"], points: Vectors) -> Vectors:
    """Outward unit normals at points on surfaces.

    Args:
      solids: the solids of the scene.
      index: index of the solid on whose surface each point lies.
      points: the points, in metres.
    """
    frame = jnp.moveaxis(solids.frame, 0, -1)[..., index]
    moved = tuple(point - origin[index] for point, origin in zip(points, solids.origin.T, strict=True))
    x, y, z = turned(frame, moved)
    # The normal meets the axis at `foot`: a point inside the mantle, or the centre of a ball.
    foot = jnp.clip(y + slope_of(solids)[index] * jnp.sqrt(x * x + z * z), 0, solids.length[index])
    x, y, z = turned(jnp.swapaxes(frame, 0, 1), (x, y - foot, z))
    scale = jax.lax.rsqrt(jnp.maximum(x * x + y * y + z * z, 1e-12))
    return x * scale, y * scale, z * scale
