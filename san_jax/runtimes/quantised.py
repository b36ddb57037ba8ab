"""ONNX networks in int8, calibrated on pictures by onnxruntime's static quantiser."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from san_jax.runtimes import onnx_graph
from san_jax.runtimes.interface import IMAGES, Interface

# Convolutions and the sums of the residual blocks; pooling and linear layers cost little, and more accuracy.
KINDS = ("Conv", "Add")


def content(whole: bytes, interface: Interface, pictures: UInt8[np.ndarray, "n H W 3"]) -> bytes:
    """A float32 file with its convolutions in int8, as pairs of QuantizeLinear and DequantizeLinear (QDQ).

    Args:
      whole: the float32 file.
      interface: its inputs and outputs.
      pictures: they decide the ranges of the maps; from some dozens on, of the kind that the network will see.

    Raises:
      UserError: onnxruntime is not installed.
    """
    quantization = onnx_graph.library("onnxruntime.quantization")
    fed = interface.fed(pictures)
    with tempfile.TemporaryDirectory() as folder, _silent():
        source, target = Path(folder, "whole.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(whole)
        quantization.quantize_static(
            str(source),
            str(target),
            _Reader(fed),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=["input.normalised"] if interface.takes_pixels else [],
        )
        return target.read_bytes()


class _Reader:
    """Batches of one picture, as onnxruntime's calibration asks for them."""

    def __init__(self, fed: Shaped[np.ndarray, "n _ _ _"]):
        self._batches = iter(np.split(fed, len(fed)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        return next(({IMAGES: batch} for batch in self._batches), None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the quantiser's advice to preprocess, which is no use for a graph without BatchNorm."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
