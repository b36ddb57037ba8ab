import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_networks import SHAPE

from san_jax import devices
from san_jax.errors import UserError
from san_jax.networks.architecture import check_same
from san_jax.training import checkpoints, train_step
from san_jax.training.checkpoints import BestBy, Checkpoints
from san_jax.weights import stored

TX = optax.adam(1e-3)


@pytest.fixture(scope="module")
def abstract():
    networks = train_step.Networks("san", SHAPE)
    make = lambda: train_step.make_state(networks, reid_tx=TX, recon_tx=TX, seed=0)  # noqa: E731
    return devices.with_sharding(jax.eval_shape(make), devices.replicated(devices.make_mesh()))


def state_of(abstract, number):
    """A state whose leaves are filled with `number` plus the index of the leaf."""
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
    """A run saved after steps 3, 5 and 8, and scored after 3 and 8, with the better score at 3."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder, SHAPE) as saved:
        for step, mean_ap in ((3, 0.5), (5, None), (8, 0.4)):
            saved.save(step, state_of(abstract, step))
            if mean_ap:
                saved.keep_if_best(step, {"mAP": mean_ap})
    return folder


def test_only_the_newest_and_the_best_checkpoint_are_kept(workdir):
    assert stored.newest(workdir).name == "8"
    assert stored.newest(workdir, best=True).name == "3"
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["8"]
    assert [path.name for path in (workdir / "best").iterdir()] == ["3"]


def test_restored_state_is_the_saved_one_with_the_requested_sharding(workdir, abstract):
    for folder, step in ((stored.find(workdir), 8), (stored.find(workdir, best=True), 3)):
        restored = checkpoints.restore(folder, abstract)
        assert_same(restored, state_of(abstract, step))
        assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {abstract.step.sharding}


def test_encoder_can_be_read_without_the_rest(workdir, abstract):
    weights, step = stored.restore_networks(stored.find(workdir), abstract.step.sharding, draws=False)
    assert step == 8
    assert_same(weights, {name: vars(state_of(abstract, 8))[name] for name in ("encoder", "encoder_stats")})


def test_checkpoint_stores_its_architecture(workdir):
    found = stored.read_architecture(stored.find(workdir))
    assert found == SHAPE
    with pytest.raises(UserError, match=r"depth 10 \(this run: 50\), skips True \(this run: False\)"):
        check_same(found, dataclasses.replace(SHAPE, depth=50, skips=False), where="run/checkpoints/8")


def test_error_for_a_path_without_checkpoint_says_what_to_give(workdir, tmp_path):
    newest = stored.find(workdir)
    assert stored.find(workdir / "checkpoints") == stored.find(newest) == newest
    for path in (newest, workdir / "checkpoints", tmp_path / "nothing"):
        with pytest.raises(UserError, match="holds no best checkpoint; that needs the workdir of a run"):
            stored.find(path, best=True)
    for path in (tmp_path / "nothing", Path("x" * 300)):
        with pytest.raises(UserError, match="holds no checkpoint; give the workdir of a run"):
            stored.find(path)


def test_best_score_is_kept_over_restarts(workdir, abstract, tmp_path):
    again = shutil.copytree(workdir, tmp_path / "run")
    with Checkpoints(again, SHAPE) as saved:
        saved.save(9, state_of(abstract, 9))
        saved.keep_if_best(9, {"mAP": 0.45})
    assert stored.newest(again, best=True).name == "3"
    with Checkpoints(again, SHAPE) as saved:
        saved.keep_if_best(9, {"mAP": 0.55})
    assert stored.newest(again, best=True).name == "9"


def test_best_checkpoint_shares_the_files_of_the_newest_until_that_is_replaced(abstract, tmp_path, monkeypatch):
    with Checkpoints(tmp_path, SHAPE) as saved:
        saved.save(3, state_of(abstract, 3))
        saved.keep_if_best(3, {"mAP": 0.5})
        arrays = next((stored.newest(tmp_path) / "state" / "d").iterdir())
        best = stored.newest(tmp_path, best=True) / arrays.relative_to(stored.newest(tmp_path))
        assert best.samefile(arrays)
        saved.save(5, state_of(abstract, 5))
    assert best.stat().st_nlink == 1
    assert_same(checkpoints.restore(stored.find(tmp_path, best=True), abstract), state_of(abstract, 3))

    def refused(*_):
        raise OSError("no hard links")

    monkeypatch.setattr("os.link", refused)
    with Checkpoints(tmp_path, SHAPE) as saved:
        saved.keep_if_best(5, {"mAP": 0.6})
    assert_same(checkpoints.restore(stored.find(tmp_path, best=True), abstract), state_of(abstract, 5))


def test_best_that_cannot_be_written_is_one_line_and_the_previous_one_stays(workdir, abstract, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    again = shutil.copytree(workdir, tmp_path / "run")
    monkeypatch.setattr(shutil, "copytree", full)
    with Checkpoints(again, SHAPE) as saved, pytest.raises(UserError, match=r"cannot write .*best: .*No space left"):
        saved.keep_if_best(8, {"mAP": 0.9})
    assert stored.newest(again, best=True).name == "3"


def test_lower_score_is_better_for_a_loss(abstract, tmp_path):
    by_l1 = BestBy("L1", higher_is_better=False)
    for scored in ([(3, 0.5), (5, 0.3), (8, 0.4)], [(9, 0.35)]):
        with Checkpoints(tmp_path, SHAPE, best_by=by_l1) as saved:
            for step, l1 in scored:
                saved.save(step, state_of(abstract, step))
                saved.keep_if_best(step, {"L1": l1, "PSNR": 20.0})
        assert stored.newest(tmp_path, best=True).name == "5"


def test_networks_can_be_read_without_the_rest_and_a_missing_decoder_is_named(workdir, abstract, tmp_path):
    sharding, expected = abstract.step.sharding, vars(state_of(abstract, 8))
    weights, step = stored.restore_networks(stored.find(workdir), sharding, draws=True)
    assert step == 8
    assert_same(weights, {name: expected[name] for name in ("encoder", "encoder_stats", "decoder", "decoder_stats")})
    with Checkpoints(tmp_path, SHAPE) as saved:
        saved.save(8, dataclasses.replace(state_of(abstract, 8), decoder={}, decoder_stats={}))
    with pytest.raises(UserError, match=r"8 has no decoder.*; give one of a run in mode san or san_pg"):
        stored.restore_networks(stored.find(tmp_path), sharding, draws=True)


def test_saved_step_is_not_saved_again(workdir, abstract):
    before = (workdir / "checkpoints" / "8").stat().st_mtime_ns
    with Checkpoints(workdir, SHAPE) as saved:
        saved.save(8, state_of(abstract, 9))
    assert (workdir / "checkpoints" / "8").stat().st_mtime_ns == before


@pytest.mark.parametrize("path", ["", "checkpoints", "checkpoints/8"])
def test_checkpoint_is_found_by_workdir_checkpoints_folder_or_its_own_path(workdir, path):
    assert stored.find(workdir / path) == workdir / "checkpoints" / "8"


def test_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no checkpoint"):
        stored.find(tmp_path)
    with pytest.raises(UserError, match="holds no best checkpoint"):
        stored.find(tmp_path, best=True)


def test_error_for_a_damaged_checkpoint_is_one_line(workdir, abstract, tmp_path):
    broken = shutil.copytree(workdir / "checkpoints" / "8", tmp_path / "8")
    for path in (broken / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match=r"8 cannot be read as a checkpoint") as error:
        checkpoints.restore(broken, abstract)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [stored.read_about, stored.shapes, stored.read_architecture])
def test_checkpoint_that_a_training_removes_before_it_is_read_is_one_line(read, workdir, tmp_path):
    removed = stored.find(shutil.copytree(workdir, tmp_path / "run"))
    shutil.rmtree(removed)
    with pytest.raises(UserError, match=f"^{removed} was removed while it was read; try again, if a training goes on$"):
        read(removed)


def test_checkpoint_without_its_list_of_arrays_is_one_line(workdir, tmp_path):
    broken = stored.find(shutil.copytree(workdir, tmp_path / "run"))
    (broken / "state" / "_METADATA").unlink()
    with pytest.raises(UserError, match=f"^{broken} cannot be read as a checkpoint .*; try another one$"):
        stored.shapes(broken)


def test_mode_is_stored_and_inferred_from_older_checkpoints(abstract, tmp_path):
    state = state_of(abstract, 8)
    without_decoder = dataclasses.replace(state, decoder={}, decoder_stats={}, recon_opt={})
    of_mode = {"san": state, "baseline": without_decoder, "san_pg": dataclasses.replace(state, reid_opt={})}
    for mode, parts in of_mode.items():
        with Checkpoints(tmp_path / mode, SHAPE) as saved:
            saved.save(8, parts)
        assert stored.read_about(stored.find(tmp_path / mode))[1] == mode
    with Checkpoints(tmp_path / "stored", SHAPE, mode="san_pg") as saved:
        saved.save(8, state)
    checkpoint = stored.find(tmp_path / "stored")
    assert stored.read_about(checkpoint)[1] == "san_pg"
    assert stored.read_architecture(checkpoint) == SHAPE


def score_step(workdir, abstract, step, mean_ap, metric="market1501", data="some/people"):
    with Checkpoints(workdir, SHAPE) as saved:
        saved.save(step, state_of(abstract, step))
        said = saved.keep_if_best(step, {"mAP": mean_ap}, scored_on={"metric": metric, "data": data})
    return stored.newest(workdir, best=True).name, said


def stored_scores(workdir):
    return json.loads((stored.newest(workdir, best=True) / "metrics" / "metrics").read_text())


def test_step_scored_again_with_a_better_score_is_replaced(abstract, tmp_path):
    assert score_step(tmp_path, abstract, 8, 0.4) == ("8", None)
    assert score_step(tmp_path, abstract, 8, 0.5) == ("8", None)
    assert stored_scores(tmp_path) == {"mAP": 0.5, "metric": "market1501", "data": "some/people"}
    restored = checkpoints.restore(stored.find(tmp_path, best=True), abstract)
    assert_same(restored, state_of(abstract, 8))


@pytest.mark.parametrize("step", [8, 9])
def test_best_scored_by_another_metric_or_data_set_is_discarded_with_a_message(step, abstract, tmp_path):
    """Whatever its score."""
    score_step(tmp_path, abstract, 8, 0.9)
    best, said = score_step(tmp_path, abstract, step, 0.2, data="other/people")
    assert best == str(step)
    assert said == (
        "the best checkpoint so far was scored by metric market1501, data some/people; it is discarded, since this run "
        "is scored by metric market1501, data other/people"
    )
    assert stored_scores(tmp_path)["data"] == "other/people"
    assert score_step(tmp_path, abstract, 10, 0.1, data="other/people") == (str(step), None)
    assert score_step(tmp_path, abstract, 10, 0.3, data="other/people") == ("10", None)
    assert score_step(tmp_path, abstract, 12, 0.1, "cuhk03", "other/people")[0] == "12"


def test_best_of_layout_1_without_metric_and_data_set_is_compared(workdir, abstract, tmp_path):
    again = shutil.copytree(workdir, tmp_path / "run")
    assert score_step(again, abstract, 9, 0.45) == ("3", None)
    assert score_step(again, abstract, 9, 0.55) == ("9", None)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Error writing \"a/0\" in OCDBT database: Failed to write [os_error_code='28']"),
        RuntimeError("Failed to write 73 bytes to file 5: File too large [OS error 27]"),
    ],
)
def test_failed_write_is_reported_in_one_line(error, tmp_path):
    said = f"cannot write a checkpoint under {tmp_path}: .*free some space"
    with pytest.raises(UserError, match=said), checkpoints.failed_write_as_user_error(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."),
        ValueError("Checkpoint for step 3 already exists."),
        RuntimeError("cannot schedule new futures after shutdown"),
    ],
)
def test_other_errors_while_saving_are_not_blamed_on_the_disk(error, tmp_path):
    with pytest.raises(type(error), match=str(error)[:10]), checkpoints.failed_write_as_user_error(tmp_path):
        raise error


RUN = [
    *("config.json", "scores.json", "report.html", "events/1.tfevents", "textures/step_1.png", "people/others.jpg"),
    *("checkpoints/9/_CHECKPOINT_METADATA", "checkpoints/9/state/d/a", "checkpoints/10/state/d/a"),
    *("checkpoints/10/_CHECKPOINT_METADATA", "checkpoints/11/state/d/a"),
    *("best/4/_CHECKPOINT_METADATA", "best/4/about/metadata"),
]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ("checkpoints/10/",)),
        ({"best": True}, ("best/4/",)),
        ({"everything": True}, ("checkpoints/10/", "best/4/")),
    ],
)
def test_newest_complete_checkpoint_and_what_is_read_beside_it_are_wanted(options, kinds):
    beside = {"config.json", "events/1.tfevents"}
    assert set(stored.wanted(RUN, **options)) == beside | {name for name in RUN if name.startswith(kinds)}


@pytest.mark.parametrize(
    "names",
    [
        ["7/_CHECKPOINT_METADATA", "7/state/d/a"],
        ["_CHECKPOINT_METADATA", "state/d/a", "about/metadata", "metrics/metrics", "commit_success.txt"],
        [""],
    ],
)
def test_folder_of_checkpoints_a_checkpoint_and_a_file_are_wanted_whole(names):
    assert stored.wanted(names) == names


def test_all_that_a_saved_checkpoint_consists_of_is_wanted(workdir):
    checkpoint = stored.find(workdir, best=True)
    names = [path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()]
    assert {"checksums/metadata", "about/metadata", "metrics/metrics"} < set(names)
    assert stored.wanted(names) == names
