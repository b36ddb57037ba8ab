"""Networks as an ONNX file in float32 or float16, and how onnxruntime runs it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import PyTree, Shaped

from san_jax.runtimes import onnx_graph, onnx_networks
from san_jax.runtimes.interface import BATCH, FEATS, IMAGES, TEXTURES, Interface

Run = Callable[[Shaped[np.ndarray, "B _ _ _"]], dict[str, np.ndarray]]


def content(interface: Interface, weights: Mapping[str, PyTree], *, half: bool, what: str) -> bytes:
    """The file: the networks with running statistics, BatchNorm folded in float64 before values are rounded.

    Args:
      interface: inputs and outputs.
      weights: float32 NumPy arrays, as of a `Model`.
      half: whether weights and maps are float16; inputs, outputs, pooling and the layers of the features are float32.
      what: the file, for messages.

    Raises:
      UserError: onnx is not installed, an option of the networks cannot be exported (it is named), or the file would
        be too large.
    """
    architecture, graph = interface.architecture, onnx_graph.Graph()
    onnx_networks.check(architecture)
    encoder = architecture.encoder(weights["encoder"], weights["encoder_stats"])
    x = onnx_networks.normalised(graph, IMAGES) if interface.takes_pixels else IMAGES
    x = graph.to(np.float16, x, name="input.half") if half else x
    stages = onnx_networks.encoder_stages(graph, encoder, x)
    if interface.feats:
        feats = onnx_networks.features(graph, encoder, stages[3])
        length = encoder.classifier.kernel[...].shape[0]
        graph.output(feats, name=FEATS, dtype=np.float32, shape=(BATCH, length))
    if interface.textures:
        decoder = architecture.decoder(weights["decoder"], weights["decoder_stats"])
        drawn = onnx_networks.textures(graph, decoder, stages, architecture)
        drawn = graph.to(np.float32, drawn, name="texture.float")
        drawn = onnx_networks.pixels(graph, drawn) if interface.takes_pixels else drawn
        side = architecture.height
        graph.output(drawn, name=TEXTURES, dtype=interface.dtype, shape=interface.shape(height=side, width=side))
    shape = interface.shape(height=architecture.height, width=architecture.width)
    return graph.model(name=IMAGES, dtype=interface.dtype, shape=shape, notes=interface.notes(), what=what)


def runner(path: Path) -> Run:
    """The file as onnxruntime runs it on CPUs: from pictures to outputs by name.

    Raises:
      UserError: onnxruntime is not installed, or cannot read the file.
    """
    session = onnx_graph.session(path)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {IMAGES: images}), strict=True))
