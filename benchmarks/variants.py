"""Times other implementations of the layers inside a whole training step, for tuning the step on a device.

    python -m benchmarks.variants --batch=64 --dtype=bfloat16 --out=FOLDER

All steps are traced one after the other, compiled in parallel, and timed in turns. Writes variants_TASK_DTYPE.json.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import jax_san
from benchmarks.case import DTYPES, TINY, Case, new_folder
from san_jax.networks import decoder, encoder, layers

# ---- The other implementations.


def convolve_always(x, kernel, stride, padding, precision):
    """1 x 1 kernels as convolutions too."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def windowed_max_pool(x, *, padding=1):
    """XLA's own windowed maximum."""
    window = dict(window_dimensions=(1, 3, 3, 1), window_strides=(1, 2, 2, 1))
    return lax.reduce_window(
        x, np.array(-np.inf, x.dtype), lax.max, **window, padding=((0, 0), (padding, 1), (padding, 1), (0, 0))
    )


def one_pass_moments(x):
    """E[x^2] - E[x]^2 in float32: the map is read once; digits are lost where the mean is large."""
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.maximum(jnp.mean(jnp.square(x), axes) - jnp.square(mean), 0)


def narrow_norm(self, x):
    """BatchNorm that scales and shifts in the dtype of the map; statistics in float32."""
    mean, var = self.mean[...], self.var[...]
    if not self.use_running_average:
        mean, var = layers.batch_moments(x.astype(jnp.float32))
        num_values = x.size // x.shape[-1]
        unbiased = var * (num_values / max(num_values - 1, 1))
        self.mean[...] = lax.stop_gradient(layers.MOMENTUM * self.mean[...] + (1 - layers.MOMENTUM) * mean)
        self.var[...] = lax.stop_gradient(layers.MOMENTUM * self.var[...] + (1 - layers.MOMENTUM) * unbiased)
    factor = self.scale[...] * lax.rsqrt(var + layers.EPSILON)
    factor, offset = (layers.per_channel(part.astype(x.dtype), x) for part in (factor, self.bias[...] - mean * factor))
    return x * factor + offset


def plain_upsample(x):
    """The same upsampling by `jax.image.resize`."""
    return jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3]), "bilinear")


def plain_reflect(x, *, pixels):
    """The same border by `jnp.pad`."""
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")


VARIANTS = {
    "as it is": {},
    "1x1 as convolution": {"layers.convolve": convolve_always},
    "windowed max-pool": {"layers.max_pool": windowed_max_pool},
    "one-pass moments": {"layers.batch_moments": one_pass_moments},
    "narrow norm": {"layers.BatchNorm.__call__": narrow_norm},
    "one-pass, narrow": {"layers.batch_moments": one_pass_moments, "layers.BatchNorm.__call__": narrow_norm},
    "plain upsample": {"layers.upsample_twice": plain_upsample},
    "plain reflect": {"layers.reflect_pad": plain_reflect},
    "plain decoder": {"layers.upsample_twice": plain_upsample, "layers.reflect_pad": plain_reflect},
    "no Triton products": {},
    "latency hiding": {},
}
COMPILER = {
    "no Triton products": {"xla_gpu_enable_triton_gemm": False},
    "latency hiding": {"xla_gpu_enable_latency_hiding_scheduler": True},
}


@contextlib.contextmanager
def in_place(changes: dict) -> Iterator[None]:
    """Patches the layers of a variant, also in modules that have imported them by name."""
    with contextlib.ExitStack() as stack:
        for name, new in changes.items():
            *where, last = name.split(".")
            owner = layers if len(where) == 1 else getattr(layers, where[1])
            old = getattr(owner, last)
            stack.enter_context(mock.patch.object(owner, last, new))
            for module in (decoder, encoder):
                if getattr(module, last, None) is old:
                    stack.enter_context(mock.patch.object(module, last, new))
        yield


def main() -> None:
    """Times the variants of the step that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="san")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help="variants to time (default: all)")
    parser.add_argument("--tiny", action="store_true", help="a trial run")
    parser.add_argument("--out", type=new_folder, default="runs/variants")
    flags = parser.parse_args()
    chosen = {name: VARIANTS[name] for name in flags.only or VARIANTS}
    case = Case(
        task=flags.task, framework="jax", options=(), dtype=flags.dtype, platform=jax.default_backend(),
        batch=flags.batch, height=flags.height, width=flags.height // 2, depth=flags.depth, fc_dim=512,
        encoder_width=1.0, decoder_width=1.0, num_pids=767, warmup=2, repeats=10,
    )  # fmt: skip
    if flags.tiny:
        case = dataclasses.replace(case, **TINY)
    make = jax_san.make_state_of(case)
    _, (abstract, batch) = jax_san.step_of(case)
    batch = jax.device_put(batch)

    def compile_one(lowered, compiler):
        try:
            return lowered.compile(compiler_options=compiler if case.platform == "gpu" else None)
        except Exception as error:  # a variant that does not compile is reported, not fatal
            return str(error).partition("\n")[0]

    report = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "date": time.strftime("%Y-%m-%d")}
    report |= {"task": case.task, "dtype": case.dtype, "batch": case.batch, "ms": {}}
    with ThreadPoolExecutor(len(chosen)) as pool:
        waiting = {}
        for name, changes in chosen.items():
            with in_place(changes):
                lowered = jax_san.step_of(case)[0].lower(abstract, batch)
            waiting[name] = pool.submit(compile_one, lowered, COMPILER.get(name))
        programs = {name: done.result() for name, done in waiting.items()}
    seconds = {name: [] for name in programs}
    fresh = jax.jit(make)
    for _ in range(flags.rounds):
        for name, program in programs.items():
            if isinstance(program, str):
                report["ms"][name] = program
                continue
            state = fresh()
            for call in range(case.warmup + case.repeats):
                begin = time.perf_counter()
                state, terms = jax.block_until_ready(program(state, batch))
                if call >= case.warmup:
                    seconds[name].append(time.perf_counter() - begin)
            report["ms"][name] = 1000 * statistics.median(seconds[name])
            report.setdefault("loss", {})[name] = {key: float(value) for key, value in terms.items()}
    (flags.out / f"variants_{case.task}_{case.dtype}.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, ms in report["ms"].items():
        print(f"{name:24} {ms if isinstance(ms, str) else f'{ms:8.3f} ms'}")


if __name__ == "__main__":
    main()
