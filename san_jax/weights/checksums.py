"""Checksums of the arrays of a checkpoint: orbax's format does not notice flipped or erased bits."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree, Shaped

from san_jax.errors import UserError

CHECKSUMS = "checksums"  # the item of a checkpoint; older ones lack it
DESCRIPTION = ""  # the name of the description's checksum among those of the arrays


def of_arrays(state: Mapping[str, PyTree]) -> dict[str, int]:
    """CRC-32 of every array, by its dotted path; copies each array to the host, one after the other."""
    found = jax.tree_util.tree_leaves_with_path(dict(state))
    return {jax.tree_util.keystr(path, simple=True, separator="."): crc32(np.asarray(leaf)) for path, leaf in found}


def of_description(about: Mapping) -> int:
    """CRC-32 of a description, which is stored as JSON."""
    return zlib.crc32(json.dumps(dict(about), sort_keys=True).encode())


def crc32(array: Shaped[np.ndarray, "..."]) -> int:
    """CRC-32 of the values of an array of any dtype."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def read(checkpoint: Path) -> dict[str, int]:
    """The checksums of a checkpoint; none if it was written before there were any.

    Raises:
      Exception: of orbax or json, if they are damaged.
    """
    place = checkpoint / CHECKSUMS
    if not place.exists():
        return {}
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return dict(reader.restore(place.resolve()))


def check(checkpoint: Path, found: Mapping[str, int]) -> None:
    """Raises a UserError that names the first of some checksums that is not that of the checkpoint."""
    stored = read(checkpoint)
    for name, value in found.items():
        if name in stored and stored[name] != value:
            what = f"the array {name}" if name else "its description"
            raise UserError(
                f"{checkpoint} is damaged: {what} is not what was saved; give another checkpoint, such as the run's "
                "best, and check the disk"
            )
