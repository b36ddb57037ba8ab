"""The UV atlas: which point of the body each texel of a texture image shows, the same for every person.

256 x 256 texels, laid out like SURREAL's textures: head and face at the top left, front and back of the trunk below,
legs, arms, hands and feet in the right third. A bag, which SURREAL does not have, is at the bottom right. Every part is
unrolled around its axis: columns are angles, rows are heights with the upper end at the top. The charts leave no gaps.

    +----------------------+------------+
    |        head          | thigh  l r |
    |                      | shin   l r |
    +----------------------+------------+
    |        neck          | upper  l r |
    +-----------+----------+ fore   l r |
    |   trunk,  |  trunk,  | hand   l r |
    |   front   |  back    | foot   l r |
    |           |          | bag        |
    +-----------+----------+------------+
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

SIZE = 256  # height and width, in texels


class Chart(NamedTuple):
    """The rectangle of the atlas that shows one part.

    Attributes:
      top, left, height, width: in texels.
      turn: angle from the left edge to the part's front, in turns; 0.5 cuts the part open at its back, 0.25 at its
        right side.
    """

    top: int
    left: int
    height: int
    width: int
    turn: float


CHARTS = {
    "head": Chart(0, 0, 92, 168, 0.5),
    "neck": Chart(92, 0, 16, 168, 0.5),
    "trunk": Chart(108, 0, 148, 168, 0.25),  # the left half is the front, the right half the back
    "left_thigh": Chart(0, 168, 46, 44, 0.5),
    "right_thigh": Chart(0, 212, 46, 44, 0.5),
    "left_shin": Chart(46, 168, 46, 44, 0.5),
    "right_shin": Chart(46, 212, 46, 44, 0.5),
    "left_upper_arm": Chart(92, 168, 38, 44, 0.5),
    "right_upper_arm": Chart(92, 212, 38, 44, 0.5),
    "left_forearm": Chart(130, 168, 36, 44, 0.5),
    "right_forearm": Chart(130, 212, 36, 44, 0.5),
    "left_hand": Chart(166, 168, 24, 44, 0.5),
    "right_hand": Chart(166, 212, 24, 44, 0.5),
    "left_foot": Chart(190, 168, 30, 44, 0.5),
    "right_foot": Chart(190, 212, 30, 44, 0.5),
    "bag": Chart(220, 168, 36, 88, 0.5),
}
PARTS = tuple(CHARTS)  # a part is given by its index here


class Texels(NamedTuple):
    """The point of the body that each texel shows.

    Attributes:
      part: index into PARTS.
      angle: angle around the part, in radians, -pi to pi; 0 is the front, pi/2 the person's left.
      along: height along the part, 0 at its lower end to 1 at its upper end.
    """

    part: Int32[np.ndarray, "256 256"]
    angle: Float[np.ndarray, "256 256"]
    along: Float[np.ndarray, "256 256"]


def texels() -> Texels:
    """The points of the body at the centres of all texels."""
    part = np.zeros((SIZE, SIZE), np.int32)
    angle, along = np.zeros((2, SIZE, SIZE), np.float32)
    for number, chart in enumerate(CHARTS.values()):
        box = np.s_[chart.top : chart.top + chart.height, chart.left : chart.left + chart.width]
        turns = np.linspace(0, 1, chart.width) - chart.turn
        part[box] = number
        angle[box] = 2 * np.pi * ((turns + 0.5) % 1 - 0.5)
        along[box] = np.linspace(1, 0, chart.height)[:, None]
    return Texels(part, angle, along)


def locate(
    part: Int[Array, "..."], angle: Float[Array, "..."], along: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Row and column of points of the body, in texels from the centre of the first; the inverse of `texels`.

    The left and right edges of a chart show the same points of the body; `locate` returns the left one. A part's ends
    lie at the centres of its chart's outer texels, so that bilinear lookups do not leave the chart.

    Args:
      part: index into PARTS.
      angle: angle around the part, in radians, any number of turns.
      along: height along the part, clipped to [0, 1].
    """
    top, left, height, width, turn = (
        jnp.array(field, jnp.float32)[part] for field in zip(*CHARTS.values(), strict=True)
    )
    turns = angle / (2 * jnp.pi) + turn
    across = turns - jnp.floor(turns)
    return top + (1 - jnp.clip(along, 0, 1)) * (height - 1), left + across * (width - 1)


def sample(
    texture: Float[Array, "256 256 C"], row: Float[Array, "..."], column: Float[Array, "..."]
) -> Float[Array, "... C"]:
    """Bilinear lookup in a texture.

    Args:
      texture: any number of channels.
      row, column: in texels from the centre of the first, as `locate` returns them.
    """
    top, left = (jnp.clip(jnp.floor(x), 0, SIZE - 2) for x in (row, column))
    down, right = (row - top)[..., None], (column - left)[..., None]
    corner = (top * SIZE + left).astype(jnp.int32)
    flat = texture.reshape(SIZE * SIZE, -1)
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + SIZE] * (1 - right) + flat[corner + SIZE + 1] * right
    return upper * (1 - down) + lower * down
