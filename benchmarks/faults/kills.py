"""Kills commands at random moments and compares what they leave in the end with that of unbroken ones."""

import json
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults.jobs import UNBROKEN, Ended, Job, Started, difference

MOST = 6  # kills of one job before it may run to its end
OTHERS_END = 330.0  # seconds in which the other process must notice that one was killed


def done(report: Path, counts: Mapping[str, int], *, seed: int) -> dict[str, Any]:
    """The jobs of an earlier report with this seed that were killed as often as they are to be, by name."""
    earlier = json.loads(report.read_text()) if report.exists() else {"seed": None, "jobs": {}}
    found = earlier["jobs"] if earlier["seed"] == seed else {}
    return {name: one for name, one in found.items() if one["kills"] >= counts.get(name, 0)}


def measure(
    jobs: Mapping[str, Job], counts: Mapping[str, int], out: Path, *, seed: int, done: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Kills jobs, starts them again until they end, and compares; reports after every job that has ended.

    Args:
      jobs: by name.
      counts: name of a job -> how often it is killed.
      out: folder of what they write.
      seed: of the moments.
      done: what an earlier campaign has found of some jobs, which are not killed again.

    Yields:
      By name: kills so far, jobs that ended after them, seconds of an unbroken one, and the faults found.
    """
    found = dict(done)
    for name, count in counts.items():
        if name in found:
            continue
        rng, job = random.Random(f"{seed} {name}"), jobs[name]
        seconds, wanted = unbroken(job, out / name)
        report = {"kills": 0, "ended": 0, "unbroken_seconds": round(seconds, 1), "faults": []}
        while report["kills"] < count:
            folder = out / name / f"{report['ended']}"
            shutil.rmtree(folder, ignore_errors=True)
            kills, moments, problem = until_it_ends(job, folder, rng, seconds=seconds, most=count - report["kills"])
            report["kills"] += kills
            report["ended"] += 1
            if problem := problem or difference(job.left(folder), wanted):
                report["faults"].append({"moments": moments, "problem": problem, "folder": str(folder.name)})
            else:
                shutil.rmtree(folder)
            print(f"{name}: {report['kills']} kills, {len(report['faults'])} faults", flush=True)
            found[name] = report
            yield {"seed": seed, "jobs": found}


def unbroken(job: Job, place: Path) -> tuple[float, Mapping[str, str]]:
    """Seconds of an unbroken job, and what it leaves; from PLACE/unbroken.json if it was run there before.

    It is started twice; the first one warms the caches.
    """
    kept = place / f"{UNBROKEN}.json"
    if not kept.exists():
        for _ in range(2):
            shutil.rmtree(place / UNBROKEN, ignore_errors=True)
            place.mkdir(parents=True, exist_ok=True)
            begun = time.monotonic()
            for ended in Started(job, place / UNBROKEN).finish():
                if ended.status:
                    raise RuntimeError(f"the unbroken job failed:\n{ended.output}")
            seconds = time.monotonic() - begun
        kept.write_text(json.dumps({"seconds": seconds, "left": dict(job.left(place / UNBROKEN))}))
    found = json.loads(kept.read_text())
    return found["seconds"], found["left"]


def until_it_ends(
    job: Job, folder: Path, rng: random.Random, *, seconds: float, most: int
) -> tuple[int, list[float], str]:
    """Starts a job again and again, killed at moments within the time of an unbroken one, until it ends by itself.

    Returns:
      The number of kills, their moments in seconds after the start, and what went wrong: "" if nothing did.
    """
    moments = []
    while True:
        started = Started(job, folder)
        moment = rng.uniform(0, seconds) if len(moments) < min(MOST, most) else 3600.0
        if started.ends_within(moment):
            return len(moments), moments, complaint_of(started.finish())
        moments.append(round(moment, 2))
        victim = rng.randrange(job.processes)
        started.kill(victim)
        others = [ended for index, ended in enumerate(started.finish(OTHERS_END)) if index != victim]
        if problem := next((why for ended in others if (why := complaint_of_other(ended))), ""):
            return len(moments), moments, problem


def complaint_of(ends: list[Ended]) -> str:
    """What is wrong with jobs that should have succeeded; "" if they did."""
    return next((ended.complaint or last_line(ended) for ended in ends if ended.status), "")


def complaint_of_other(ended: Ended) -> str:
    """What is wrong with how a process ended whose partner was killed: it must say one line, in bounded time."""
    if ended.status == -9:
        return f"the other process still ran after {OTHERS_END:g} s"
    return "the other process: " + ended.complaint if ended.complaint else ""


def last_line(ended: Ended) -> str:
    """The last line of an output."""
    return (ended.output.strip().splitlines() or [""])[-1][:300]
