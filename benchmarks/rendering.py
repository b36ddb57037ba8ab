"""Measures the speed of the renderer in pictures per second, including the people's textures; see docs/synthesis.md.

    python -m benchmarks.rendering
    python -m benchmarks.rendering --height=128 --people=64

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

from benchmarks.case import describe_cpu
from san_jax.synthesis import studio
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
    add("--out", type=Path, default=RESULTS, help="folder of the report")
    flags = parser.parse_args()
    world = studio.make_world(jax.random.key(0), cameras=CAMERAS, occlusion=0.25, sloppiness=0.5)
    size = dict(people=flags.people, height=flags.height, texture_side=flags.texture_side, at_once=flags.at_once)
    first = seconds(world, **size)
    rounds = [seconds(world, **size) for _ in range(flags.rounds)]
    pictures = CAMERAS * flags.people
    cpu, platform = describe_cpu(), jax.default_backend()
    device = f"{cpu['name']}, {cpu['cores']} cores" if platform == "cpu" else jax.devices()[0].device_kind
    date = datetime.datetime.now().astimezone()
    report = {
        "device": device,
        "date": date.isoformat(timespec="seconds"),
        "jax": jax.__version__,
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
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    path = flags.out / f"{flags.height}x{flags.height // 2}_by_{flags.at_once}_{name}_{date:%Y-%m-%d_%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{device}: {report['pictures_per_second']:.1f} pictures/s of {flags.height} x {flags.height // 2}; {path}")


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
