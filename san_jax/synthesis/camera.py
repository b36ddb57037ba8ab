"""Pinhole cameras, boxes in their pictures, and the rays through the pixels of a box."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from san_jax.synthesis.solids import Solids, slope_of


class Camera(NamedTuple):
    """A pinhole camera without roll.

    Attributes:
      position: in metres.
      right, up, forward: unit vectors in the world.
    """

    position: Float[Array, "3"]
    right: Float[Array, "3"]
    up: Float[Array, "3"]
    forward: Float[Array, "3"]


class Box(NamedTuple):
    """A rectangle in the picture, in tangents of the angles to the camera's axis; `bottom` < `top`."""

    left: Float[Array, ""]
    right: Float[Array, ""]
    bottom: Float[Array, ""]
    top: Float[Array, ""]


def look_at(position: Float[Array, "3"], target: Float[Array, "3"]) -> Camera:
    """A camera that looks at the target, which must not be straight above or below it."""
    forward = _unit(target - position)
    right = _unit(jnp.cross(forward, jnp.array([0.0, 1.0, 0.0])))
    return Camera(position, right, jnp.cross(right, forward), forward)


def project(camera: Camera, points: Float[Array, "*n 3"]) -> Float[Array, "*n 2"]:
    """Positions in the picture of points in front of the camera: tangents, to the right and up."""
    towards = points - camera.position
    depth = jnp.maximum(towards @ camera.forward, 1e-3)
    return jnp.stack([towards @ camera.right, towards @ camera.up], axis=-1) / depth[..., None]


def rays(camera: Camera, box: Box, *, height: int, width: int) -> tuple[Float[Array, "H W"], ...]:
    """Directions of the rays through the centres of a box's pixels, top row first; x, y and z, not of unit length."""
    across = box.left + (box.right - box.left) * (jnp.arange(width) + 0.5) / width
    down = box.top + (box.bottom - box.top) * (jnp.arange(height) + 0.5) / height
    return tuple(
        f + u * down[:, None] + r * across[None, :]
        for f, u, r in zip(camera.forward, camera.up, camera.right, strict=True)
    )


def outline(camera: Camera, solids: Solids) -> Box:
    """The smallest box that holds all of these solids, which are in front of the camera; exact."""
    squash = 1 / jnp.linalg.norm(solids.frame, axis=-1)
    axes = solids.frame * jnp.square(squash)[..., None]  # semi-axes in the world of an own ball of radius 1
    origin = solids.origin - camera.position
    centres = jnp.stack([origin, origin + axes[:, 1] * solids.length[:, None]])
    # A solid without its balls ends in two discs, on which the mantle stands.
    stretch = jnp.where(solids.capped > 0, 1, jnp.sqrt(1 + jnp.square(slope_of(solids))))
    radii = jnp.square(jnp.stack([solids.bottom, solids.top]) * stretch)[..., None]
    radii = radii * jnp.stack([jnp.ones_like(solids.capped), solids.capped, jnp.ones_like(solids.capped)], axis=-1)
    present = (solids.bottom > 0) | (solids.top > 0)
    limits = []
    for direction in (camera.right, camera.up):
        # Planes through the camera, with the normal direction - tangent * forward, that touch the ellipsoids.
        aside, ahead = centres @ direction, centres @ camera.forward
        along, depth = axes @ direction, axes @ camera.forward
        a, b, c = ((radii * product).sum(-1) for product in (along * along, along * depth, depth * depth))
        square, middle = ahead**2 - c, aside * ahead - b
        reach = jnp.sqrt(jnp.maximum(a * ahead**2 - 2 * b * aside * ahead + c * aside**2 + b**2 - a * c, 0))
        limits.append(jnp.min(jnp.where(present, (middle - reach) / square, jnp.inf)))
        limits.append(jnp.max(jnp.where(present, (middle + reach) / square, -jnp.inf)))
    return Box(*limits)


def _unit(vector: Float[Array, "3"]) -> Float[Array, "3"]:
    return vector / jnp.linalg.norm(vector)
