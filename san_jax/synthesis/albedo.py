"""Colours of a place under white light: surfaces, marks on the ground, windows and things.

Surfaces are patterns of tiles, patches and grain by value noise, averaged over what a pixel covers.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from san_jax.synthesis.dice import noise, per_cell
from san_jax.synthesis.solids import Vectors
from san_jax.synthesis.street import Place
from san_jax.synthesis.view import THING, View, stripes


def albedo_of(place: Place, view: View) -> tuple[Vectors, Float[Array, "H W"]]:
    """Colours under white light, and gloss.

    Returns:
      Planes of red, green and blue, linear; and the share of the light that is mirrored at a grazing angle.
    """
    surfaces, layer = place.surfaces, view.layer

    def of_layer(values, *, thing):
        chosen = jnp.where(layer == THING, thing, values[0])
        for number in range(1, 5):
            chosen = jnp.where(layer == number, values[number], chosen)
        return chosen

    tile, bond, gap = surfaces.tile, of_layer(surfaces.bond, thing=0.0), of_layer(surfaces.gap, thing=0.0)
    wide, high = of_layer(tile[:, 0], thing=100.0), of_layer(tile[:, 1], thing=100.0)
    u, v = view.u, view.v
    row = jnp.floor(v / high)
    blur = jnp.clip(2 * view.dv / high - 0.5, 0, 1)  # 1 where a pixel covers several rows
    shifted = u / wide + bond * row
    upright = stripes(shifted, view.du / wide, gap / wide)
    upright = upright + blur * (gap / wide - upright)
    level = stripes(v / high, view.dv / high, gap / high)
    joint = upright + level - upright * level

    seed = place.seed.astype(jnp.uint32) + 0x51 * layer.astype(jnp.uint32)
    apart = jnp.clip(1.5 - jnp.maximum(view.du / wide, view.dv / high), 0, 1)
    single = 0.5 + apart * (per_cell(jnp.floor(shifted), row, seed) - 0.5)
    spread = jnp.maximum(view.du, view.dv)
    broad = noise(u / 1.7, v / 1.7, seed + 1) * 0.65 + noise(u / 0.41, v / 0.41, seed + 2) * 0.35
    pebble = of_layer(surfaces.pebble, thing=0.06)
    grain = 0.0
    for octave, size in ((3, pebble), (4, 3 * pebble)):
        visible = jnp.clip(1.4 - 0.5 * spread / size, 0, 1)
        grain = grain + visible * (noise(u / size, v / size, seed + octave) - 0.5)

    patches = of_layer(surfaces.blotch, thing=0.1)
    patch = jnp.clip(3.2 * (broad - 0.5) + 0.5, 0, 1)
    mix = jnp.clip(of_layer(surfaces.unlike, thing=0.0) * single + 0.6 * patches * patch, 0, 1)
    rough = of_layer(surfaces.grain, thing=0.05 + 0.9 * place.things.leafy[view.solid])
    shade = (1 + rough * grain) * (1 - 0.35 * patches * (1 - patch))
    own = place.things.colours[view.solid]
    colours = []
    for c in range(3):
        colour, other = (of_layer(f[:, c], thing=own[..., c]) for f in (surfaces.colour, surfaces.other))
        colour = (colour + mix * (other - colour)) * shade
        colours.append(colour + joint * (of_layer(surfaces.joint[:, c], thing=0.0) - colour))
    gloss = of_layer(surfaces.gloss, thing=0.0)
    paved = pebble < 0.05  # coarser grain is earth or leaves
    colours = _marked(place, view, colours, worn=broad, paved=paved, seed=seed)
    colours, gloss = _glazed(place, view, colours, gloss, solid=paved)
    return tuple(colours), gloss


def _marked(place: Place, view: View, albedo, *, worn, paved, seed):
    """Adds painted lines, kerbs, a manhole, leaves, cracks, and grime at the foot of walls.

    Args:
      place, view: as in `albedo_of`.
      albedo: planes of red, green and blue.
      worn: noise in [0, 1] that determines where paint is worn off.
      paved: whether the surface is hard.
      seed: seed of the noise, for each pixel's surface.
    """
    strip, (x, height, z) = place.strip, view.point
    on_ground = view.on_ground
    outwards = jnp.abs(view.v - strip.middle) - strip.half

    def band(start, width):
        """How much of each pixel lies in a band along both edges of the street."""
        low, high = jnp.maximum(outwards - view.dv / 2, start), jnp.minimum(outwards + view.dv / 2, start + width)
        return jnp.where(on_ground, jnp.clip((high - low) / jnp.maximum(view.dv, 1e-3), 0, 1), 0)

    def over(mask, colour):
        """The planes with a colour blended in."""
        return [a + mask * (c - a) for a, c in zip(albedo, colour, strict=True)]

    dashes = 1 - stripes(view.u / (2.5 * strip.dash), view.du / (2.5 * strip.dash), 0.6)
    dashes = jnp.where(strip.dash > 50, 1, dashes) * paved
    albedo = over(band(strip.line, 0.12) * dashes * strip.cover * jnp.clip(0.4 + 1.3 * worn, 0, 1), strip.line_colour)
    kerb = 0.42 * (1 - 0.5 * stripes(view.u, view.du, 0.015)) * (0.7 + 0.5 * worn)
    albedo = over(band(0.0, strip.kerb), (kerb, kerb, 0.95 * kerb))
    albedo = over(0.7 * band(-0.04, 0.04) * (strip.kerb > 0), (0.03, 0.03, 0.03))  # the gutter

    away = jnp.hypot(x - place.manhole[0], z - place.manhole[1]) / jnp.maximum(place.manhole[2], 1e-3)
    softness = spread = jnp.maximum(view.du, view.dv) / 0.33
    lid = jnp.where(on_ground, jnp.clip((1 - away) / spread + 0.5, 0, 1), 0)
    ring = jnp.clip(1 - jnp.abs(away - 0.93) / (0.06 + softness), 0, 1)
    pattern = 0.5 + jnp.clip(1 - spread / 0.2, 0, 1) * 0.5 * jnp.sin(60 * x) * jnp.sin(60 * z)
    iron = 0.10 + 0.04 * pattern - 0.06 * ring
    albedo = over(lid * (place.manhole[2] > 0), (iron, iron, iron))

    cell_u, cell_v = jnp.floor(4 * view.u), jnp.floor(4 * view.v)
    lot, aside, size = (per_cell(cell_u, cell_v, seed + n) for n in (11, 12, 13))
    from_leaf = jnp.hypot(4 * view.u - cell_u - 0.25 - 0.5 * aside, (4 * view.v - cell_v - 0.25 - 0.5 * size)) / 4
    radius = 0.015 + 0.03 * size
    blurred = radius + 0.5 * jnp.sqrt(view.du * view.dv)
    leaf = jnp.clip(2 - 2 * from_leaf / blurred, 0, 1) * jnp.square(radius / blurred) * (lot < place.litter)
    albedo = over(jnp.where(on_ground, leaf, 0), place.litter_colour * 1.0)

    torn = jnp.clip(6 * (noise(view.u / 2.9, view.v / 2.9, seed + 14) - 0.62), 0, 1)
    wander = noise(view.u / 1.1, view.v / 0.7, seed + 15) + 0.35 * worn
    crack = jnp.clip(1 - jnp.abs(wander - 0.65) / (0.012 + 0.04 * spread), 0, 1) * jnp.clip(1.2 - 3 * spread, 0, 1)
    sooty = jnp.where(on_ground & paved, 0.45 * torn * crack, 0)
    foot = jnp.where(view.on_wall, 0.45 * jnp.clip(1 - height / (0.25 + 0.5 * worn), 0, 1), 0)
    return [a * (1 - sooty) * (1 - foot) for a in albedo]


def _glazed(place: Place, view: View, albedo, gloss, *, solid):
    """Adds windows to solid walls, not to hedges; higher panes are brighter, since they mirror more of the sky."""
    windows = place.windows
    on_wall = view.on_wall & (windows.width > 0) & solid

    def inside(margin):
        """How much of each pixel lies in an opening that is larger by a margin."""
        wide = (windows.width + 2 * margin) / windows.period
        columns = stripes(view.u / windows.period + wide / 2, view.du / windows.period, wide)
        top, bottom = view.v + view.dv / 2, view.v - view.dv / 2
        rows = jnp.minimum(top, windows.top + margin) - jnp.maximum(bottom, windows.sill - margin)
        return jnp.where(on_wall, columns * jnp.clip(rows / jnp.maximum(view.dv, 1e-3), 0, 1), 0)

    frame, pane = inside(0.06), inside(0.0)
    number = jnp.floor(view.u / windows.period + 0.5)
    bright = 0.4 + 1.5 * per_cell(number, 0 * number, place.seed.astype(jnp.uint32) + 21) * jnp.clip(view.v / 2, 0.1, 1)
    bright = bright + 1.2 * jnp.square(noise(view.u * 1.3 + view.v, view.v * 0.8, place.seed.astype(jnp.uint32) + 22))
    albedo = [a + frame * (f - a) for a, f in zip(albedo, windows.frame, strict=True)]
    albedo = [a + pane * (g * bright - a) for a, g in zip(albedo, windows.glass, strict=True)]
    return albedo, gloss + pane * (0.3 - gloss)
