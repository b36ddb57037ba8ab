"""Final scores of runs that were stopped on 8 devices and resumed on 1, 2 and 4, beside unbroken runs.

    python -m benchmarks.elastic --out=runs/elastic --data_dir=data

Trains the baseline at a small size (ResNet-10, pictures of 64 x 32) for several seeds: unbroken on 8 devices; and
stopped half-way on 8 by SIGTERM, then resumed from copies of its workdir on 1, 2 and 4. The devices are those of JAX's
CPU backend. A second call goes on. Writes elastic.json: scores by run and seed, the largest difference to the unbroken
run of the same seed, the spread of the unbroken runs over the seeds, of which there are more, and chance.
"""

import argparse
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from benchmarks.case import describe_cpu, new_folder
from benchmarks.joined import PATIENT
from san_jax.training.checkpoints import METRICS
from san_jax.weights import stored

ROOT = Path(__file__).parent.parent
BEFORE, AFTER = 8, (1, 2, 4)  # devices
UNBROKEN = f"unbroken on {BEFORE}"
SCORES = ("rank1", "mAP")
DATA = "synthetic_reid/small"
FIELDS = {"data.height": 64, "data.width": 32, "encoder.depth": 10, "reid.milestones": "(3,)", "schedule.epochs": 4}


def main() -> None:
    """Trains what is missing, writes elastic.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=new_folder, default="runs/elastic")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--unbroken", type=int, default=6, help="seeds in all; those beyond --seeds only unbroken")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that are trained at once")
    flags = parser.parse_args()
    out, data_dir = flags.out, flags.data_dir.absolute()
    with ThreadPoolExecutor(flags.jobs) as pool:
        found = list(pool.map(functools.partial(train, out, data_dir), range(flags.seeds)))
        rest = range(flags.seeds, max(flags.seeds, flags.unbroken))
        more = list(pool.map(functools.partial(train_unbroken, out, data_dir), rest))
    steps = [of_seed.pop("steps") for of_seed in found]
    scores = {run: [of_seed[run] for of_seed in found] for run in found[0]}
    scores[UNBROKEN] += [scores_of(workdir) for workdir, _ in more]
    report = {
        "date": time.strftime("%Y-%m-%d"), "cpu": describe_cpu(), "jax": jax.__version__, "config": "baseline:small",
        "fields": FIELDS, "seeds": flags.seeds, "steps": steps, "scores": scores,
        "chance": chance(data_dir, out), **compared(scores),
    }  # fmt: skip
    (out / "elastic.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(compared(scores), indent=1))


def train(out: Path, data_dir: Path, seed: int) -> dict[str, dict]:
    """Trains the runs of one seed that are missing; their scores by run, and the steps in "steps"."""
    fields, stopped = fields_of(seed, data_dir), out / f"seed{seed}_stopped"
    whole, total = train_unbroken(out, data_dir, seed)
    step = stop_half_way(stopped, fields, total=total)
    found = {"steps": {"stopped_after": step, "total": total}, UNBROKEN: scores_of(whole)}
    for devices in AFTER:
        workdir = out / f"seed{seed}_resumed_on_{devices}"
        if not workdir.exists():
            shutil.copytree(stopped, workdir)
        finish(workdir, fields, devices=devices)
        found[f"{BEFORE}, resumed on {devices}"] = scores_of(workdir)
    print(f"seed {seed}: {found}", flush=True)
    return found


def train_unbroken(out: Path, data_dir: Path, seed: int) -> tuple[Path, int]:
    """Trains the unbroken run of a seed if it is missing; its workdir and number of steps."""
    workdir = out / f"seed{seed}_unbroken"
    return workdir, finish(workdir, fields_of(seed, data_dir), devices=BEFORE)


def fields_of(seed: int, data_dir: Path) -> dict:
    """The fields of a config that differ from those of `:small`."""
    return FIELDS | {"seed": seed, "data.data_dir": data_dir}


def command(workdir: Path, fields: dict, *, devices: int, **others: object) -> tuple[list[str], dict[str, str]]:
    """A command that trains, and its environment."""
    words = [f"--config.{name}={value}" for name, value in (fields | others).items()]
    kept = workdir.parent / "compiled"  # for all runs; XLA compiles for each number of devices anew
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices} {PATIENT}"
    variables = {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(kept)}
    program = [sys.executable, "train.py", "--config=configs/baseline.py:small", f"--workdir={workdir}"]
    return [*program, *words], os.environ | variables


def finish(workdir: Path, fields: dict, *, devices: int) -> int:
    """Trains to the end, unless the run is scored already; the number of steps."""
    if stored.newest(workdir, best=True) is None:
        words, environment = command(workdir, fields, devices=devices)
        subprocess.run(words, env=environment, cwd=ROOT, check=True)
    return int(stored.newest(workdir).name)


def stop_half_way(workdir: Path, fields: dict, *, total: int) -> int:
    """Trains, and stops by SIGTERM as soon as the checkpoint of half of the steps is there; the step it stopped after.

    Raises:
      RuntimeError: it did not stop, or not before the end.
    """
    half = total // 2
    if stored.newest(workdir) is None:
        words, environment = command(workdir, fields, devices=BEFORE, **{"schedule.save_every": half})
        process = subprocess.Popen(words, env=environment, cwd=ROOT)
        while stored.newest(workdir) is None and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        if (status := process.wait()) != 128 + signal.SIGTERM:
            raise RuntimeError(f"{workdir} ended with status {status}, not by SIGTERM")
    step = int(stored.newest(workdir).name)
    if not half <= step < total:
        raise RuntimeError(f"{workdir} stopped after step {step} of {total}")
    return step


def scores_of(workdir: Path) -> dict[str, float]:
    """The scores of a finished run, which was scored at its end only."""
    found = json.loads((stored.newest(workdir, best=True) / METRICS / METRICS).read_text())
    return {name: found[name] for name in SCORES}


def chance(data_dir: Path, out: Path) -> dict[str, float]:
    """The scores of a gallery in random order."""
    place, words = out / "references.json", ["-m", "san_jax", "reference-scores", f"--data={DATA}"]
    subprocess.run([sys.executable, *words, f"--data_dir={data_dir}", f"--output={place}"], cwd=ROOT, check=True)
    found = json.loads(place.read_text())["sets"][DATA]["chance"]
    return {name: found[name] for name in SCORES}


def compared(scores: dict[str, Sequence[dict[str, float]]]) -> dict[str, dict]:
    """Largest difference to the unbroken run of the same seed, by run; spread of the unbroken runs over the seeds."""

    def values(run: str, name: str) -> np.ndarray:
        return np.array([of_seed[name] for of_seed in scores[run]])

    differences = {
        run: {name: float(np.abs(values(run, name) - values(UNBROKEN, name)[:resumed]).max()) for name in SCORES}
        for run, resumed in ((run, len(of_run)) for run, of_run in scores.items())
        if run != UNBROKEN
    }
    means = {run: {name: float(values(run, name).mean()) for name in SCORES} for run in scores}
    spread = {
        name: {"deviation": float(values(UNBROKEN, name).std(ddof=1)), "range": float(np.ptp(values(UNBROKEN, name)))}
        for name in SCORES
    }
    return {"means": means, "largest_difference": differences, "spread_over_seeds": spread}


if __name__ == "__main__":
    main()
