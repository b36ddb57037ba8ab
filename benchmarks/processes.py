"""Peak memory of each of several processes that rank or re-rank one gallery together; docs/performance.md.

    python -m benchmarks.processes
    python -m benchmarks.processes --sides=rank --sizes=tiny --processes=1,2

Starts the processes on this machine, one device each. Every process makes the features of its own part of the gallery,
as scoring does in a run, and those of all queries. Memory is the peak resident size of a process (VmHWM) minus its
resident size right before it makes features; it includes the features and what compiling takes. With --holds=whole
every process holds all features, for comparison.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import joined
from benchmarks.case import describe_cpu, new_folder, status_bytes
from benchmarks.scoring import ABOUT, DIM, SIZES, SPREAD, Size, aligned_empty, resident

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "processes"
SIDES = ("rank", "rerank")
HOLDS = ("split", "whole")
BLOCK = 4096  # features that are drawn from one seed, so that each process can draw those of its part alone
PER_PERSON = 25  # gallery pictures of a person; the rest are distractors
# Processes that share busy cores may reach a sum more than gloo's 30 s apart.
PATIENT = "--xla_cpu_collective_timeout_seconds=3000 --xla_cpu_collective_call_terminate_timeout_seconds=3000"


class Task(NamedTuple):
    """What a group of processes measures.

    Attributes:
      side: one of SIDES.
      size: one of benchmarks.scoring's SIZES.
      holds: one of HOLDS: which features of the gallery a process holds.
      processes: how many there are.
      queries: how many of the queries are ranked; 0 = all.
    """

    side: str
    size: str
    holds: str
    processes: int
    queries: int


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--sides", default="rank", help="sides, separated by commas: rank, rerank")
    add("--sizes", default="market1501+500k", help="test sets of benchmarks.scoring, separated by commas")
    add("--holds", default="split", help="what a process holds of the gallery's features: split, whole, or both")
    add("--processes", default="1,2,4", help="numbers of processes, separated by commas")
    add("--queries", type=int, default=0, help="queries that are ranked, the first ones; 0 = all")
    add("--out", type=new_folder, default=str(RESULTS), help="folder of the report")
    add("--measure", default="", help=argparse.SUPPRESS)  # a Task as JSON: what a child process measures
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure(Task(*json.loads(flags.measure)))))
        return
    wanted = [flags.sides.split(","), flags.sizes.split(","), flags.holds.split(",")]
    for name, words, known in zip(("sides", "sizes", "holds"), wanted, (SIDES, SIZES, HOLDS), strict=True):
        if unknown := set(words) - set(known):
            parser.error(f"--{name} names {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    cpu, date = describe_cpu(), datetime.datetime.now().astimezone()
    about = json.loads(subprocess.run([sys.executable, "-c", ABOUT], check=True, capture_output=True, text=True).stdout)
    device = f"{cpu['name']}, {cpu['cores']} cores"
    report = {"device": device, **about, "date": date.isoformat(timespec="seconds"), "dim": DIM, "measurements": []}
    path = flags.out / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}_{date:%Y-%m-%d_%H%M%S}.json"
    print(f"{device}; {path}", flush=True)
    for side, size, holds, count in (
        (side, size, holds, int(count))
        for side in wanted[0]
        for size in wanted[1]
        for holds in wanted[2]
        for count in flags.processes.split(",")
    ):
        row = together(Task(side, size, holds, count, flags.queries))
        report["measurements"].append(row)
        path.write_text(json.dumps(report, indent=1) + "\n")
        peaks = ", ".join(f"{peak / 1e9:.2f}" for peak in row["bytes_above_start"])
        print(f"{side} {size}, {holds}, {count} processes: {peaks} GB; {row['result']:.6f}", flush=True)


def together(task: Task) -> dict[str, Any]:
    """The report of a group of processes that are started together."""
    variables = [{}]
    if task.processes > 1:
        patient = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {PATIENT}"}
        variables = [own | patient for own in joined.variables(task.processes)]
    command = [sys.executable, "-m", "benchmarks.processes", f"--measure={json.dumps(task)}"]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.PIPE, text=True)
        for own in variables
    ]
    # gloo, too, writes to standard output.
    lines = [process.communicate()[0].splitlines() for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"{task}: ended with {[process.returncode for process in started]}")
    found = [json.loads(next(line for line in reversed(of_one) if line.startswith("{"))) for of_one in lines]
    if len({part["result"] for part in found}) > 1:
        raise RuntimeError(f"{task}: the processes differ, {[part['result'] for part in found]}")
    size = SIZES[task.size]
    return task._asdict() | {
        "queries": task.queries or size.query,
        "gallery": size.gallery,
        "bytes_above_start": [part["bytes_above_start"] for part in found],
        "bytes_of_features": [part["bytes_of_features"] for part in found],
        "seconds": max(part["seconds"] for part in found),
        "result": found[0]["result"],
    }


def measure(task: Task) -> dict[str, Any]:
    """What one process needs."""
    import jax

    from san_jax import devices
    from san_jax.devices import SplitRows
    from san_jax.process import joining
    from san_jax.scoring import ranking, reranking

    joining.join_cluster()
    mesh, size = devices.make_mesh(), SIZES[task.size]
    jax.block_until_ready(jax.numpy.zeros(1))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before = resident()
    num_queries = task.queries or size.query
    query, query_pids = some_features(size, slice(0, num_queries), of_people=size.query, seed=1)
    of_people = min(size.gallery, PER_PERSON * size.people)
    if task.holds == "whole":
        gallery, _ = some_features(size, slice(0, size.gallery), of_people=of_people, seed=2)
        held = gallery.nbytes
    else:
        parts = []
        for device, rows in devices.shares(mesh, size.gallery).items():
            part, _ = some_features(size, rows, of_people=of_people, seed=2)
            part[max(size.gallery - rows.start, 0) :] = 0
            parts.append(jax.device_put(part, device))
        shape = (devices.rounded_up(mesh, size.gallery), DIM)
        array = jax.make_array_from_single_device_arrays(shape, devices.by_rows(mesh), parts)
        gallery, held = SplitRows(array, size.gallery), sum(part.nbytes for part in parts)
        del part, parts, array
    rng = np.random.default_rng(3)
    labels = {"query_pids": query_pids, "gallery_pids": pids_of(size, size.gallery, of_people=of_people, seed=2)}
    labels |= {"query_camids": rng.integers(0, size.cameras, num_queries)}
    labels |= {"gallery_camids": rng.integers(0, size.cameras, size.gallery)}
    begin = time.perf_counter()
    rank = ranking.rank if task.side == "rank" else reranking.rank
    result = ranking.scores(np.asarray(rank(query, gallery, **labels, mesh=mesh))).mAP
    seconds = time.perf_counter() - begin
    peak = status_bytes("VmHWM")
    return {"bytes_above_start": peak - before, "bytes_of_features": held, "seconds": seconds, "result": result}


def pids_of(size: Size, count: int, *, of_people: int, seed: int) -> np.ndarray:
    """Identities of the first `count` pictures of a split; from `of_people` on, they are distractors, pid -1."""
    pids = np.random.default_rng([seed, 0]).integers(0, size.people, count)
    pids[of_people:] = -1
    return pids


def some_features(size: Size, rows: slice, *, of_people: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of some rows of a split, noise around a centre for each identity, and their pids."""
    centres = SPREAD * np.random.default_rng(0).standard_normal((size.people, DIM), np.float32)
    pids = pids_of(size, rows.stop, of_people=of_people, seed=seed)
    feats = aligned_empty((rows.stop - rows.start, DIM))
    for start in range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK):
        block = np.random.default_rng([seed, 1, start]).standard_normal((BLOCK, DIM), np.float32)
        stop = min(start + BLOCK, rows.stop)
        known = pids[start:stop] >= 0
        block[: stop - start][known] += centres[pids[start:stop][known]]
        first = max(start, rows.start)
        feats[first - rows.start : stop - rows.start] = block[first - start : stop - start]
    return feats, pids[rows]


if __name__ == "__main__":
    main()
