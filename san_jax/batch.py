"""The words of the data: what a record and a batch hold, in which types and shapes, and the order of a batch's rows."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, TypedDict, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, Int32, UInt8


class Record(TypedDict):
    """One picture of a re-ID set as the builders store it."""

    image: bytes  # an encoded picture (PNG or JPEG), RGB, any size
    texture: bytes  # the encoded texture image of the person; empty where the set has none
    pid: int  # identity; builders may give any whole number or word (tfds_builders/record.py), sources give an int32
    camid: int  # camera, likewise
    name: str  # the picture's stem, unique in its split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """What one training step eats. Rows: K pictures of a person side by side, P people; (picture, texture) pairs last.

    Attributes:
      image: pictures as the workers hand them over, 9/8 of the network's height and width (room for the crop).
      texture: texture images, as high and as wide as the network's pictures are high; None where nothing is drawn.
      pid: training labels, 0 .. N-1 in the order of the source's pids, of the P x K rows of people; the rows of pairs
        behind them have none.
    """

    image: UInt8[Array, "B H W 3"]
    texture: UInt8[Array, "B S S 3"] | None
    pid: Int[Array, "PK"]


@runtime_checkable
class Source(Protocol):
    """Random access to the records of one split; picklable, for worker processes. The builders' sources are such."""

    name: str  # as people write it, "cuhk03/labeled"
    pids: Int32[np.ndarray, "n"]
    camids: Int32[np.ndarray, "n"]
    names: Sequence[str]
    has_textures: bool  # whether every record's `texture` holds a picture

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Record: ...
