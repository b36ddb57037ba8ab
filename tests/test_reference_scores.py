"""The command in a process of its own, on a small release."""

import json

import commands
import pytest
from cuhk03_release import write_release


def run(*arguments):
    return commands.run("-m", "san_jax.commands.reference_scores", "--workers=0", *arguments)


@pytest.mark.slow
def test_table_and_file_have_the_reference_scores_of_every_set(tmp_path):
    release = f"--manual_dir={write_release(tmp_path / 'release')}"
    names, output = ["cuhk03/labeled", "cuhk03/detected"], tmp_path / "scores.json"
    status, shown, errors = run(
        f"--data={','.join(names)}", f"--data_dir={tmp_path}", release, "--metric=cuhk03", f"--output={output}"
    )
    assert status == 0, errors

    report = json.loads(output.read_text())
    assert report["metric"] == "cuhk03"
    assert report["queries_without_match"] == dict.fromkeys(names, 0)
    rows = [(name, kind) for name in names for kind in ("chance", "colour histogram")]
    assert [(name, kind) for name in report["sets"] for kind in report["sets"][name]] == rows
    lines = shown.splitlines()[2:]
    for (name, kind), line in zip(rows, lines, strict=True):
        scores = [f"{100 * score:.2f}" for score in report["sets"][name][kind].values()]
        assert line.split() == [name, *kind.split(), *scores]


@pytest.mark.parametrize(
    ("data", "error"),
    [(",", "--data names no data set"), ("market1502", "there is no data set market1502")],
)
def test_invalid_data_set_is_an_error_of_one_line(data, error, tmp_path):
    status, output, errors = run(f"--data={data}", f"--data_dir={tmp_path}")
    assert (status, output) == (1, "")
    assert errors.startswith(f"error: {error}")
    assert errors.count("\n") == 1
