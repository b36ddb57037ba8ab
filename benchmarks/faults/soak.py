"""Trains for hours, saving and scoring often, and watches memory, handles, threads and speed."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from san_jax.weights import stored

FIELDS = {  # rendered people, so no data is needed; scored after every epoch, saved every twenty steps
    "data.train": "synthetic_reid/small",
    "schedule.epochs": 100_000,
    "schedule.eval_every": 1,
    "schedule.save_every": 20,
}
WINDOW = 1200.0  # seconds that a row of the table sums up
GRACE = 120.0  # seconds in which the run must end after SIGTERM
MB = 2**20


def measure(out: Path, *, hours: float, interval: float) -> Iterator[dict[str, Any]]:
    """Trains SAN at `:small` for some hours in a workdir of its own and reports windows of twenty minutes.

    Args:
      out: folder of the run.
      hours: how long.
      interval: seconds between two looks at the process.

    Yields:
      Once, at the end: exit status after SIGTERM, which is 143, and for each window the medians of resident memory,
      open files and threads, steps per second and MB on the disk. The first window begins with the first checkpoint.
    """
    workdir = out / "soak"
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    words = ["train.py", "--config=configs/san.py:small", f"--workdir={workdir}", *fields]
    with (out / "soak.log").open("a") as log, subprocess.Popen([sys.executable, *words], stdout=log, stderr=log) as run:
        samples, ends = [], None
        while run.poll() is None and (ends is None or time.monotonic() < ends):
            if (newest := stored.newest(workdir)) is not None:
                ends = ends or time.monotonic() + hours * 3600
                samples.append(look(run.pid) | {"step": int(newest.name), "disk_mb": round(size_of(workdir) / MB, 1)})
            time.sleep(interval)
        run.send_signal(signal.SIGTERM)
        status = run.wait(GRACE)
    yield {"hours": hours, "status": status, "windows": windows_of(samples)}


def look(pid: int) -> dict[str, float]:
    """Resident memory in MB, open files and threads of a process, and the time in seconds."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "time": time.monotonic(),
        "memory_mb": int(fields["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(fields["Threads"]),
    }


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; those that are deleted meanwhile count nothing."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return found


def windows_of(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """Medians of each window of WINDOW seconds, and its steps per second; a last one of under half that is left out."""
    found = []
    first = samples[0]["time"]
    while chosen := [one for one in samples if 0 <= one["time"] - first - len(found) * WINDOW < WINDOW]:
        seconds = chosen[-1]["time"] - chosen[0]["time"]
        if seconds < WINDOW / 2:
            break
        medians = {
            name: round(statistics.median(one[name] for one in chosen), 1)
            for name in ("memory_mb", "files", "threads", "disk_mb")
        }
        rate = round((chosen[-1]["step"] - chosen[0]["step"]) / seconds, 3)
        found.append(medians | {"steps_per_second": rate, "last_step": chosen[-1]["step"]})
    return found
