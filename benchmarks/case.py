"""One case of the benchmark: what is computed, on which random batch, and how it is timed. Both sides import this.

It needs only the standard library and numpy: JAX and PyTorch may be installed in different environments.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("san", "baseline", "san_pg", "features")
DTYPES = ("float32", "tensorfloat32", "bfloat16")  # as in docs/precision.md; runtimes.py has int8, too
USUAL_DTYPES = {"cpu": ("float32", "bfloat16"), "gpu": ("tensorfloat32", "bfloat16")}

# As in configs/base.py, which is not imported because it needs ml_collections.
REID_ADAM = {"learning_rate": 8e-4, "b1": 0.9, "b2": 0.999, "weight_decay": 5e-4}  # AMSGrad, main phase
RECON_ADAM = {"learning_rate": 1e-5, "b1": 0.5, "b2": 0.999, "weight_decay": 0.0}


# Fields of a `Case` for a trial run on two CPU cores.
TINY = {"batch": 8, "height": 32, "width": 16, "depth": 10, "fc_dim": 8, "num_pids": 4, "warmup": 1, "repeats": 2}
TINY |= {"encoder_width": 0.1, "decoder_width": 0.1}


@dataclasses.dataclass(frozen=True)
class Case:
    """What one process measures.

    Attributes:
      task: a training mode; or features: the encoder in inference.
      framework: jax or torch; of runtimes.py also onnxruntime and openvino.
      options: of PyTorch: channels_last, compile; of the last two: parts, a few pictures after the other.
      dtype: one of DTYPES, or int8; in PyTorch bfloat16 by autocast, tensorfloat32 by its own switches.
      platform: cpu or gpu.
      batch: pictures in a batch.
      height, width: of the pictures in pixels; textures are height x height.
      depth, fc_dim, encoder_width, decoder_width, num_pids: as in `Architecture`.
      warmup: calls before the timed ones.
      repeats: timed calls.
      onednn: whether JAX may use oneDNN on a CPU, where it has that option; san_jax alone.
    """

    task: str
    framework: str
    options: tuple[str, ...]
    dtype: str
    platform: str
    batch: int
    height: int
    width: int
    depth: int
    fc_dim: int
    encoder_width: float
    decoder_width: float
    num_pids: int
    warmup: int
    repeats: int
    onednn: bool = True

    @property
    def trains(self) -> bool:
        """Whether it is a training step."""
        return self.task != "features"


INSTANCES = 4  # adjacent pictures of each person


def random_batch(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures and textures, uint8 NHWC, and labels; training pictures are 9/8 of the size, for the crop."""
    rng = np.random.default_rng(0)
    height, width = (size * 9 // 8 if case.trains else size for size in (case.height, case.width))
    pictures = rng.integers(0, 256, (case.batch, height, width, 3), np.uint8)
    textures = rng.integers(0, 256, (case.batch, case.height, case.height, 3), np.uint8)
    return pictures, textures, np.arange(case.batch, dtype=np.int32) // INSTANCES % case.num_pids


def timed(call: Callable[[], Any], case: Case) -> tuple[list[float], Any]:
    """Seconds of every timed call, and the result of the last one; `call` must wait for its device."""
    for _ in range(case.warmup):
        call()
    seconds = []
    for _ in range(case.repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def findings(
    *,
    seconds: list[float],
    compile_seconds: float,
    peak_bytes: int | None,
    loss: float,
    flops: float | None = None,
) -> dict[str, Any]:
    """The report of a process on its case.

    Args:
      seconds: of every timed call.
      compile_seconds: spent before the first call, or in it; 0 if nothing is compiled.
      peak_bytes: peak memory on the GPU; None on a CPU: the peak resident size of the process is reported.
      loss: of the last call, or the mean of the features; must be finite.
      flops: floating-point operations of a call; None if they are not counted.
    """
    if not math.isfinite(loss):
        raise ValueError(f"the last loss is {loss}")
    if peak_bytes is None:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    found = {"all_seconds": seconds, "compile_seconds": compile_seconds, "peak_bytes": peak_bytes, "loss": loss}
    return found if flops is None else found | {"flops": flops}


def answer(*, describe: Callable[[], dict[str, Any]], measure: Callable[[Case], dict[str, Any]]) -> None:
    """The main function of a side: measures the case given as JSON on the command line, or describes itself."""
    result = measure(Case(**json.loads(sys.argv[1]))) if sys.argv[1:] else describe()
    print(json.dumps(result))


def new_folder(place: str) -> Path:
    """A folder for reports, for argparse; created if it is missing, or an error that says why it cannot be."""
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{place} cannot be created ({error.strerror}); give another") from error
    return Path(place).absolute()


def status_bytes(field: str, pid: int | str = "self") -> int:
    """A size in the /proc/PID/status of a process, in bytes: VmRSS, VmHWM, RssAnon."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def describe_cpu() -> dict[str, Any]:
    """Name, cores that this process may use, and instruction sets for wide and bfloat16 products."""
    info = Path("/proc/cpuinfo").read_text()
    fields = dict(map(str.strip, line.split(":", 1)) for line in info.splitlines() if ":" in line)
    flags = fields.get("flags", "").split()
    return {
        "name": fields.get("model name", "unknown CPU"),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags],
    }
