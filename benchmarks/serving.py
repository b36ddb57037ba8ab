"""Times the answers of `search.py --serve` on a gallery of made-up features, with few real pictures behind them.

    python -m benchmarks.serving
    python -m benchmarks.serving --pictures=1000 --requests=5 --out=runs/serving_small    # a trial run

The server is a process of its own; each request uploads a picture and then searches. What the server itself says that
embedding and searching took (the header Server-Timing) is recorded beside the time of the whole request.
"""

import argparse
import csv
import datetime
import functools
import http.client
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from PIL import Image

import san_jax
from benchmarks.case import describe_cpu, new_folder, status_bytes
from san_jax.commands import own_pictures
from san_jax.data.crops import Crops
from san_jax.gallery import feature_index, index_files
from san_jax.model import Model
from san_jax.networks.architecture import Architecture
from san_jax.training import train_step
from san_jax.training.train_step import Networks
from san_jax.weights import saving

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "serving"
DIM = 512
FRAMES, SIZE, BOX = 12, (640, 480), (64, 128)  # real pictures, their width and height, and those of a box
CAMERAS = 8


def main() -> None:
    """Makes the gallery, starts the server, asks it, writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--out", type=new_folder, default=str(RESULTS), help="folder of the report")
    flags = parser.parse_args()
    date = datetime.datetime.now().astimezone()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = write_weights(folder / "weights.safetensors")
        listed = write_list(folder, flags.pictures)
        write_index(folder / "index", own_pictures.of_list(listed), san_jax.load(weights))
        measured = measure(weights, listed, folder / "index", requests=flags.requests)
    about = {"date": date.isoformat(timespec="seconds"), "cpu": describe_cpu(), "jax": jax.__version__}
    report = about | {"pictures": flags.pictures, "feats": DIM, "requests": flags.requests} | measured
    file = flags.out / f"{date:%Y-%m-%d_%H%M%S}.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    for name, times in measured["milliseconds"].items():
        print(f"{name:28} median {statistics.median(times):7.1f} ms, largest {max(times):7.1f} ms")
    print(f"memory at its peak {measured['peak_bytes'] / 1e9:.2f} GB; ready after {measured['ready_seconds']:.1f} s")
    print(file)


def write_weights(path: Path) -> Path:
    """A small encoder with random weights and features of the usual length."""
    architecture = Architecture(
        depth=10, fc_dim=DIM, last_stride=1, encoder_width=0.25, num_pids=10, decoder_width=0, skips=False, height=128,
        width=64,
    )  # fmt: skip
    make = functools.partial(train_step.make_state, Networks("baseline", architecture), seed=0)
    state = jax.jit(functools.partial(make, reid_tx=optax.sgd(1.0), recon_tx=optax.sgd(1.0)))()
    weights = {field: getattr(state, field) for field in ("encoder", "encoder_stats")}
    saving.save_weights(path, architecture=architecture, mode="baseline", weights=weights)
    return path


def write_list(folder: Path, pictures: int) -> Path:
    """A list of boxes in a few pictures of noise, with cameras and times."""
    rng, start = np.random.default_rng(0), datetime.datetime(2026, 11, 28, 9)
    for number in range(FRAMES):
        noise = rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize(SIZE).save(folder / f"{number}.jpg")
    path = folder / "people.csv"
    with path.open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["path", "pid", "camid", "time", "x", "y", "w", "h"])
        for number in range(pictures):
            frame, place = number % FRAMES, number // FRAMES
            box = [place % (SIZE[0] - BOX[0]), place // (SIZE[0] - BOX[0]), *BOX]
            taken = (start + datetime.timedelta(seconds=number)).isoformat()
            written.writerow([f"{frame}.jpg", number, 1 + number % CAMERAS, taken, *box])
    return path


def write_index(path: Path, listed: Crops, model: Model) -> np.ndarray:
    """Writes an index of made-up features of all pictures of a gallery, and returns them."""
    rng = np.random.default_rng(1)
    feats = rng.standard_normal((len(listed), model.num_feats), np.float32)
    names = [crop.name for crop in listed.crops]
    made = index_files.Part(names, feature_index.stamps_of(listed), feats)
    index_files.write_about(path, model, index_files.PLAIN, gallery=listed.title)
    index_files.write_part(path, made)
    return feats


def measure(weights: Path, listed: Path, index: Path, *, requests: int) -> dict[str, Any]:
    """Starts the server, waits until everything can be searched, and asks it again and again."""
    command = [sys.executable, "search.py", "--serve", "--port=0", f"--checkpoint={weights}", f"--gallery={listed}"]
    begin = time.perf_counter()
    server = subprocess.Popen([*command, f"--index={index}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        port = next(int(found[1]) for line in server.stdout if (found := re.search(r"http://[^/]*:(\d+)/", line)))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while ask(connection, "GET", "/api/galleries")[0]["galleries"][0]["state"] != "watching":
            time.sleep(0.2)
        ready = time.perf_counter() - begin
        times = {name: [] for name in NAMES}
        for number in range(-2, requests):  # the first two compile
            taken = once(connection, picture(number))
            if number >= 0:
                for name, milliseconds in taken.items():
                    times[name].append(milliseconds)
        peak = status_bytes("VmHWM", server.pid)
    finally:
        server.kill()
        server.wait()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"ready_seconds": ready, "peak_bytes": peak, "medians": medians, "milliseconds": times}


NAMES = (
    *("upload", "of it embedding", "search", "of it in the server", "search by one camera", "of it there"),
    "upload and search",
)


def once(connection: http.client.HTTPConnection, content: bytes) -> dict[str, float]:
    """Milliseconds of an upload and two searches, by NAMES."""
    query, embedding, upload = ask(connection, "POST", "/api/queries", content)
    wanted = {"queries": [query["id"]]}
    found, inside, search = ask(connection, "POST", "/api/search", json.dumps(wanted))
    assert len(found["found"]) == 24, found
    found, inside_one, of_one = ask(connection, "POST", "/api/search", json.dumps(wanted | {"cameras": ["1"]}))
    assert {hit["camera"] for hit in found["found"]} == {"1"}
    return dict(
        zip(NAMES, (upload, embedding, search, inside, of_one, inside_one, upload + search), strict=True)
    )


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | str | None = None
) -> tuple[Any, float, float]:
    """An answer, how long the server says that its main part took, and how long all of it took, in milliseconds."""
    begin = time.perf_counter()
    connection.request(method, path, body)
    answer = connection.getresponse()
    content = answer.read()
    took = 1e3 * (time.perf_counter() - begin)
    if answer.status >= 300:
        raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
    inside = re.search(r"dur=([\d.]+)", answer.getheader("Server-Timing", "dur=0"))
    return json.loads(content), float(inside[1]), took


def picture(number: int) -> bytes:
    """A picture of noise, as JPEG."""
    noise = np.random.default_rng(number % 1000).integers(0, 256, (32, 16, 3)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).resize((128, 256)).save(encoded, "JPEG")
    return encoded.getvalue()


if __name__ == "__main__":
    main()
