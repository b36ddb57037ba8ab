"""States of small networks with weights from a recipe, also as PyTorch state dicts."""

import dataclasses
import functools

import golden_recipe
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from san_jax import devices
from san_jax.networks.architecture import Architecture
from san_jax.training.checkpoints import Checkpoints
from san_jax.training.train_step import Networks, TrainState, make_state
from san_jax.weights import torch_names

SMALL = Architecture(
    depth=14,
    fc_dim=8,
    last_stride=1,
    encoder_width=1 / 32,
    num_pids=5,
    decoder_width=1 / 64,
    skips=True,
    height=64,
    width=32,
)


@functools.cache
def shapes_of(architecture: Architecture, mode: str) -> TrainState:
    tx = optax.sgd(0.1, momentum=0.9)
    networks = Networks(mode, architecture)
    return jax.eval_shape(functools.partial(make_state, networks, reid_tx=tx, recon_tx=tx, seed=0))


def names_of(architecture: Architecture, mode: str) -> dict[str, torch_names.Entry]:
    return torch_names.state_names(architecture, draws=mode != "baseline")


def torch_tensors(architecture: Architecture = SMALL, mode: str = "san", *, seed: int = 0) -> dict[str, np.ndarray]:
    """Contents of PyTorch's state dicts of these networks, without its counters."""
    arrays = flatten_dict(vars(shapes_of(architecture, mode)))
    return {
        name: golden_recipe.weight(name, torch_names.torch_shape(arrays[entry.path].shape, entry.layout), seed=seed)
        for name, entry in names_of(architecture, mode).items()
    }


def state_of(architecture: Architecture = SMALL, mode: str = "san", *, seed: int = 0) -> TrainState:
    """A state with the same weights, and zeros in step and optimizers, in dictionaries of its own."""
    return jax.tree.map(lambda array: array, _shared_state(architecture, mode, seed))


@functools.cache
def _shared_state(architecture: Architecture, mode: str, seed: int) -> TrainState:
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes_of(architecture, mode))
    fields = ("encoder", "encoder_stats", "decoder", "decoder_stats")
    arrays = flatten_dict({field: getattr(zeros, field) for field in fields})
    names, tensors = names_of(architecture, mode), torch_tensors(architecture, mode, seed=seed)
    for name, entry in names.items():
        arrays[entry.path] = jnp.asarray(torch_names.to_ours(tensors[name], entry.layout))
    state = dataclasses.replace(zeros, **({field: {} for field in fields} | unflatten_dict(arrays)))
    return jax.device_put(state, devices.replicated(devices.make_mesh()))


def save(workdir, state: TrainState, architecture: Architecture = SMALL, *, step: int = 7, best_map: float = 0.0):
    mode = "baseline" if not state.decoder else "san" if state.reid_opt else "san_pg"
    with Checkpoints(workdir, architecture, mode=mode) as saved:
        saved.save(step, state)
        if best_map:
            saved.keep_if_best(step, {"mAP": best_map})


def assert_same(state: TrainState, other: TrainState):
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=jax.tree_util.keystr(path))
        assert ours.dtype == theirs.dtype
