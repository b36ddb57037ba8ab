"""Times exact search in galleries of millions of features beside faiss; docs/performance.md.

    python -m benchmarks.searching --peer_python=PATH/bin/python                                    # with faiss-cpu
    python -m benchmarks.searching --peer_python=PATH/bin/python --rows=10000000 --dtype=float16

Writes made-up features to a file, once. Ours maps that file; faiss keeps a copy of the features: IndexFlatL2 in
float32, IndexScalarQuantizer with QT_fp16 in half precision. Each side is a process of its own, in the order ours,
faiss, faiss, ours. Memory is the peak of what a process has besides mapped files (RssAnon), which the system can drop
at any time, and the peak with them (VmHWM).
"""

import argparse
import datetime
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import describe_cpu, new_folder, status_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "searching"
DIM, TOP = 512, 10
BLOCK = 65_536  # rows that are made, and read by faiss, at a time
SIDES = ("san_jax", "faiss")
ORDER = ("san_jax", "faiss", "faiss", "san_jax")
LONG = 30.0  # seconds of timed calls, after which no further one starts
NOISE = 0.5  # of a query beside the gallery row that it is made from, whose numbers have a spread of 1


def main() -> int:
    """Measures what the flags ask for."""
    flags = parse_flags()
    if flags.measure:
        print(json.dumps(measure(flags.measure, flags)))
        return 0
    cpu, date = describe_cpu(), datetime.datetime.now().astimezone()
    make_features(features_file(flags), flags.rows, flags.dtype)
    report = {"device": f"{cpu['name']}, {cpu['cores']} cores", "date": date.isoformat(timespec="seconds"), "cpu": cpu}
    report |= {"rows": flags.rows, "dtype": flags.dtype, "dim": DIM, "top": TOP}
    parts: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for side in ORDER:
        parts[side].append(ask(side, flags))
        print(f"{side}: {json.dumps(parts[side][-1])}", flush=True)
    report |= summary(parts, flags)
    place = flags.out / f"{flags.dtype}_{flags.rows}_{date:%Y-%m-%d_%H%M%S}.json"
    place.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{place}")
    if not flags.keep:
        features_file(flags).unlink()
        for found in flags.folder.glob("found_*.npy"):
            found.unlink()
    return 0


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--rows", type=int, default=2_500_000, help="features in the gallery")
    add("--dtype", choices=("float32", "float16"), default="float32", help="in which they are stored")
    add("--queries", default="1,16,128", help="numbers of queries of a call, separated by commas")
    add("--repeats", type=int, default=5, help=f"timed calls in every process; fewer if they take {LONG:.0f} s")
    add("--peer_python", default="", help="interpreter with faiss-cpu and numpy")
    folder = f"{tempfile.gettempdir()}/searching"
    add("--folder", type=new_folder, default=folder, help="where the features are written")
    add("--keep", action="store_true", help="keep the features for the next call")
    add("--out", type=new_folder, default=str(RESULTS), help="folder of the report")
    add("--measure", default="", help=argparse.SUPPRESS)  # SIDE: what a child process measures
    flags = parser.parse_args()
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", flags.queries):
        parser.error(f"--queries is {flags.queries}; give numbers of 1 or more, separated by commas")
    flags.queries = [int(number) for number in flags.queries.split(",")]
    if flags.rows < TOP or flags.repeats < 1:
        parser.error(f"--rows must be {TOP} or more, --repeats 1 or more")
    if not flags.measure and shutil.which(flags.peer_python) is None:
        parser.error(f"--peer_python is {flags.peer_python!r}, which does not start; give one with faiss-cpu and numpy")
    return flags


def features_file(flags: argparse.Namespace) -> Path:
    """The file of made-up features."""
    return flags.folder / f"feats_{flags.rows}_{flags.dtype}.npy"


def make_features(path: Path, rows: int, dtype: str) -> None:
    """Writes seeded normal numbers, unless the file is there."""
    if path.exists():
        return
    part = path.with_suffix(".part")
    feats = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=(rows, DIM))
    for number, start in enumerate(range(0, rows, BLOCK)):
        size = min(BLOCK, rows - start)
        feats[start : start + size] = np.random.default_rng(number).standard_normal((size, DIM), np.float32)
    feats.flush()
    part.rename(path)


def ask(side: str, flags: argparse.Namespace) -> dict[str, Any]:
    """The report of a child process."""
    python = sys.executable if side == "san_jax" else flags.peer_python
    command = [python, "-m", "benchmarks.searching", f"--measure={side}", f"--rows={flags.rows}"]
    command += [f"--dtype={flags.dtype}", f"--queries={','.join(map(str, flags.queries))}"]
    command += [f"--repeats={flags.repeats}", f"--folder={flags.folder}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{side}: {(ended.stderr.strip().splitlines() or [f'ended with {ended.returncode}'])[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def summary(parts: dict[str, list[dict[str, Any]]], flags: argparse.Namespace) -> dict[str, Any]:
    """Medians over both processes of each side, their ratios, and the share of rows on which the sides agree."""
    seconds = {
        side: {size: statistics.median(s for part in of_side for s in part["seconds"][str(size)])
               for size in flags.queries}
        for side, of_side in parts.items()
    }  # fmt: skip
    found = {side: np.load(flags.folder / f"found_{side}.npy") for side in SIDES}
    return {
        "seconds": seconds,
        "san_jax_over_faiss": {size: seconds["san_jax"][size] / seconds["faiss"][size] for size in flags.queries},
        "same_rows": float(np.mean(found["san_jax"] == found["faiss"])),
        "processes": parts,
    }


# ---- One process for each side; that of faiss needs only numpy and faiss.


def measure(side: str, flags: argparse.Namespace) -> dict[str, Any]:
    """Times one side in this process."""
    feats = np.load(features_file(flags), mmap_mode="r")
    queries = make_queries(feats, max(flags.queries))
    with Memory() as memory:
        begin = time.perf_counter()
        search, version = (ours if side == "san_jax" else faiss_index)(feats)
        ready = time.perf_counter() - begin
        seconds = {size: timed(lambda size=size: search(queries[:size]), flags.repeats) for size in flags.queries}
    np.save(flags.folder / f"found_{side}.npy", search(queries))
    about = {"version": version, "ready_seconds": ready, "seconds": seconds}
    return about | {"anonymous_bytes": memory.peak, "resident_bytes": status_bytes("VmHWM")}


def make_queries(feats: np.ndarray, count: int) -> np.ndarray:
    """Rows from all over the gallery, with noise."""
    rng = np.random.default_rng(10**9)
    rows = np.sort(rng.integers(0, len(feats), count))
    return feats[rows].astype(np.float32) + NOISE * rng.standard_normal((count, DIM), np.float32)


def ours(feats: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """San_jax's search in the mapped file, and its JAX."""
    import jax

    from san_jax.scoring.gallery_feats import GalleryFeats

    gallery = GalleryFeats([feats])
    return lambda queries: np.asarray(gallery.nearest(queries, k=TOP).rows), f"jax {jax.__version__}"


def faiss_index(feats: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """The exact index of faiss for features of this dtype."""
    import faiss

    if feats.dtype == np.float32:
        index = faiss.IndexFlatL2(DIM)
    else:
        index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        index.train(np.zeros((1, DIM), np.float32))
    index.codes.resize(feats.nbytes)  # so that it is not copied while it grows: capacity stays
    index.codes.resize(0)
    for block in blocks(feats):
        index.add(np.ascontiguousarray(block, np.float32))
    return lambda queries: index.search(queries, TOP)[1], f"faiss {faiss.__version__}"


def blocks(feats: np.ndarray) -> Iterator[np.ndarray]:
    """The features, BLOCK rows at a time."""
    for start in range(0, len(feats), BLOCK):
        yield feats[start : start + BLOCK]


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of every timed call, after one that is not."""
    call()
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < LONG:
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


class Memory:
    """Watches the memory of this process that is not of mapped files; `peak` is its peak in bytes."""

    def __enter__(self) -> "Memory":
        """Begins to watch."""
        self.peak, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = max(self.peak, status_bytes("RssAnon"))


if __name__ == "__main__":
    sys.exit(main())
