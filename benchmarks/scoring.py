"""Times scores, re-ranking and search on random features, and a plain product and an argsort; docs/performance.md.

    python -m benchmarks.scoring
    python -m benchmarks.scoring --sizes=cuhk03,market1501 --sides=product,rank,argsort --rounds=5
    python -m benchmarks.scoring --sides=nearest,faiss_flat --peer_python=PATH/bin/python
    python -m benchmarks.scoring --sides=rank,fastreid --peer_python=PATH/bin/python    # with fast-reid's Cython built

Every measurement is a process of its own, one at a time; the sides take turns, every other round in the opposite order.
Memory is the peak resident size minus the resident size right after the features are made.
"""

import argparse
import datetime
import importlib
import importlib.util
import json
import math
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.case import describe_cpu, new_folder, status_bytes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scoring"
DIM = 512
SEEN = 64  # every SEEN-th column of the plain product is read
SPREAD = 0.4  # of the identities; that of the pictures of one identity is 1, so that some results are wrong


class Size(NamedTuple):
    """Numbers of pictures, identities and cameras of a test set; the gallery may also have distractors."""

    query: int
    gallery: int
    people: int
    cameras: int


SIZES = {
    "tiny": Size(30, 200, 6, 3),  # for a trial run
    "cuhk03": Size(1_400, 5_328, 700, 2),
    "market1501": Size(3_368, 19_732, 750, 6),
    "msmt17": Size(11_659, 82_161, 3_060, 15),
    "market1501+500k": Size(3_368, 519_732, 750, 6),
}


class Features(NamedTuple):
    """Features of query and gallery, with their pids and camids."""

    query: np.ndarray
    gallery: np.ndarray
    labels: dict[str, np.ndarray]


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """As `feature_extraction.aligned_empty`, for the peers' environment too: features are aligned as in eval.py."""
    size = 4 * math.prod(shape)
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(np.float32).reshape(shape)


def make_features(size: Size, *, dim: int = DIM) -> Features:
    """Noise around a centre for each identity; gallery pictures beyond 25 for each are distractors, pid -1."""
    rng = np.random.default_rng(0)
    centres = SPREAD * rng.standard_normal((size.people, dim), np.float32)

    def some(count: int, *, of_people: int) -> tuple[np.ndarray, np.ndarray]:
        feats = aligned_empty((count, dim))
        rng.standard_normal(dtype=np.float32, out=feats)
        pids = rng.integers(0, size.people, count)
        pids[of_people:] = -1
        for start in range(0, of_people, 4096):
            part = slice(start, min(start + 4096, of_people))
            feats[part] += centres[pids[part]]
        return feats, pids

    query, query_pids = some(size.query, of_people=size.query)
    gallery, gallery_pids = some(size.gallery, of_people=min(size.gallery, 25 * size.people))
    query_camids, gallery_camids = (rng.integers(0, size.cameras, count) for count in (size.query, size.gallery))
    labels = {"query_pids": query_pids, "gallery_pids": gallery_pids}
    return Features(query, gallery, labels | {"query_camids": query_camids, "gallery_camids": gallery_camids})


# ---- The sides: each returns a function that computes once and returns a number by which to check it.


def product(feats: Features) -> Callable[[], float]:
    """XLA's own product of query and gallery in the tiles of `rank`, otherwise unused: a lower bound."""
    import jax
    import jax.numpy as jnp

    from san_jax.scoring import tiles

    gallery = jax.device_put(feats.gallery)  # shares memory with NumPy where possible, as in `rank`
    tile = max(1, min(tiles.TILE_QUERIES, tiles.TILE_BYTES // (4 * len(gallery))))
    rows = -(-len(feats.query) // tile) * tile
    query = jnp.pad(jnp.asarray(feats.query), ((0, rows - len(feats.query)), (0, 0))).reshape(-1, tile, DIM)
    # Only some columns are summed: a sum of all would take half as long again.
    multiply = jax.jit(lambda query, gallery: jax.lax.map(lambda q: jnp.matmul(q, gallery.T)[:, ::SEEN], query))
    return lambda: float(multiply(query, gallery).sum())


def rank(feats: Features) -> Callable[[], float]:
    """Distances, ranks and scores by the Market-1501 metric."""
    from san_jax.scoring import ranking

    return lambda: ranking.scores(ranking.rank(feats.query, feats.gallery, **feats.labels)).mAP


def single_shot(feats: Features) -> Callable[[], float]:
    """CUHK03's single-gallery-shot metric, ten draws."""
    import jax

    from san_jax.scoring import ranking

    def once() -> float:
        ranks = ranking.draw_ranks(feats.query, feats.gallery, key=jax.random.key(0), **feats.labels)
        return ranking.mean_and_spread([ranking.scores(drawn[:, None]) for drawn in np.asarray(ranks)])[0].cmc[0]

    return once


def tpr(feats: Features) -> Callable[[], float]:
    """TPR at an FPR of 1e-4, among others."""
    from san_jax.scoring import verification

    return lambda: verification.tpr_at_fpr(feats.query, feats.gallery, **feats.labels)[-1].tpr


def rerank(feats: Features) -> Callable[[], float]:
    """k-reciprocal re-ranking and its scores."""
    from san_jax.scoring import ranking, reranking

    return lambda: ranking.scores(reranking.rank(feats.query, feats.gallery, **feats.labels)).mAP


def nearest(feats: Features) -> Callable[[], float]:
    """The ten nearest gallery pictures of every query."""
    from san_jax.scoring.nearest import nearest as find_nearest

    return lambda: float(np.asarray(find_nearest(feats.query, feats.gallery, k=10).distances).mean())


def argsort(feats: Features) -> Callable[[], float]:
    """The usual way: the whole distance matrix, sorted by NumPy, then a loop over queries."""

    def once() -> float:
        order = np.argsort(squared_distances(feats.query, feats.gallery), axis=1, kind="stable")
        precisions = []
        for row, pid, camid in zip(order, feats.labels["query_pids"], feats.labels["query_camids"], strict=True):
            same = feats.labels["gallery_pids"][row] == pid
            hits = same[~(same & (feats.labels["gallery_camids"][row] == camid))]
            places = np.flatnonzero(hits)
            if len(places):
                precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
        return float(np.mean(precisions))

    return once


def fastreid(feats: Features) -> Callable[[], float]:
    """Distances by one product, ranking by fast-reid's Cython code."""
    evaluate = fastreid_module("evaluation", "rank_cylib.rank_cy").evaluate_cy

    def once() -> float:
        return float(np.mean(evaluate(squared_distances(feats.query, feats.gallery), *labels_of(feats), 50)[1]))

    return once


def fastreid_single_shot(feats: Features) -> Callable[[], float]:
    """The CMC of the single-gallery-shot metric by fast-reid's Cython code, ten draws too."""
    evaluate = fastreid_module("evaluation", "rank_cylib.rank_cy").evaluate_cy

    def once() -> float:
        found = evaluate(squared_distances(feats.query, feats.gallery), *labels_of(feats), 50, use_metric_cuhk03=True)
        return float(found[0][0])  # its mAP is that of the whole gallery

    return once


def fastreid_rerank(feats: Features) -> Callable[[], float]:
    """Re-ranking by fast-reid with faiss on the CPU, and its ranking; it takes one neighbour less than the paper."""
    import torch

    jaccard = fastreid_module("utils", "compute_dist").compute_jaccard_distance
    evaluate = fastreid_module("evaluation", "rank_cylib.rank_cy").evaluate_cy
    everyone = torch.from_numpy(np.concatenate([feats.query, feats.gallery]))
    num_query = len(feats.query)

    def once() -> float:
        mixed = 0.7 * jaccard(everyone, search_option=FAISS_ON_CPU)[:num_query, num_query:]
        squared = squared_distances(feats.query, feats.gallery)
        mixed += 0.3 * squared / squared.max(axis=1, keepdims=True)
        return float(np.mean(evaluate(mixed, *labels_of(feats), 50)[1]))

    return once


def faiss_flat(feats: Features) -> Callable[[], float]:
    """The ten nearest of every query by faiss's exact index, which already holds a copy of the gallery."""
    import faiss

    index = faiss.IndexFlatL2(DIM)
    index.add(feats.gallery)
    return lambda: float(index.search(feats.query, 10)[0].mean())


FAISS_ON_CPU = 3


def fastreid_module(part: str, name: str) -> Any:
    """One of fast-reid's modules without its package, which does not import on Python 3.11."""
    (folder,) = importlib.util.find_spec("fastreid").submodule_search_locations
    package = types.ModuleType(f"fastreid_{part}")
    package.__path__ = [f"{folder}/{part}"]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{name}")


def squared_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The whole matrix, by one product."""
    squares = [np.square(x).sum(axis=1) for x in (query, gallery)]
    return squares[0][:, None] + squares[1] - 2 * query @ gallery.T


def labels_of(feats: Features) -> list[np.ndarray]:
    """Pids and camids in the order in which the peers take them."""
    return [feats.labels[name] for name in ("query_pids", "gallery_pids", "query_camids", "gallery_camids")]


OURS = (product, rank, single_shot, tpr, nearest, rerank, argsort)
PEERS = (fastreid, fastreid_single_shot, fastreid_rerank, faiss_flat)
SIDES = {side.__name__: side for side in OURS + PEERS}
# Largest number of query times gallery pictures; more would take many minutes, or more memory than there is.
LIMITS = {"argsort": 1e8, "single_shot": 1e8, "fastreid": 1e9, "rerank": 1e9}
LIMITS |= {"fastreid_single_shot": 1e7, "fastreid_rerank": 1e8}
LONG = 20  # seconds of timed calls, after which no further one starts


# ---- One process for each measurement, and the report.


def main() -> int:
    """Measures what the flags ask for."""
    flags = parse_flags()
    if flags.measure:
        print(json.dumps(measure(*flags.measure.split(","), warmup=flags.warmup, repeats=flags.repeats)))
        return 0
    cpu, date = describe_cpu(), datetime.datetime.now().astimezone()
    about = json.loads(subprocess.run([sys.executable, "-c", ABOUT], check=True, capture_output=True, text=True).stdout)
    device = f"{cpu['name']}, {cpu['cores']} cores" if about["platform"] == "cpu" else about.pop("device_kind")
    report = {"device": device, **about, "date": date.isoformat(timespec="seconds"), "dim": DIM, "measurements": []}
    path = flags.out / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}_{date:%Y-%m-%d_%H%M%S}.json"
    print(f"{device}; {path}", flush=True)
    for size in flags.sizes:
        pairs = SIZES[size].query * SIZES[size].gallery
        sides = [side for side in flags.sides if pairs <= LIMITS.get(side, np.inf)]
        report["measurements"] += compare(sides, size, flags)
        path.write_text(json.dumps(report, indent=1) + "\n")
    return int(any("error" in row for row in report["measurements"]))


ABOUT = """
import json, jax
device = jax.devices()[0]
print(json.dumps({"platform": device.platform, "device_kind": device.device_kind, "jax": jax.__version__}))
"""


def parse_flags() -> argparse.Namespace:
    """The command line."""

    def listed(words: str) -> list[str]:
        return [word for word in words.split(",") if word]

    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--sizes", type=listed, default=",".join(list(SIZES)[1:]), help="test sets, separated by commas")
    add("--sides", type=listed, default=",".join(side.__name__ for side in OURS), help="sides, separated by commas")
    add("--warmup", type=int, default=1, help="calls before the timed ones, in every process")
    add("--repeats", type=int, default=3, help=f"timed calls in every process; fewer if they take {LONG} s")
    add("--rounds", type=int, default=2, help="processes for each measurement; the median is over the calls of all")
    add("--peer_python", default="", help="interpreter with the peers that --sides names")
    add("--out", type=new_folder, default=str(RESULTS), help="folder of the report")
    add("--measure", default="", help=argparse.SUPPRESS)  # SIDE,SIZE: what a child process measures
    flags = parser.parse_args()
    for name, known in (("sizes", SIZES), ("sides", SIDES)):
        if unknown := set(getattr(flags, name)) - set(known):
            parser.error(f"--{name} names {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if flags.repeats < 1 or flags.rounds < 1:
        parser.error("--repeats and --rounds must be 1 or more")
    if not flags.peer_python and (wanted := {side.__name__ for side in PEERS} & set(flags.sides)):
        parser.error(f"--sides names {', '.join(sorted(wanted))}, which need --peer_python")
    if flags.peer_python and shutil.which(flags.peer_python) is None:
        parser.error(f"--peer_python is {flags.peer_python}, which does not start; give a Python interpreter")
    return flags


def compare(sides: list[str], size: str, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """All sides at one size, in turns."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for turn in range(flags.rounds):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            found[side].append(ask(side, size, flags))
    rows = [summary(side, size, parts) for side, parts in found.items()]
    for row in rows:
        print(f"{size:>16} {row['side']:>12} {described(row)}", flush=True)
    return rows


def ask(side: str, size: str, flags: argparse.Namespace) -> dict[str, Any]:
    """The report of a child process."""
    python = flags.peer_python if SIDES[side] in PEERS else sys.executable
    command = [python, "-m", "benchmarks.scoring", f"--measure={side},{size}"]
    command += [f"--warmup={flags.warmup}", f"--repeats={flags.repeats}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        return {"error": (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1]}
    return json.loads(ended.stdout.splitlines()[-1])


def summary(side: str, size: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians over all processes of a side."""
    row = {"side": side, "size": size, **SIZES[size]._asdict()}
    if errors := [part["error"] for part in parts if "error" in part]:
        return row | {"error": errors[0]}
    seconds = [second for part in parts for second in part["all_seconds"]]
    return row | {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "first_seconds": statistics.median(part["first_seconds"] for part in parts),
        "bytes_above_features": statistics.median(part["bytes_above_features"] for part in parts),
        "result": parts[0]["result"],
    }


def described(row: dict[str, Any]) -> str:
    """A row in one line, for display."""
    if "error" in row:
        return row["error"]
    return f"{row['seconds']:9.3f} s  {row['bytes_above_features'] / 1e9:6.2f} GB  {row['result']:.6f}"


def measure(side: str, size: str, *, warmup: int, repeats: int) -> dict[str, Any]:
    """Times one side in this process."""
    feats = make_features(SIZES[size])
    before = resident()
    call = SIDES[side](feats)
    begin = time.perf_counter()
    result = call()
    first = time.perf_counter() - begin
    for _ in range(warmup - 1):
        call()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begin)
        if sum(seconds) > LONG:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    about = {"all_seconds": seconds, "first_seconds": first, "bytes_above_features": peak - before}
    return about | {"result": result}


def resident() -> int:
    """The current resident size of this process, in bytes."""
    return status_bytes("VmRSS")


if __name__ == "__main__":
    sys.exit(main())
