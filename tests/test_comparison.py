"""The comparison at the end of a chain, on two runs of a small release."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuhk03_release import write_release
from PIL import Image
from runs import SMALL_RUN

ROOT = Path(__file__).parent.parent


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def train(folder, release, run):
    fields = SMALL_RUN | {"data.manual_dir": release, "data.data_dir": folder / "data"}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    done = python("train.py", f"--config=configs/{run}.py:small", f"--workdir={folder / run}", *overrides)
    assert done.returncode == 0, done.stderr
    return numbers_of("cuhk03/labeled_texture", done.stdout)


def numbers_of(row, output):
    """The scores in the last line that starts with `row`, in percent."""
    line = [line for line in output.splitlines() if line.startswith(row)][-1]
    return [float(number) for number in line.removeprefix(row).split()]


@pytest.mark.slow
def test_comparison_scores_both_runs_with_chance_and_colour_histogram_and_saves_ranked_lists(tmp_path):
    release = write_release(tmp_path / "release")
    seen = {run: train(tmp_path, release, run) for run in ("baseline", "san")}
    done = python("-m", "san_jax.experiments.comparison", tmp_path)
    assert done.returncode == 0, done.stderr

    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == ["data", "metric", "chance", "colour histogram", "baseline", "san"]
    assert (scores["data"], scores["metric"]) == ("cuhk03/labeled_texture", "market1501")
    for run, numbers in seen.items():
        assert numbers_of(run, done.stdout) == numbers
        assert [round(100 * score, 2) for score in scores[run].values()] == pytest.approx(numbers, abs=0.011)
    sheet = np.asarray(Image.open(tmp_path / "ranked.png"))
    assert sheet.ndim == 3
    assert min(sheet.shape[:2]) > 1000  # ten rows, nine columns


@pytest.mark.slow
def test_missing_run_is_reported_in_one_line(tmp_path):
    done = python("-m", "san_jax.experiments.comparison", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "baseline" in done.stderr
    assert done.stderr.count("\n") == 1
