"""Times the training loop with its input, for every value of data.cache, beside the train step alone.

    python -m benchmarks.loop --task=san --dtype=bfloat16 --out=FOLDER
    python -m benchmarks.loop --small                              # sizes of `:small`, for two CPU cores

Data: pictures of noise in PNG, in memory, so that no disk is involved. One process; the ways take turns in every round.
A time is that of a whole loop divided by its steps: what the loop of train.py does, without saving and scoring. "alone"
is the same loop over one batch that is on the devices already.
"""

import argparse
import contextlib
import functools
import io
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.case import DTYPES, describe_cpu, new_folder
from san_jax import devices
from san_jax.batch import Record
from san_jax.data import input_pipeline
from san_jax.errors import UserError
from san_jax.training import run
from san_jax.training.progress import Progress
from san_jax.training.run import Run

HERE = Path(__file__).parent
CONFIGS = HERE / "configs"  # those of configs/, resolved: reading these needs no ml_collections
ALONE = "alone"
SMALL = {  # what `:small` changes
    "data": {"height": 128, "width": 64},
    "encoder": {"depth": 18, "width": 0.25, "fc_dim": 128},
    "decoder": {"width": 0.25},
    "batch": {"identities": 8},
}
TINY = SMALL | {"data": {"height": 32, "width": 16}, "encoder": {"depth": 10, "width": 0.1, "fc_dim": 8}}


class Fields(dict):
    """A config from JSON: its fields are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def config_of(task: str, changes: dict[str, Any]) -> Fields:
    """The config of a task with some fields changed, given by group."""
    read = json.loads((CONFIGS / f"{task}.json").read_text(), object_hook=Fields)
    for group, values in changes.items():
        if isinstance(values, dict):
            read[group].update(values)
        else:
            read[group] = values
    return read


class NoisyPictures:
    """A `Source` of PNG pictures in memory: four of each identity, as large as the network's input, with textures."""

    has_textures, digest, name = True, "", "noise"

    def __init__(self, num_pictures: int, *, height: int, width: int):
        self.pids = np.arange(num_pictures, dtype=np.int32) // 4
        self.people = [f"noise/{pid}" for pid in np.unique(self.pids)]
        self.camids = np.arange(num_pictures, dtype=np.int32) % 4
        self.names = [str(row) for row in range(num_pictures)]
        rng = np.random.default_rng(0)
        self._images = [png(rng, height, width) for _ in range(num_pictures)]
        self._textures = [png(rng, height, height) for _ in range(num_pictures // 4)]

    def __len__(self) -> int:
        return len(self.pids)

    def __getitem__(self, row: int) -> Record:
        pid = int(self.pids[row])
        return Record(
            image=self._images[row], texture=self._textures[pid], pid=pid, camid=int(self.camids[row]), name=str(row)
        )


def png(rng: np.random.Generator, height: int, width: int) -> bytes:
    """A smooth random picture with a little noise, which a PNG compresses about as well as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + rng.integers(-6, 7, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Measures what the flags say, and writes a report."""
    flags = parse_flags()
    config = config_of(flags.task, TINY if flags.tiny else SMALL if flags.small else {})
    config["compute_dtype"], config["data"]["workers"] = flags.dtype, flags.workers
    config["schedule"].update(warmup_epochs=0, epochs=10_000 * flags.steps // flags.pictures + 10, eval_every=0)
    source = NoisyPictures(flags.pictures, height=config.data.height, width=config.data.width)
    mesh = devices.make_mesh()
    try:
        built = run.build(config, flags.out / "none", source=source, test_sets=[], mesh=mesh)
    except UserError as error:  # too few pictures for a batch
        raise SystemExit(f"error: {error}") from error
    seconds, decoding = measure(built, steps=flags.steps, rounds=flags.rounds)
    cpu = describe_cpu()
    device = jax.devices()[0]
    report = {
        "device": f"{cpu['name']}, {cpu['cores']} cores" if device.platform == "cpu" else device.device_kind,
        "date": time.strftime("%Y-%m-%d"),
        "jax": jax.__version__,
        "task": flags.task,
        "dtype": flags.dtype,
        "batch": built.batch_size,
        "height": config.data.height,
        "width": config.data.width,
        "depth": config.encoder.depth,
        "steps": flags.steps,
        "pictures": flags.pictures,
        "threads": flags.workers or cpu["cores"],
        "decoding_seconds": decoding,
        "all_seconds": seconds,
        "seconds": {way: statistics.median(times) for way, times in seconds.items()},
    }
    path = flags.out / f"loop_{flags.task}_{flags.dtype}_{config.data.height}_{time.strftime('%Y-%m-%d_%H%M%S')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    for way, time_of_step in report["seconds"].items():
        ratio = time_of_step / report["seconds"][ALONE]
        print(f"{flags.task} {flags.dtype} {way:7}{1000 * time_of_step:9.2f} ms a step  {ratio:.3f} of the step alone")
    print(path)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--task", choices=("san", "baseline", "san_pg"), default="san")
    add("--dtype", choices=DTYPES, default="float32")
    add("--steps", type=int, default=40, help="steps of each way in each round (default: 40)")
    add("--rounds", type=int, default=3, help="rounds; the medians are reported (default: 3)")
    add("--pictures", type=int, default=2048, help="pictures of the training set (default: 2,048)")
    add("--workers", type=int, help="threads that decode (default: one for each core)")
    add("--small", action="store_true", help="networks and pictures of `:small`")
    add("--tiny", action="store_true", help="a trial run")
    add("--out", type=new_folder, default=str(HERE / "results" / "loop"), help="folder of the report")
    return parser.parse_args()


def measure(built: Run, *, steps: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of a step by way, in every round; seconds of decoding by way, where all is decoded first."""
    decoding, feeds = {}, {}
    for way in input_pipeline.WAYS:
        begin = time.perf_counter()
        feeds[way] = functools.partial(built.open_feed, cache=way)()
        if way != "stream":
            decoding[way] = time.perf_counter() - begin
    fixed = next(feeds["stream"].batches(0))
    iterators = {ALONE: itertools.repeat(fixed)} | {way: feed.batches(0) for way, feed in feeds.items()}
    seconds: dict[str, list[float]] = {way: [] for way in iterators}
    state = built.make_state()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(None, start=0, total=built.total, batch_size=built.batch_size))
        for turn in range(rounds + 1):  # the first one compiles
            for way in iterators if turn % 2 else reversed(iterators):
                begin = time.perf_counter()
                state = loop(built, state, itertools.islice(iterators[way], steps if turn else 3), progress)
                if turn:
                    seconds[way].append((time.perf_counter() - begin) / steps)
    return seconds, decoding


def loop(built: Run, state: Any, feeds: Iterator, progress: Progress) -> Any:
    """Steps as in `train_loop`, and the state after them, when it is ready."""
    step_of = built.step_of(built.total - 1)
    for step, fed in enumerate(feeds):
        with jax.transfer_guard("disallow"):
            state, terms = step_of(state, fed)
            progress.show(step, terms)
    progress.settle()
    return jax.block_until_ready(state)


if __name__ == "__main__":
    main()
