"""Renders a contact sheet of the synthetic data: people with their textures, as six cameras see them.

    san-jax sheet people.png
    san-jax sheet people.png --people=10 --seed=3 --occlusion=1 --sloppiness=1
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags

from san_jax.commands import common
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import Cell
from san_jax.errors import UserError
from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment, World


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    number, share = flags.DEFINE_integer, flags.DEFINE_float
    given = {
        "people": number("people", 8, "Number of people.", lower_bound=1),
        "cameras": number("cameras", 6, "Number of cameras.", lower_bound=1),
        "seed": number("seed", 0, "Seed of people and streets.", 0, 2**32 - 1),
        "occlusion": share("occlusion", 0.25, "Share of pictures with an object in front of the person.", 0, 1),
        "sloppiness": share("sloppiness", 0.5, "Inaccuracy of the bounding boxes.", 0, 1),
        "variety": share("variety", 1.0, "How much light and lenses differ between cameras.", 0, 1),
        "height": number("height", 256, "Height of the pictures in pixels; they are half as wide.", lower_bound=16),
    }
    files = ("OUT.png",)
    common.run_command(
        lambda output: draw_people(output, **{name: holder.value for name, holder in given.items()}),
        files=files,
        module=__name__,
    )


def draw_people(
    output: Path,
    *,
    people: int,
    cameras: int,
    seed: int,
    occlusion: float,
    sloppiness: float,
    variety: float,
    height: int,
) -> None:
    """Renders and writes the contact sheet; arguments as the flags."""
    contact_sheet.check_name(output, what="OUT.png")
    trouble = dict(occlusion=occlusion, sloppiness=sloppiness, variety=variety)
    if wrong := [name for name, share in trouble.items() if not 0 <= share <= 1]:  # absl lets NaN pass
        raise UserError(f"--{wrong[0]} is {trouble[wrong[0]]}; give a number from 0 to 1")
    world = studio.make_world(jax.random.key(seed), cameras=cameras, **trouble)
    sheet = contact_sheet.compose(
        rows(world, crowd=people, cameras=cameras, height=height),
        row_titles=[f"person {number}" for number in range(people)],
        column_titles=["texture", *(f"camera {camera + 1}" for camera in range(cameras))],
        cell_height=height,
    )
    contact_sheet.save(output, sheet)
    print(f"{output}: {people} people in {cameras} cameras")


def rows(world: World, *, crowd: int, cameras: int, height: int) -> list[list[Cell]]:
    """The texture of each person, and a picture from each camera."""
    person, camera = (grid.ravel() for grid in np.mgrid[:crowd, :cameras])
    shots = Moment(person, camera, np.zeros_like(person))
    size = dict(height=height, width=height // 2)
    taken = list(studio.render(studio.before_a_camera, world, world.people, person, shots, **size))
    starts = range(0, len(taken), cameras)
    return [
        [Cell(taken[start][1]), *(Cell(picture) for picture, _ in taken[start : start + cameras])] for start in starts
    ]


if __name__ == "__main__":
    main()
