"""Small runs for tests: their configs, their checkpoints, and picture files for their networks."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from array_source import ArraySource
from PIL import Image
from small_networks import SHAPE, state_of

from configs import san
from san_jax import devices
from san_jax.training import run
from san_jax.training.checkpoints import Checkpoints

PEOPLE = ArraySource(np.repeat(np.arange(12), 5))

# Config of a run on `cuhk03_release` with two phases and fifty steps. Runs with the same fields share compiled
# programs: the step, whose compilation takes longer than the run, depends on all of them.
SMALL_RUN = {
    "data.train": "cuhk03/labeled_texture",
    "data.height": 32,
    "data.width": 16,
    "encoder.depth": 10,
    "encoder.width": 0.125,
    "encoder.fc_dim": 16,
    "decoder.width": 0.05,
    "decoder.min_channels": 2,
    "decoder.coarse": 3,
    "batch.identities": 4,
    "batch.instances": 2,
    "schedule.warmup_epochs": 1,
    "schedule.epochs": 5,
    "schedule.save_every": 10,
}


def config_of(module=san, **fields):
    config = module.get_config("small")
    config.update_from_flattened_dict(
        {
            "data.height": 32,
            "data.width": 16,
            "data.workers": 0,
            "encoder.depth": 10,
            "encoder.width": 0.125,
            "encoder.fc_dim": 8,
            "decoder.width": 0.05,
            "decoder.min_channels": 1,
            "decoder.coarse": 0,
            "batch.identities": 4,
            "batch.instances": 4,
            **fields,
        }
    )
    return config


def build(config, source=PEOPLE, pairs=None):
    return run.build(config, Path("nowhere"), source=source, pairs=pairs, test_sets=[], mesh=devices.make_mesh())


def save_run(workdir, architecture=SHAPE, mode="san_pg", *, seed=0):
    """Saves a run whose textures depend on the picture, unlike those of a fresh decoder."""
    state = state_of(mode)
    key = jax.random.key(seed)
    decoder = jax.tree.map(lambda x: random_kernel(key, x.shape) if x.ndim == 4 else x, state.decoder)
    if decoder:
        decoder["final"]["kernel"] *= 0.16  # most of the textures inside [-1, 1], some outside
    state = jax.device_put(dataclasses.replace(state, decoder=decoder), devices.replicated(devices.make_mesh()))
    with Checkpoints(workdir, architecture, mode=mode) as saved:
        saved.save(3, state)
    return workdir


def random_kernel(key, shape):
    """Normal with variance 1 / fan-in, so that activations keep their scale from layer to layer."""
    return jax.random.normal(key, shape) / np.sqrt(np.prod(shape[:3]))


def write_pictures(folder, names, *, seed=0):
    """Writes a picture of noise around a colour under each name, in the format of its suffix."""
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(40, 216, 3) + rng.normal(0, 25, (50, 20, 3))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path)
    return folder
