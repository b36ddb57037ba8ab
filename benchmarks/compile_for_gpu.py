"""Compiles what an H100 would run on a machine without one: training steps, encoder, ranks, search.

Shows what XLA would reject there.

    pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt nvidia-cublas        # of JAX's own version
    python -m benchmarks.compile_for_gpu

Every program is compiled in a process of its own, because a failed check inside XLA ends the process. The choice
of the fastest kernels needs a device; it is left open and does not count as a failure.
"""

import argparse
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# As JAX reports it on an H100: `jax.lib.xla_client.get_topology_for_devices(...).target_config`.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
runtime_version { major: 13 }
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
TILED = ("rank", "nearest", "single_shot", "tpr", "rerank")  # sides of benchmarks/scoring.py
UNTUNED = "No supported config found"  # without a device no kernel can be timed; all earlier passes have run


def main() -> int:
    """Compiles all programs, each in a process of its own, or the one that --program names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--program", default="", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=64)
    flags = parser.parse_args()
    if flags.program:
        name, _, dtype = flags.program.partition(",")
        if dtype:
            compile_step(name, dtype, batch=flags.batch)
        else:
            compile_tiles(name)
        return 0
    from benchmarks.case import DTYPES, INSTANCES, TASKS

    if flags.batch < 1 or flags.batch % INSTANCES:
        parser.error(f"--batch is {flags.batch}; it must be a multiple of {INSTANCES}")
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        parser.error("JAX's CUDA plugin is missing; the first lines of this file say how to install it")
    failed = 0
    for program in [*(f"{task},{dtype}" for task in TASKS for dtype in DTYPES), *TILED]:
        command = [sys.executable, "-m", "benchmarks.compile_for_gpu", f"--program={program}", f"--batch={flags.batch}"]
        variables = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_gpu_autotune_level=0"}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
        untuned = UNTUNED in done.stderr
        failed += done.returncode != 0 and not untuned
        why = next((line for line in done.stderr.splitlines() if "Check failed" in line), done.stderr.strip()[-300:])
        print(f"{program:20} {'compiles' if not done.returncode else 'compiles, untuned' if untuned else why}")
    return int(failed > 0)


def h100():
    """JAX's description of the device."""
    from jax.experimental import topologies

    (device,) = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1").devices
    return device


def compile_tiles(side: str) -> None:
    """Compiles the programs by which a side of benchmarks/scoring.py goes over its tiles, at Market-1501's size.

    The side itself runs on the CPU; each of its programs is compiled for both.
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from benchmarks import scoring
    from san_jax.scoring import tiles

    usual = tiles._map_tiles
    there = Mesh(np.array([h100()]), ("gallery",))

    @functools.wraps(usual)
    def compiled_for_both(*arguments, mesh: Mesh, **options):
        where = NamedSharding(there, PartitionSpec())
        shapes = jax.eval_shape(lambda *arrays: arrays, *arguments)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)
        usual.lower(*shapes, mesh=there, **options).compile()
        return usual(*arguments, mesh=mesh, **options)

    tiles._map_tiles = compiled_for_both
    scoring.SIDES[side](scoring.make_features(scoring.SIZES["market1501"]))()


def compile_step(task: str, dtype: str, *, batch: int) -> None:
    """Compiles the program of a benchmark's case at the paper's size."""
    import jax
    from jax.sharding import SingleDeviceSharding

    from benchmarks import jax_san
    from benchmarks.case import Case

    case = Case(
        task=task, framework="jax", options=(), dtype=dtype, platform="gpu", batch=batch, height=256, width=128,
        depth=50, fc_dim=512, encoder_width=1.0, decoder_width=1.0, num_pids=767, warmup=0, repeats=1,
    )  # fmt: skip
    function, arguments = jax_san.step_of(case) if case.trains else jax_san.features_of(case, in_parts=False)
    there = SingleDeviceSharding(h100())
    arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), arguments)
    function.lower(*arguments).compile()


if __name__ == "__main__":
    sys.exit(main())
