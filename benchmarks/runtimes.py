"""Times the features of pictures in san_jax, onnxruntime, OpenVINO and PyTorch on one CPU; see docs/deploy.md.

    python -m benchmarks.runtimes --torch_python=PATH/bin/python --openvino_python=PATH/bin/python
    python -m benchmarks.runtimes --networks=rendered-small --torch=

All sides start from the same decoded pictures, uint8, and compute with fresh weights of the same shapes; files for
onnxruntime and OpenVINO normalise the pictures themselves. Every measurement is a process of its own, one at a time,
and all sides of a network take turns, as in benchmarks/train_step.py. Runs from the root of the repository.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import train_step
from benchmarks.case import TINY, Case, new_folder

NETWORKS = {  # sizes of a `Case`; those of the paper, and those of the weights in the package
    "resnet50": {"height": 256, "width": 128, "depth": 50, "fc_dim": 512, "encoder_width": 1.0},
    "rendered-small": {"height": 128, "width": 64, "depth": 18, "fc_dim": 128, "encoder_width": 0.25},
    "tiny": {name: TINY[name] for name in ("height", "width", "depth", "fc_dim", "encoder_width")},
}
FILES = "benchmarks.network_files"
USUAL = "resnet50,rendered-small"
FORMS = ((), ("parts",))  # options of onnxruntime and OpenVINO
DTYPES = {  # of each framework, fastest last
    "jax": ("float32", "bfloat16"),
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "torch": ("float32", "bfloat16"),
}


def main() -> int:
    """Measures what the flags ask for; rewrites the report after each network."""
    flags = parse_flags()
    environment = os.environ | train_step.KEEP_HEAP | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    about = train_step.ask(sys.executable, "benchmarks.jax_san", environment=environment)
    sides, others = sides_of(flags, environment)
    report, path = train_step.new_report(about, *others, out=flags.out)
    report |= {"rounds": flags.rounds, "measurements": []}
    for network in flags.networks:
        case = Case(
            task="features", framework="jax", options=(), dtype="float32", platform="cpu", batch=flags.pictures,
            decoder_width=1.0, num_pids=767, warmup=flags.warmup, repeats=flags.repeats, **NETWORKS[network],
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            given = environment | {"EXPORTS": folder, "TORCHINDUCTOR_CACHE_DIR": str(Path(folder, "torch"))}
            if "error" in (written := train_step.ask(sys.executable, FILES, case, environment=given)):
                print(written["error"], file=sys.stderr)
                return 1
            chosen = [(python, module, dataclasses.replace(case, **of_side)) for python, module, of_side in sides]
            rows = train_step.compare(chosen, rounds=flags.rounds, environment=given)
        report["measurements"] += [{"network": network, **row} for row in rows]
        path.write_text(json.dumps(report, indent=1) + "\n")
    return int(any("error" in row for row in report["measurements"]))


def parse_flags(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line, or `words`."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--networks", type=train_step.listed, default=USUAL, help=f"of {', '.join(NETWORKS)}")
    add("--pictures", type=int, default=100, help="whose features are computed")
    add("--warmup", type=int, default=2, help="calls before the timed ones, in every process")
    add("--repeats", type=int, default=5, help="timed calls in every process")
    add("--rounds", type=int, default=4, help="processes for each measurement; the median is over the calls of all")
    add("--torch_python", default=sys.executable, help="interpreter of an environment with PyTorch")
    add("--openvino_python", default=sys.executable, help="interpreter of an environment with OpenVINO")
    add(
        "--torch",
        type=train_step.variants,
        default="channels_last,channels_last+compile",
        help="how PyTorch runs, as of benchmarks/train_step.py; empty for none",
    )
    add("--out", type=new_folder, default=str(train_step.RESULTS / "runtimes"), help="folder of the report")
    flags = parser.parse_args(words)
    if unknown := set(flags.networks) - set(NETWORKS):
        parser.error(f"--networks names {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    return flags


def sides_of(
    flags: argparse.Namespace, environment: dict[str, str]
) -> tuple[list[tuple[str, str, dict[str, Any]]], list[dict[str, Any]]]:
    """Interpreter, module and fields of the case of every side, san_jax's float32 first; their answers on themselves.

    A runtime that its interpreter does not have is left out, with a line.
    """
    exported, torch = "benchmarks.exported_san", "benchmarks.torch_san"
    runtimes = {
        "onnxruntime": (sys.executable, exported, FORMS),
        "openvino": (flags.openvino_python, exported, FORMS),
        "torch": (flags.torch_python, torch, flags.torch),
    }
    sides = [(sys.executable, "benchmarks.jax_san", {"dtype": dtype}) for dtype in DTYPES["jax"]]
    answers = []
    for framework, (python, module, options) in runtimes.items():
        answer = train_step.ask(python, module, environment=environment) if options else {}
        if framework not in answer.get("versions", {}):
            why = answer.get("error", "not installed") if options else "not asked for"
            print(f"{framework} is left out ({why}); --torch_python and --openvino_python name interpreters")
            continue
        answers.append({"versions": {framework: answer["versions"][framework]}})
        sides += [
            (python, module, {"framework": framework, "options": form, "dtype": dtype})
            for dtype in DTYPES[framework]
            for form in options
        ]
    return sides, answers


if __name__ == "__main__":
    sys.exit(main())
