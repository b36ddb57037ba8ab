import dataclasses
import functools
import os
import subprocess
import sys

import golden_recipe
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from san_jax import devices, starting_weights
from san_jax.errors import UserError
from san_jax.export_weights import export
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
    return torch_names.state_names(
        depth=architecture.depth, fc_dim=architecture.fc_dim, skips=architecture.skips, draws=mode != "baseline"
    )


def torch_tensors(architecture: Architecture = SMALL, mode: str = "san", *, seed: int = 0) -> dict[str, np.ndarray]:
    """What PyTorch's state dicts of these networks would hold, but its counters."""
    arrays = flatten_dict(vars(shapes_of(architecture, mode)))
    return {
        name: golden_recipe.weight(name, torch_names.torch_shape(arrays[entry.path].shape, entry.layout), seed=seed)
        for name, entry in names_of(architecture, mode).items()
    }


def state_of(architecture: Architecture = SMALL, mode: str = "san", *, seed: int = 0) -> TrainState:
    """A state with the same weights, and zeros in step and optimizers."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes_of(architecture, mode))
    fields = ("encoder", "encoder_stats", "decoder", "decoder_stats")
    arrays = flatten_dict({field: getattr(zeros, field) for field in fields})
    names, tensors = names_of(architecture, mode), torch_tensors(architecture, mode, seed=seed)
    for name, entry in names.items():
        arrays[entry.path] = jnp.asarray(torch_names.to_ours(tensors[name], entry.layout))
    state = dataclasses.replace(zeros, **({field: {} for field in fields} | unflatten_dict(arrays)))
    return jax.device_put(state, devices.replicated(devices.make_mesh()))


def save(workdir, state: TrainState, architecture: Architecture = SMALL, *, step: int = 7, best_map: float = 0.0):
    with Checkpoints(workdir, architecture) as saved:
        saved.save(step, state)
        if best_map:
            saved.save_if_best(step, state, {"mAP": best_map})


def assert_same(state: TrainState, other: TrainState):
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=jax.tree_util.keystr(path))
        assert ours.dtype == theirs.dtype


def run_command(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("mode", ["san", "baseline"])
def test_exported_weights_come_back_bit_for_bit(tmp_path, mode):
    state, out = state_of(mode=mode, seed=1), tmp_path / "out.safetensors"
    save(tmp_path / "run", state)
    export(tmp_path / "run", out)
    assert_same(starting_weights.start_from(out, state_of(mode=mode, seed=2), architecture=SMALL), state)


def test_file_holds_what_pytorch_s_state_dicts_hold(tmp_path):
    save(tmp_path / "run", state_of())
    export(tmp_path / "run", tmp_path / "out.safetensors")
    tensors, expected = safetensors.numpy.load_file(tmp_path / "out.safetensors"), torch_tensors()
    counters = {name for name in tensors if name.endswith("num_batches_tracked")}
    assert tensors.keys() - counters == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)
        assert tensors[name].dtype == np.float32
    assert counters == {
        name.replace("running_var", "num_batches_tracked") for name in expected if name.endswith("running_var")
    }
    assert {(tensors[name].shape, tensors[name].dtype.str, int(tensors[name])) for name in counters} == {((), "<i8", 0)}
    with safetensors.safe_open(tmp_path / "out.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_best_and_newest_and_a_checkpoint_s_own_folder_are_told_apart(tmp_path):
    run = tmp_path / "run"
    save(run, state_of(seed=1), step=7, best_map=0.5)
    save(run, state_of(seed=2), step=9, best_map=0.4)
    for path, best, seed in ((run, False, 2), (run, True, 1), (run / "best" / "7", False, 1)):
        export(path, tmp_path / "out", best=best)
        values = safetensors.numpy.load_file(tmp_path / "out")["up4.conv.2.weight"]
        np.testing.assert_array_equal(values, torch_tensors(seed=seed)["up4.conv.2.weight"])


def test_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    save(tmp_path / "run", state_of(mode="baseline"))
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(UserError, match=f"cannot write {taken}"):
        export(tmp_path / "run", taken)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "taken"]


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    ended = run_command("san_jax.export_weights", str(tmp_path), str(tmp_path / "out"), "--best")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"error: {tmp_path} holds no best checkpoint; that needs the workdir of a run that was scored\n"
    )
