"""Writes the files of a case for `exported_san.py`: started by `runtimes.py`, whose own process must stay small.

Peak memory of a process is at least that of its parent, which therefore imports no JAX.
"""

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import case as cases
from benchmarks import jax_san
from benchmarks.case import Case
from san_jax.runtimes import checks, onnx_file, quantised
from san_jax.runtimes.interface import Interface


def describe() -> dict[str, Any]:
    """Version of onnx."""
    return {"versions": {"onnx": metadata.version("onnx")}}


def write(case: Case) -> dict[str, Any]:
    """Writes float32.onnx and int8.onnx of a network with the weights of `jax_san`, for uint8 pictures."""
    folder = Path(os.environ["EXPORTS"])
    encoder, stats = jax.tree.map(np.asarray, jax.jit(lambda: jax_san.new_encoder(case))())
    weights = {"encoder": encoder, "encoder_stats": stats}
    interface = Interface(jax_san.architecture_of(case), "uint8_nhwc", feats=True, textures=False)
    whole = onnx_file.content(interface, weights, half=False, what="float32.onnx")
    shown = checks.pictures(height=case.height, width=case.width)
    for name, content in (("float32", whole), ("int8", quantised.content(whole, interface, shown))):
        (folder / f"{name}.onnx").write_bytes(content)
    return {}


if __name__ == "__main__":
    cases.answer(describe=describe, measure=write)
