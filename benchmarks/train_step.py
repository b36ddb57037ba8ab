"""Times training steps and feature extraction, in san_jax and in PyTorch; see docs/performance.md.

    python -m benchmarks.train_step --batch=64 --torch_python=PATH/bin/python
    python -m benchmarks.train_step --batch=16 --tasks=san --dtypes=float32 --torch=     # san_jax alone
    python -m benchmarks.train_step --batch=8 --depth=18 --height=128 --width=64

Every measurement is a process of its own, one at a time; the sides take turns for several rounds, every other round in
the opposite order, so that other load on the machine affects all of them. Runs from the root of the repository, on
one device, and needs no data.
"""

import argparse
import dataclasses
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.case import DTYPES, INSTANCES, TASKS, USUAL_DTYPES, Case, describe_cpu, new_folder

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# Without it glibc hands large buffers back to the kernel after each use, and the next use pays for new pages.
KEEP_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


def main() -> int:
    """Measures what the flags ask for."""
    flags = parse_flags()
    environment = os.environ | (KEEP_HEAP if flags.keep_heap else {})
    # A program from a cache of earlier runs would take no time to compile.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if flags.torch_cache:
        return measure(flags, environment=environment | {"TORCHINDUCTOR_CACHE_DIR": str(flags.torch_cache)})
    with tempfile.TemporaryDirectory(prefix="torchinductor_") as cache:
        return measure(flags, environment=environment | {"TORCHINDUCTOR_CACHE_DIR": cache})


def measure(flags: argparse.Namespace, *, environment: dict[str, str]) -> int:
    """Measures all cases; rewrites the report after each, so that an interrupted run keeps its results."""
    jax_side, torch_side = (sys.executable, "benchmarks.jax_san"), (flags.torch_python, "benchmarks.torch_san")
    about = ask(*jax_side, environment=environment)
    options = flags.torch
    if options and "error" in (torch_about := ask(*torch_side, environment=environment)):
        print(f"PyTorch is left out ({torch_about['error']}); --torch_python names its interpreter")
        options = []
    if "error" in about:
        print(about["error"], file=sys.stderr)
        return 1
    report, path = new_report(about, torch_about if options else {}, out=flags.out)
    report |= {"keep_heap": flags.keep_heap, "rounds": flags.rounds, "measurements": []}
    for case in cases(flags, platform=about["platform"]):
        sides = [(*jax_side, case)]
        sides += [(*torch_side, dataclasses.replace(case, framework="torch", options=chosen)) for chosen in options]
        report["measurements"] += compare(sides, rounds=flags.rounds, environment=environment)
        path.write_text(json.dumps(report, indent=1) + "\n")
    return int(any("error" in row for row in report["measurements"]))


def new_report(about: dict[str, Any], *others: dict[str, Any], out: Path) -> tuple[dict[str, Any], Path]:
    """Device, date and versions of a report, and the file for it, named after the first two; prints both names.

    Args:
      about: the answer of the JAX side on itself.
      others: those of other sides, of which the versions count.
      out: folder of the report.
    """
    cpu = describe_cpu()
    device = f"{cpu['name']}, {cpu['cores']} cores" if about["platform"] == "cpu" else about["device_kind"]
    date = datetime.datetime.now().astimezone()
    report = {
        "device": device,
        "platform": about["platform"],
        "cpu": cpu,
        "date": date.isoformat(timespec="seconds"),
        "versions": {name: version for one in (about, *others) for name, version in one.get("versions", {}).items()},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    path = out / f"{name}_{date:%Y-%m-%d_%H%M%S}.json"
    print(f"{device}; {path}", flush=True)
    return report, path


def parse_flags(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line, or `words`; sizes default to the paper's."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", type=listed, default=TASKS, help="what to measure, separated by commas")
    add("--dtypes", type=listed, help=f"of {', '.join(DTYPES)}; by default {USUAL_DTYPES}")
    add("--batch", type=int, default=64, help=f"pictures of a step, {INSTANCES} of each person")
    add("--pictures", type=int, default=100, help="pictures whose features are computed at once")
    add("--height", type=int, default=256, help="of the pictures in pixels; textures are height x height")
    add("--width", type=int, default=128, help="of the pictures in pixels")
    add("--depth", type=int, default=50, help="of the encoder")
    add("--fc_dim", type=int, default=512, help="length of the features; 0 = channels of the pooled map")
    add("--encoder_width", type=float, default=1.0, help="factor on the encoder's channels")
    add("--decoder_width", type=float, default=1.0, help="factor on the decoder's channels")
    add("--num_pids", type=int, default=767, help="identities, outputs of the classifier")
    add("--warmup", type=int, default=2, help="calls before the timed ones, in every process")
    add("--repeats", type=int, default=10, help="timed calls in every process")
    add("--rounds", type=int, default=2, help="processes for each measurement; the median is over the calls of all")
    add("--torch_python", default=sys.executable, help="interpreter of an environment with PyTorch")
    add(
        "--torch",
        type=variants,
        default="plain,channels_last,channels_last+compile",
        help="how PyTorch runs: plain, or channels_last and compile joined by +; several by commas; empty for none",
    )
    add("--onednn", action=argparse.BooleanOptionalAction, default=True, help="as config.onednn, if JAX has it")
    add("--keep_heap", action=argparse.BooleanOptionalAction, default=True, help="glibc keeps freed memory (all sides)")
    add("--out", type=new_folder, default=str(RESULTS), help="folder of the report")
    add("--torch_cache", type=Path, help="folder that keeps torch.compile's programs; by default none are kept")
    flags = parser.parse_args(words)
    for name, known in (("tasks", TASKS), ("dtypes", DTYPES)):
        if unknown := set(getattr(flags, name) or ()) - set(known):
            parser.error(f"--{name} names {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if flags.batch % INSTANCES or flags.batch < 2 * INSTANCES:
        parser.error(f"--batch is {flags.batch}; it must be a multiple of {INSTANCES}, {2 * INSTANCES} or more")
    if flags.repeats < 1 or flags.rounds < 1:
        parser.error("--repeats and --rounds must be 1 or more")
    return flags


def listed(text: str) -> list[str]:
    """Words separated by commas."""
    return [word for word in text.split(",") if word]


def variants(text: str) -> list[tuple[str, ...]]:
    """Options of PyTorch, a tuple per variant."""
    chosen = [tuple(word for word in variant.split("+") if word != "plain") for variant in listed(text)]
    if unknown := {option for variant in chosen for option in variant} - {"channels_last", "compile"}:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return chosen


def cases(flags: argparse.Namespace, *, platform: str) -> list[Case]:
    """The cases of san_jax, in the order in which they are measured."""
    sizes = ("height", "width", "depth", "fc_dim", "encoder_width", "decoder_width", "num_pids")
    same = (*sizes, "warmup", "repeats", "onednn")
    return [
        Case(
            task=task,
            framework="jax",
            options=(),
            dtype=dtype,
            platform=platform,
            batch=flags.pictures if task == "features" else flags.batch,
            **{name: getattr(flags, name) for name in same},
        )
        for task in flags.tasks
        for dtype in flags.dtypes or USUAL_DTYPES[platform]
    ]


def compare(
    sides: Sequence[tuple[str, str, Case]], *, rounds: int, environment: dict[str, str]
) -> list[dict[str, Any]]:
    """Measures the sides of one case in turns; one row each, with the ratio of the first side's time to its own.

    The first side is san_jax, whose row has no ratio.
    """
    found = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            # What has failed once, for example for lack of memory, will fail again.
            if not any("error" in answer for answer in found[side]):
                found[side].append(ask(*side, environment=environment))
    rows = [summary(side[-1], answers) for side, answers in found.items()]
    for row in rows:
        if row is not rows[0] and "seconds" in row and "seconds" in rows[0]:
            row["ratio"] = rows[0]["seconds"] / row["seconds"]
        print(one_line(row), flush=True)
    return rows


def ask(python: str, module: str, case: Case | None = None, *, environment: dict[str, str]) -> dict[str, Any]:
    """The report of a process of one side, on itself or on a case; only `error` if it fails."""
    argument = [] if case is None else [json.dumps(dataclasses.asdict(case))]
    try:
        done = subprocess.run(
            [python, "-m", module, *argument], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    except OSError as error:
        return {"error": f"{python}: {error.strerror}"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    said = done.stderr.strip().splitlines()
    # A failed check of XLA is followed by a C++ stack trace that says nothing.
    return {"error": next((line for line in said if "Check failed" in line), " ".join(said[-1:])) or ended}


def summary(case: Case, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarises the rounds of a measurement: median seconds, compile time of the first, largest memory."""
    row = dataclasses.asdict(case)
    if errors := [answer for answer in answers if "error" in answer]:
        return row | errors[0]
    all_seconds = [seconds for answer in answers for seconds in answer["all_seconds"]]
    median = statistics.median(all_seconds)
    return row | {
        "seconds": median,
        "pictures_per_second": case.batch / median,
        "compile_seconds": answers[0]["compile_seconds"],
        "peak_bytes": max(answer["peak_bytes"] for answer in answers),
        "loss": answers[0]["loss"],
        "all_seconds": all_seconds,
        **({"flops_per_second": answers[0]["flops"] / median} if "flops" in answers[0] else {}),
    }


def one_line(row: dict[str, Any]) -> str:
    """A row in one line, for display."""
    name = f"{row['task']:9}{row['dtype']:9}{row['batch']:4} {'+'.join((row['framework'], *row['options'])):28}"
    if "error" in row:
        return f"{name} {row['error']}"
    ratio = f"  san_jax / this {row['ratio']:.2f}" if "ratio" in row else ""
    return (
        f"{name} {row['seconds']:8.4f} s {row['pictures_per_second']:8.1f} pictures/s  compile "
        f"{row['compile_seconds']:5.1f} s {row['peak_bytes'] / 1e9:6.2f} GB  loss {row['loss']:.3f}{ratio}"
    )


if __name__ == "__main__":
    sys.exit(main())
