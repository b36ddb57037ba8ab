import subprocess
import sys
from pathlib import Path

import commands
import pytest
from absl import flags

from san_jax.commands import common, config_file
from san_jax.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def parse(monkeypatch):
    """Parses the arguments of a command with --config and --workdir: returns the config, or exit status and error."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    values.set_gnu_getopt(True)

    def end(line, status):
        raise SystemExit(f"{status} {line}")

    monkeypatch.setattr(common, "_end", end)

    flags.DEFINE_string("workdir", None, "Of the run.", flag_values=values)
    config_file.define("configs/san.py", "What to train.")

    def parse(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            common._parse(sys.argv)
        except SystemExit as ended:
            return str(ended)
        return values[config_file.FLAG].value

    return parse


def test_relative_config_is_found_from_any_folder(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse("--config=configs/baseline.py:small", "--config.batch.identities=3")
    assert (config.mode, config.data.height, config.batch.identities) == ("baseline", 128, 3)


def test_config_in_the_current_folder_comes_before_the_one_beside_train_py(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "san.py").write_text(
        "from configs import base\n\n\ndef get_config(size='full'):\n    config = base.get_config(size)\n"
        "    config.seed = 77\n    return config\n"
    )
    assert parse("--config=configs/san.py").seed == 77


def test_default_config_takes_field_overrides_too(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse("--config.reid.learning_rate=0.5", "--noconfig.decoder.skips")
    assert (config.mode, config.reid.learning_rate, config.decoder.skips) == ("san", 0.5, False)
    assert config.is_locked


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], "runs/san"),
        (["--config=configs/san.py:small"], "runs/san_small"),
        (["--config", "configs/san_pg.py:small"], "runs/san_pg_small"),
        ([f"--config={ROOT}/configs/baseline.py"], "runs/baseline"),
    ],
)
def test_workdir_is_named_after_the_config_and_printed(arguments, folder, parse, capsys):
    parse(*arguments)
    assert config_file.workdir(None) == Path(folder)
    assert capsys.readouterr().out == f"workdir: {folder}\n"


def test_given_workdir_is_used_and_not_printed(parse, capsys):
    parse("--config=configs/san.py")
    assert config_file.workdir("w") == Path("w")
    assert capsys.readouterr().out == ""


SAN = "--config=configs/san.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([SAN, "--config.batch.identites=4"], "--config.batch.identites: .*; did you mean batch.identities?"),
        (["--config.batch.identites=4"], "--config.batch.identites: .*; did you mean batch.identities?"),
        ([SAN, "--config.identities=4"], "--config.identities: .*; did you mean batch.identities?"),
        ([SAN, "--config.optim.learning_rate=4"], "; did you mean re.*.learning_rate?"),
        ([SAN, "--config.batch.foo=4"], "; there are batch.identities, batch.instances, batch.pit_pictures"),
        ([SAN, "--config.foo=1"], "configs/san.py has no such field; there are .*seed"),
        ([SAN, "--config.seed.x=1"], "; did you mean seed?"),
        ([SAN, "--config.batch=1"], "batch is a group of fields; give one of them: batch.identities, "),
        ([SAN, "--config.batch.identities=four"], "=four: batch.identities takes an integer; its default is 16"),
        ([SAN, "--config.data.workers=two"], "=two: data.workers takes an integer; its default is unset"),
        ([SAN, "--config.reid.gamma=x"], "=x: reid.gamma takes a number; its default is 0.5"),
        ([SAN, "--config.decoder.skips=maybe"], "=maybe: decoder.skips takes true or false; its default is True"),
        (["--config=configs/san.py:smal"], "san.py:smal: config size 'smal' is not one of full, small"),
        (["--config=configs/sam.py"], "there is no such file in .*; did you mean configs/san.py?"),
        (["--config=/nowhere/x.py"], "--config=/nowhere/x.py: there is no such file; there are configs/ablation.py, "),
        (["--config="], "there is no such file in .*; there are configs/ablation.py, "),
        (["--config=configs"], "there is no such file in "),
        (["--config=pyproject.toml"], "it does not end in .py"),
        ([SAN, "--wrkdir=w"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
        ([SAN, "--workdir"], "Missing value for flag --workdir"),
        (["--config.seed=1", SAN], "before a value for --config was specified"),
    ],
)
def test_error_for_a_wrong_command_line_is_one_readable_line(arguments, said, parse):
    found = parse(*arguments)
    assert found.startswith("1 error: ")
    assert "\n" not in found
    assert '"' not in found.replace('"(40, 80)"', "")
    before, _, after = said.partition(".*")
    assert before in found
    assert after.replace(".*", "") in found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def get_config(: pass", "SyntaxError in .*mine.py, line 1: invalid syntax"),
        ("import nothing_of_that_name", "ModuleNotFoundError in .*mine.py, line 1: No module named"),
        ("def get_config():\n    return undefined", "NameError in .*mine.py, line 2: name 'undefined'"),
        ("x = 1", "mine.py has no function get_config"),
        ("def get_config():\n    return None", "get_config returns no ConfigDict"),
        ("def get_config():\n    return {'a': 1}", "get_config returns no ConfigDict"),
    ],
)
def test_error_for_a_wrong_config_file_is_one_line_that_names_it(content, said, tmp_path):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        config_file.load(str(tmp_path / "mine.py"))
    assert "\n" not in str(caught.value)


def test_size_for_a_config_without_sizes_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("from configs import base\n\n\ndef get_config():\n    return base.get_config()\n")
    config_file.load(str(tmp_path / "mine.py"))
    with pytest.raises(UserError, match=r"mine\.py:small: TypeError .* takes 0 positional arguments"):
        config_file.load(f"{tmp_path}/mine.py:small")


def test_train_py_needs_no_workdir_and_runs_in_any_folder(tmp_path):
    """It stops at the missing data set, after it has read config and workdir."""
    status, output, errors = commands.run(ROOT / "train.py", "--config=configs/san.py", cwd=tmp_path)
    assert (status, output) == (1, "workdir: runs/san\n")
    assert errors.startswith("error: cuhk03/labeled_texture is not in data_dir")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("name", ["chain", "ablation"])
def test_experiments_find_their_config_from_any_folder(name, tmp_path):
    command = [sys.executable, "-m", f"san_jax.experiments.{name}", f"--config=configs/{name}.py:smal", "--workdir=w"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == f"error: --config=configs/{name}.py:smal: config size 'smal' is not one of full, small\n"
