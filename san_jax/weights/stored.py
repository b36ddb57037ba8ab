"""Finds checkpoints, and reads their architecture, mode and weights."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from san_jax import devices
from san_jax.errors import UserError
from san_jax.networks.architecture import MODES, Architecture
from san_jax.weights import checksums, pretrained

STATE = "state"  # the item with TrainState's fields
MODE = "mode"  # beside the architecture's fields in ABOUT; older checkpoints lack it
PEOPLE = "people"  # there, too: what the outputs of the classifier stand for, as in `Source.people`; may be missing
ABOUT = "about"  # the item that describes the networks, so that they can be read without their config
# The file of orbax in every checkpoint, which is sent last to an object store: a checkpoint without it is unfinished.
LAST = "_CHECKPOINT_METADATA"
OF_STEP = re.compile(r"(?:(checkpoints|best)/)?(\d+)/")  # begins the names of a checkpoint's files in a workdir
# What else is read of a run; and the files of a checkpoint whose own folder is given.
ITEMS = "|".join((STATE, ABOUT, "metrics", checksums.CHECKSUMS))
BESIDE = re.compile(rf"config\.json|events/.*|({ITEMS})/.*|commit_success\.txt|{LAST}")


def newest(workdir: Path, *, best: bool = False) -> Path | None:
    """The folder of a run's newest checkpoint, or of its best; None if there is none."""
    return _highest_step(workdir / ("best" if best else "checkpoints"))


def _highest_step(folder: Path) -> Path | None:
    if not os.path.isdir(folder):  # False, where Path's own methods raise, for what cannot be a path
        return None
    steps = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit() and (entry / STATE).is_dir()]
    return folder / str(max(steps)) if steps else None


def wanted(names: Iterable[str], *, best: bool = False, everything: bool = False) -> list[str]:
    """The files to copy from an object store so that a run, a checkpoint or a file of weights can be read.

    Args:
      names: of all files, beginning in the folder that is given, as `remote.listing` returns them.
      best: the best checkpoint in place of the newest.
      everything: both checkpoints.

    Returns:
      The files of the newest or best finished checkpoint, and the small ones beside it that are read.
    """
    names = list(names)
    kinds = ("checkpoints", "best") if everything else ("best",) if best else ("checkpoints", None)
    newest = {}
    for name in names:
        step = OF_STEP.match(name)
        if step and step[1] in kinds and name == step[0] + LAST:
            newest[step[1]] = max(newest.get(step[1], 0), int(step[2]))
    found = {name: OF_STEP.match(name) for name in names}
    return [
        name
        for name, step in found.items()
        if (newest.get(step[1]) == int(step[2]) if step else not name or BESIDE.fullmatch(name))
    ]


def check_name(path: Path) -> None:
    """Raises a UserError if orbax can neither write nor read there, since the path, made absolute, is no UTF-8."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the path {path} is no UTF-8, and checkpoints need one that is; rename the folder") from error


def find(path: Path, *, best: bool = False) -> Path:
    """The checkpoint of a path: a run's workdir, its folder of checkpoints, or one checkpoint's own folder.

    Raises:
      UserError: there is none, or the best is asked for and the path is not a workdir.
    """
    check_name(path)
    if best:
        if (found := newest(path, best=True)) is None:
            raise UserError(f"{path} holds no best checkpoint; that needs the workdir of a run that was scored")
        return found
    found = path if os.path.isdir(path / STATE) else newest(path) or _highest_step(path)
    if found is None:
        meant = pretrained.nearest(path)
        hint = f"; did you mean {meant}, which comes with the package?" if meant else ""
        raise UserError(f"{path} holds no checkpoint; give the workdir of a run, or one of its checkpoints{hint}")
    return found


class About(NamedTuple):
    """What a checkpoint says of its networks.

    Attributes:
      architecture: of the networks.
      mode: their mode.
      people: what the outputs of the classifier stand for, as in `Source.people`; None if it does not say.
    """

    architecture: Architecture
    mode: str
    people: list[str] | None


def read_architecture(checkpoint: Path) -> Architecture:
    """The architecture of a checkpoint's networks."""
    return read_about(checkpoint).architecture


def read_about(checkpoint: Path) -> About:
    """What a checkpoint says of its networks; raises a UserError if it cannot be read."""
    with unreadable_as_user_error(checkpoint), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        about = dict(reader.restore((checkpoint / ABOUT).resolve()))
        checksums.check(checkpoint, {checksums.DESCRIPTION: checksums.of_description(about)})
        mode, people = about.pop(MODE, None), about.pop(PEOPLE, None)
        if mode not in (None, *MODES):
            raise ValueError(f"mode {mode!r}")
        architecture = Architecture(**about)
    return About(architecture, mode or mode_by_state(checkpoint), people)


def mode_by_state(checkpoint: Path) -> str:
    """The mode of a checkpoint that does not store it (the first layout did not), inferred from the parts of its state.

    Imported weights, which have no optimizer, count as san with a decoder and as baseline without.
    """
    found = shapes(checkpoint)
    if not found.get("decoder"):
        return "baseline"
    return "san" if found.get("reid_opt") or not found.get("recon_opt") else "san_pg"


def restore_parts(checkpoint: Path, like: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Reads the fields of a checkpoint's TrainState that `like` names, in its shapes and shardings; nothing else.

    Raises:
      UserError: it cannot be read, or an array is not what was saved.
    """
    like = dict(like)
    args = ocp.args.PyTreeRestore(
        item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
    )
    with unreadable_as_user_error(checkpoint), ocp.PyTreeCheckpointer() as reader:
        parts = reader.restore((checkpoint / STATE).resolve(), args=args)
        checksums.check(checkpoint, checksums.of_arrays(parts))
        return parts


def restore_networks(
    checkpoint: Path, sharding: jax.sharding.Sharding, *, draws: bool
) -> tuple[dict[str, PyTree], int]:
    """Reads parameters and running statistics of a checkpoint's networks, and the step; nothing else.

    Args:
      checkpoint: its folder.
      sharding: of the arrays.
      draws: whether to read the decoder too.

    Returns:
      The fields of its TrainState from `encoder` to `decoder_stats`, or to `encoder_stats`; and the updates made.

    Raises:
      UserError: it cannot be read, has no decoder although one is wanted, or holds numbers that are not finite.
    """
    architecture, mode, _ = read_about(checkpoint)
    if draws and mode == "baseline":
        raise UserError(f"{checkpoint} has no decoder, as a baseline has none; give one of a run in mode san or san_pg")
    like = architecture.shapes(draws=draws) | {"step": jax.ShapeDtypeStruct((), jnp.int32)}
    parts = restore_parts(checkpoint, devices.with_sharding(like, sharding))
    step = int(parts.pop("step"))
    check_finite(checkpoint, parts)
    return parts, step


def check_finite(checkpoint: Path, parts: Mapping[str, PyTree]) -> None:
    """Raises a UserError that names the first array of a checkpoint with NaN or infinite numbers."""
    for path, array in jax.tree_util.tree_leaves_with_path(dict(parts)):
        if not np.isfinite(array).all():
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise UserError(f"{checkpoint} holds NaN or infinite numbers in {name}; give an earlier checkpoint")


def shapes(checkpoint: Path) -> dict[str, PyTree]:
    """Shapes and dtypes of all arrays of a checkpoint, as nested dictionaries."""
    with unreadable_as_user_error(checkpoint), ocp.PyTreeCheckpointer() as reader:
        metadata = reader.metadata((checkpoint / STATE).resolve()).item_metadata
        if metadata is None:  # orbax only logs why
            raise ValueError(f"the list of arrays in {STATE} is missing or damaged")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), metadata.tree)


@contextlib.contextmanager
def unreadable_as_user_error(checkpoint: Path) -> Iterator[None]:
    """Turns the errors of reading a checkpoint that is damaged, or removed meanwhile, into a UserError.

    A training removes its last checkpoint when it has written the next, whoever may be reading it.
    """
    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError):  # the latter when the devices have too little memory
        raise
    except Exception as error:  # orbax raises bare Exceptions, too, for damaged arrays
        if not checkpoint.is_dir():
            raise UserError(f"{checkpoint} was removed while it was read; try again, if a training goes on") from error
        said = str(error).partition(" See full TensorStore details")[0].strip()
        reason = said.splitlines()[0][:200] if said else type(error).__name__
        raise UserError(f"{checkpoint} cannot be read as a checkpoint ({reason}); try another one") from error
