"""Surfaces of ground and walls: asphalt, slabs, bricks, plaster, hedges and others, each given by a few numbers.

Every surface is flat. Its pattern is evaluated by formulas (`albedo.py`): tiles with joints, patches and grain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from san_jax.synthesis.dice import Dice


class Surface(NamedTuple):
    """A pattern of two colours, in tiles with joints between them. Colours are linear light.

    Attributes:
      colour: the main colour.
      other: the second colour, which single tiles and patches are mixed with.
      joint: colour of the joints.
      tile: length and width of a tile, in metres: along and across the street, or along and up a wall.
      bond: shift of each row of tiles against the previous one, in tiles.
      gap: width of the joints, in metres.
      unlike: largest share of `other` in a whole tile; the share is random for each tile.
      blotch: strength of patches of about a metre, which have more of `other` or are darker.
      grain: contrast of the fine grain, relative to the colour.
      pebble: size of the grain, in metres.
      gloss: share of the light that is mirrored at a grazing angle.
    """

    colour: Float[Array, "*n 3"]
    other: Float[Array, "*n 3"]
    joint: Float[Array, "*n 3"]
    tile: Float[Array, "*n 2"]
    bond: Float[Array, "*n"]
    gap: Float[Array, "*n"]
    unlike: Float[Array, "*n"]
    blotch: Float[Array, "*n"]
    grain: Float[Array, "*n"]
    pebble: Float[Array, "*n"]
    gloss: Float[Array, "*n"]


def _surface(
    colour, other, *, joint=(0.4, 0.4, 0.4), tile=(40.0, 40.0), bond=0.0, gap=0.0, unlike=0.0, blotch=0.2, grain=0.1,
    pebble=0.02, gloss=0.0
) -> Surface:  # fmt: skip
    """A surface whose colours are given in sRGB."""
    linear = [np.square(c).astype(np.float32) for c in (colour, other, joint)]
    rest = [np.asarray(x, np.float32) for x in (tile, bond, gap, unlike, blotch, grain, pebble, gloss)]
    return Surface(*linear, *rest)


SURFACES = {
    "asphalt": _surface((0.42, 0.42, 0.43), (0.33, 0.33, 0.34), blotch=0.5, grain=0.35, pebble=0.025, gloss=0.04),
    "old asphalt": _surface((0.53, 0.52, 0.50), (0.40, 0.39, 0.37), blotch=0.8, grain=0.3, pebble=0.03),
    "concrete": _surface((0.66, 0.65, 0.61), (0.52, 0.50, 0.46), joint=(0.3, 0.29, 0.27), tile=(3.6, 3.0), gap=0.025,
                         unlike=0.25, blotch=0.6, grain=0.1),
    "slabs": _surface((0.66, 0.65, 0.63), (0.55, 0.53, 0.50), joint=(0.36, 0.35, 0.32), tile=(0.6, 0.4), gap=0.016,
                      bond=0.5, unlike=0.7, blotch=0.4, grain=0.12),
    "square slabs": _surface((0.62, 0.62, 0.61), (0.50, 0.50, 0.50), joint=(0.32, 0.32, 0.30), tile=(0.5, 0.5),
                             gap=0.018, unlike=0.5, blotch=0.5, grain=0.12),
    "chequered slabs": _surface((0.67, 0.64, 0.58), (0.53, 0.40, 0.35), joint=(0.40, 0.36, 0.33), tile=(0.3, 0.3),
                                gap=0.01, unlike=1.0, blotch=0.2, grain=0.1),
    "red bricks": _surface((0.60, 0.40, 0.33), (0.48, 0.34, 0.30), joint=(0.45, 0.40, 0.35), tile=(0.22, 0.11),
                           bond=0.5, gap=0.012, unlike=0.9, blotch=0.3, grain=0.15),
    "grey bricks": _surface((0.57, 0.56, 0.55), (0.45, 0.42, 0.41), joint=(0.35, 0.34, 0.32), tile=(0.2, 0.1), bond=0.5,
                            gap=0.012, unlike=0.9, blotch=0.3, grain=0.15),
    "yellow bricks": _surface((0.70, 0.60, 0.44), (0.60, 0.50, 0.40), joint=(0.42, 0.38, 0.32), tile=(0.24, 0.12),
                              gap=0.012, unlike=0.8, blotch=0.3, grain=0.12),
    "gravel": _surface((0.60, 0.56, 0.49), (0.50, 0.45, 0.37), blotch=0.5, grain=0.45, pebble=0.035),
    "soil": _surface((0.48, 0.41, 0.33), (0.37, 0.36, 0.22), blotch=0.9, grain=0.4, pebble=0.05),
    "grass": _surface((0.33, 0.43, 0.20), (0.45, 0.44, 0.26), blotch=0.8, grain=0.55, pebble=0.05),
    "ground cover": _surface((0.24, 0.34, 0.17), (0.36, 0.42, 0.20), blotch=0.7, grain=0.75, pebble=0.09),
    "white tiles": _surface((0.80, 0.79, 0.76), (0.74, 0.72, 0.68), joint=(0.56, 0.55, 0.52), tile=(0.6, 0.6),
                            gap=0.008, unlike=0.4, blotch=0.2, grain=0.03, gloss=0.6),
    "beige tiles": _surface((0.74, 0.67, 0.57), (0.66, 0.58, 0.48), joint=(0.45, 0.40, 0.34), tile=(0.8, 0.8),
                            gap=0.008, unlike=0.5, blotch=0.3, grain=0.08, gloss=0.5),
    "granite": _surface((0.58, 0.57, 0.57), (0.46, 0.46, 0.47), joint=(0.36, 0.36, 0.36), tile=(0.9, 0.6),
                        gap=0.008, unlike=0.5, blotch=0.2, grain=0.2, pebble=0.015, gloss=0.35),
    "linoleum": _surface((0.55, 0.58, 0.57), (0.47, 0.51, 0.51), tile=(2.0, 30.0), gap=0.006, blotch=0.3, grain=0.06,
                         gloss=0.5),
    "brick wall": _surface((0.55, 0.34, 0.28), (0.43, 0.27, 0.24), joint=(0.62, 0.58, 0.53), tile=(0.25, 0.075),
                           bond=0.5, gap=0.012, unlike=0.9, blotch=0.3, grain=0.12),
    "plaster": _surface((0.78, 0.75, 0.69), (0.66, 0.62, 0.56), blotch=0.5, grain=0.05),
    "coloured plaster": _surface((0.72, 0.60, 0.45), (0.62, 0.52, 0.40), blotch=0.5, grain=0.05),
    "concrete wall": _surface((0.60, 0.59, 0.57), (0.46, 0.45, 0.43), joint=(0.33, 0.32, 0.31), tile=(2.4, 1.2),
                              gap=0.02, unlike=0.4, blotch=0.8, grain=0.08),
    "tiled wall": _surface((0.78, 0.76, 0.72), (0.66, 0.62, 0.56), joint=(0.52, 0.50, 0.47), tile=(0.24, 0.06),
                           gap=0.008, unlike=0.5, blotch=0.4, grain=0.03, gloss=0.1),
    "stone wall": _surface((0.60, 0.57, 0.52), (0.44, 0.42, 0.40), joint=(0.35, 0.33, 0.30), tile=(0.55, 0.3),
                           bond=0.37, gap=0.025, unlike=1.0, blotch=0.5, grain=0.2, pebble=0.04),
    "shutter": _surface((0.56, 0.59, 0.62), (0.46, 0.49, 0.53), joint=(0.36, 0.38, 0.41), tile=(2.8, 0.1), gap=0.03,
                        unlike=0.1, blotch=0.4, grain=0.03),
    "boards": _surface((0.50, 0.40, 0.31), (0.40, 0.31, 0.24), joint=(0.2, 0.16, 0.13), tile=(0.14, 9.0), gap=0.012,
                       unlike=0.9, blotch=0.4, grain=0.12),
    "hedge": _surface((0.25, 0.35, 0.18), (0.16, 0.24, 0.11), blotch=0.8, grain=0.9, pebble=0.07),
    "fence": _surface((0.24, 0.31, 0.20), (0.33, 0.36, 0.27), joint=(0.2, 0.22, 0.22), tile=(0.13, 1.3), gap=0.03,
                      blotch=0.9, grain=0.6, pebble=0.15),
    "trees": _surface((0.26, 0.34, 0.20), (0.40, 0.46, 0.36), blotch=0.9, grain=0.7, pebble=0.5),
}  # fmt: skip
_TABLE = jax.tree.map(lambda *fields: np.stack(fields), *SURFACES.values())


def indices(names: Sequence[str]) -> list[int]:
    """Indices into SURFACES of surfaces given by name."""
    order = list(SURFACES)
    return [order.index(name) for name in names]


def random_surfaces(
    key: Key[Array, ""], *, strip: Int[Array, "_"], beside: Int[Array, "_"], wall: Int[Array, "_"]
) -> Surface:
    """The five surfaces of a place, with random shades, tints and tile sizes; two walls may have the same surface.

    Args:
      key: decides which surface is chosen and how it varies.
      strip, beside, wall: indices into SURFACES of the candidates for the street, the ground beside it, and the walls.

    Returns:
      Surfaces of the street, of the ground beside it, of the back wall, of the side wall, and of distant trees.
    """
    dice = Dice(*jax.random.split(key))
    on_strip, on_ground, on_wall = (names[dice.index(len(names))] for names in (strip, beside, wall))
    on_side = jnp.where(dice.chance(0.5), on_wall, wall[dice.index(len(wall))])
    chosen = jnp.stack([on_strip, on_ground, on_wall, on_side, jnp.int32(*indices(["trees"]))])
    surfaces = jax.tree.map(lambda field: jnp.asarray(field)[chosen], _TABLE)
    shade, tint = jnp.exp(0.2 * dice.normal(5, 1)), jnp.exp(0.045 * dice.normal(5, 3))

    def tinted(colour):
        return jnp.minimum(colour * shade * tint, 0.8)

    return surfaces._replace(
        colour=tinted(surfaces.colour),
        other=tinted(surfaces.other),
        joint=tinted(surfaces.joint),
        tile=surfaces.tile * dice.between(0.85, 1.25, (5, 1)),
        grain=surfaces.grain * dice.between(0.6, 1.2, (5,)),
    )
