"""What several commands do: flags, data sets by name, training by config, errors in one line."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

import tfds_builders
from san_jax import devices
from san_jax.batch import Source
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import Stopped, UserError
from san_jax.process import stopping
from san_jax.scoring.evaluation import TestSet
from san_jax.training import resuming, train_loop, train_step
from san_jax.training import run as runs

EXIT_UNREAD = 128 + 13  # as a shell reports a process that SIGPIPE ended


def run(main: Callable[..., None], *, files: Sequence[str] = ()) -> None:
    """Runs a command: parses its flags, joins the cluster, and says in one line what its user can mend (exit 1).

    Args:
      main: is given the paths that stand on the command line beside the flags.
      files: what these are, for who gives more or fewer.
    """
    stopping.end_on_signals()
    _quiet_tracker()
    flags.FLAGS.set_gnu_getopt(True)  # flags and files in any order
    app.run(lambda words: _guarded(main, words[1:], files), flags_parser=_parse)


def _guarded(main: Callable[..., None], words: Sequence[str], files: Sequence[str]) -> None:
    logging.set_verbosity(logging.FATAL)  # orbax tells at length of every save, and of failed ones before we do
    sys.unraisablehook = _without_echoes
    try:
        if len(words) != len(files):
            wanted = f"takes {' '.join(files)}" if files else "takes flags alone, which start with --"
            raise UserError(f"this command {wanted}, not {' '.join(words) or 'nothing'}; --help shows more")
        devices.join_cluster()
        main(*map(Path, words))
    except UserError as error:
        _end(f"error: {error}", 1)
    except Stopped as stopped:
        stopping.end(str(stopped), stopped.status)
    except KeyboardInterrupt:  # raised by somebody who handles Ctrl-C himself
        stopping.end(stopping.line_of(signal.SIGINT), 128 + signal.SIGINT)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        _end(f"error: the processes of this run lost one another ({reason}); start the same command on all hosts", 1)
    except BrokenPipeError:  # who reads what is printed has gone, as in `| head`
        os._exit(EXIT_UNREAD)


def _quiet_tracker() -> None:
    """Starts Python's tracker of shared memory without standard error.

    It clears away behind grain's workers, and complains that it has to, or that somebody was faster.
    """
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        resource_tracker.ensure_running()
    os.dup2(kept, 2)
    os.close(kept)


def _parse(arguments: Sequence[str]) -> list[str]:
    """Flags as absl parses them; whatever is wrong with them, and with the config they name, in one line."""
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _end("error: " + " ".join(str(error).split()), 1)


def _without_echoes(unraisable: "sys.UnraisableHookArgs") -> None:
    """Leaves out what tensorstore's threads say, hundreds of times, after a write has failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _end(line: str, status: int) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    # Worker processes and the other hosts' barriers may still wait for this process: it must not wait for them.
    sys.stdout.flush()
    os._exit(status)


def train(config: ConfigDict, workdir: Path) -> None:
    """Opens the data that a config names, builds its run, trains it to the end or on from where it was."""
    resuming.check_config(config, workdir)  # before data are prepared for nothing
    source, pairs, test_sets = open_training_set(config.data), open_pairs(config), open_scored_sets(config)
    built = runs.build(config, workdir, source=source, pairs=pairs, test_sets=test_sets, mesh=devices.make_mesh())
    train_loop.train(built)


def open_training_set(data: ConfigDict) -> Source:
    """The training set that `data.train` names, several joined."""
    return JoinedSource.of([_open(name, "train", data) for name in names(data.train, field="data.train")])


def open_test_sets(data: ConfigDict) -> list[TestSet]:
    """What `data.test` names, or query and gallery of the training sets."""
    listed = names(data.test or data.train, field="data.test")
    chosen = [one for name in listed for one in tfds_builders.all_variants(name)]
    return [TestSet(name, _open(name, "query", data), _open(name, "gallery", data)) for name in chosen]


def open_scored_sets(config: ConfigDict) -> list[TestSet] | list[Source]:
    """What a run is scored on: its test sets, or the held-out pairs of a texture generator's sets."""
    data = config.data
    if train_step.learns_people(config.mode):
        return open_test_sets(data)
    return [_open(name, "test", data) for name in names(data.test or data.train, field="data.test")]


def open_pairs(config: ConfigDict) -> Source | None:
    """The pairs that `data.pit` names, several sets joined; None where `batch.pit_pictures` asks for none."""
    if not config.batch.pit_pictures:
        return None
    return JoinedSource.of([_open(name, "train", config.data) for name in names(config.data.pit, field="data.pit")])


def names(listed: str, *, field: str) -> list[str]:
    """Names of data sets, separated by commas."""
    found = [name.strip() for name in listed.split(",") if name.strip()]
    if not found:
        raise UserError(f"{field} names no data set; give one like cuhk03/labeled")
    return found


def _open(name: str, split: str, data: ConfigDict) -> Source:
    with stopping.unwinding():  # a set that is half prepared is cleared away
        return tfds_builders.open_source(name, split, data_dir=Path(data.data_dir), manual_dir=data.manual_dir)
