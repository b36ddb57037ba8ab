"""The san_jax side of the benchmark: the training step and the encoder used for scoring, on one device.

Started by `train_step.py`, one process for each case.
"""

import functools
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

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
    call, program = (training if case.trains else extraction)(case)
    seconds, result = cases.timed(call, case)
    return cases.findings(
        seconds=seconds,
        compile_seconds=program.seconds,
        peak_bytes=(jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        loss=float(sum(leaf.mean() for leaf in jax.tree.leaves(result))),
        flops=program.flops,
    )


class Program(NamedTuple):
    """A compiled function.

    Attributes:
      call: the function.
      seconds: of tracing and compiling.
      flops: floating-point operations of a call, by XLA's count before it optimizes.
    """

    call: Callable
    seconds: float
    flops: float


def training(case: Case) -> tuple[Callable[[], dict[str, jax.Array]], Program]:
    """A function that updates its own state once and returns the loss terms; the program that it calls."""
    step, (_, batch) = step_of(case)
    state = jax.jit(make_state_of(case))()
    batch = jax.device_put(batch)
    program = compiled(step, state, batch)

    def call() -> dict[str, jax.Array]:
        nonlocal state
        state, terms = jax.block_until_ready(program.call(state, batch))
        return terms

    return call, program


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
    step = jax.jit(step, donate_argnums=0, compiler_options=compiler_options(case))
    return step, (jax.eval_shape(make_state_of(case)), batch)


def compiler_options(case: Case) -> dict[str, bool]:
    """Those with which runs and models compile."""
    return devices.compiler_options(devices.make_mesh(), onednn=case.onednn)


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


def extraction(case: Case) -> tuple[Callable[[], jax.Array], Program]:
    """A function that returns the features of a batch; the program that it calls."""
    features, (_, _, pictures) = features_of(case, in_parts=jax.default_backend() == "cpu")  # as `Model.takes_parts`
    encoder, stats = jax.jit(lambda: new_encoder(case))()
    pictures = jax.device_put(pictures)
    program = compiled(features, encoder, stats, pictures)
    if jax.default_backend() == "cpu":  # of a loop over parts, XLA counts one turn
        whole, arguments = features_of(case, in_parts=False)
        program = program._replace(flops=whole.lower(*arguments).cost_analysis()["flops"])
    return lambda: jax.block_until_ready(program.call(encoder, stats, pictures)), program


def features_of(case: Case, *, in_parts: bool) -> tuple[Callable, tuple[Any, Any, Any]]:
    """The jitted encoder and its arguments: abstract parameters and statistics, and pictures on the host."""
    options = dict(architecture=architecture_of(case), compute_dtype=case.dtype, flip=False, in_parts=in_parts)

    def features(encoder, stats, pictures):
        return model.feats_of({"encoder": encoder, "encoder_stats": stats}, pictures, **options)

    features = jax.jit(features, compiler_options=compiler_options(case))
    return features, (*jax.eval_shape(lambda: new_encoder(case)), cases.random_batch(case)[0])


def new_encoder(case: Case) -> tuple[Any, Any]:
    """Fresh parameters and statistics of the encoder."""
    return arrays_of(architecture_of(case).new_encoder(nnx.Rngs(params=0)))


def compiled(function: Callable, *arguments: Any) -> Program:
    """A jitted function compiled for these arguments."""
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    call = lowered.compile()
    return Program(call, time.perf_counter() - start, lowered.cost_analysis()["flops"])


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
