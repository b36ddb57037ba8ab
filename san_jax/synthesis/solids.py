"""The one solid that everything is made of: a rounded cone under an affine map, and how rays meet it.

In its own frame a rounded cone is the hull of two balls on the y axis: radius `bottom` at 0, radius `top` at `length`.
The affine map from the world turns it, moves it, and squashes it: a trunk is wider than deep, a head is an ellipsoid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

FAR = 1e6  # metres to what no ray meets
# x, y and z of many points or directions, each an array of any shape: such planes vectorise, rows of three do not.
Vectors = tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]


class Solids(NamedTuple):
    """Rounded cones; every field has one entry a solid.

    Attributes:
      frame: world to own frame, the linear part: own = frame @ (world - origin).
      origin: where the bottom ball's centre is, in metres.
      bottom, top: radii, in metres of the own frame; a solid of which neither is positive is not there.
      length: between the balls' centres, more than the difference of the radii; 0 for one ball, of radius `bottom`.
      capped: 1, or 0 to leave the balls out: a skirt, open at its hem, of which rays see the outside alone.
    """

    frame: Float[Array, "*S 3 3"]
    origin: Float[Array, "*S 3"]
    bottom: Float[Array, "*S"]
    top: Float[Array, "*S"]
    length: Float[Array, "*S"]
    capped: Float[Array, "*S"]


class Hits(NamedTuple):
    """The first solid on every ray.

    Attributes:
      distance: in lengths of the ray's direction; FAR where there is none.
      solid: its index; 0 where there is none.
    """

    distance: Float[Array, "*rays"]
    solid: Int32[Array, "*rays"]


def concatenate(*groups: Solids) -> Solids:
    """All solids of the groups, in order."""
    return jax.tree.map(lambda *fields: jnp.concatenate(fields), *groups)


def trace(solids: Solids, starts: Vectors, directions: Vectors) -> Hits:
    """Where rays first meet a solid.

    Args:
      solids: what there is.
      starts: where the rays begin, outside of all solids; scalars if they all begin at one point.
      directions: of any length; hits are counted in it.
    """
    shape = directions[0].shape
    missed = Hits(jnp.full(shape, FAR), jnp.zeros(shape, jnp.int32))

    # One solid after the other, so that what is held is two numbers a ray and not two a ray and solid.
    def nearer(hits: Hits, one: tuple[Int32[Array, ""], Solids]) -> tuple[Hits, None]:
        index, solid = one
        moved = tuple(start - origin for start, origin in zip(starts, solid.origin, strict=True))
        distance = _first_hit(solid, turned(solid.frame, moved), turned(solid.frame, directions))
        closer = distance < hits.distance
        return Hits(jnp.where(closer, distance, hits.distance), jnp.where(closer, index, hits.solid)), None

    return jax.lax.scan(nearer, missed, (jnp.arange(len(solids.length), dtype=jnp.int32), solids))[0]


def turned(matrix: Float[Array, "3 3 ..."], vectors: Vectors) -> Vectors:
    """The matrix times every vector; or its entries' own, where they have further axes."""
    x, y, z = vectors
    return tuple(row[0] * x + row[1] * y + row[2] * z for row in matrix)


def dot(first, second) -> Float[Array, "..."]:
    """Scalar products of vectors, or one vector, given as x, y and z in any kind of sequence."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _slope(solid: Solids) -> Float[Array, "*S"]:
    """How fast the radius of the mantle, which touches both balls, grows with y."""
    sine = jnp.clip((solid.top - solid.bottom) / jnp.maximum(solid.length, 1e-6), -0.999, 0.999)
    return sine / jnp.sqrt(1 - sine**2)


def _first_hit(solid: Solids, start: Vectors, direction: Vectors) -> Float[Array, "..."]:
    """Distance to the mantle or the balls of one solid, in its own frame."""
    (ox, oy, oz), (dx, dy, dz) = start, direction
    slope = _slope(solid)
    stretch = jnp.sqrt(1 + slope**2)
    # The mantle: x^2 + z^2 = (radius at y)^2, between where it touches the balls.
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
    # The balls, which lie inside the hull where the mantle is.
    square, along, offset = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz
    bottom = _root(square, along, offset - jnp.square(solid.bottom))
    top = _root(
        square, along - solid.length * dy, offset - 2 * solid.length * oy + solid.length**2 - jnp.square(solid.top)
    )
    balls = jnp.where(solid.capped > 0, jnp.minimum(bottom, top), FAR)
    return jnp.where((solid.bottom > 0) | (solid.top > 0), jnp.minimum(mantle, balls), FAR)


def _root(a: Float[Array, "..."], b: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
    """The first positive t with a t^2 + 2 b t + c = 0; FAR where there is none. c > 0 where the ray starts outside."""
    discriminant = b * b - a * c
    nearest = (-b - jnp.sqrt(jnp.maximum(discriminant, 0))) / a
    return jnp.where((discriminant > 0) & (nearest > 0), nearest, FAR)


def normals(solids: Solids, index: Int32[Array, "*n"], points: Vectors) -> Vectors:
    """Unit vectors that point out of the surface, at points on it.

    Args:
      solids: what there is.
      index: the solid on whose surface a point is.
      points: on surfaces.
    """
    frame = jnp.moveaxis(solids.frame, 0, -1)[..., index]
    moved = tuple(point - origin[index] for point, origin in zip(points, solids.origin.T, strict=True))
    x, y, z = turned(frame, moved)
    # The normal's line meets the axis inside the mantle, or at a ball's centre.
    foot = jnp.clip(y + _slope(solids)[index] * jnp.sqrt(x * x + z * z), 0, solids.length[index])
    x, y, z = turned(jnp.swapaxes(frame, 0, 1), (x, y - foot, z))
    scale = jax.lax.rsqrt(jnp.maximum(x * x + y * y + z * z, 1e-12))
    return x * scale, y * scale, z * scale
