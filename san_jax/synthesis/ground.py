"""Layout of the ground: where the street runs, its kerbs and its painted lines."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from san_jax.synthesis.dice import Dice


class Strip(NamedTuple):
    """A street: a strip of one surface on ground of another, with optional kerbs and painted lines on both sides.

    Attributes:
      turn: angle of the street, in radians; 0 runs from left to right in the picture, pi/2 away from the camera.
      middle: coordinate of the centre line across the street, in metres.
      half: half of the street's width, in metres.
      kerb: width of the kerbs, in metres; 0 for none.
      line: distance of the painted lines from the street's edge, in metres; negative on the street.
      dash: length of the lines' dashes, in metres; above 50 the lines are solid.
      line_colour: linear light.
      cover: how well the paint is preserved, 0 (no line) to 1.
    """

    turn: Float[Array, ""]
    middle: Float[Array, ""]
    half: Float[Array, ""]
    kerb: Float[Array, ""]
    line: Float[Array, ""]
    dash: Float[Array, ""]
    line_colour: Float[Array, "3"]
    cover: Float[Array, ""]


def random_strip(
    key: Key[Array, ""],
    *,
    half: Float[Array, "2"],
    kerb: Float[Array, ""],
    line: Float[Array, ""],
    far: Float[Array, ""],
) -> Strip:
    """A street in a random direction, through the area where people walk.

    Args:
      key: decides everything that the arguments below leave open.
      half: least and largest half width, in metres.
      kerb, line: probabilities of kerbs and of painted lines.
      far: z up to which people walk, in metres.
    """
    dice = Dice(*jax.random.split(key))
    low, high = half
    turn = jnp.where(dice.chance(0.5), dice.between(-0.35, 0.35), jnp.pi / 2 + dice.between(-0.5, 0.5))
    yellow = dice.chance(0.4)[..., None]
    return Strip(
        turn=turn,
        # Across the street is z where it runs from left to right, and x where it runs away from the camera.
        middle=jnp.cos(turn) * dice.between(0.55, 0.9) * far + jnp.sin(turn) * dice.between(-2.0, 2.0),
        half=dice.between(low, high),
        kerb=dice.chance(kerb) * dice.between(0.1, 0.2),
        line=jnp.where(dice.chance(0.5), dice.between(0.35, 0.6), -dice.between(0.3, 0.6)),
        dash=jnp.where(dice.chance(0.3), 2.0, 100.0),
        line_colour=yellow * jnp.square(jnp.array([0.8, 0.66, 0.3])) + (1 - yellow) * jnp.square(jnp.full(3, 0.82)),
        cover=dice.chance(line) * dice.between(0.4, 0.95),
    )
