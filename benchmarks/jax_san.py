"""The side of san_jax: the step that training runs and the encoder that scoring runs, on one device.

Started by `train_step.py`, one process a case.
"""

import functools
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import case as cases
from benchmarks.case import Case
from san_jax.batch import Batch
from san_jax.data import augmentation
from san_jax.networks.architecture import Architecture
from san_jax.training import optimizers, train_step


def describe() -> dict[str, Any]:
    """Device and versions."""
    device = jax.devices()[0]
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"platform": device.platform, "device_kind": device.device_kind, "versions": versions}


def measure(case: Case) -> dict[str, Any]:
    """Compiles and times one case."""
    call, compile_seconds = (training if case.trains else extraction)(case)
    seconds, result = cases.timed(call, case)
    return cases.findings(
        seconds=seconds,
        compile_seconds=compile_seconds,
        peak_bytes=(jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        loss=float(sum(leaf.mean() for leaf in jax.tree.leaves(result))),
    )


def training(case: Case) -> tuple[Callable[[], dict[str, jax.Array]], float]:
    """A call that makes one update of its own state and returns the loss terms; seconds of tracing and compiling."""
    networks = train_step.Networks(case.task, architecture_of(case), case.dtype)
    reid_tx = optimizers.make_optimizer("amsgrad", **cases.REID_ADAM)
    recon_tx = optimizers.make_optimizer("adam", **cases.RECON_ADAM)
    state = jax.jit(functools.partial(train_step.make_state, networks, reid_tx=reid_tx, recon_tx=recon_tx, seed=0))()
    pictures, textures, pids = jax.device_put(cases.random_batch(case))
    batch = Batch(pictures, textures if networks.draws else None, pids)
    step = functools.partial(
        train_step.train_step,
        networks=networks,
        objective=train_step.Objective(instances=cases.INSTANCES),
        augment=functools.partial(
            augmentation.augment, height=case.height, width=case.width, crop=0.5, mirror=0.5, erase=0.5
        ),
        reid_tx=reid_tx,
        recon_tx=recon_tx,
        seed=0,
    )
    step, seconds = compiled(jax.jit(step, donate_argnums=0), state, batch)

    def call() -> dict[str, jax.Array]:
        nonlocal state
        state, terms = jax.block_until_ready(step(state, batch))
        return terms

    call.program = step.as_text
    return call, seconds


def extraction(case: Case) -> tuple[Callable[[], jax.Array], float]:
    """A call that returns the features of a batch; seconds of tracing and compiling."""
    architecture = architecture_of(case)
    encoder, stats = jax.jit(lambda: train_step.arrays_of(architecture.new_encoder(nnx.Rngs(params=0))))()
    pictures = jax.device_put(cases.random_batch(case)[0])

    def features(encoder, stats, pictures):
        return architecture.feats(encoder, stats, augmentation.normalise(pictures), jnp.dtype(case.dtype))

    extract, seconds = compiled(jax.jit(features), encoder, stats, pictures)
    return lambda: jax.block_until_ready(extract(encoder, stats, pictures)), seconds


def compiled(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The function compiled for these arguments, and the seconds that took."""
    start = time.perf_counter()
    function = function.lower(*arguments).compile()
    return function, time.perf_counter() - start


def architecture_of(case: Case) -> Architecture:
    """The networks of a case."""
    return Architecture(
        depth=case.depth,
        fc_dim=case.fc_dim,
        last_stride=1,
        encoder_width=case.encoder_width,
        num_pids=case.num_pids,
        decoder_width=case.decoder_width,
        skips=True,
        height=case.height,
        width=case.width,
    )


if __name__ == "__main__":
    cases.answer(describe=describe, measure=measure)
