"""Exported networks in onnxruntime and OpenVINO, for `runtimes.py`: one process for each case, on one CPU.

It needs NumPy and the runtime, not JAX: OpenVINO may be installed in an environment of its own. The variable EXPORTS
names the folder of the files, DTYPE.onnx; a float32 file serves bfloat16, too. Both runtimes get as many threads as
there are cores that the process may use.
"""

import os
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import case as cases
from benchmarks.case import Case

PART = 10  # pictures at once with the option "parts"
RUNTIMES = ("onnxruntime", "openvino")


def describe() -> dict[str, Any]:
    """Versions of the runtimes that are installed here."""
    installed = {found.metadata["Name"].lower() for found in metadata.distributions()}
    return {"versions": {name: metadata.version(name) for name in RUNTIMES if name in installed}}


def measure(case: Case) -> dict[str, Any]:
    """Reads the file and times one case; `compile_seconds` is the time to read it and for the first call."""
    pictures, _, _ = cases.random_batch(case)
    start = time.perf_counter()
    run = (in_onnxruntime if case.framework == "onnxruntime" else in_openvino)(case)
    parts = np.split(pictures, range(PART, len(pictures), PART)) if "parts" in case.options else [pictures]

    def call() -> np.ndarray:
        return np.concatenate([run(part) for part in parts])

    call()
    first = time.perf_counter() - start
    seconds, feats = cases.timed(call, case)
    return cases.findings(seconds=seconds, compile_seconds=first, peak_bytes=None, loss=float(feats.mean()))


def path_of(case: Case) -> Path:
    """The file of a case."""
    return Path(os.environ["EXPORTS"], f"{'int8' if case.dtype == 'int8' else 'float32'}.onnx")


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_onnxruntime(case: Case) -> Callable[[np.ndarray], np.ndarray]:
    """The features of pictures, by onnxruntime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(str(path_of(case)), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["feats"], {"images": images})[0]


def in_openvino(case: Case) -> Callable[[np.ndarray], np.ndarray]:
    """The features of pictures, by OpenVINO's CPU plugin, for one batch at a time."""
    import openvino

    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads()),
        "INFERENCE_PRECISION_HINT": "bf16" if case.dtype == "bfloat16" else "f32",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path_of(case)), "CPU", config)
    return lambda images: compiled([images])[0]


if __name__ == "__main__":
    cases.answer(describe=describe, measure=measure)
