"""Trains SAN on some numbers of devices, resumes on others, and prints the losses; started by `test_resuming.py`.

    python resumed_losses.py FOLDER 8:1,2,4 1:8

trains on 8 devices and saves in FOLDER/8, unless a checkpoint is there already, then resumes it on 1, 2 and 4; and so
on. With several processes the numbers can only be that of all devices together.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags
from array_source import ArraySource
from jax.experimental import multihost_utils
from runs import config_of

from san_jax import devices
from san_jax.data import input_pipeline
from san_jax.process import joining
from san_jax.training import run, train_loop
from san_jax.weights import stored

PEOPLE, PAIRS = ArraySource(np.repeat(np.arange(12), 5)), ArraySource(np.arange(30), name="test/pairs", seed=2)
# The warm-up has three steps, so the re-ID optimizer is stopped in its second phase.
FIELDS = {"schedule.warmup_epochs": 1, "reid.learning_rate": 1e-3, "batch.pit_pictures": 8, "data.cache": "host"}
STOP, END = 5, 7  # steps: after how many the state is saved, and how many are made in all


def built_for(workdir, num_devices):
    mesh = jax.make_mesh(
        (num_devices,),
        (devices.DATA_AXIS,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )
    return run.build(config_of(**FIELDS), workdir, source=PEOPLE, pairs=PAIRS, test_sets=[], mesh=mesh)


def trained(built, state, start, stop):
    """The state after the steps from `start` to `stop`, and what each step was: its batch, losses and rates."""
    steps, pick = [], jax.jit(input_pipeline.batch_of)
    for step, fed in zip(range(start, stop), built.open_feed().batches(start), strict=False):
        parts = [on_host(part).tobytes() for part in vars(pick(fed, np.int32(step))).values()]
        state, terms = built.step_of(step)(state, fed)
        numbers = {kind: {name: float(value) for name, value in found.items()} for kind, found in terms.items()}
        steps.append({"step": step, "batch": hashlib.sha256(b"".join(parts)).hexdigest(), **numbers})
    return state, steps


def on_host(array):
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def digest(state):
    """Of all bits of a state: networks, batch statistics, and both optimizers."""
    leaves = [np.asarray(jax.device_get(leaf)).tobytes() for leaf in jax.tree.leaves(vars(state))]
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def statistics_of(state):
    """Every array of batch statistics, as the root of its mean square."""
    kept = {name: vars(state)[name] for name in ("encoder_stats", "decoder_stats")}
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    return {jax.tree_util.keystr(path): float(np.sqrt(np.square(leaf).mean())) for path, leaf in leaves}


def unbroken(workdir, num_devices):
    """Trains, and saves the state on the way."""
    built = built_for(workdir, num_devices)
    state, before = trained(built, built.make_state(), 0, STOP)
    with train_loop.checkpoints_of(built) as saved:
        saved.save(STOP, state)
    saved_digest = digest(state)
    state, step_after = trained(built, state, STOP, STOP + 1)
    found = {"saved": saved_digest, "statistics": statistics_of(state)}
    state, rest = trained(built, state, STOP + 1, END)
    return found | {"steps": before + step_after + rest}


def resumed(workdir, num_devices):
    built = built_for(workdir, num_devices)
    state = train_loop.start(built)
    found = {"restored": digest(state)}
    state, first = trained(built, state, STOP, STOP + 1)
    found["statistics"] = statistics_of(state)
    state, rest = trained(built, state, STOP + 1, END)
    return found | {"steps": first + rest}


def main():
    folder, *tasks = sys.argv[1:]
    flags.FLAGS(sys.argv[:1])
    joining.join_cluster()
    found = {}
    for before, _, after in (task.partition(":") for task in tasks):
        workdir = Path(folder) / before
        if stored.newest(workdir) is None:
            found[before] = unbroken(workdir, int(before))
        for count in filter(None, after.split(",")):
            found[f"{before}->{count}"] = resumed(workdir, int(count))
    if jax.process_index() == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
