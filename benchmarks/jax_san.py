"""The san_jax side of the benchmark: the training step and the encoder used for scoring, on one device.

Started by `train_step.py`, one process for each case.
"""

import functools
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks import case as cases
from benchmarks.case import Case
from san_jax import devices, model
from san_jax.batch import Batch
from san_jax.data import augmentation
from san_jax.networks.architecture import Architecture, arrays_of
from san_jax.training import optimizers, train_step
from san_jax.training.train_step import TrainState


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
    """A function that updates its own state once and returns the loss terms; seconds of tracing and compiling."""
    step, (_, batch) = step_of(case)
    state = jax.jit(make_state_of(case))()
    batch = jax.device_put(batch)
    step, seconds = compiled(step, state, batch)

    def call() -> dict[str, jax.Array]:
        nonlocal state
        state, terms = jax.block_until_ready(step(state, batch))
        return terms

    call.program = step.as_text
    return call, seconds


def step_of(case: Case) -> tuple[Callable, tuple[TrainState, Batch]]:
    """The jitted train step and its arguments: an abstract state and a batch."""
    networks = networks_of(case)
    pictures, textures, pids = cases.random_batch(case)
    step = functools.partial(
        train_step.train_step,
        networks=networks,
        objective=train_step.Objective(instances=cases.INSTANCES),
        augment=functools.partial(
            augmentation.augment, height=case.height, width=case.width, crop=0.5, mirror=0.5, erase=0.5
        ),
        **optimizers_of(),
        seed=0,
    )
    textures = jnp.asarray(textures) if networks.draws else None
    batch = Batch(jnp.asarray(pictures), textures, jnp.asarray(pids))
    step = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
    return step, (jax.eval_shape(make_state_of(case)), batch)


def compiler_options() -> dict[str, bool]:
    """Those with which runs and models compile if `config.onednn` is on."""
    return devices.compiler_options(devices.make_mesh(), onednn=True)


def make_state_of(case: Case) -> Callable[[], TrainState]:
    """A function that makes the initial state."""
    return functools.partial(train_step.make_state, networks_of(case), **optimizers_of(), seed=0)


def networks_of(case: Case) -> train_step.Networks:
    """The networks in the mode of a case."""
    return train_step.Networks(case.task, architecture_of(case), case.dtype)


def optimizers_of() -> dict[str, optax.GradientTransformation]:
    """Both optimizers, as `train_step` takes them."""
    return {
        "reid_tx": optimizers.make_optimizer("amsgrad", **cases.REID_ADAM),
        "recon_tx": optimizers.make_optimizer("adam", **cases.RECON_ADAM),
    }


def extraction(case: Case) -> tuple[Callable[[], jax.Array], float]:
    """A function that returns the features of a batch; seconds of tracing and compiling."""
    features, (_, _, pictures) = features_of(case)
    encoder, stats = jax.jit(lambda: new_encoder(case))()
    pictures = jax.device_put(pictures)
    extract, seconds = compiled(features, encoder, stats, pictures)
    return lambda: jax.block_until_ready(extract(encoder, stats, pictures)), seconds


def features_of(case: Case) -> tuple[Callable, tuple[Any, Any, Any]]:
    """The jitted encoder and its arguments: abstract parameters and statistics, and pictures on the host."""
    in_parts = jax.default_backend() == "cpu"  # as `Model.takes_parts`
    options = dict(architecture=architecture_of(case), compute_dtype=case.dtype, flip=False, in_parts=in_parts)

    def features(encoder, stats, pictures):
        return model.feats_of({"encoder": encoder, "encoder_stats": stats}, pictures, **options)

    features = jax.jit(features, compiler_options=compiler_options())
    return features, (*jax.eval_shape(lambda: new_encoder(case)), cases.random_batch(case)[0])


def new_encoder(case: Case) -> tuple[Any, Any]:
    """Fresh parameters and statistics of the encoder."""
    return arrays_of(architecture_of(case).new_encoder(nnx.Rngs(params=0)))


def compiled(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The function compiled for these arguments, and the seconds that this took."""
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
