"""Measures the speed of the renderer in pictures per second, including the people's textures; see docs/synthesis.md.

    python -m benchmarks.rendering
    python -m benchmarks.rendering --height=128 --people=64
    python -m benchmarks.rendering --crowd=12 --height=540      # frames a second of a crowd, one after the other

Needs no data. The time to encode and write the pictures is not included.
"""

import argparse
import datetime
import json
import re
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.case import describe_cpu, new_folder
from san_jax.synthesis import crowd, studio
from san_jax.synthesis.studio import Moment, World

RESULTS = Path(__file__).parent / "results" / "rendering"
CAMERAS = 6


def main() -> None:
    """Runs the measurement, prints the result in one line and writes it to one file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--people", type=int, default=32, help="number of people; each is rendered under six cameras (default: 32)")
    add("--height", type=int, default=256, help="height of the pictures in pixels (default: 256)")
    add("--texture_side", type=int, default=256, help="height and width of the textures in pixels (default: 256)")
    add("--at_once", type=int, default=studio.AT_ONCE, help="pictures in one call (default: %(default)s)")
    add("--rounds", type=int, default=5, help="number of repetitions, whose median is reported (default: 5)")
    add("--crowd", type=int, default=0, help="measure frames of a crowd of so many people instead, 16:9")
    add("--out", type=new_folder, default=str(RESULTS), help="folder of the report")
    flags = parser.parse_args()
    if flags.crowd:
        measure_crowd(flags)
        return
    world = studio.make_world(jax.random.key(0), cameras=CAMERAS, occlusion=0.25, sloppiness=0.5)
    size = dict(people=flags.people, height=flags.height, texture_side=flags.texture_side, at_once=flags.at_once)
    first = seconds(world, **size)
    rounds = [seconds(world, **size) for _ in range(flags.rounds)]
    pictures = CAMERAS * flags.people
    report = about() | {
        "height": flags.height,
        "width": flags.height // 2,
        "texture_side": flags.texture_side,
        "people": flags.people,
        "at_once": flags.at_once,
        "pictures": pictures,
        "pictures_per_second": pictures / statistics.median(rounds),
        "compile_seconds": first - statistics.median(rounds),
        "all_seconds": rounds,
    }
    path = write(report, flags.out, f"{flags.height}x{flags.height // 2}_by_{flags.at_once}")
    speed = f"{report['pictures_per_second']:.1f} pictures/s of {flags.height} x {flags.height // 2}"
    print(f"{report['device']}: {speed}; {path}")


def measure_crowd(flags: argparse.Namespace) -> None:
    """Measures each frame of a crowd; the first one includes the compilation."""
    size = dict(height=flags.height, width=2 * round(flags.height * 8 / 9))
    world = studio.make_world(jax.random.key(0), cameras=CAMERAS, occlusion=0, sloppiness=0)
    drawn, times = crowd.render_frames(world, camera=0, people=flags.crowd, frames=16, **size), []
    begin = time.perf_counter()
    for _ in drawn:
        times.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    report = (
        about()
        | size
        | {
            "people": flags.crowd,
            "seconds_per_frame": statistics.median(times[1:]),
            "compile_seconds": times[0] - statistics.median(times[1:]),
            "all_seconds": times,
        }
    )
    path = write(report, flags.out, f"crowd_{flags.crowd}_{flags.height}x{size['width']}")
    speed = f"{report['seconds_per_frame']:.2f} s for a frame of {flags.crowd} people"
    print(f"{report['device']}: {speed}, compiling {report['compile_seconds']:.0f} s; {path}")


def about() -> dict[str, str]:
    """Device, date and version of a measurement."""
    cpu, platform = describe_cpu(), jax.default_backend()
    device = f"{cpu['name']}, {cpu['cores']} cores" if platform == "cpu" else jax.devices()[0].device_kind
    date = datetime.datetime.now().astimezone()
    return {"device": device, "date": date.isoformat(timespec="seconds"), "jax": jax.__version__}


def write(report: dict, folder: Path, name: str) -> Path:
    """Writes a report, and returns its file: NAME_DEVICE_DATE.json."""
    device = re.sub(r"[^a-z0-9]+", "-", report["device"].lower()).strip("-")
    date = datetime.datetime.fromisoformat(report["date"])
    path = folder / f"{name}_{device}_{date:%Y-%m-%d_%H%M%S}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def seconds(world: World, *, people: int, height: int, texture_side: int, at_once: int) -> float:
    """The time to generate the people and to render each of them under every camera, in seconds."""
    person, camera = (grid.ravel() for grid in np.mgrid[:people, :CAMERAS])
    shots = Moment(person, camera, np.zeros_like(person))
    begin = time.perf_counter()
    size = dict(height=height, width=height // 2, texture_side=texture_side, at_once=at_once)
    for _ in studio.render(studio.before_a_camera, world, world.people, person, shots, **size):
        pass
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
