import argparse
import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
from boxed_frames import write_frames, write_mot

import san_jax
from benchmarks import tracking
from benchmarks.tracking import NONE, RANDOM, TRAINED
from san_jax.data import crops
from san_jax.errors import UserError
from san_jax.gallery import embedding

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def crowd(tmp_path):
    """Folder of three frames; in the second, person 7 is hidden, and in the third is nobody."""
    folder = write_frames(tmp_path / "crowd", suffix=".jpg")
    (folder / "000003.jpg").write_bytes((folder / "000002.jpg").read_bytes())
    write_mot(folder / "gt.txt", tail=",1,1,1")
    lines = (folder / "gt.txt").read_text().splitlines()
    (folder / "gt.txt").write_text("\n".join([*lines[:3], lines[3].removesuffix("1") + "0.29"]) + "\n")
    return folder


def people_of(folder):
    return crops.in_boxes(folder, folder / "gt.txt", wanted=tracking.WANTED)


def found(idf1, *, trackers=("one", "other"), switches=3):
    """What `run` returns, with this IDF1 for each network."""
    scores = {name: {"idf1": value, "mota": value / 2, "num_switches": switches} for name, value in idf1.items()}
    same = {network: {"same": [0.1]} for network in (RANDOM, TRAINED)}
    return {"scores": dict.fromkeys(trackers, scores), "distances": same}


def test_detections_are_the_visible_boxes_of_every_frame_and_empty_frames_stay(crowd):
    first, second, third = tracking.frames_of(people_of(crowd), crowd, every=1)
    assert first["picture"] == str(crowd / "000001.jpg")
    assert first["people"] == [3, 7]
    assert first["boxes"] == [[10, 20, 30, 80], [120, 10, 150, 90]]
    assert (second["people"], second["boxes"]) == ([3], [[20, 20, 40, 80]])
    assert (third["people"], third["boxes"]) == ([], [])


def test_every_second_frame_is_the_first_the_third_and_so_on(crowd):
    frames = tracking.frames_of(people_of(crowd), crowd, every=2)
    assert [pathlib.Path(frame["picture"]).name for frame in frames] == ["000001.jpg", "000003.jpg"]


def test_crowds_are_seen_by_all_cameras():
    assert {tracking.camera_of(seed) for seed in range(20, 26)} == {1, 2, 3, 4, 5, 6}


def test_summary_has_mean_interval_and_range_and_compares_crowd_by_crowd():
    crowds = [found({NONE: 0.5, TRAINED: 0.6}), found({NONE: 0.1, TRAINED: 0.4}), found({NONE: 0.3, TRAINED: 0.5})]
    summary = tracking.collected({"easy": crowds})["summary"]["easy"]["one"]
    # Student's t for 95 % and two degrees of freedom is 4.3027; the deviation of 0.5, 0.1, 0.3 is 0.2.
    assert summary[NONE]["idf1"] == pytest.approx(
        {"mean": 0.3, "half": 4.3027 * 0.2 / np.sqrt(3), "least": 0.1, "largest": 0.5}, rel=1e-4
    )
    gain = summary["gain"][f"over {NONE}"]["idf1"]
    assert gain == pytest.approx(
        {"mean": 0.2, "half": 4.3027 * 0.1 / np.sqrt(3), "least": 0.1, "largest": 0.3}, rel=1e-4
    )


def test_tables_have_a_line_for_each_network_that_a_tracker_can_do_with():
    crowds = [found({NONE: 0.5, RANDOM: 0.5, TRAINED: 0.75}), found({NONE: 0.5, RANDOM: 0.25, TRAINED: 0.75})]
    for one in crowds:
        one["scores"]["other"] = {name: it for name, it in one["scores"]["other"].items() if name != NONE}
    report = tracking.collected({"easy": crowds}) | {"checkpoint": "small"}
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in tracking.table(report).splitlines()]
    assert [line[:3] for line in lines[2:]] == [
        ["easy", "one", "none"], ["easy", "one", "random weights"], ["easy", "one", "`small`"],
        ["easy", "other", "random weights"], ["easy", "other", "`small`"],
    ]  # fmt: skip
    assert lines[4][3:] == ["75.0 ± 0.0", "75.0, 75.0", "37.5 ± 0.0", "3.0 ± 0.0"]
    assert lines[3][4] == "25.0, 50.0"
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in tracking.gains(report).splitlines()]
    assert lines[2] == ["easy", "one", "none", "+25.0 ± 0.0", "+12.5 ± 0.0", "+0.0 ± 0.0"]
    assert [line[2] for line in lines[3:]] == ["random weights", "random weights"]


def test_interpreter_without_boxmot_is_one_line(capsys):
    with pytest.raises(SystemExit):
        tracking.parse_flags([f"--boxmot_python={sys.executable}", "--out=."])
    said = capsys.readouterr().err.splitlines()[-1]
    way_out = r"give the interpreter of an environment with boxmot\[onnx\] and motmetrics"
    # ONNX's runtime may be here for other tests.
    assert re.search(rf"--boxmot_python: \S+ has no torch, boxmot, (onnxruntime, )?motmetrics; {way_out}$", said)


@pytest.mark.parametrize(
    ("name", "why"),
    [("none", "cannot be started (No such file or directory)"), ("false", "is no Python that can be asked")],
)
def test_what_is_no_interpreter_is_one_line(name, why, tmp_path):
    (tmp_path / "false").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "false").chmod(0o755)
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        tracking.side(str(tmp_path / name))
    wanted = f"{tmp_path / name} {why}; give the interpreter of an environment with boxmot[onnx] and motmetrics"
    assert str(raised.value) == wanted


def test_a_job_is_run_once_and_again_when_it_has_changed(tmp_path):
    side = tmp_path / "python"
    side.write_text(f"""#!{sys.executable}
import json, pathlib, sys
assert sys.argv[1:3] == ["-m", "benchmarks.boxmot_trackers"]
job = json.loads(pathlib.Path(sys.argv[3]).read_text())
pathlib.Path(sys.argv[4]).write_text(json.dumps({{"scores": len(job["frames"])}}))
with open({str(tmp_path / "log")!r}, "a") as log:
    log.write("run ")
""")
    side.chmod(0o755)
    job = {"frames": [{"boxes": [[1, 2, 3, 4]]}, {"boxes": []}]}
    for _ in range(2):
        got = tracking.run(str(side), tmp_path / "found.json", job)
        assert (got["scores"], got["boxes"]) == (2, 1)
    assert tracking.run(str(side), tmp_path / "found.json", {"frames": []})["scores"] == 0
    assert (tmp_path / "log").read_text() == "run run "


def test_failed_job_says_what_the_other_side_said_and_leaves_no_result(tmp_path):
    side = tmp_path / "python"
    side.write_text("#!/bin/sh\necho Traceback >&2\necho out of luck >&2\nexit 3\n")
    side.chmod(0o755)
    (tmp_path / "found.json").write_text('{"job": "older"}')
    with pytest.raises(UserError, match=r"_job\.json failed: out of luck$"):
        tracking.run(str(side), tmp_path / "found.json", {"frames": []})
    assert not (tmp_path / "found.json").exists()


@pytest.fixture(scope="module")
def model():
    return san_jax.load("rendered-small")


def test_random_counterpart_has_other_weights_and_the_same_shapes(model, tmp_path):
    other = tracking.with_random_weights(model)
    shapes, others = (jax.tree.map(np.shape, one.weights["encoder"]) for one in (model, other))
    assert shapes == others
    other.save(tmp_path / "random.safetensors")
    picture = np.random.default_rng(0).integers(0, 256, (1, 128, 64, 3), np.uint8)
    feats, read_back = other.features(picture), san_jax.load(tmp_path / "random.safetensors").features(picture)
    np.testing.assert_array_equal(feats, read_back)
    assert np.linalg.norm(feats) > 0
    assert not np.allclose(feats, model.features(picture))


def test_networks_are_exported_once_by_their_weights(model, tmp_path):
    paths = tracking.export(tmp_path, model)
    assert [*paths] == [NONE, RANDOM, TRAINED]
    assert paths[NONE] is None
    written = {name: pathlib.Path(paths[name]).stat().st_mtime_ns for name in (RANDOM, TRAINED)}
    assert paths[RANDOM] != paths[TRAINED]
    assert tracking.export(tmp_path, model) == paths
    assert written == {name: pathlib.Path(paths[name]).stat().st_mtime_ns for name in (RANDOM, TRAINED)}


def test_likeness_is_the_cosine_of_the_features_of_the_same_boxes(model, crowd):
    people = people_of(crowd)
    ours = embedding.embed_all(model, people)[1]
    theirs = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    np.savez(crowd / "same.npz", **{TRAINED: theirs})
    assert tracking.likeness(model, people, crowd / "same.npz") == pytest.approx({"mean": 1, "least": 1, "boxes": 3})
    np.savez(crowd / "turned.npz", **{TRAINED: np.roll(theirs, 1, axis=1)})
    assert tracking.likeness(model, people, crowd / "turned.npz")["mean"] < 0.9


def test_page_shows_the_measured_tables():
    report = json.loads((ROOT / "docs" / "measured" / "tracking.json").read_text())
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert tracking.table(report) in page
    assert tracking.gains(report) in page
