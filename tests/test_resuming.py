import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from array_source import ArraySource
from commands import PATIENT, two_processes, xla_flags
from finished_runs import made_once, shared_folder
from flax.traverse_util import flatten_dict
from old_runs import PEOPLE, build, config_of, unpack

from configs import base, baseline, san_pg
from san_jax.errors import UserError
from san_jax.training import resuming, train_loop
from san_jax.weights import stored

MUST_STAY = [
    {"mode": "baseline"},
    {"encoder.depth": 18},
    {"encoder.fc_dim": 8},
    {"decoder.width": 0.05},
    {"decoder.skips": False},
    {"data.height": 64},
    {"reid.optimizer": "sgd"},
    {"reid.optimizer": "adam"},
    {"schedule.fixbase_epoch": 0},
    {"schedule.fixbase_epoch": 2},
    {"schedule.warmup_epochs": 0},
    {"schedule.open_layers": ("classifier",)},
]
MAY_CHANGE = {
    "schedule.epochs": 3,
    "reid.learning_rate": 1e-5,
    "reid.milestones": (1,),
    "reid.momentum": 0.5,
    "recon.learning_rate": 1e-6,
    "loss.margin": 0.2,
    "augmentation.erase": 0.1,
    "batch.identities": 2,
    "data.workers": 1,
    "data.data_dir": "elsewhere",
    "scoring.metric": "cuhk03",
    "schedule.save_every": 3,
    "compute_dtype": "bfloat16",
}


HERE = Path(__file__).parent


def start_resumed(folder, *tasks, num_devices=1, **environment):
    """Starts `resumed_losses.py` in a process with this many devices."""
    flags = xla_flags(f"--xla_force_host_platform_device_count={num_devices}", PATIENT)
    environment |= {"XLA_FLAGS": flags, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(HERE / "resumed_losses.py"), str(folder), *tasks]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def found_by(*processes):
    """What the first of the processes prints."""
    outputs = [process.communicate(timeout=1800) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    # gloo, too, writes to standard output.
    return next(json.loads(line) for line in outputs[0][0].splitlines() if line.startswith("{"))


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    """Runs stopped on 8 devices and resumed on 1, 2 and 4, and the other way round, once for all test processes."""

    def make(folder):
        tasks = ("8:1,2,4", "1:8")
        (folder / "found.json").write_text(json.dumps(found_by(start_resumed(folder, *tasks, num_devices=8))))

    folder = made_once(shared_folder(tmp_path_factory) / "resumed_on_devices", make)
    return json.loads((folder / "found.json").read_text())


def assert_goes_on(resumed, unbroken):
    """The same state, batches and rates; losses and batch statistics that differ by roundings only."""
    assert resumed["restored"] == unbroken["saved"]
    after = unbroken["steps"][-len(resumed["steps"]) :]
    assert len(resumed["steps"]) == 2
    assert len({step["batch"] for step in unbroken["steps"]}) == len(unbroken["steps"])
    for number in ("step", "batch", "rate"):
        assert [step[number] for step in resumed["steps"]] == [step[number] for step in after]
    first = resumed["steps"][0]["loss"]
    assert set(first) == {"id", "triplet", "reconstruction", "texture_triplets"}
    assert first == pytest.approx(after[0]["loss"], rel=1e-5, abs=0)
    assert len(resumed["statistics"]) > 20
    assert resumed["statistics"] == pytest.approx(unbroken["statistics"], rel=1e-5, abs=1e-7)


@pytest.fixture
def workdir(tmp_path):
    return unpack(tmp_path)



def test_every_config_field_has_a_rule_and_every_rule_a_field():
    fields = flatten_dict(base.get_config().to_dict(), sep=".")
    assert {resuming.rule_of(name) for name in fields} == set(resuming.RULES)


def test_docs_show_the_table_of_the_code():
    assert resuming.as_table() in (Path(__file__).parent.parent / "docs" / "resuming.md").read_text()


@pytest.mark.parametrize("fields", MUST_STAY, ids=str)
def test_forbidden_change_names_the_field_and_does_not_touch_the_run(fields, workdir):
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError) as error:
        build(config_of(**fields), workdir)
    (name, value), message = *fields.items(), str(error.value)
    value = list(value) if isinstance(value, tuple) else value
    old = flatten_dict(json.loads(before), sep=".")[name]
    assert f"{name} {old} (this run: {value})" in message
    assert "give another --workdir" in message
    assert "\n" not in message
    assert (workdir / "config.json").read_bytes() == before


def test_all_changeable_fields_may_change_at_once(workdir):
    assert build(config_of(**MAY_CHANGE), workdir).total > 11


def saved(workdir, **changes):
    """The newest checkpoint of a run that has just begun."""
    built = dataclasses.replace(build(config_of(), workdir), **changes)
    with train_loop.checkpoints_of(built) as checkpoints:
        checkpoints.save(1, built.make_state())
    return stored.newest(workdir)


def test_run_is_not_resumed_with_other_people_even_if_they_are_as_many(tmp_path):
    assert stored.read_about(saved(tmp_path)).people == PEOPLE.people
    for pids, said in (
        ([0, 1, 2, 3, 4, 9], r"1 new \(such as test/9\), 1 gone \(such as test/5\); each has an output"),
        ([0, 1, 2], r"others/people has other people than .*: 3 gone \(such as test/3\);"),
    ):
        others = ArraySource(np.repeat(pids, 4), name="others/people")
        with pytest.raises(UserError, match=said):
            build(config_of(), tmp_path, source=others)
    more = ArraySource(np.repeat(np.arange(6), 5), name="more/pictures")
    assert build(config_of(), tmp_path, source=more).people == PEOPLE.people


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["a/0", "a/1"], ["a/0", "b/1"], r"1 new \(such as b/1\), 1 gone \(such as a/1\)"),
        (["a/0", "a/1"], ["a/0", "a/1", "a/0", "a/1"], r"2 new \(such as a/0\);"),
        (["a/0", "a/0", "a/1"], ["a/0", "a/1"], r"1 gone \(such as a/0\);"),
        (["a/0", "b/0"], ["b/0", "a/0"], "in another order; each"),
    ],
)
def test_people_of_joined_sets_are_told_apart_and_counted(before, now, said, tmp_path):
    checkpoint = saved(tmp_path, people=before)
    known = stored.read_about(checkpoint).people
    resuming.check_people(known, before, name="sets", checkpoint=checkpoint)
    with pytest.raises(UserError, match=f"^sets has other people than .*: {said}"):
        resuming.check_people(known, now, name="sets", checkpoint=checkpoint)


def test_classifier_of_other_people_stays_fresh_in_a_run_that_starts_from_theirs(tmp_path, capsys):
    saved(tmp_path / "first")
    kernel = lambda state: np.asarray(state.encoder["classifier"]["kernel"])  # noqa: E731
    taken = build(config_of(), tmp_path / "first").make_state()
    for pids, same in (([0, 1, 2, 3, 4, 5], True), ([0, 1, 2, 3, 4, 9], False)):
        source = ArraySource(np.repeat(pids, 4))
        config = config_of(init_from=str(tmp_path / "first"), seed=7)
        state = build(config, tmp_path / "second", source=source).make_state()
        assert np.array_equal(kernel(state), kernel(taken)) == same
        np.testing.assert_array_equal(state.encoder["fc"]["linear"]["kernel"], taken.encoder["fc"]["linear"]["kernel"])


def test_checkpoint_of_an_earlier_version_says_nothing_of_its_people(workdir):
    assert stored.read_about(stored.newest(workdir)).people is None
    assert build(config_of(), workdir).people == PEOPLE.people


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"reid.optimizer": "sgd"}, r"reid\.optimizer"),
        ({"reid.optimizer": "adam"}, r"reid\.optimizer"),
        ({"mode": "baseline"}, "mode"),
        ({"mode": "san_pg"}, "mode"),
    ],
    ids=str,
)
def test_state_that_does_not_fit_names_the_field_even_without_a_config(fields, named, workdir):
    (workdir / "config.json").unlink()
    with pytest.raises(UserError, match=f"11 does not fit this run: it was trained with another {named}") as error:
        build(config_of(**fields), workdir)
    assert "\n" not in str(error.value)


def test_field_that_an_older_config_lacks_counts_as_unchanged(workdir):
    path = workdir / "config.json"
    old = json.loads(path.read_text())
    del old["reid"]["nesterov"], old["encoder"]["depth"]
    path.write_text(json.dumps(old))
    resuming.check_config(config_of(), workdir)


def test_workdir_without_a_checkpoint_accepts_any_config(workdir):
    shutil.rmtree(workdir / "checkpoints")
    for module in (baseline, san_pg):
        resuming.check_config(module.get_config(), workdir)


def test_config_is_written_only_after_the_state_is_restored(workdir):
    before = (workdir / "config.json").read_bytes()
    built = build(config_of(**{"schedule.epochs": 2}), workdir)
    for path in stored.find(workdir).glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        train_loop.train(built)
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(8, 1), (8, 2), (8, 4), (1, 8)])
def test_run_goes_on_on_another_number_of_devices(before, after, on_eight_devices):
    assert_goes_on(on_eight_devices[f"{before}->{after}"], on_eight_devices[str(before)])


@pytest.mark.slow
def test_run_of_one_process_goes_on_on_two_and_the_other_way_round(tmp_path):
    """On two processes with a device each; all of them write the checkpoint, which one process alone then reads."""
    both = found_by(*(start_resumed(tmp_path, "2", **own) for own in two_processes()))
    alone = found_by(start_resumed(tmp_path, "2:1", "1"))
    assert_goes_on(alone["2->1"], both["2"])
    both = found_by(*(start_resumed(tmp_path, "1:2", **own) for own in two_processes()))
    assert_goes_on(both["1->2"], alone["1"])
