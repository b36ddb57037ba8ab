import json
import re
from pathlib import Path

import numpy as np
import pytest
from array_source import ArraySource
from ml_collections import ConfigDict
from runs import save_run

import san_jax
from san_jax.commands import common, evaluate
from san_jax.errors import UserError
from san_jax.scoring.evaluation import RetrievalSet

PEOPLE = RetrievalSet("test/people", ArraySource(np.arange(5)), ArraySource(np.repeat(np.arange(5), 4), seed=1))
TEXTS = (
    *("workdir", "checkpoint", "metric", "data", "manual_dir", "data_dir", "pattern"),
    *("height", "width", "report_file", "output", "same_camera"),
)
NOTHING = dict.fromkeys(TEXTS) | dict.fromkeys(("best", "flip", "aqe", "rerank", "tpr", "report"), False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, each with a config as train.py writes it."""
    folder = tmp_path_factory.mktemp("runs")
    config = {"compute_dtype": "float32", "mode": "baseline", "seed": 0}
    config |= {"data": {"train": "test/people", "test": "", "manual_dir": "", "data_dir": "data", "workers": 0}}
    config |= {"scoring": {"metric": "market1501", "batch_size": 16}}
    for seed, name in enumerate(("one", "other")):
        save_run(folder / name, mode="baseline", seed=seed)
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def _people(monkeypatch):
    monkeypatch.setattr(common, "open_test_sets", lambda data, same_camera: [PEOPLE])


def scored(**given):
    as_given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    evaluate.evaluate(NOTHING | as_given)


def read(path):
    return json.loads(path.read_text())


def test_scores_of_a_runs_own_checkpoint_are_stored_in_its_workdir_and_name_it(runs):
    scored(workdir=runs / "one")
    found = read(runs / "one" / "scores.json")
    assert found["checkpoint"] == str(runs / "one" / "checkpoints" / "3")
    assert found["step"] == 0  # `save_run` makes no updates
    assert (found["metric"], found["data"]) == ("market1501", "test/people")
    assert found["mAP"] == found["sets"]["test/people"]["mAP"]
    assert "thresholds" not in found
    assert (found["queries_without_match"], found["same_camera"]) == (0, "remove")


def test_scores_of_another_run_never_replace_those_of_the_workdir(runs, capsys):
    scored(workdir=runs / "one")
    before = read(runs / "one" / "scores.json")
    scored(workdir=runs / "one", checkpoint=runs / "other")
    assert str(runs / "other") in capsys.readouterr().out
    assert read(runs / "one" / "scores.json") == before
    assert not (runs / "other" / "scores.json").exists()


def test_scores_are_written_to_the_path_of_output(runs, tmp_path):
    scored(workdir=runs / "one", checkpoint=runs / "other", output=tmp_path / "scores.json")
    assert read(tmp_path / "scores.json")["checkpoint"] == str(runs / "other" / "checkpoints" / "3")


def test_place_that_cannot_be_written_is_refused_before_anything_is_scored(runs, tmp_path, capsys):
    for wrong in ({"output": tmp_path}, {"report_file": runs / "one" / "config.json" / "page.html"}):
        with pytest.raises(UserError, match=r"cannot write .*; choose another place"):
            scored(workdir=runs / "one", **wrong)
    assert capsys.readouterr().out == ""


def test_weights_without_a_run_are_scored_on_the_named_test_sets(runs, tmp_path):
    san_jax.load(runs / "one").save(tmp_path / "one.safetensors")
    scored(checkpoint=tmp_path / "one.safetensors", data="test/people", output=tmp_path / "file.json")
    scored(workdir=runs / "one", output=tmp_path / "run.json")
    file, run = read(tmp_path / "file.json"), read(tmp_path / "run.json")
    assert file["sets"] == run["sets"]
    assert file["checkpoint"] == str(tmp_path / "one.safetensors")


def test_verification_thresholds_are_stored_with_the_scores(runs, tmp_path):
    scored(workdir=runs / "one", tpr=True, output=tmp_path / "scores.json")
    found = read(tmp_path / "scores.json")
    assert list(found["thresholds"]) == ["fpr_1e-2", "fpr_1e-3", "fpr_1e-4"]
    assert all(isinstance(distance, float) for distance in found["thresholds"].values())
    assert 0 <= found["TPR@1e-4"] <= found["TPR@1e-2"] <= 1


def test_report_is_written_to_the_workdir_or_to_report_file(runs, tmp_path):
    scored(workdir=runs / "one", report=True)
    assert "<title>" in (runs / "one" / "report.html").read_text()
    scored(checkpoint=runs / "other", data="test/people", report_file=tmp_path / "page.html")
    assert "test/people" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give --workdir, the folder of a run, or --checkpoint with --data"),
        ({"checkpoint": "one"}, "needs --data, names of test sets"),
        ({"checkpoint": "one", "data": "test/people", "report": True}, "give --report_file"),
        ({"workdir": "one", "report": True, "rerank": True}, "leave out --aqe and --rerank"),
    ],
)
def test_error_for_incompatible_flags_says_what_to_give(given, said, runs):
    given = {name: runs / value if name in ("workdir", "checkpoint") else value for name, value in given.items()}
    with pytest.raises(UserError, match=said):
        scored(**given)


def test_python_api_gives_the_scores_of_the_command(runs):
    scored(workdir=runs / "one")
    found = san_jax.evaluate(san_jax.load(runs / "one"), ["test/people"])
    expected = read(runs / "one" / "scores.json")["sets"]["test/people"]
    assert expected.pop("queries_without_match") == 0
    assert found == {"test/people": expected}


def test_python_api_opens_the_named_test_sets_and_folders(monkeypatch, runs):
    named = []

    def opened(data: ConfigDict, same_camera: str):
        named.append((data.test, data.data_dir, data.manual_dir, data.pattern, same_camera))
        return [PEOPLE]

    monkeypatch.setattr(common, "open_test_sets", opened)
    places = dict(data_dir="prepared", manual_dir="release", pattern="p(?P<pid>.)")
    san_jax.evaluate(san_jax.load(runs / "one"), ["a/b", "c/d"], same_camera="keep", **places)
    assert named == [("a/b,c/d", "prepared", "release", "p(?P<pid>.)", "keep")]


def test_python_api_says_which_ways_to_treat_the_same_camera_there_are(runs):
    with pytest.raises(UserError, match=r"same_camera is 'drop' .*; there are remove, keep"):
        san_jax.evaluate(san_jax.load(runs / "one"), "test/people", same_camera="drop")


def test_other_things_in_a_workdir_never_replace_its_scores(runs, tmp_path):
    for name in ("inner", "outer"):
        save_run(tmp_path / "outer" / ("" if name == "outer" else name), mode="baseline")
    (tmp_path / "outer" / "config.json").write_text((runs / "one" / "config.json").read_text())
    san_jax.load(runs / "other").save(tmp_path / "outer" / "file.safetensors")
    for name in ("inner", "file.safetensors"):
        scored(workdir=tmp_path / "outer", checkpoint=tmp_path / "outer" / name)
        assert not (tmp_path / "outer" / "scores.json").exists()
    scored(workdir=tmp_path / "outer", checkpoint=tmp_path / "outer" / "checkpoints" / "3")
    assert read(tmp_path / "outer" / "scores.json")["checkpoint"].endswith("outer/checkpoints/3")


def test_page_is_refused_under_the_name_of_something_else(runs, tmp_path):
    with pytest.raises(UserError, match=r"--report_file is .*page\.pdf, but the page is HTML; .* ends in \.html"):
        scored(checkpoint=runs / "other", data="test/people", report_file=tmp_path / "page.pdf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sets", [[], "", " , "])
def test_python_says_that_no_set_is_named(sets, runs):
    with pytest.raises(UserError, match="sets names no data set; give one, such as cuhk03/labeled"):
        san_jax.evaluate(san_jax.load(runs / "one"), sets)


@pytest.mark.parametrize(
    ("group", "field", "value", "said"),
    [
        ("scoring", "batch_size", 0, "has scoring.batch_size 0; it must be an integer of at least 1"),
        ("data", "workers", -3, "has data.workers -3"),
        ("scoring", "metric", "map", "has scoring.metric 'map'"),
        ("data", "data_dir", None, "has no data.data_dir; restore the file"),
        ("scoring", None, None, "has no scoring.metric"),
        ("data", None, 3, "cannot be read ('int' object is not a mapping)"),
    ],
)
def test_damaged_config_of_a_run_is_said_by_file_and_field(group, field, value, said, runs, tmp_path):
    config = json.loads((runs / "one" / "config.json").read_text())
    if field is None:
        config[group] = value or {}
    elif value is None:
        del config[group][field]
    else:
        config[group][field] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"config\.json {re.escape(said)}"):
        scored(workdir=tmp_path, checkpoint=runs / "one")
