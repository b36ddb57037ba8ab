"""Draws a contact sheet of the synthetic world: people with their textures, as six cameras see them.

    python -m san_jax.synthesis.sheet people.png
    python -m san_jax.synthesis.sheet people.png --people=10 --seed=3 --occlusion=1 --sloppiness=1
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags

from san_jax import commands, contact_sheet
from san_jax.contact_sheet import Cell
from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment, World

PEOPLE = flags.DEFINE_integer("people", 8, "How many people.", lower_bound=1)
CAMERAS = flags.DEFINE_integer("cameras", 6, "How many cameras.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the world.")
OCCLUSION = flags.DEFINE_float("occlusion", 0.25, "Share of pictures with something before the person.", 0, 1)
SLOPPINESS = flags.DEFINE_float("sloppiness", 0.5, "Of the boxes.", 0, 1)
VARIETY = flags.DEFINE_float("variety", 1.0, "Of the cameras' light and lenses.", 0, 1)
HEIGHT = flags.DEFINE_integer("height", 256, "Of the pictures in pixels; they are half as wide.", lower_bound=16)


def main(output: Path) -> None:
    """Renders and writes the sheet."""
    crowd, cameras, height = PEOPLE.value, CAMERAS.value, HEIGHT.value
    world = studio.make_world(
        jax.random.key(SEED.value),
        cameras=cameras,
        occlusion=OCCLUSION.value,
        sloppiness=SLOPPINESS.value,
        variety=VARIETY.value,
    )
    sheet = contact_sheet.draw(
        rows(world, crowd=crowd, cameras=cameras, height=height),
        row_titles=[f"person {number}" for number in range(crowd)],
        column_titles=["texture", *(f"camera {camera + 1}" for camera in range(cameras))],
        cell_height=height,
    )
    contact_sheet.save(output, sheet)
    print(f"{output}: {crowd} people before {cameras} cameras")


def rows(world: World, *, crowd: int, cameras: int, height: int) -> list[list[Cell]]:
    """For each person the texture, and a picture by each camera."""
    person, camera = (grid.ravel() for grid in np.mgrid[:crowd, :cameras])
    shots = Moment(person, camera, np.zeros_like(person))
    size = dict(height=height, width=height // 2)
    taken = list(studio.render(studio.before_a_camera, world, world.people, person, shots, **size))
    starts = range(0, len(taken), cameras)
    return [
        [Cell(taken[start][1]), *(Cell(picture) for picture, _ in taken[start : start + cameras])] for start in starts
    ]


if __name__ == "__main__":
    commands.run(main, files=("OUT.png",))
