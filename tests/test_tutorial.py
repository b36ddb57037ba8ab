"""The commands of docs/tutorial.md, as they stand, on rendered pictures."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tutorial_photos
from PIL import Image

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


def steps():
    """The commands of each step, in order."""
    _, *sections = re.split(r"^## \d+\. ", TUTORIAL.read_text(), flags=re.MULTILINE)
    for section in sections:
        title, _, text = section.partition("\n")
        lines = [line[4:] for line in text.splitlines() if line.startswith("    ") or not line.strip()]
        yield title, "\n".join(lines)


@pytest.mark.slow
def test_every_step_of_the_tutorial_runs_and_ends_with_the_right_person(tmp_path):
    count = tutorial_photos.write(tmp_path)
    assert f"{count} pictures of {len(tutorial_photos.NAMES)} people" in TUTORIAL.read_text()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    said = {}
    for title, commands in steps():
        words = ["bash", "-e", "-c", commands]
        done = subprocess.run(words, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"{title}: {done.stdout}\n{done.stderr}"
        said[title] = done.stdout
    assert list(said) == ["Make a list", "Check it", "Train", "Score", "Look", "Search"]
    assert "people.csv is in order" in said["Check it"]
    scores = json.loads((tmp_path / "runs/photos/scores.json").read_text())
    assert scores["rank1"] > 0.5  # chance 1 in 50
    assert scores["thresholds"]["fpr_1e-3"] > 0
    assert (tmp_path / "runs/photos/report.html").stat().st_size > 10_000
    found = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert len(found) == 8
    others = [row for row in found if row["distance"] != "0.0"]
    assert Path(others[0]["path"]).stem.split()[0] == "anna"
    assert {row["camid"] for row in found} <= set(tutorial_photos.CAMERAS)
    assert found[0]["time"] == "2026-05-03T10:15:00"
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > 500
