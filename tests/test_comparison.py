"""The comparison at the end of a chain, on two runs of a small release."""

import json
import shutil

import commands
import numpy as np
import pytest
from PIL import Image


def compare(folder):
    return commands.run("-m", "san_jax.experiments.comparison", folder)


def numbers_of(row, output):
    """The scores in the last line that starts with `row`, in percent."""
    line = [line for line in output.splitlines() if line.startswith(row)][-1]
    return [float(number) for number in line.removeprefix(row).split()]


@pytest.mark.slow
def test_comparison_scores_both_runs_with_chance_and_colour_histogram_and_saves_ranked_lists(finished, tmp_path):
    seen = {}
    for run in ("baseline", "san"):
        workdir, output = finished(run)
        shutil.copytree(workdir, tmp_path / run)
        seen[run] = numbers_of("cuhk03/labeled_texture", output)
    status, output, errors = compare(tmp_path)
    assert status == 0, errors

    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == ["data", "metric", "chance", "colour histogram", "baseline", "san"]
    assert (scores["data"], scores["metric"]) == ("cuhk03/labeled_texture", "market1501")
    for run, numbers in seen.items():
        assert numbers_of(run, output) == numbers
        assert [round(100 * score, 2) for score in scores[run].values()] == pytest.approx(numbers, abs=0.011)
    sheet = np.asarray(Image.open(tmp_path / "ranked.png"))
    assert sheet.ndim == 3
    assert min(sheet.shape[:2]) > 1000  # ten rows, nine columns


@pytest.mark.slow
def test_missing_run_is_reported_in_one_line(tmp_path):
    status, _, errors = compare(tmp_path)
    assert status == 1
    assert errors.startswith("error: ")
    assert "baseline" in errors
    assert errors.count("\n") == 1
