"""The walls of a place, which bound what the camera sees, and the windows in them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from san_jax.synthesis.dice import Dice

NOWHERE = 1e3  # distance of a wall that does not exist, in metres


class Windows(NamedTuple):
    """A row of equal windows in both walls.

    Attributes:
      period: distance from one window to the next, in metres.
      width: in metres; 0 for no windows.
      sill, top: heights of the lower and the upper edge, in metres.
      glass, frame: colours, linear light.
    """

    period: Float[Array, ""]
    width: Float[Array, ""]
    sill: Float[Array, ""]
    top: Float[Array, ""]
    glass: Float[Array, "3"]
    frame: Float[Array, "3"]


def random_walls(
    key: Key[Array, ""],
    *,
    height: Float[Array, "2"],
    far: Float[Array, ""],
    half_width: Float[Array, ""],
    indoors: Bool[Array, ""],
) -> Float[Array, "3 4"]:
    """A wall behind the people, one on the left or the right or none, and a row of trees far behind.

    Args:
      key: decides everything that the arguments below leave open.
      height: least and largest height of the walls, in metres.
      far, half_width: people walk at z up to `far` and |x| up to `half_width`, in metres.
      indoors: whether the back wall is near.

    Returns:
      One upright plane in each row: x and z of its normal, distance from the origin and height, in metres.
    """
    dice = Dice(*jax.random.split(key))
    low, high = height
    turn = dice.between(-0.3, 0.3)
    behind = far + jnp.where(indoors, dice.between(0.8, 5.0), dice.between(1.0, 9.0))
    left = 2 * dice.chance(0.5) - 1
    aside = jnp.where(dice.chance(0.45), half_width + dice.between(0.5, 3.0), NOWHERE)
    slant = left * jnp.pi / 2 + turn
    return jnp.stack([
        jnp.stack([jnp.sin(turn), jnp.cos(turn), behind * jnp.cos(turn), dice.between(low, high)]),
        jnp.stack([jnp.sin(slant), jnp.cos(slant), aside, dice.between(low, high)]),
        jnp.stack([jnp.float32(0), jnp.float32(1), dice.between(35.0, 70.0), dice.between(5.0, 12.0)]),
    ])  # fmt: skip


def random_windows(key: Key[Array, ""], *, chance: Float[Array, ""]) -> Windows:
    """Shop windows or small windows with probability `chance`, otherwise none."""
    dice = Dice(*jax.random.split(key))
    shop = dice.chance(0.5)
    period = dice.between(1.6, 3.6)
    sill = jnp.where(shop, dice.between(0.1, 0.5), dice.between(0.8, 1.2))
    return Windows(
        period=period,
        width=dice.chance(chance) * period * jnp.where(shop, 0.92, dice.between(0.4, 0.65)),
        sill=sill,
        top=sill + jnp.where(shop, dice.between(2.0, 2.6), dice.between(1.1, 1.6)),
        glass=jnp.square(dice.between(0.16, 0.34) * jnp.exp(0.08 * dice.normal(3))),
        frame=jnp.square(jnp.where(dice.chance(0.5), 0.75, 0.25) * jnp.exp(0.05 * dice.normal(3))),
    )
