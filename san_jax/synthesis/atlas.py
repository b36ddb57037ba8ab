"""The UV atlas: which texel of a texture image is which point of the body, the same for everybody.

256 x 256, laid out as SURREAL's textures look: head and face at the top left, the trunk's front and back under it,
legs, arms, hands and feet in the right third; a bag, which SURREAL has not, below them. Every part is unrolled around
its axis: columns are angles, rows are heights with the upper end at the top, and charts fill the atlas without gaps.

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

SIZE = 256  # texels, both ways


class Chart(NamedTuple):
    """The rectangle of one part.

    Attributes:
      top, left, height, width: in texels.
      turn: where the left edge is, in turns before the front: 0.5 cuts the part at its back, 0.25 at its right side.
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
PARTS = tuple(CHARTS)  # a part's number is its place here


class Texels(NamedTuple):
    """What every texel is a picture of.

    Attributes:
      part: number of the part, an index of PARTS.
      angle: around the part, in radians, -pi to pi; 0 is the front, pi/2 the person's left.
      along: 0 at the part's lower end, 1 at its upper.
    """

    part: Int32[np.ndarray, "256 256"]
    angle: Float[np.ndarray, "256 256"]
    along: Float[np.ndarray, "256 256"]


def texels() -> Texels:
    """The body point of every texel's centre."""
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
    """Row and column of a body point, in texels from the centre of the first; the inverse of `texels`.

    A chart's left and right edges are the same points of the body, and found at the left.

    The centres of a chart's outer texels are the part's outer points, so that no bilinear lookup leaves the chart.

    Args:
      part: index of PARTS.
      angle: in radians, any number of turns.
      along: 0 to 1; clipped.
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
    """The texture between its texels, bilinear.

    Args:
      texture: any channels.
      row, column: in texels from the centre of the first, as `locate` gives them.
    """
    top, left = (jnp.clip(jnp.floor(x), 0, SIZE - 2) for x in (row, column))
    down, right = (row - top)[..., None], (column - left)[..., None]
    corner = (top * SIZE + left).astype(jnp.int32)
    flat = texture.reshape(SIZE * SIZE, -1)
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + SIZE] * (1 - right) + flat[corner + SIZE + 1] * right
    return upper * (1 - down) + lower * down
