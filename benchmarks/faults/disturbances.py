"""Disturbs commands from a random moment on: a full disk, writes that fail or fall short, a clock that jumps.

Needs root, for a small file system in memory; a C compiler; and libfaketime (Debian's package `faketime`).
"""

import abc
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults import kills
from benchmarks.faults.jobs import Job, Started, difference

HERE = Path(__file__).parent
LONGEST = 600.0  # seconds in which a disturbed command must end
MEMORY_DISK = "512m"


class Disturbance(abc.ABC):
    """Something that befalls a command.

    Args:
      place: an empty folder for the command and whatever the disturbance needs.

    Attributes:
      hurts: whether the command may fail, with one line; then it is started again without the disturbance.
    """

    hurts = True

    def __init__(self, place: Path):
        self.place = place

    @property
    def folder(self) -> Path:
        """Where the command writes."""
        return self.place / "left"

    @property
    def logs(self) -> Path:
        """Where its output goes."""
        return self.place

    def environment(self) -> Mapping[str, str]:
        """Variables of the command, in addition to those of this process."""
        return {}

    @abc.abstractmethod
    def begin(self) -> None:
        """Begins, at the random moment."""

    @abc.abstractmethod
    def end(self) -> None:
        """Ends, after the command."""

    def clean(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.place)


class FullDisk(Disturbance):
    """Nothing is free any more on the file system of the command."""

    def __init__(self, place: Path):
        super().__init__(place / "disk")
        self.place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEMORY_DISK}", "tmpfs", self.place], check=True)

    @property
    def logs(self) -> Path:
        """Not on the disk that is full."""
        return self.place.parent

    def begin(self) -> None:
        """Takes all that is free, and goes on taking what becomes free."""
        self._file = (self.place / "filler").open("wb")
        self._stops = threading.Event()
        self._filler = threading.Thread(target=self._fill)
        self._filler.start()

    def _fill(self) -> None:
        while not self._stops.is_set():
            try:
                os.write(self._file.fileno(), bytes(1 << 16))
            except OSError:
                self._stops.wait(0.05)

    def end(self) -> None:
        """Frees what was taken."""
        self._stops.set()
        self._filler.join()
        self._file.close()
        Path(self._file.name).unlink()

    def clean(self) -> None:
        """Unmounts the file system."""
        subprocess.run(["umount", self.place], check=True)
        shutil.rmtree(self.place.parent)


class FailingWrites(Disturbance):
    """Writes end with an input/output error, all from the moment on."""

    mode = "eio"

    def environment(self) -> Mapping[str, str]:
        """Preloads the library, which is compiled first."""
        library = self.place / "failing_io.so"
        if not library.exists():
            words = ["cc", "-shared", "-fPIC", "-O2", "-o", library, HERE / "failing_io.c", "-ldl"]
            subprocess.run(words, check=True)
        named = {"FAIL_UNDER": f"{self.folder}/", "FAIL_WHEN": self._flag, "LD_PRELOAD": library}
        return {name: str(value) for name, value in {**named, "FAIL_MODE": self.mode}.items()}

    @property
    def _flag(self) -> Path:
        return self.place / "fails"

    def begin(self) -> None:
        """Writes fail from now on."""
        self._flag.touch()

    def end(self) -> None:
        """They no longer do."""
        self._flag.unlink()


class OneFailingWrite(FailingWrites):
    """One write of each process ends with an input/output error."""

    mode = "once"


class ShortWrites(FailingWrites):
    """Every write takes half of what it is given; its caller must write the rest."""

    mode = "short"
    hurts = False


class ClockForward(Disturbance):
    """The system's clock jumps by ten years."""

    hurts = False
    shift = "+10y"

    def environment(self) -> Mapping[str, str]:
        """Preloads libfaketime."""
        libraries = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            sys.exit("libfaketime is not installed; on Debian: apt-get install faketime")
        self._file.write_text("+0")
        named = {"LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": self._file, "FAKETIME_NO_CACHE": 1}
        # Time-outs are measured by the clock that cannot be set.
        return {name: str(value) for name, value in {**named, "FAKETIME_DONT_FAKE_MONOTONIC": 1}.items()}

    @property
    def _file(self) -> Path:
        return self.place / "clock"

    def begin(self) -> None:
        """The clock jumps."""
        self._file.write_text(self.shift)

    def end(self) -> None:
        """The clock of the next command is right."""


class ClockBack(ClockForward):
    """The system's clock jumps back by ten years."""

    shift = "-10y"


KINDS = {
    "full disk": FullDisk,
    "failing writes": FailingWrites,
    "one failing write": OneFailingWrite,
    "short writes": ShortWrites,
    "clock ten years on": ClockForward,
    "clock ten years back": ClockBack,
}


def done(report: Path, counts: Mapping[str, Mapping[str, int]], *, seed: int) -> dict[str, Any]:
    """What an earlier report with this seed says of jobs that were disturbed as often as they are to be."""
    earlier = json.loads(report.read_text()) if report.exists() else {"seed": None, "kinds": {}}
    kinds = earlier["kinds"] if earlier["seed"] == seed else {}
    return {
        kind: {name: one for name, one in by_job.items() if one["disturbed"] >= counts.get(kind, {}).get(name, 0)}
        for kind, by_job in kinds.items()
    }


def measure(
    jobs: Mapping[str, Job],
    counts: Mapping[str, Mapping[str, int]],
    out: Path,
    *,
    seed: int,
    done: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Disturbs jobs, starts those that failed again, and compares; reports after every one.

    Args:
      jobs: by name.
      counts: kind of disturbance -> name of a job -> how often.
      out: folder of `kills`, whose unbroken jobs serve here too.
      seed: of the moments.
      done: what an earlier campaign has found of some jobs, which are not disturbed again.

    Yields:
      By kind and job: how often it was disturbed, how often it failed (with one line), and the faults found.
    """
    found = {kind: dict(by_job) for kind, by_job in done.items()}
    for kind, by_job in counts.items():
        for name, count in by_job.items():
            if name in found.get(kind, {}):
                continue
            rng, job = random.Random(f"{seed} {kind} {name}"), jobs[name]
            seconds, wanted = kills.unbroken(job, out / "kills" / name)
            report = found.setdefault(kind, {})[name] = {"disturbed": 0, "failed": 0, "faults": []}
            for number in range(count):
                moment = round(rng.uniform(0, seconds), 2)
                place = out / "disturbed" / f"{kind} {name} {number}".replace(" ", "_")
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                failed, problem = disturb(job, KINDS[kind](place), moment, wanted)
                report["disturbed"] += 1
                report["failed"] += failed
                if problem:
                    report["faults"].append({"moment": moment, "problem": problem})
                    print(f"{kind}, {name}, at {moment} s: {problem}", flush=True)
                yield {"seed": seed, "kinds": found}


def disturb(job: Job, disturbance: Disturbance, moment: float, wanted: Mapping[str, str]) -> tuple[bool, str]:
    """Starts a job, disturbs it at a moment in seconds, starts it again if it failed, and compares.

    Returns:
      Whether it failed, and what went wrong: "" if nothing did.
    """
    folder, logs = disturbance.folder, disturbance.logs
    started = Started(job, folder, environment={**os.environ, **disturbance.environment()}, logs=logs)
    started.ends_within(moment)
    disturbance.begin()
    ends = started.finish(LONGEST)
    disturbance.end()
    failed = any(ended.status for ended in ends)
    problem = next((f"{ended.complaint}: {ended.output[-3000:]}" for ended in ends if ended.complaint), "")
    if failed and not problem and not disturbance.hurts:
        problem = kills.complaint_of(ends)
    if not problem:
        problem = kills.complaint_of(Started(job, folder, logs=logs).finish()) if failed else ""
    problem = problem or difference(job.left(folder), wanted)
    disturbance.clean()
    return failed, problem
