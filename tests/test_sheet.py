import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

CROWD = ["--people=3", "--seed=1", "--cameras=2", "--camera=2", "--frames=2", "--height=90"]


def sheet(*words):
    """Runs the command; returns its exit status, stdout and stderr."""
    done = subprocess.run([sys.executable, "-m", "san_jax", "sheet", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of OUT.png, for a contact sheet, and --crowd=OUT, not none; see --help"),
        (["{tmp}/a.png", "--crowd={tmp}/b"], "not {tmp}/a.png --crowd={tmp}/b; see --help"),
        (["--crowd="], "--crowd names no folder; give one, as --crowd=OUT"),
        (["--crowd={tmp}/b", "--occlusion=0"], "--occlusion has no effect with --crowd, where people hide each other"),
        (["{tmp}/a.png", "--camera=1"], "--camera has no effect without --crowd; leave it out"),
        (["--crowd={tmp}/b", "--camera=7"], "--camera is 7, but --cameras is 6; give a number from 1 to 6"),
        (["--crowd={tmp}/b", "--variety=nan"], "--variety is nan; give a number from 0 to 1"),
        (["--crowd={tmp}"], "{tmp} holds files already: mine.txt is not of this crowd; give --crowd another folder"),
    ],
)
def test_wrong_words_are_reported_in_one_line_and_nothing_is_written(tmp_path, words, said):
    (tmp_path / "mine.txt").touch()
    status, output, errors = sheet(*(word.format(tmp=tmp_path) for word in words))
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("error: ")
    assert said.format(tmp=tmp_path) in errors
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow  # because of compilation
def test_crowd_is_written_and_written_again_by_the_same_command_only(tmp_path):
    status, output, errors = sheet(f"--crowd={tmp_path}", *CROWD)
    assert (status, output) == (0, f"{tmp_path}: 2 frames of 3 people in camera 2\n"), errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.jpg", "000002.jpg", "gt.txt"]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with Image.open(tmp_path / "000001.jpg") as picture:
        assert picture.size == (160, 90)
    lines = np.loadtxt(tmp_path / "gt.txt", delimiter=",")
    assert lines.shape == (6, 9)
    np.testing.assert_array_equal(lines[:, :2], [(frame, person) for frame in (1, 2) for person in (1, 2, 3)])
    np.testing.assert_array_equal(lines[:, 6:8], 1)
    assert 0 <= lines[:, 8].min() <= lines[:, 8].max() == 1
    assert sheet(f"--crowd={tmp_path}", *CROWD)[0] == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    status, _, errors = sheet(f"--crowd={tmp_path}", *CROWD, "--seed=2")
    assert status == 1
    assert "000001.jpg and 1 more are not of this crowd" in errors
