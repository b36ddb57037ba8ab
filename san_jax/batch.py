"""Records and batches: their fields, dtypes and shapes, and the order of the rows of a batch."""

import dataclasses
from collections.abc import Sequence
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, Int32, UInt8


class Record(TypedDict):
    """One picture of a re-ID set. The builders store encoded pictures; sources in memory may have arrays."""

    image: bytes | np.ndarray  # a picture of any size: encoded (PNG or JPEG), or RGB, uint8 [h w 3]
    texture: bytes | np.ndarray  # the texture image of the person, as `image`; empty bytes if the set has none
    pid: int  # identity; builders may give any integer or string (tfds_builders/record.py), sources give an int32
    camid: int  # camera; types as of `pid`
    visible: NotRequired[bytes | np.ndarray]  # which texels the picture shows, white on black; empty if unknown
    name: str  # stem of the picture's file name, unique in its split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Input of one training step. Rows: P identities, each with K adjacent pictures; (picture, texture) pairs last.

    Attributes:
      image: pictures as they are decoded, to 9/8 of the network's height and width, to leave room for the crop.
      texture: texture images, whose height and width S are the height of the network's input; None if there is no
        decoder to train.
      pid: training labels, 0 .. N-1 in the order of the source's pids, of the P x K rows of identities; the rows of
        pairs behind them have none.
    """

    image: UInt8[Array, "B H W 3"]
    texture: UInt8[Array, "B S S 3"] | None
    pid: Int[Array, "PK"]


@runtime_checkable
class Source(Protocol):
    """Random access to the records of one split, by several threads at once. The builders return such sources."""

    name: str  # as users write it, "cuhk03/labeled"
    pids: Int32[np.ndarray, "n"]
    people: Sequence[str]  # each identity, in the order of the pids, as WORLD/PID; see `ReidBuilder.world`
    camids: Int32[np.ndarray, "n"]
    names: Sequence[str]
    has_textures: bool  # whether every record's `texture` holds a picture
    digest: str  # changes with the pictures, so that decoded ones can be kept; "" = they are decoded at every start

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Record: ...
