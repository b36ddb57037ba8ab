"""Profiles one training step: writes its kernels, longest first, and the compiled program.

    python -m benchmarks.kernels --task=san --dtype=bfloat16 --batch=64 --out=FOLDER

Writes kernels_TASK_DTYPE.json: milliseconds per step of every kernel, with the operations that the compiler fused into
it; and the optimized program as kernels_TASK_DTYPE.hlo.gz.
"""

import argparse
import collections
import dataclasses
import gzip
import json
import tempfile
from pathlib import Path

import jax

from benchmarks import jax_san
from benchmarks.case import DTYPES, TASKS, TINY, Case, new_folder

STEPS = 5
KEPT = 400  # kernels in the report


def main() -> None:
    """Profiles the step that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", choices=TASKS[:-1], default="san")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--tiny", action="store_true", help="a trial run")
    parser.add_argument("--out", type=new_folder, default="runs/kernels")
    flags = parser.parse_args()
    case = Case(
        task=flags.task,
        framework="jax",
        options=(),
        dtype=flags.dtype,
        platform=jax.default_backend(),
        batch=flags.batch,
        height=flags.height,
        width=flags.height // 2,
        depth=flags.depth,
        fc_dim=512,
        encoder_width=1.0,
        decoder_width=1.0,
        num_pids=767,
        warmup=3,
        repeats=STEPS,
    )
    if flags.tiny:
        case = dataclasses.replace(case, **TINY)
    call, program = jax_san.training(case)
    for _ in range(case.warmup):
        call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                call()
        (written,) = Path(folder).rglob("*.xplane.pb")
        kernels, lines = read_kernels(written)
    stem = f"kernels_{case.task}_{case.dtype}"
    report = {
        "device": jax.devices()[0].device_kind,
        "case": case.task,
        "dtype": case.dtype,
        "batch": case.batch,
        "lines": lines,
        "ms_a_step": sum(kernel["ms"] for kernel in kernels),
        "kernels": kernels[:KEPT],
    }
    (flags.out / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    (flags.out / f"{stem}.hlo.gz").write_bytes(gzip.compress(program.call.as_text().encode()))
    print(f"{stem}: {report['ms_a_step']:.2f} ms per step in kernels")
    for kernel in kernels[:25]:
        print(f"{kernel['ms']:8.3f} ms {kernel['count']:5.1f} x {kernel['name'][:60]:60} {kernel['op'][:60]}")


def read_kernels(path: Path) -> tuple[list[dict], dict[str, float]]:
    """Kernels by time, and the time of every line of the profile; both in milliseconds per step."""
    times, counts, ops, lines = collections.Counter(), collections.Counter(), {}, collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if "/device:" not in plane.name:
            continue
        for line in plane.lines:
            for event in line.events:
                lines[f"{plane.name} {line.name}"] += event.duration_ns / 1e6 / STEPS
                if not line.name.startswith("Stream"):
                    continue
                about = {key: str(value) for key, value in event.stats if key}
                name = f"{event.name} | {about.get('hlo_op', '')}"
                times[name] += event.duration_ns / 1e6 / STEPS
                counts[name] += 1
                ops[name] = about.get("name", about.get("tf_op", ""))
    kernels = [
        {"name": name, "ms": ms, "count": counts[name] / STEPS, "op": ops[name]} for name, ms in times.most_common()
    ]
    return kernels, dict(lines)


if __name__ == "__main__":
    main()
