import importlib
import subprocess
import sys
from importlib import metadata

import commands
import pytest

from san_jax.__main__ import COMMANDS


def san_jax(*words):
    return commands.run("-m", "san_jax", *words)


def test_version_is_the_package_version():
    assert san_jax("--version")[1] == f"san_jax {metadata.version('san_jax')}\n"


def test_help_names_every_command():
    status, output, _ = san_jax("--help")
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()[2:-2]] == list(COMMANDS)


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_closed_pipe_is_not_an_error(word, unread):
    done = subprocess.run([sys.executable, "-m", "san_jax", word], stdout=unread, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_unknown_command_prints_one_line_with_the_nearest_name():
    assert san_jax("serach") == (1, "", "error: san-jax has no command 'serach'; did you mean search?\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_with_a_main(name):
    module, _ = COMMANDS[name]
    assert callable(importlib.import_module(f"san_jax.commands.{module}").main)


def test_help_shows_the_values_and_defaults_of_flags():
    shown = " ".join(san_jax("search", "--help")[1].split())
    assert "--distance=euclidean|cosine: Distance between features; euclidean is squared. Default: euclidean." in shown
    assert "--top: Pictures or tracks to find for each query. Default: 10." in shown
    assert "--best: Use the run's best checkpoint, not its newest. --gallery" in shown


@pytest.mark.parametrize(("name", "flag"), [("train", "--workdir"), ("eval", "--checkpoint"), ("search", "--gallery")])
def test_help_of_a_command_shows_its_flags(name, flag):
    status, output, errors = san_jax(name, "--help")
    assert status == 0, errors
    assert f"\n  {flag}: " in output
    assert output.startswith(importlib.import_module(f"san_jax.commands.{COMMANDS[name][0]}").__doc__.strip())
