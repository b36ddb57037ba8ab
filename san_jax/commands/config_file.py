"""The flag --config: a Python file with `get_config`, found from any folder; its errors in one line."""

import difflib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, config_flags

from san_jax.errors import UserError

ROOT = Path(__file__).parents[2]  # holds configs/, and train.py in a checkout
FLAG = "config"
KINDS = {bool: "true or false", int: "an integer", float: "a number", tuple: 'values in brackets, such as "(40, 80)"'}


def define(default: str, help_string: str) -> flags.FlagHolder[ConfigDict]:
    """Defines --config=FILE or --config=FILE:SIZE, and --config.FIELD=VALUE for every field of that file.

    Args:
      default: the file to use if the flag is not given (see `with_default`).
      help_string: text for --help.
    """
    # config_flags gets no default, since it would load it at once, while the calling module is imported.
    help_string = f"{help_string} Default: {default}."
    holder = config_flags.DEFINE_config_file(FLAG, None, help_string, flag_values=flags.FLAGS)
    flags.FLAGS[FLAG].parser = _Parser(default)
    return holder


class _Parser(flags.ArgumentParser):
    """Loads the file; its errors are UserErrors, which absl does not wrap."""

    def __init__(self, default: str):
        self.default = default

    def flag_type(self) -> str:
        return "config file"

    def parse(self, path: str) -> ConfigDict:
        config = load(path)
        check_names(config, _arguments(sys.argv), source=path)
        return config.lock()


def with_default(arguments: Sequence[str]) -> list[str]:
    """The command line, with the default --config added if the command has that flag and it is not given."""
    given = any(re.match(rf"--?{FLAG}(=|$)", argument) for argument in _arguments(arguments))
    if given or FLAG not in flags.FLAGS:
        return list(arguments)
    return [arguments[0], f"--{FLAG}={flags.FLAGS[FLAG].parser.default}", *arguments[1:]]


def _arguments(arguments: Sequence[str]) -> list[str]:
    return flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=False)


def workdir(given: str | None) -> Path:
    """The folder given by --workdir, or else runs/CONFIG or runs/CONFIG_SIZE by --config, which is then printed."""
    if given:
        return Path(given)
    file, _, size = config_flags.get_config_filename(flags.FLAGS[FLAG]).partition(":")
    name = "_".join(part for part in (Path(file).stem, size.replace("/", "_")) if part)
    path = Path("runs", name)
    if jax.process_index() == 0:
        print(f"workdir: {path}", flush=True)
    return path


def load(path: str) -> ConfigDict:
    """Loads the config of FILE or FILE:SIZE, as `get_config` returns it.

    Raises:
      UserError: there is no such file or size, or the file has an error.
    """
    file, colon, size = path.partition(":")
    found = find(file)
    try:
        module = _module(found)
        if not hasattr(module, "get_config"):
            raise UserError(f"--{FLAG}={path}: {found} has no function get_config; configs/san.py is an example")
        config = module.get_config(size) if colon else module.get_config()
    except UserError:
        raise
    except Exception as error:  # a config is a program and may fail in any way
        raise UserError(f"--{FLAG}={path}: {_reason(error, found)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--{FLAG}={path}: get_config returns no ConfigDict; configs/san.py is an example")
    return config


def defaults() -> list[ConfigDict]:
    """The configs with the defaults of all fields, one for each size."""
    return [load(f"{ROOT / 'configs' / 'base.py'}:{size}") for size in ("full", "small")]


def find(file: str) -> Path:
    """The file of that name in the current folder, or in the folder that holds configs/.

    Raises:
      UserError: it is in neither.
    """
    for path in (Path(file), ROOT / file):
        if os.path.isfile(path):  # False, where Path's own method raises, for names that are too long
            return path
    known = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs").glob("[!_.]*.py"))]
    folders = [] if Path(file).is_absolute() else sorted({str(Path.cwd()), str(ROOT)})
    places = f" in {' or '.join(folders)}" if folders else ""
    hint = nearest(file, known) or f"; there are {', '.join(known)}"
    raise UserError(f"--{FLAG}={file}: there is no such file{places}{hint}")


def nearest(word: str, words: Iterable[str]) -> str:
    """"; did you mean WORD?" with the most similar of the words, or "" if none is similar."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check_names(config: ConfigDict, arguments: Sequence[str], *, source: str) -> None:
    """Raises a UserError, with the most similar name, if a --config.FIELD is not a field of the config."""
    given = [match[2] for argument in arguments if (match := re.match(rf"--?(no)?{FLAG}\.([^=\[]+)", argument))]
    fields = list(flatten_dict(config.to_dict(), sep="."))
    for name in given:
        if name in fields:
            continue
        below = [field for field in fields if field.startswith(f"{name}.")]
        if below:
            raise UserError(f"--{FLAG}.{name}: {name} is a group of fields; give one of them: {', '.join(below)}")
        raise UserError(f"--{FLAG}.{name}: {source} has no such field{_nearest_field(name, fields)}")


def _nearest_field(name: str, fields: Sequence[str]) -> str:
    """A hint: the field with a similar name, or with the same or a similar last part, or else all of its group."""
    same_end = [field for field in fields if field.rpartition(".")[2] == name.rpartition(".")[2]]
    if hint := nearest(name, fields) or (f"; did you mean {same_end[0]}?" if same_end else ""):
        return hint
    ends = {field.rpartition(".")[2]: field for field in fields}
    if close := difflib.get_close_matches(name.rpartition(".")[2], ends, n=1):
        return f"; did you mean {ends[close[0]]}?"
    group = f"{name.rpartition('.')[0]}."
    beside = [field for field in fields if field.startswith(group)] or sorted({f.partition(".")[0] for f in fields})
    return f"; there are {', '.join(beside)}"


def readable(error: Exception) -> str:
    """The message of absl or config_flags about a flag, in one line; for a field's value, what the field takes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    match = re.match(rf"flag --{FLAG}\.([\w.]+)=(.*?): ", text, re.DOTALL)
    if match and (kind := KINDS.get(_type(match[1]))):
        default = "unset" if _value(match[1]) is None else _value(match[1])
        return f"--{FLAG}.{match[1]}={match[2]}: {match[1]} takes {kind}; its default is {default}"
    return " ".join(text.split())


def _value(name: str) -> Any:
    """The value of a field in the loaded config; None if there is no such field."""
    value = flags.FLAGS[FLAG].value if FLAG in flags.FLAGS else None
    return flatten_dict(value.to_dict(), sep=".").get(name) if value else None


def _type(name: str) -> type:
    """The type of a field in the loaded config, also of one that is unset; NoneType if there is no such field."""
    *groups, last = name.split(".")
    group = flags.FLAGS[FLAG].value if FLAG in flags.FLAGS else None
    for part in groups:
        group = getattr(group, part, None)
    return group.get_type(last) if isinstance(group, ConfigDict) and last in group else type(None)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None:
        raise UserError(f"--{FLAG}={path}: it does not end in .py; give a Python file, such as configs/san.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _reason(error: Exception, path: Path) -> str:
    """Why a config cannot be loaded: the message of its own ValueError, or type and line of another error."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    if isinstance(error, ValueError):
        return text
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    return f"{type(error).__name__} in {path}{f', line {line}' if line else ''}: {text}"
