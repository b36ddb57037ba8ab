"""What every command does: flags, data sets by name, errors in one line."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

import tfds_builders
from san_jax import devices
from san_jax.batch import Source
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import Stopped, UserError
from san_jax.scoring.evaluation import TestSet

EXIT_STOPPED = 128 + 15  # as a shell reports a process that SIGTERM ended


def run(main: Callable[[], None]) -> None:
    """Runs a command: parses its flags, joins the cluster, and says in one line what its user can mend (exit 1)."""
    # Python's tracker of shared memory clears away after grain's workers when a command ends, and complains that it
    # has to; it is a process of its own and inherits this.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def _guarded(main: Callable[[], None]) -> None:
    logging.set_verbosity(logging.ERROR)  # else orbax tells at length of every save
    try:
        devices.join_cluster()
        main()
    except UserError as error:
        _end(f"error: {error}", 1)
    except Stopped as stopped:
        _end(str(stopped), EXIT_STOPPED)


def _parse(arguments: Sequence[str]) -> list[str]:
    """Flags as absl parses them; whatever is wrong with them, and with the config they name, in one line."""
    try:
        rest = flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _end("error: " + " ".join(str(error).split()), 1)
    if rest[1:]:
        _end(f"error: {rest[1]!r} is no flag; they start with --", 1)
    return rest


def _end(line: str, status: int) -> None:
    print(line, file=sys.stderr, flush=True)
    # Worker processes and the other hosts' barriers may still wait for this process: it must not wait for them.
    sys.stdout.flush()
    os._exit(status)


def open_training_set(data: ConfigDict) -> Source:
    """The training set that `data.train` names, several joined."""
    return JoinedSource.of([_open(name, "train", data) for name in names(data.train, field="data.train")])


def open_test_sets(data: ConfigDict) -> list[TestSet]:
    """What `data.test` names, or query and gallery of the training sets."""
    chosen = names(data.test or data.train, field="data.test")
    return [TestSet(name, _open(name, "query", data), _open(name, "gallery", data)) for name in chosen]


def names(listed: str, *, field: str) -> list[str]:
    """Names of data sets, separated by commas."""
    found = [name.strip() for name in listed.split(",") if name.strip()]
    if not found:
        raise UserError(f"{field} names no data set; give one like cuhk03/labeled")
    return found


def _open(name: str, split: str, data: ConfigDict) -> Source:
    return tfds_builders.open_source(name, split, data_dir=Path(data.data_dir), manual_dir=data.manual_dir)
