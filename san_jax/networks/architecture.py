"""Architecture of encoder and decoder as plain numbers: stored in every checkpoint; builds the networks."""

import dataclasses
import functools
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from san_jax.errors import UserError
from san_jax.networks.decoder import Decoder, check_sizes
from san_jax.networks.encoder import Encoder, stage_channels

MODES = ("san", "baseline", "san_pg")  # the losses that networks are trained with; configs/base.py says which
SMALLEST = 8  # pixels of a picture's height or width


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes and options of the networks; fields as in configs/base.py, plus `num_pids`, the training identities.

    Fields with a default were added later: older checkpoints lack them.
    """

    depth: int
    fc_dim: int
    last_stride: int
    encoder_width: float
    num_pids: int
    decoder_width: float
    skips: bool
    height: int
    width: int
    neck: str = "none"
    stem: str = "torchvision"
    min_channels: int = 1
    coarse: int = 0

    def new_encoder(self, rngs: nnx.Rngs, compute_dtype: str = "float32") -> Encoder:
        """An encoder with fresh parameters that computes as `compute_dtype` says."""
        return Encoder(
            depth=self.depth,
            num_pids=self.num_pids,
            fc_dim=self.fc_dim,
            last_stride=self.last_stride,
            width=self.encoder_width,
            neck=self.neck,
            stem=self.stem,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )

    def new_decoder(self, rngs: nnx.Rngs, compute_dtype: str = "float32") -> Decoder:
        """A decoder with fresh parameters that computes as `compute_dtype` says, for the stages of `new_encoder`."""
        channels = stage_channels(self.depth, self.encoder_width)
        return Decoder(
            encoder_channels=channels,
            width=self.decoder_width,
            min_channels=self.min_channels,
            skips=self.skips,
            coarse=self.coarse,
            compute_dtype=compute_dtype,
            rngs=rngs,
        )

    def encoder(self, params: PyTree, stats: PyTree, compute_dtype: str = "float32") -> Encoder:
        """The encoder with these parameters and running statistics, in training mode."""
        return self._network("encoder", params, stats, compute_dtype)

    def decoder(self, params: PyTree, stats: PyTree, compute_dtype: str = "float32") -> Decoder:
        """The decoder with these parameters and running statistics, in training mode."""
        return self._network("decoder", params, stats, compute_dtype)

    def _network(self, part: str, params: PyTree, stats: PyTree, compute_dtype: str) -> Any:
        graph, *_ = structure(self, part, compute_dtype)
        # Without the copy BatchNorm cannot write its statistics inside a trace.
        return nnx.merge(graph, params, stats, copy=True)

    def shapes(self, *, draws: bool) -> dict[str, PyTree]:
        """Shapes of the weights by TrainState's fields: `encoder`, `encoder_stats` and, if `draws`, the decoder's."""
        fields = {}
        for part in ("encoder", "decoder") if draws else ("encoder",):
            _, params, stats = structure(self, part, "float32")
            # Containers of the caller's own: the cached ones must stay as they are.
            fields |= jax.tree.map(lambda leaf: leaf, {part: params, f"{part}_stats": stats})
        return fields

    def feats(
        self, encoder: PyTree, stats: PyTree, images: Float[Array, "B H W 3"], compute_dtype: str = "float32"
    ) -> Float[Array, "B D"]:
        """Re-ID features of normalised pictures, from an encoder's parameters and running statistics."""
        model = self.encoder(encoder, stats, compute_dtype)
        model.eval()
        return model(images).feats

    def digest(self, weights: PyTree) -> str:
        """SHA-256 of the architecture and these weights, in hexadecimal."""
        found = hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())
        for leaf in jax.tree.leaves(weights):
            found.update(np.ascontiguousarray(leaf))
        return found.hexdigest()

    def check(self, *, draws: bool) -> None:
        """Raises a UserError that names the field if no such network exists or the decoder does not fit the encoder."""
        for field in ("height", "width"):
            if not isinstance(pixels := getattr(self, field), int) or pixels < SMALLEST:
                raise UserError(f"{field} is {pixels!r}; give {SMALLEST} pixels or more")

        def pass_through(params, stats, images):
            encoder = self.encoder(params, stats)
            encoder.eval()  # tracing the statistics of a hundred layers takes seconds
            stages = encoder(images).stages
            if draws:
                check_sizes(stages)

        images = jax.ShapeDtypeStruct((2, self.height, self.width, 3), jnp.float32)
        jax.eval_shape(pass_through, *self.shapes(draws=False).values(), images)


@functools.lru_cache(maxsize=32)  # tracing the initializers takes long, and every program needs the structure
def structure(architecture: Architecture, part: str, compute_dtype: str) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """The graph of the "encoder" or "decoder", and the shapes of its parameters and running statistics."""
    new = architecture.new_encoder if part == "encoder" else architecture.new_decoder
    network = nnx.eval_shape(lambda: new(nnx.Rngs(0), compute_dtype))
    graph, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
    return graph, *arrays_of(network)


def check_same(found: Architecture, wanted: Architecture, *, where: str) -> None:
    """Raises a UserError that names the fields in which a checkpoint differs from a run's config."""
    differ = [
        f"{field.name} {getattr(found, field.name)} (this run: {getattr(wanted, field.name)})"
        for field in dataclasses.fields(Architecture)
        if getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if differ:
        raise UserError(f"{where} holds another network: {', '.join(differ)}; give another --workdir or its config")


def arrays_of(model: nnx.Module) -> tuple[PyTree, PyTree]:
    """Parameters and running statistics of a model as nested dictionaries."""
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
