"""A small release and small runs of `train.py` on it, made once for all tests, whichever test process comes first."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import commands
import jax
import numpy as np
import orbax.checkpoint as ocp
from array_source import ArraySource
from cuhk03_release import write_release
from runs import SMALL_RUN

from san_jax.training import checkpoints
from san_jax.weights import stored


def shared_folder(tmp_path_factory) -> Path:
    """The temporary folder that all test processes share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled, in this process or in another one, for which this one waits."""
    done = folder.with_suffix(".done")
    with locked(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@contextlib.contextmanager
def locked(path: Path):
    """Holds the lock of a file."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_release_with_pairs(folder: Path) -> None:
    """Writes a release of CUHK03 with PIT pairs."""
    write_release(folder / "release")
    pairs = ArraySource(np.repeat(np.arange(40), 2), name="test/pairs")
    for field in ("image", "texture"):
        (folder / "release" / "pit" / f"{field}s").mkdir(parents=True)
        for row, name in enumerate(pairs.names):
            (folder / "release" / "pit" / f"{field}s" / f"{name}.png").write_bytes(pairs[row][field])


def train_command(workdir: Path, fields: dict, config: str) -> list[str]:
    """`train.py` with its arguments for a small run with a config and these fields; a baseline has one phase."""
    small = SMALL_RUN | ({"schedule.warmup_epochs": 0} if "baseline" in config else {})
    overrides = [f"--config.{name}={value}" for name, value in (small | fields).items()]
    return ["train.py", f"--config={config}", f"--workdir={workdir}", *overrides]


def finished_run(folder: Path, fields: dict, config: str) -> tuple[Path, str]:
    """Workdir and output (with that to stderr) of an uninterrupted small run in a folder, trained once."""

    def train(folder):
        command = train_command(folder / "run", fields, config)
        status, output = commands.Running(*command, together=True).finish()
        assert status == 0, output
        (folder / "output").write_text(output)

    made_once(folder, train)
    return folder / "run", (folder / "output").read_text()


def arrays_in(workdir: Path) -> tuple[int, dict]:
    """Step and arrays of the newest checkpoint, by however many devices it was written."""
    newest = stored.newest(workdir)
    place = (newest / checkpoints.STATE).resolve()
    with ocp.PyTreeCheckpointer() as reader:
        found = reader.metadata(place)
        found = getattr(found, "item_metadata", found)
        tree = getattr(found, "tree", found)
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return int(newest.name), reader.restore(place, restore_args=arguments)


def assert_same_bits(one: Path, other: Path) -> None:
    """Whether two runs have ended at the same step with the same bits."""
    (step, state), (other_step, other_state) = arrays_in(one), arrays_in(other)
    assert step == other_step
    leaves, other_leaves = (jax.tree_util.tree_leaves_with_path(tree) for tree in (state, other_state))
    assert len(leaves) == len(other_leaves) > 50
    for (path, leaf), (_, other_leaf) in zip(leaves, other_leaves, strict=True):
        np.testing.assert_array_equal(leaf, other_leaf, err_msg=jax.tree_util.keystr(path))
