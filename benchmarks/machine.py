"""Describes a machine and the peak rates of its device: copies and matrix products, which limit everything else.

    python -m benchmarks.machine --out=FOLDER
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp

from benchmarks.case import describe_cpu, new_folder

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxtyping", "numpy", "scipy", "pillow", "torch")


def main() -> None:
    """Writes machine.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="sizes for two CPU cores")
    parser.add_argument("--out", type=new_folder, default="runs/machine")
    flags = parser.parse_args()
    side, values = (512, 2**20) if flags.tiny else (8192, 2**30)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "device": jax.devices()[0].device_kind,
        "driver": driver(),
        "cpu": describe_cpu(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "copy_gb_per_second": copy_rate(values),
        "tflops": {
            f"{dtype} {precision}": product_rate(side, dtype, precision)
            for dtype, precision in (("bfloat16", "default"), ("float32", "default"), ("float32", "highest"))
        },
    }
    (flags.out / "machine.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


def driver() -> str:
    """Name, driver and memory of the GPU as nvidia-smi prints them; empty without a GPU."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def version(name: str) -> str:
    """Version of an installed package; empty if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def copy_rate(num_values: int) -> float:
    """GB/s, bytes read and written, of adding one to `num_values` float32 numbers in place."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    kept = [jnp.zeros(num_values, jnp.float32)]

    def call() -> None:
        kept[0] = jax.block_until_ready(add(kept[0]))

    return 8 * num_values / median_seconds(call) / 1e9


def product_rate(side: int, dtype: str, precision: str) -> float:
    """TFLOP/s of a square matrix product of random numbers."""
    a, b = (jax.random.normal(jax.random.key(seed), (side, side), dtype) for seed in (0, 1))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2 * side**3 / median_seconds(lambda: jax.block_until_ready(product(a, b))) / 1e12


def median_seconds(call: Callable[[], object], *, repeats: int = 10) -> float:
    """The median time of a call that waits for its device, after two warm-up calls."""
    call()
    call()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
