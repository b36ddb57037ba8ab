"""Renders the people of the synthetic data: on a contact sheet with their textures, or as a crowd in one place.

    san-jax sheet people.png
    san-jax sheet people.png --people=10 --seed=3 --occlusion=1 --sloppiness=1
    san-jax sheet --crowd=OUT --people=12 --seed=3 --camera=2

A sheet shows each person as six cameras see them. A crowd is a sequence of frames of the same people in the place of
one of these cameras, five a second: OUT/000001.jpg and so on, and boxes, ids and visible shares in OUT/gt.txt (MOT16).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from san_jax.commands import common, crowd_folder
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import Cell
from san_jax.errors import UserError
from san_jax.synthesis import crowd, studio
from san_jax.synthesis.studio import Moment, World

ONLY_SHEET, ONLY_CROWD = ("occlusion", "sloppiness"), ("frames", "camera")


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
        "height": number(
            "height",
            None,
            "Height of the pictures in pixels; they are half as wide, and the frames of a crowd 16:9. "
            "Default: 256, and 540 with --crowd.",
            lower_bound=16,
        ),
        "crowd": flags.DEFINE_string("crowd", None, "Folder for the frames of a crowd, instead of a contact sheet."),
        "frames": number("frames", 25, "With --crowd: number of frames, five a second.", 1, 999_999),
        "camera": number("camera", 1, "With --crowd: which of the cameras sees it, from 1.", lower_bound=1),
    }
    common.run_command(lambda *paths: run(paths, given), files=None, module=__name__)


def run(paths: tuple[Path, ...], given: Mapping[str, flags.FlagHolder[Any]]) -> None:
    """Draws a contact sheet or a crowd, as the flags say."""
    values = {name: holder.value for name, holder in given.items()}
    folder = values.pop("crowd")
    if len(paths) != (folder is None):
        said = " ".join([*map(str, paths), *([] if folder is None else [f"--crowd={folder}"])])
        raise UserError(f"give one of OUT.png, for a contact sheet, and --crowd=OUT, not {said or 'none'}; see --help")
    if folder == "":
        raise UserError("--crowd names no folder; give one, as --crowd=OUT")
    unused = ONLY_CROWD if folder is None else ONLY_SHEET
    if vain := [name for name in unused if given[name].present]:
        why = "without --crowd" if folder is None else "with --crowd, where people hide each other"
        raise UserError(f"--{vain[0]} has no effect {why}; leave it out")
    values = {name: value for name, value in values.items() if name not in unused}
    values["height"] = values["height"] or (256 if folder is None else 540)
    if folder is None:
        draw_people(*paths, **values)
    else:
        draw_crowd(Path(folder), **values)


def draw_crowd(
    folder: Path, *, people: int, cameras: int, seed: int, variety: float, height: int, frames: int, camera: int
) -> None:
    """Renders and writes the frames of a crowd; arguments as the flags."""
    _check_shares(variety=variety)
    if camera > cameras:
        raise UserError(f"--camera is {camera}, but --cameras is {cameras}; give a number from 1 to {cameras}")
    settings = dict(people=people, seed=seed, camera=camera, cameras=cameras, variety=variety)
    settings |= dict(height=height, frames=frames)
    comment = " ".join(["san-jax sheet", *(f"--{name}={value}" for name, value in settings.items())])
    crowd_folder.check(folder, comment)
    world = studio.make_world(jax.random.key(seed), cameras=cameras, occlusion=0, sloppiness=0, variety=variety)
    size = dict(height=height, width=2 * round(height * 8 / 9))
    drawn = crowd.render_frames(world, camera=camera - 1, people=people, frames=frames, **size)
    hidden = None if jax.process_index() == 0 else True
    crowd_folder.write(folder, tqdm(drawn, total=frames, unit=" frames", dynamic_ncols=True, disable=hidden), comment)
    print(f"{folder}: {frames} frames of {people} people in camera {camera}")


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
    _check_shares(**trouble)
    world = studio.make_world(jax.random.key(seed), cameras=cameras, **trouble)
    sheet = contact_sheet.compose(
        rows(world, crowd=people, cameras=cameras, height=height),
        row_titles=[f"person {number}" for number in range(people)],
        column_titles=["texture", *(f"camera {camera + 1}" for camera in range(cameras))],
        cell_height=height,
    )
    contact_sheet.save(output, sheet)
    print(f"{output}: {people} people in {cameras} cameras")


def _check_shares(**shares: float) -> None:
    if wrong := [name for name, share in shares.items() if not 0 <= share <= 1]:  # absl lets NaN pass
        raise UserError(f"--{wrong[0]} is {shares[wrong[0]]}; give a number from 0 to 1")


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
