import importlib
import subprocess
import sys
from importlib import metadata

import pytest
from commands import ROOT

from san_jax.__main__ import COMMANDS


def san_jax(*words, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", "san_jax", *words], cwd=cwd, capture_output=True, text=True)


def test_version_is_the_package_version():
    assert san_jax("--version").stdout == f"san_jax {metadata.version('san_jax')}\n"


def test_help_names_every_command():
    done = san_jax("--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[2:-2]] == list(COMMANDS)


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_closed_pipe_is_not_an_error(word, unread):
    done = subprocess.run([sys.executable, "-m", "san_jax", word], stdout=unread, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_unknown_command_prints_one_line_with_the_nearest_name():
    done = san_jax("serach")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: san-jax has no command 'serach'; did you mean search?\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_with_a_main(name):
    module, _ = COMMANDS[name]
    assert callable(importlib.import_module(f"san_jax.commands.{module}").main)


def test_help_shows_the_values_and_defaults_of_flags():
    shown = " ".join(san_jax("search", "--help").stdout.split())
    assert "--distance=euclidean|cosine: Distance between features; euclidean is squared. Default: euclidean." in shown
    assert "--top: Pictures to find for each query. Default: 10." in shown
    assert "--best: Use the run's best checkpoint, not its newest. --gallery" in shown


@pytest.mark.parametrize(("name", "flag"), [("train", "--workdir"), ("eval", "--checkpoint"), ("search", "--gallery")])
def test_help_of_a_command_shows_its_flags(name, flag):
    done = san_jax(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"\n  {flag}: " in done.stdout
    assert done.stdout.startswith(importlib.import_module(f"san_jax.commands.{COMMANDS[name][0]}").__doc__.strip())
