"""Where a camera stands, what part of its picture is cut out, and the rays through the pixels of that part."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Camera(NamedTuple):
    """A pinhole without roll.

    Attributes:
      position: in metres.
      right, up, forward: unit vectors of the picture.
    """

    position: Float[Array, "3"]
    right: Float[Array, "3"]
    up: Float[Array, "3"]
    forward: Float[Array, "3"]


class Box(NamedTuple):
    """A rectangle of the picture, in tangents of the angles to the camera's axis; `bottom` < `top`."""

    left: Float[Array, ""]
    right: Float[Array, ""]
    bottom: Float[Array, ""]
    top: Float[Array, ""]


def look_at(position: Float[Array, "3"], target: Float[Array, "3"]) -> Camera:
    """A camera whose axis meets the target; it must not stand right above or below it."""
    forward = _unit(target - position)
    right = _unit(jnp.cross(forward, jnp.array([0.0, 1.0, 0.0])))
    return Camera(position, right, jnp.cross(right, forward), forward)


def project(camera: Camera, points: Float[Array, "*n 3"]) -> Float[Array, "*n 2"]:
    """Where points before the camera are in its picture: tangents, to the right and up."""
    towards = points - camera.position
    depth = jnp.maximum(towards @ camera.forward, 1e-3)
    return jnp.stack([towards @ camera.right, towards @ camera.up], axis=-1) / depth[..., None]


def rays(camera: Camera, box: Box, *, height: int, width: int) -> tuple[Float[Array, "H W"], ...]:
    """x, y and z of the directions through the centres of a box's pixels, from top to bottom; not of unit length."""
    across = box.left + (box.right - box.left) * (jnp.arange(width) + 0.5) / width
    down = box.top + (box.bottom - box.top) * (jnp.arange(height) + 0.5) / height
    return tuple(
        f + u * down[:, None] + r * across[None, :]
        for f, u, r in zip(camera.forward, camera.up, camera.right, strict=True)
    )


def _unit(vector: Float[Array, "3"]) -> Float[Array, "3"]:
    return vector / jnp.linalg.norm(vector)
