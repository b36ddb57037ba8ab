"""Weights from elsewhere into a fresh train state."""

import dataclasses
from pathlib import Path

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from san_jax.errors import UserError
from san_jax.training import checkpoints
from san_jax.training.train_step import TrainState

FIELDS = ("encoder", "encoder_stats", "decoder", "decoder_stats")


def start_from(path: Path, state: TrainState) -> TrainState:
    """The state with the weights of a run or checkpoint, where they fit by name and shape; prints what was taken.

    Raises:
      UserError: there is no checkpoint, or nothing in it fits.
    """
    checkpoint = checkpoints.find(path)
    stored = {tuple(map(str, name)): leaf.shape for name, leaf in flatten_dict(checkpoints.shapes(checkpoint)).items()}
    ours = flatten_dict({field: getattr(state, field) for field in FIELDS})
    fitting = {name: leaf for name, leaf in ours.items() if stored.get(tuple(map(str, name))) == leaf.shape}
    if not fitting:
        raise UserError(f"init_from: nothing in {checkpoint} fits this network by name and shape")
    taken = flatten_dict(checkpoints.restore_parts(checkpoint, unflatten_dict(fitting)))
    filled = unflatten_dict(ours | taken)
    if jax.process_index() == 0:
        print(f"init_from: {len(taken)} of {len(ours)} arrays from {checkpoint}; the rest is fresh", flush=True)
    return dataclasses.replace(state, **filled)
