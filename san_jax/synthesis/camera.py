"""Pinhole cameras, boxes in their pictures, and the rays through the pixels of a box."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


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


def _unit(vector: Float[Array, "3"]) -> Float[Array, "3"]:
    return vector / jnp.linalg.norm(vector)
