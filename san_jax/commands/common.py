"""Shared parts of the commands: flags, data sets by name, training from a config, one-line errors."""

import contextlib
import dataclasses
import errno
import functools
import gc
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from absl import app, flags, logging
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from san_jax import devices
from san_jax import files as paths
from san_jax.batch import Source
from san_jax.commands import config_file
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import Stopped, UserError
from san_jax.process import joining, meeting, stopping
from san_jax.scoring.evaluation import RetrievalSet
from san_jax.training import config_fields, resuming, run, starting_weights, train_loop, train_step, working_copy
from san_jax.training.working_copy import WorkingCopy
from san_jax.weights import stored

# Thresholds of Python's garbage collector, whose default is 700, 10, 10. Tracing a train step creates objects by the
# million, hardly any of which are garbage in cycles; looking for it that often takes a tenth of the start.
GARBAGE = 100_000, 50, 100
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # of writes, which name no file


def run_command(
    main: Callable[..., None],
    *,
    files: Sequence[str] | None = (),
    module: str = "__main__",
    remote: Collection[str] = (),
) -> None:
    """Runs a command: parses its flags, joins the cluster, and prints a UserError as one line (exit status 1).

    Args:
      main: the command; called with the paths among the command-line arguments.
      files: names of these paths, for the error message if their number is wrong; None if `main` checks their number.
      module: name of the module whose docstring and flags `--help` shows.
      remote: flags whose values may be addresses in an object store.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        try:
            print(f"{sys.modules[module].__doc__.strip()}\n{_help_of(module)}", flush=True)
        except BrokenPipeError:
            os._exit(stopping.EXIT_UNREAD)
        sys.exit(0)
    stopping.end_on_signals()
    gc.set_threshold(*GARBAGE)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # for names that the terminal cannot show, or that are not UTF-8
    flags.FLAGS.set_gnu_getopt(True)  # flags and files in any order
    try:
        check = functools.partial(check_local, module, remote)
        app.run(lambda words: _guarded(main, words[1:], files, check=check), flags_parser=_parse)
    except BrokenPipeError:
        os._exit(stopping.EXIT_UNREAD)


def _help_of(module: str) -> str:
    """The help of the flags that a command defines, and of --config, which another module defines."""
    own = flags.FLAGS.get_key_flags_for_module(sys.modules[module])
    config = [flags.FLAGS[config_file.FLAG]] if config_file.FLAG in flags.FLAGS else []
    return "".join(f"\n{_help_on(flag)}" for flag in (*config, *own) if flag.name != "help")


def _help_on(flag: flags.Flag) -> str:
    """The name of a flag, its values if it has few, what it does, and its default."""
    values = "|".join(getattr(flag.parser, "enum_values", None) or ())
    name = f"  --{flag.name}={values}: " if values else f"  --{flag.name}: "
    text = flag.help.removeprefix(f"<{values}>: ")  # absl's own way to show them
    if flag.default not in (None, "") and flag.default is not False and "Default" not in text:
        shown = flag.default if isinstance(flag.default, list | tuple) else [flag.default]
        text += f" Default: {', '.join(map(str, shown))}."
    return textwrap.fill(name + text, width=100, subsequent_indent=6 * " ", break_on_hyphens=False)


def check_local(module: str, remote: Collection[str]) -> None:
    """Raises a UserError if the value of a flag is an address; those of flags `remote` may be in an object store."""
    for flag in flags.FLAGS.get_key_flags_for_module(sys.modules[module]):
        for value in flag.value if isinstance(flag.value, list) else [flag.value]:
            # `is_remote` refuses other addresses, which a Path would take for folders.
            if isinstance(value, str) and paths.is_remote(value) and flag.name not in remote:
                paths.check_local(value, what=f"--{flag.name}")


def _guarded(
    main: Callable[..., None], words: Sequence[str], files: Sequence[str] | None, *, check: Callable[[], None]
) -> None:
    logging.set_verbosity(logging.FATAL)  # orbax logs every save at length, and failed ones before our message
    sys.unraisablehook = _without_echoes
    try:
        if files is not None and len(words) != len(files):
            wanted = f"takes the arguments {' '.join(files)}" if files else "takes only flags, which start with --"
            raise UserError(f"this command {wanted}, but was given {' '.join(words) or 'none'}; see --help")
        check()
        joining.join_cluster()
        main(*map(Path, words))
        sys.stdout.flush()  # raises BrokenPipeError here if the reader has gone; Python's own flush comes too late
        meeting.leave()
    except UserError as error:
        _end(f"error: {error}", 1)
    except Stopped as stopped:
        meeting.leave()
        stopping.end(str(stopped), stopped.status)
    except KeyboardInterrupt:  # raised by a library that handles Ctrl-C itself
        stopping.end(stopping.line_of(signal.SIGINT), 128 + signal.SIGINT)
    except jax.errors.JaxRuntimeError as error:
        if devices.is_out_of_memory(error):
            _end("error: the devices have too little memory; lower scoring.batch_size, or --batch_size", 1)
        if jax.process_count() == 1:
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        _end(f"error: the processes of this run lost contact ({reason}); start the same command on all hosts", 1)
    except BrokenPipeError:  # the reader of the output has gone, as in `| head`
        os._exit(stopping.EXIT_UNREAD)
    except OSError as error:  # of a path that no other check has caught
        if error.filename is None and error.errno in OF_DISK:
            _end(f"error: {error.strerror}; free some space or check the disk, and start the same command again", 1)
        if error.filename is None:
            raise
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
        _end(f"error: {named}: {error.strerror}; give another path, or fix this one", 1)


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags with absl; prints errors in them, and in the config they name, as one line."""
    try:
        return flags.FLAGS(config_file.with_default(arguments))
    except BrokenPipeError:  # an OSError; --help prints here
        raise
    except (UserError, flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _end(f"error: {config_file.readable(error)}", 1)


def _without_echoes(unraisable: "sys.UnraisableHookArgs") -> None:
    """Drops an error that tensorstore's threads report hundreds of times after a failed write."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _end(line: str, status: int) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    meeting.leave(failed=True)
    # The other hosts' barriers may still wait for this process: it must not wait for them.
    sys.stdout.flush()
    os._exit(status)


def train(config: ConfigDict, workdir: Path, *, profiled: range = range(0)) -> None:
    """Opens the data that a config names, builds its run, and trains it to the end, resuming from a checkpoint.

    Args:
      config: see configs/base.py.
      workdir: folder of the run, or its address in an object store; compiled programs are kept there too, unless JAX
        is told another place or `config.onednn` is on, and those of an address in its local copy.
      profiled: steps to record with JAX's profiler.
    """
    config_fields.check(config)
    with working_copy.of(workdir, process=jax.process_index()) as copy:
        _train(config, workdir if copy is None else copy.folder, profiled=profiled, copy=copy)


def _train(config: ConfigDict, workdir: Path, *, profiled: range, copy: WorkingCopy | None) -> None:
    train_loop.check_free(workdir)
    resuming.check_config(config, workdir)  # before data are prepared in vain
    if config.init_from and stored.newest(workdir) is None:
        starting_weights.check_exists(Path(config.init_from))
    source, pairs, test_sets = open_training_set(config.data), open_pairs(config), open_scored_sets(config)
    mesh = devices.make_mesh()
    built = run.build(config, workdir, source=source, pairs=pairs, test_sets=test_sets, mesh=mesh)
    if idle := config_fields.changed_in_vain(config, config_file.defaults()):
        note = f"without effect in mode {config.mode} with the other fields of this config: {', '.join(idle)}"
        built = dataclasses.replace(built, notes=(note, *built.notes))
    if profiled and profiled.start >= built.total:
        raise UserError(f"--profile begins at step {profiled.start}, but the run ends after step {built.total - 1}")
    # XLA cannot write programs with oneDNN's kernels to a file (JAX 0.12).
    keeps = not devices.compiler_options(mesh, onednn=config.onednn)
    with programs_kept(workdir / "compiled") if keeps else contextlib.nullcontext():
        train_loop.train(built, profiled=profiled, copy=copy)


@contextlib.contextmanager
def programs_kept(folder: Path) -> Iterator[None]:
    """Inside, compiled programs are kept in a folder and read from it, unless JAX has another one already."""
    if jax.config.jax_compilation_cache_dir:
        yield
        return
    try:
        _keep_programs(folder)
        yield
    finally:
        _keep_programs(None)


def _keep_programs(folder: Path | None) -> None:
    compilation_cache.reset_cache()  # it reads the place once, at the first compilation
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder.absolute()))


def open_training_set(data: ConfigDict) -> Source:
    """Opens the training sets that `data.train` names, joined to one source."""
    return JoinedSource.of([_open(name, "train", data) for name in names(data.train, field="data.train")])


def open_test_sets(data: ConfigDict, *, same_camera: str = "remove") -> list[RetrievalSet]:
    """Opens the test sets that `data.test` names, or by default query and gallery of the training sets."""
    import tfds_builders  # here, since it takes 0.4 s and many commands open no prepared set

    listed = names(data.test or data.train, field="data.test")
    chosen = [one for name in listed for one in tfds_builders.all_variants(name)]
    found = []
    for name in chosen:
        query, gallery = _open(name, "query", data), _open(name, "gallery", data)
        found.append(RetrievalSet(query.name, query, gallery, same_camera))
    return found


def open_scored_sets(config: ConfigDict) -> list[RetrievalSet] | list[Source]:
    """Opens what a run is scored on: its test sets, or held-out pairs for a texture generator."""
    return open_scored(config.data, mode=config.mode, same_camera=config.scoring.same_camera)


def open_scored(data: ConfigDict, *, mode: str, same_camera: str = "remove") -> list[RetrievalSet] | list[Source]:
    """Opens what a model of this mode is scored on, by the names in `data.test`, or by default in `data.train`."""
    if train_step.learns_people(mode):
        return open_test_sets(data, same_camera=same_camera)
    return [_open(name, "test", data) for name in names(data.test or data.train, field="data.test")]


def open_pairs(config: ConfigDict) -> Source | None:
    """Opens the pairs that `data.pit` names, joined to one source; None if `batch.pit_pictures` is 0."""
    if not config.batch.pit_pictures:
        return None
    return JoinedSource.of([_open(name, "train", config.data) for name in names(config.data.pit, field="data.pit")])


def names(listed: str, *, field: str) -> list[str]:
    """Splits comma-separated names of data sets; a UserError names the field if there are none or one comes twice."""
    found = [name.strip() for name in listed.split(",") if name.strip()]
    if not found:
        raise UserError(f"{field} names no data set; give one, such as cuhk03/labeled")
    if twice := [name for name in found if found.count(name) > 1]:
        raise UserError(f"{field} names {twice[0]} twice; name each data set once")
    return found


def _open(name: str, split: str, data: ConfigDict) -> Source:
    return open_source(name, split, data_dir=data.data_dir, manual_dir=data.manual_dir, pattern=data.pattern)


def open_source(name: str, split: str, *, data_dir: str, manual_dir: str, pattern: str = "") -> Source:
    """As `tfds_builders.open_source`; with several processes, the first prepares missing data while the others wait.

    If they do not share `data_dir`, the first process of each machine then prepares its own copy.
    """
    import tfds_builders

    places = dict(data_dir=data_dir, manual_dir=manual_dir, pattern=pattern)
    if jax.distributed.is_initialized():
        _prepare_by_first(name, **places)
    with stopping.unwinding():
        return tfds_builders.open_source(name, split, **places)


def _prepare_by_first(name: str, **places: Path | str) -> None:
    import tfds_builders

    problem = None
    if jax.process_index() == 0:
        try:
            with stopping.unwinding():  # so that a partly prepared set is removed
                tfds_builders.prepare(name, **places)
        except UserError as error:
            problem = error
    failed = bool(multihost_utils.broadcast_one_to_all(np.array(problem is not None)))
    if problem:
        raise problem
    if failed:
        raise UserError(f"the first process could not prepare {name}; its message says why")
