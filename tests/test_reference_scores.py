"""The command in a process of its own, on a small release."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cuhk03_release import write_release


def run(*arguments):
    command = [sys.executable, "-m", "san_jax.commands.reference_scores", "--workers=0", *map(str, arguments)]
    return subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)


@pytest.mark.slow
def test_table_and_file_have_the_reference_scores_of_every_set(tmp_path):
    release = f"--manual_dir={write_release(tmp_path / 'release')}"
    names, output = ["cuhk03/labeled", "cuhk03/detected"], tmp_path / "scores.json"
    found = run(f"--data={','.join(names)}", f"--data_dir={tmp_path}", release, "--metric=cuhk03", f"--output={output}")
    assert found.returncode == 0, found.stderr

    report = json.loads(output.read_text())
    assert report["metric"] == "cuhk03"
    assert report["queries_without_match"] == dict.fromkeys(names, 0)
    rows = [(name, kind) for name in names for kind in ("chance", "colour histogram")]
    assert [(name, kind) for name in report["sets"] for kind in report["sets"][name]] == rows
    lines = found.stdout.splitlines()[2:]
    for (name, kind), line in zip(rows, lines, strict=True):
        scores = [f"{100 * score:.2f}" for score in report["sets"][name][kind].values()]
        assert line.split() == [name, *kind.split(), *scores]


@pytest.mark.parametrize(
    ("data", "error"),
    [(",", "--data names no data set"), ("market1501", "there is no data set market1501")],
)
def test_invalid_data_set_is_an_error_of_one_line(data, error, tmp_path):
    found = run(f"--data={data}", f"--data_dir={tmp_path}")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(f"error: {error}")
    assert found.stderr.count("\n") == 1
