"""Runs written by earlier versions of this code: their checkpoints load, and training resumes from them.

`golden/run_layout_1.tar.xz` is the workdir of a run as commit f462b4d wrote it (JAX 0.10.2, orbax 0.11), without its
events and pictures: checkpoints/11, best/11 (whose `state`, the same arrays, is left out to save space; `unpack`
copies it back), config.json, and digests.json, the SHA-256 of the bytes of every field of the final TrainState. It was
made by `config_of` and `build` of old_runs with schedule.epochs=1, then `run_config.keep(config, workdir)` and
`train_loop.train(run)`. It must not be regenerated: a new layout gets a file of its own.
"""

import hashlib
import json
import os
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict
from old_runs import build, config_of, unpack

from configs import san
from san_jax import devices
from san_jax.errors import UserError
from san_jax.training import checkpoints, optimizers, resuming, run_config, train_loop
from san_jax.weights import stored


@pytest.fixture
def workdir(tmp_path):
    return unpack(tmp_path)


def digests_of(state):
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(vars(state)):
        found.setdefault(path[0].key, hashlib.sha256()).update(np.ascontiguousarray(leaf).tobytes())
    return {field: digest.hexdigest() for field, digest in found.items()}


def test_config_of_an_old_run_is_read_with_every_current_field(workdir):
    written = json.loads((workdir / "config.json").read_text())
    assert "neck" not in written["encoder"]
    assert "same_camera" not in written["scoring"]
    config = run_config.read(workdir)
    assert set(flatten_dict(config.to_dict())) == set(flatten_dict(san.get_config().to_dict()))
    assert (config.data.cache, config.schedule.save_minutes, config.deterministic) == ("stream", 0, False)
    assert (config.encoder.neck, config.encoder.stem, config.scoring.same_camera) == ("none", "torchvision", "remove")


def test_old_checkpoint_restores_bit_for_bit(workdir):
    built = build(config_of(), workdir)
    expected = json.loads((workdir / "digests.json").read_text())
    assert set(expected) == set(vars(built.state))
    for best in (False, True):
        found = digests_of(checkpoints.restore(stored.find(workdir, best=best), built.state))
        assert {name: found[name] for name in found if not name.endswith("_opt")} == {
            name: expected[name] for name in expected if not name.endswith("_opt")
        }


def test_optimizers_of_an_old_checkpoint_go_on_from_the_phase_that_was_active(workdir):
    """It has one state for each of three phases, of which the last, AMSGrad, made updates 8 to 11."""
    found = checkpoints.restore(stored.find(workdir), build(config_of(), workdir).state)
    with ocp.PyTreeCheckpointer() as reader:
        old = reader.restore((stored.find(workdir) / stored.STATE).resolve())
    for name, phases in {"reid_opt": 3, "recon_opt": 2}.items():
        state = getattr(found, name)
        assert len(old[name]["phases"]) == phases
        assert (int(state.count), int(state.phase)) == (11, phases - 1)
        before = optimizers.leaves_by_path(old[name]["phases"][phases - 1])
        after = {path: leaf for path, leaf in optimizers.leaves_by_path(state.arrays).items() if path in before}
        assert len(after) == len(before) > 20
        jax.tree.map(np.testing.assert_array_equal, after, before)


def test_networks_of_an_old_checkpoint_load_without_the_optimizers(workdir):
    checkpoint = stored.find(workdir, best=True)
    architecture = stored.read_architecture(checkpoint)
    assert (architecture.depth, architecture.encoder_width, architecture.num_pids) == (10, 0.02, 6)
    assert stored.read_about(checkpoint) == (architecture, "san", None)
    weights, step = stored.restore_networks(checkpoint, devices.replicated(devices.make_mesh()), draws=True)
    assert step == 11
    expected = json.loads((workdir / "digests.json").read_text())
    assert digests_of(checkpoints.TrainState(step=None, reid_opt=None, recon_opt=None, **weights)) == {
        field: expected[field] for field in weights
    }


@pytest.mark.slow
def test_training_resumes_from_an_old_checkpoint(workdir, capsys):
    assert run_config.read(workdir).encoder.depth == 10
    config = config_of(**{"schedule.epochs": 2})
    built = build(config, workdir)
    assert built.total > 11
    run_config.keep(config, workdir)
    state = train_loop.train(built)
    assert int(state.step) == built.total
    assert f"step 12/{built.total}" in capsys.readouterr().out
    assert stored.newest(workdir).name == str(built.total)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("fields", [{"schedule.epochs": 1}, {"batch.identities": 6}], ids=str)
def test_finished_run_says_so_and_is_scored(fields, workdir, capsys):
    built = build(config_of(**fields), workdir)
    state = train_loop.train(built)
    assert int(state.step) == 11
    said = capsys.readouterr().out
    past = "is at its last step" if built.total == 11 else f"is past the last step of this config, {built.total}"
    assert f"{workdir} {past}: 11 steps are done and none are left; raise schedule.epochs to train on\n" in said
    assert "scores after step 11, market1501 metric, in percent" in said
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["11"]


def test_training_can_run_in_a_thread_as_in_a_notebook(workdir):
    built, ended = build(config_of(), workdir), []
    thread = threading.Thread(target=lambda: ended.append(train_loop.train(built)))
    thread.start()
    thread.join()
    assert [int(state.step) for state in ended] == [11]


def test_second_training_in_a_workdir_is_refused_before_anything_is_written(workdir):
    built = build(config_of(**{"schedule.epochs": 2}), workdir)
    before = (workdir / "config.json").read_bytes()
    with train_loop.held_workdir(workdir), pytest.raises(UserError, match=f"in use by a training, pid {os.getpid()}"):
        train_loop.train(built)
    assert (workdir / "config.json").read_bytes() == before


def test_hosts_that_do_not_share_the_workdir_are_an_error(workdir, monkeypatch):
    monkeypatch.setattr(devices, "of_all_processes", lambda step: [step, resuming.NO_STEP])
    said = f"in {workdir} process 0 finds the checkpoint of step 11, process 1 no checkpoint: the workdir must be one"
    with pytest.raises(UserError, match=said):
        build(config_of(), workdir)
