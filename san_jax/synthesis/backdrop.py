"""Backdrops: a place as its camera sees it, without people."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from san_jax.synthesis.albedo import albedo_of
from san_jax.synthesis.light import light_on, lit
from san_jax.synthesis.solids import Vectors, trace
from san_jax.synthesis.street import Place
from san_jax.synthesis.things import in_sight
from san_jax.synthesis.view import look, meet


class Backdrop(NamedTuple):
    """A picture of a place without people, and the ground in it, on which a person casts shadows.

    Attributes:
      colour: linear light.
      ground: x, y and z where each pixel's ray meets the ground, in metres; far away but finite above the horizon.
      on_ground: 1 where the pixel shows the ground, else 0.
    """

    colour: Float[Array, "H W 3"]
    ground: Float[Array, "H W 3"]
    on_ground: Float[Array, "H W"]


def draw_backdrop(place: Place, camera: Float[Array, "3"], directions: Vectors, *, whole: bool = False) -> Backdrop:
    """Draws a place as a camera sees it, lit, with the shadows of its own things.

    Args:
      place: the place to draw.
      camera: start of all rays, in metres.
      directions: x, y and z of the rays, broadcastable to [H W]; they change by the same step from each pixel to the
        next, as those of `camera.rays` do.
      whole: draws all things of the place, for wide pictures, and not only the few nearest to the middle.
    """
    directions = tuple(jnp.broadcast_arrays(*directions))
    if not whole:
        place = place._replace(things=in_sight(place.things, camera, directions))
    steps = [[d[1, 0] - d[0, 0] for d in directions], [d[0, 1] - d[0, 0] for d in directions]]
    met = _by_bands(lambda *rays: meet(place, camera, rays), *directions)
    hits = trace(place.things.solids, tuple(camera), directions)
    view = _by_bands(lambda met, hits, *rays: look(place, camera, rays, steps, met, hits), met, hits, *directions)
    albedo, gloss = _by_bands(lambda view: albedo_of(place, view), view)
    light = _by_bands(lambda view, gloss, *rays: light_on(place, view, rays, gloss), view, gloss, *directions)
    colour = _by_bands(lambda albedo, light: lit(place, albedo, light), albedo, light)
    return Backdrop(colour, jnp.stack(met.ground, axis=-1), view.on_ground.astype(jnp.float32))


def _by_bands(stage: Callable, *planes):
    """Computes stage(*planes) a few rows at a time.

    XLA would fuse one stage into the next and compute it again for everything that reads it, which is 30 times slower
    overall. It does not fuse into or out of a loop.
    """
    height = jax.tree.leaves(planes)[0].shape[0]
    bands = math.gcd(height, 8)
    split = jax.tree.map(lambda plane: plane.reshape(bands, height // bands, *plane.shape[1:]), planes)
    drawn = jax.lax.map(lambda band: stage(*band), split)
    return jax.tree.map(lambda plane: plane.reshape(height, *plane.shape[2:]), drawn)
