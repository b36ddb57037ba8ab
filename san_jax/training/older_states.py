"""Reads optimizer states as earlier versions stored them: every phase had a state of its own, and one was in use."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, PyTree

from san_jax.training.optimizers import PhasesState, at_paths, leaves_by_path

PHASES = "phases"  # the item with the states of all phases
WITHIN_FROZEN = ("inner_states", "open", "inner_state")  # where `optax.partition` kept the state of the open layers


def is_older(state: PyTree) -> bool:
    """Whether the stored state of an optimizer, or its shapes, is of the older kind."""
    return isinstance(state, Mapping) and PHASES in state


def shapes_of(state: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The arrays that the newer kind has in place of an older state: those of all phases, one for each path."""
    arrays = {}
    for phase in _phases(state):
        arrays |= phase
    return {"count": state["count"], "phase": state["count"], "arrays": unflatten_dict(arrays)}


def converted(state: Mapping[str, PyTree], like: PhasesState) -> PhasesState:
    """The same state in the newer kind.

    Args:
      state: the older state, read as nested dictionaries and lists.
      like: shapes and shardings of the newer one.
    """
    phases = _phases(state)
    # A phase that has not begun has made no updates; the first may not count its own.
    current = max((index for index, phase in enumerate(phases) if _has_begun(phase)), default=0)

    def leaf(path: tuple[str, ...], like: jax.ShapeDtypeStruct) -> Array:
        array = phases[current].get(path)
        return jax.device_put(np.zeros(like.shape, like.dtype), like.sharding) if array is None else array

    arrays = {path: leaf(path, shape) for path, shape in leaves_by_path(like.arrays).items()}
    phase = jax.device_put(jnp.asarray(current, jnp.int32), like.phase.sharding)
    return PhasesState(state["count"], phase, at_paths(like.arrays, arrays))


def _phases(state: Mapping[str, PyTree]) -> list[dict[tuple[str, ...], Any]]:
    """Path -> leaf of every phase, in the paths of a state without frozen layers."""
    return [{_unfrozen(path): leaf for path, leaf in leaves_by_path(phase).items()} for phase in state[PHASES]]


def _unfrozen(path: tuple[str, ...]) -> tuple[str, ...]:
    return path[len(WITHIN_FROZEN) :] if path[: len(WITHIN_FROZEN)] == WITHIN_FROZEN else path


def _has_begun(phase: Mapping[tuple[str, ...], Array]) -> bool:
    return any(int(leaf) > 0 for path, leaf in phase.items() if path[-1] == "count" and not leaf.shape)
