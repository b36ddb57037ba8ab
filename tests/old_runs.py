"""A run that an earlier version wrote, and its config; `test_old_runs` says which."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
from array_source import ArraySource

from configs import san
from san_jax import devices
from san_jax.scoring.evaluation import RetrievalSet
from san_jax.training import run as runs

PEOPLE = ArraySource(np.repeat(np.arange(6), 4))
FIELDS = {
    "data.train": "test/people",
    "data.height": 32,
    "data.width": 16,
    "data.workers": 0,
    "encoder.depth": 10,
    "encoder.width": 0.02,
    "encoder.fc_dim": 4,
    "decoder.width": 0.02,
    "decoder.coarse": 0,
    "loss.texture_triplets": 1.0,
    "recon.decoder_learning_rate": None,
    "batch.identities": 3,
    "batch.instances": 2,
    "schedule.fixbase_epoch": 1,
    "schedule.warmup_epochs": 1,
    "schedule.epochs": 1,
    "schedule.eval_every": 9,
    "scoring.batch_size": 8,
}


def config_of(**fields):
    config = san.get_config("small")
    config.update_from_flattened_dict(FIELDS | fields)
    return config


def build(config, workdir, *, source=PEOPLE):
    test_sets = [RetrievalSet("test/people", ArraySource(np.arange(6), seed=1), PEOPLE)]
    return runs.build(config, workdir, source=source, test_sets=test_sets, mesh=devices.make_mesh())


def unpack(folder):
    """Unpacks a workdir of the first layout into a folder."""
    with tarfile.open(Path(__file__).parent / "golden" / "run_layout_1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(folder / "checkpoints" / "11" / "state", folder / "best" / "11" / "state")
    return folder
