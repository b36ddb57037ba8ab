"""A campaign of faults: kills, full and failing disks, jumping clocks, broken inputs and requests, long training.

    python -m benchmarks.faults kills --out=runs/faults
    python -m benchmarks.faults soak --hours=2

Writes PART.json into the folder; docs/reliability.md is written from these files.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.case import describe_cpu, new_folder
from benchmarks.faults import disturbances, endpoints, fuzz, inputs, jobs, kills, soak

KILLS = {
    "prepare": 20,
    "search": 15,
    jobs.SEARCH_LARGE: 10,
    "textures": 15,
    **{f"export, {name}": 5 for name in jobs.EXPORTED},
    "train": 35,
    "train on two processes": 10,
}

DISTURBED = {  # kind -> how often each of the jobs of one process, but for the long search
    "full disk": 5,
    "failing writes": 3,
    "one failing write": 3,
    "short writes": 1,
    "clock ten years on": 1,
    "clock ten years back": 1,
}
INPUTS = {"inputs": 900, "commands": 100}
REQUESTS = 2000


def main() -> None:
    """Runs a part of the campaign and writes PART.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--out", type=new_folder, default="runs/faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the trials, for a short look")
    parser.add_argument("--hours", type=float, default=2.0, help="of soak")
    parser.add_argument("--minutes", type=float, default=3.0, help="of fuzz, for each parser")
    flags = parser.parse_args()
    about = {"part": flags.part, "date": time.strftime("%Y-%m-%d"), "cpu": describe_cpu()}
    for report in PARTS[flags.part](flags):  # again and again, since a campaign may be cut short
        (flags.out / f"{flags.part}.json").write_text(json.dumps(about | report, indent=1) + "\n")


def kill(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Kills at random moments."""
    counts = {name: max(1, round(count * flags.share)) for name, count in KILLS.items()}
    done = kills.done(flags.out / "kills.json", counts, seed=flags.seed)
    return kills.measure(jobs.make_jobs(flags.out / "inputs"), counts, flags.out / "kills", seed=flags.seed, done=done)


def disturb(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Disks and clocks."""
    made = {name: job for name, job in jobs.make_jobs(flags.out / "inputs").items() if job.processes == 1}
    del made[jobs.SEARCH_LARGE]
    counts = {kind: dict.fromkeys(made, max(1, round(count * flags.share))) for kind, count in DISTURBED.items()}
    done = disturbances.done(flags.out / "disturbances.json", counts, seed=flags.seed)
    return disturbances.measure(made, counts, flags.out, seed=flags.seed, done=done)


def break_inputs(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Broken inputs."""
    counts = {name: max(1, round(count * flags.share)) for name, count in INPUTS.items()}
    return inputs.measure(flags.out / "inputs_broken", seed=flags.seed, **counts)


def damage_requests(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Damaged requests to the page's server."""
    return endpoints.measure(flags.out, seed=flags.seed, count=max(1, round(REQUESTS * flags.share)))


def fuzz_parsers(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Parsers in Python, with inputs that atheris finds."""
    good = flags.out / "inputs_broken" / "good"
    return fuzz.measure(flags.out / "fuzz", good, seed=flags.seed, minutes=flags.minutes)


def train_long(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Hours of training."""
    return soak.measure(flags.out, hours=flags.hours, interval=15.0)


PARTS = {
    "kills": kill,
    "disturbances": disturb,
    "inputs": break_inputs,
    "endpoints": damage_requests,
    "fuzz": fuzz_parsers,
    "soak": train_long,
}

if __name__ == "__main__":
    main()
