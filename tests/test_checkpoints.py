import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_train_step import SHAPE

from san_jax import devices
from san_jax.errors import UserError
from san_jax.networks.architecture import check_same
from san_jax.training import checkpoints, train_step
from san_jax.training.checkpoints import BestBy, Checkpoints

TX = optax.adam(1e-3)


@pytest.fixture(scope="module")
def abstract():
    networks = train_step.Networks("san", SHAPE)
    make = lambda: train_step.make_state(networks, reid_tx=TX, recon_tx=TX, seed=0)  # noqa: E731
    return devices.with_sharding(jax.eval_shape(make), devices.replicated(devices.make_mesh()))


def state_of(abstract, number):
    """A state full of numbers that depend on `number` and on the place."""
    leaves, tree = jax.tree.flatten(abstract)
    filled = [
        jax.device_put(jnp.full(leaf.shape, number + place, leaf.dtype), leaf.sharding)
        for place, leaf in enumerate(leaves)
    ]
    return dataclasses.replace(jax.tree.unflatten(tree, filled), step=jnp.int32(number))


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, abstract):
    """A run that was saved after steps 3, 5 and 8, and scored after 3 and 8, the earlier one better."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder, SHAPE) as saved:
        for step, mean_ap in ((3, 0.5), (5, None), (8, 0.4)):
            saved.save(step, state_of(abstract, step))
            if mean_ap:
                saved.save_if_best(step, state_of(abstract, step), {"mAP": mean_ap})
    return folder


def test_newest_and_best_are_kept_and_nothing_else(workdir):
    assert checkpoints.newest(workdir).name == "8"
    assert checkpoints.newest(workdir, best=True).name == "3"
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["8"]
    assert [path.name for path in (workdir / "best").iterdir()] == ["3"]


def test_restored_state_is_the_saved_one_where_it_shall_lie(workdir, abstract):
    for folder, step in ((checkpoints.find(workdir), 8), (checkpoints.find(workdir, best=True), 3)):
        restored = checkpoints.restore(folder, abstract)
        assert_same(restored, state_of(abstract, step))
        assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {abstract.step.sharding}


def test_encoder_is_read_alone(workdir, abstract):
    encoder, stats, step = checkpoints.restore_encoder(checkpoints.find(workdir), abstract.step.sharding)
    assert_same((encoder, stats, step), (lambda s: (s.encoder, s.encoder_stats, 8))(state_of(abstract, 8)))


def test_checkpoint_says_what_its_networks_look_like(workdir):
    found = checkpoints.read_architecture(checkpoints.find(workdir))
    assert found == SHAPE
    with pytest.raises(UserError, match=r"depth 10 \(this run: 50\), skips True \(this run: False\)"):
        check_same(found, dataclasses.replace(SHAPE, depth=50, skips=False), where="run/checkpoints/8")


def test_path_without_the_checkpoint_that_is_asked_for_says_what_to_give(workdir, tmp_path):
    newest = checkpoints.find(workdir)
    assert checkpoints.find(workdir / "checkpoints") == checkpoints.find(newest) == newest
    for path in (newest, workdir / "checkpoints", tmp_path / "nothing"):
        with pytest.raises(UserError, match="holds no best checkpoint; that needs the workdir of a run"):
            checkpoints.find(path, best=True)
    for path in (tmp_path / "nothing", Path("x" * 300)):
        with pytest.raises(UserError, match="holds no checkpoint; give the workdir of a run"):
            checkpoints.find(path)


def test_best_of_an_earlier_start_is_remembered(workdir, abstract, tmp_path):
    again = shutil.copytree(workdir, tmp_path / "run")
    with Checkpoints(again, SHAPE) as saved:
        saved.save_if_best(9, state_of(abstract, 9), {"mAP": 0.45})
    assert checkpoints.newest(again, best=True).name == "3"
    with Checkpoints(again, SHAPE) as saved:
        saved.save_if_best(9, state_of(abstract, 9), {"mAP": 0.55})
    assert checkpoints.newest(again, best=True).name == "9"


def test_lower_score_is_better_where_it_shall_be(abstract, tmp_path):
    by_l1 = BestBy("L1", higher_is_better=False)
    for scored in ([(3, 0.5), (5, 0.3), (8, 0.4)], [(9, 0.35)]):
        with Checkpoints(tmp_path, SHAPE, best_by=by_l1) as saved:
            for step, l1 in scored:
                saved.save_if_best(step, state_of(abstract, step), {"L1": l1, "PSNR": 20.0})
        assert checkpoints.newest(tmp_path, best=True).name == "5"


def test_networks_are_read_alone_and_a_missing_decoder_is_named(workdir, abstract, tmp_path):
    sharding, expected = abstract.step.sharding, vars(state_of(abstract, 8))
    weights, step = checkpoints.restore_networks(checkpoints.find(workdir), sharding, draws=True)
    assert step == 8
    assert_same(weights, {name: expected[name] for name in ("encoder", "encoder_stats", "decoder", "decoder_stats")})
    with Checkpoints(tmp_path, SHAPE) as saved:
        saved.save(8, dataclasses.replace(state_of(abstract, 8), decoder={}, decoder_stats={}))
    with pytest.raises(UserError, match=r"8 has no decoder.*; give one of a run in mode san or san_pg"):
        checkpoints.restore_networks(checkpoints.find(tmp_path), sharding, draws=True)


def test_step_that_is_saved_is_not_saved_again(workdir, abstract):
    before = (workdir / "checkpoints" / "8").stat().st_mtime_ns
    with Checkpoints(workdir, SHAPE) as saved:
        saved.save(8, state_of(abstract, 9))
    assert (workdir / "checkpoints" / "8").stat().st_mtime_ns == before


@pytest.mark.parametrize("path", ["", "checkpoints", "checkpoints/8"])
def test_checkpoint_is_found_by_workdir_folder_or_itself(workdir, path):
    assert checkpoints.find(workdir / path) == workdir / "checkpoints" / "8"


def test_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no checkpoint"):
        checkpoints.find(tmp_path)
    with pytest.raises(UserError, match="holds no best checkpoint"):
        checkpoints.find(tmp_path, best=True)


def test_damaged_checkpoint_is_said_in_one_line(workdir, abstract, tmp_path):
    broken = shutil.copytree(workdir / "checkpoints" / "8", tmp_path / "8")
    for path in (broken / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match=r"8 cannot be read as a checkpoint") as error:
        checkpoints.restore(broken, abstract)
    assert "\n" not in str(error.value)
