"""What goes into an exported network and what comes out."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from san_jax.data.augmentation import MEAN, STD
from san_jax.networks.architecture import Architecture

INPUTS = ("float_nchw", "uint8_nhwc")
IMAGES, FEATS, TEXTURES = "images", "feats", "textures"  # names of the input and the outputs
BATCH = "batch"  # name of the axis whose length is open


@dataclasses.dataclass(frozen=True)
class Interface:
    """Inputs and outputs of an exported network.

    Attributes:
      architecture: of the networks.
      input: "float_nchw": pictures normalised as the networks take them, float32 [batch 3 H W]. "uint8_nhwc": RGB
        pictures as they are, uint8 [batch H W 3].
      feats: whether there are features, float32 [batch D].
      textures: whether there are textures: of the first input float32 [batch 3 S S], in [-1, 1] but for errors of the
        network; of the second uint8 [batch S S 3], as `Model.textures` returns them. S is H.
    """

    architecture: Architecture
    input: str
    feats: bool
    textures: bool

    @property
    def takes_pixels(self) -> bool:
        """Whether pictures are taken and returned as uint8."""
        return self.input == "uint8_nhwc"

    def shape(self, *, height: int, width: int, batch: Any = BATCH) -> tuple[Any, ...]:
        """The shape of pictures or textures of this size; `batch` is the length of the first axis."""
        return (batch, height, width, 3) if self.takes_pixels else (batch, 3, height, width)

    @property
    def dtype(self) -> type[np.generic]:
        """The dtype of pictures and textures."""
        return np.uint8 if self.takes_pixels else np.float32

    def fed(self, pictures: UInt8[np.ndarray, "B H W 3"]) -> Shaped[np.ndarray, "B _ _ _"]:
        """Pictures as they are fed to the exported network; as users do it, without JAX."""
        return pictures if self.takes_pixels else normalised_nchw(pictures)

    def notes(self) -> dict[str, str]:
        """What a file tells about its input, as texts by name."""
        values = "RGB from 0 to 255" if self.takes_pixels else f"RGB, (pixel / 255 - {list(MEAN)}) / {list(STD)}"
        size = f"{self.architecture.height} x {self.architecture.width} (height x width)"
        return {"input": self.input, "size": size, "values": values}


def normalised_nchw(pictures: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B 3 H W"]:
    """Pictures normalised as the networks take them, channels first."""
    mean, std = (np.array(of_channels, np.float32)[None, None, None] for of_channels in (MEAN, STD))
    return np.ascontiguousarray(((pictures.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))
