"""Light in a place: sun, sky, shadows of its things, reflections and haze."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from san_jax.synthesis.solids import Vectors, dot
from san_jax.synthesis.street import Place
from san_jax.synthesis.things import shade
from san_jax.synthesis.view import SKY, View, stripes


def sky_share(up: Float[Array, "..."]) -> Float[Array, "..."]:
    """The share of the sky's light on a surface whose normal has y = `up`; the ground reflects some of it upwards."""
    return 0.7 + 0.3 * up


class Light(NamedTuple):
    """What lights each pixel.

    Attributes:
      sun, sky: shares of the place's sun and sky light that reach the surface.
      mirror: share of sky light that is mirrored.
      haze: share of the pixel that is covered by haze, 0 to 1; 1 for the sky itself.
    """

    sun: Float[Array, "H W"]
    sky: Float[Array, "H W"]
    mirror: Float[Array, "H W"]
    haze: Float[Array, "H W"]


def light_on(place: Place, view: View, directions: Vectors, gloss: Float[Array, "H W"]) -> Light:
    """The light on each pixel.

    Args:
      place: its light, walls, lamps and things.
      view: what the pixels show.
      directions: x, y and z of their rays, of any length.
      gloss: share of the light that is mirrored at a grazing angle.
    """
    x, _, z = view.point
    facing = jnp.maximum(dot(view.normal, place.sun), 0)
    contact, shadow = shade(place.things, x, z, sun=place.sun, sun_softness=place.sun_softness)
    contact, shadow = (jnp.where(view.on_ground, share, 0) for share in (contact, shadow))
    # It is darker where ground and wall meet.
    corner = sum(jnp.exp(-jnp.abs(d - x * nx - z * nz) / 0.35) for nx, nz, d, _ in place.walls[:2])
    foot = 0.25 * jnp.exp(-view.v / 0.3)
    corner = jnp.where(view.on_ground, 0.3 * jnp.minimum(corner, 1), jnp.where(view.on_wall, foot, 0))
    sky = sky_share(view.normal[1]) * (1 - contact) * (1 - corner)
    sun = facing * (1 - shadow * (1 - 0.8 * place.sun_softness)) * (1 - contact)
    # The mirror image of the sky, or of the ceiling's lamps.
    dx, dy, dz = directions
    length = jnp.sqrt(dx * dx + dy * dy + dz * dz)
    grazing = jnp.clip(1 + dot(view.normal, directions) / length, 0, 1) ** 3
    down = jnp.maximum(-dy, 0.03)
    cell_u, cell_v, rise = place.lamps
    period_u, period_v = jnp.maximum(cell_u, 0.1), jnp.maximum(cell_v, 0.1)
    lamps = stripes((x + rise * dx / down) / period_u, 0.5 / period_u, 0.35)
    lamps = lamps * stripes((z + rise * dz / down) / period_v, 1.0 / period_v, 0.3)
    mirror = gloss * grazing * jnp.where(rise > 0, 0.25 + 1.6 * lamps, 0.8)
    haze = jnp.where(view.layer == SKY, 1.0, 1 - jnp.exp(-jnp.hypot(x, z) / 250))
    return Light(sun, sky, mirror, haze)


def lit(place: Place, albedo: Vectors, light: Light) -> Float[Array, "H W 3"]:
    """The picture in linear light: colours under white light (red, green and blue planes) times the light on them."""
    colour = []
    for a, sun, sky in zip(albedo, place.sun_colour, place.sky_colour, strict=True):
        seen = a * (sun * light.sun + sky * light.sky) + light.mirror * (sky + 0.5 * sun)
        colour.append(seen + light.haze * (1.1 * sky + 0.2 * sun - seen))
    return jnp.stack(colour, axis=-1)
