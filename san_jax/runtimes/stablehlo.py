"""Networks as a serialised program of `jax.export`, which needs JAX alone, and how JAX runs it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, PyTree, Shaped

from san_jax.data import augmentation
from san_jax.model import as_pixels
from san_jax.runtimes.interface import BATCH, FEATS, TEXTURES, Interface

PLATFORMS = ("cpu", "cuda", "tpu")


def content(interface: Interface, weights: Mapping[str, PyTree]) -> bytes:
    """The file: the networks with running statistics as one function, for batches of any size on three platforms.

    Args:
      interface: inputs and outputs.
      weights: NumPy arrays, as of a `Model`; they become constants of the program.
    """
    size = dict(height=interface.architecture.height, width=interface.architecture.width)
    (batch,) = export.symbolic_shape(BATCH)
    images = jax.ShapeDtypeStruct(interface.shape(**size, batch=batch), interface.dtype)
    return bytes(export.export(jax.jit(function(interface, weights)), platforms=PLATFORMS)(images).serialize())


def function(interface: Interface, weights: Mapping[str, PyTree]) -> Callable[[Array], dict[str, Array]]:
    """The networks as a function from pictures to outputs by name."""
    architecture, weights = interface.architecture, jax.tree.map(jnp.asarray, dict(weights))

    def outputs(images: Array) -> dict[str, Array]:
        x = augmentation.normalise(images) if interface.takes_pixels else jnp.transpose(images, (0, 2, 3, 1))
        encoder = architecture.encoder(weights["encoder"], weights["encoder_stats"])
        encoder.eval()
        encoded = encoder(x)
        found = {FEATS: encoded.feats} if interface.feats else {}
        if interface.textures:
            decoder = architecture.decoder(weights["decoder"], weights["decoder_stats"])
            decoder.eval()
            drawn = decoder(encoded.stages).texture
            found[TEXTURES] = as_pixels(drawn) if interface.takes_pixels else jnp.transpose(drawn, (0, 3, 1, 2))
        return found

    return outputs


def runner(path: Path) -> Callable[[Shaped[np.ndarray, "B _ _ _"]], dict[str, np.ndarray]]:
    """The file as JAX runs it, read anew: from pictures to outputs by name."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: jax.device_get(call(images))
