"""A trained network and everything that it can do: features and textures of pictures, on all devices."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float32, PyTree, UInt8
from PIL import Image

from san_jax import devices
from san_jax.data import augmentation, picture_batches
from san_jax.data.picture_batches import Picture
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.weights import loading, saving, stored

Weights = Mapping[str, PyTree]  # the fields of a TrainState from `encoder` to `decoder_stats`
ENCODER = ("encoder", "encoder_stats")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Encoder and, where there is one, decoder, with their weights on every device.

    Attributes:
      architecture: of the networks; gives the pictures' size too.
      mode: san, baseline or san_pg: what the networks were trained for.
      weights: `encoder` and `encoder_stats`; `decoder` and `decoder_stats` too where there is a decoder.
      mesh: the devices that share a batch.
      compute_dtype: float32 or bfloat16; features and textures are the same dtype either way.
      source: where the weights come from, for messages.
      step: updates made until then.
    """

    architecture: Architecture
    mode: str
    weights: Weights
    mesh: Mesh
    compute_dtype: str = "float32"
    source: str = "these weights"
    step: int = 0

    @property
    def num_feats(self) -> int:
        """Length of a feature."""
        return len(self.weights["encoder"]["classifier"]["kernel"])

    @property
    def draws(self) -> bool:
        """Whether there is a decoder."""
        return bool(self.weights.get("decoder"))

    def features(
        self, pictures: Sequence[Picture] | UInt8[np.ndarray, "n H W 3"], *, batch_size: int = 64, flip: bool = False
    ) -> Float32[np.ndarray, "n D"]:
        """Re-ID features by running statistics; compare them by `san_jax.search`.

        Args:
          pictures: an array, or a list of arrays, Pillow's pictures and paths, of any sizes; each shows one person.
          batch_size: pictures at once, over all devices; rounded up to a multiple of their number.
          flip: whether a feature is the mean over the picture and its mirror image.

        Raises:
          UserError: a picture cannot be read (it is named), or these networks have not learnt people.
        """
        self.check_learnt_people()
        parts = self._of_pictures(feats_of, pictures, batch_size=batch_size, flip=flip)
        return np.concatenate([np.empty((0, self.num_feats), np.float32), *parts])

    def textures(
        self, pictures: Sequence[Picture] | UInt8[np.ndarray, "n H W 3"], *, batch_size: int = 64
    ) -> UInt8[np.ndarray, "n S S 3"]:
        """The texture images that the decoder draws, as high and as wide as the network's pictures are high.

        Args:
          pictures: as of `features`.
          batch_size: as of `features`.

        Raises:
          UserError: a picture cannot be read (it is named), or there is no decoder.
        """
        self.check_draws()
        side = self.architecture.height
        parts = self._of_pictures(textures_of, pictures, batch_size=batch_size)
        return np.concatenate([np.empty((0, side, side, 3), np.uint8), *parts])

    def save(self, path: str | os.PathLike) -> int:
        """Writes one file with PyTorch's names and layouts, float32; `load` reads it without further words.

        Args:
          path: its suffix says which format: .safetensors, or .pth for `torch.load`.

        Returns:
          Size in bytes.

        Raises:
          UserError: the suffix means another format, or the file cannot be written.
        """
        options = dict(architecture=self.architecture, mode=self.mode, weights=self.weights)
        return saving.save_weights(Path(path), **options) if jax.process_index() == 0 else 0

    def check_learnt_people(self) -> None:
        """Raises a UserError if the features of these networks say nothing about people."""
        if self.mode == "san_pg":
            raise UserError(
                f"{self.source} is a texture generator, whose features have met no person; "
                "give a network of mode san or baseline"
            )

    def check_draws(self) -> None:
        """Raises a UserError if there is no decoder."""
        if not self.draws:
            raise UserError(
                f"{self.source} has no decoder, as a baseline has none; give a network of mode san or san_pg"
            )

    def digest(self, *fields: str) -> str:
        """SHA-256 of the architecture and some fields of the weights, in hexadecimal."""
        return self.architecture.digest({field: self.weights[field] for field in fields})

    def over(self, function: Callable, batches: Iterable[tuple], **options: Any) -> Iterator[PyTree]:
        """What a function makes of batch after batch, on the host.

        Results are fetched one batch late: the devices compute while the host prepares the next batch, and no queue
        grows.

        Args:
          function: function(weights, *batch, architecture=, compute_dtype=, **options); jitted, once for all models of
            one architecture, so it must be a function of a module.
          batches: arrays on the devices.
          options: hashable.
        """
        options |= dict(architecture=self.architecture, compute_dtype=self.compute_dtype)
        run = _jitted(function, self.mesh, tuple(sorted(options.items())))
        computed = (run(self.weights, *batch) for batch in batches)
        for result, _later in itertools.pairwise(itertools.chain(computed, [None])):
            yield jax.device_get(result)

    def _of_pictures(self, function, pictures, *, batch_size, **options):
        if isinstance(pictures, str | os.PathLike | Image.Image):
            raise UserError(f"pictures is one picture, {pictures}; give a list, where it may be alone")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size is {batch_size!r}; give a whole number from 1 on")
        readers = [picture_batches.reader(picture) for picture in pictures]
        size = dict(height=self.architecture.height, width=self.architecture.width, batch_size=batch_size)
        with ThreadPoolExecutor() as pool:
            batches = (
                (_whole(batch, pictures).images,)
                for batch in picture_batches.batches(readers, mesh=self.mesh, pool=pool, **size)
            )
            for start, result in zip(itertools.count(), self.over(function, batches, **options), strict=False):
                yield result[: len(readers) - start * len(result)]


def _whole(batch, pictures):
    """The batch; a UserError names the first of its pictures that cannot be read."""
    for row, why in sorted(batch.reasons.items()):
        named = pictures[row] if isinstance(pictures[row], str | os.PathLike) else f"picture {row}"
        raise UserError(f"cannot read {named}: {why}")
    return batch


@functools.lru_cache(maxsize=64)
def _jitted(function, mesh, options):
    return jax.jit(functools.partial(function, **dict(options)), out_shardings=devices.replicated(mesh))


def load(
    source: str | os.PathLike,
    *,
    best: bool = False,
    height: int | None = None,
    width: int | None = None,
    last_stride: int | None = None,
) -> Model:
    """The networks of a run, a checkpoint or a file of weights.

    Args:
      source: the workdir of a run, one of its checkpoints, a safetensors file, or a file of PyTorch's.
      best: the run's best checkpoint in place of its newest.
      height, width: of the pictures that the network sees, in pixels; by default what the source says, or 256 x 128.
      last_stride: of stage 4; by default what the source says, or what its layers suggest.

    Raises:
      UserError: there is nothing of that kind, or it cannot be read.
    """
    mesh, path = devices.make_mesh(), Path(source)
    given = {"height": height, "width": width, "last_stride": last_stride}
    if os.path.isfile(path):  # False, where Path's own method raises, for names that are too long
        if best:
            raise UserError(f"{path} is one file of weights, with no best among others; leave out best")
        loaded = loading.load_weights(path, **given)
        weights = jax.tree.map(functools.partial(devices.put_everywhere, mesh), loaded.weights)
        return Model(loaded.architecture, loaded.mode, weights, mesh, source=str(path))
    checkpoint = stored.find(path, best=best)
    return of_checkpoint(checkpoint, mesh, **{name: value for name, value in given.items() if value is not None})


def of_checkpoint(checkpoint: Path, mesh: Mesh, *, compute_dtype: str = "float32", **given: int) -> Model:
    """The networks of a checkpoint.

    Args:
      checkpoint: its folder, as `stored.find` gives it.
      mesh: the devices that share a batch.
      compute_dtype: float32 or bfloat16.
      given: fields of the architecture that are to be others.

    Raises:
      UserError: it cannot be read, or there are no such networks.
    """
    architecture, mode = stored.read_about(checkpoint)
    draws, resized = mode != "baseline", dataclasses.replace(architecture, **given)
    if given:
        resized.check(draws=draws)
    weights, step = stored.restore_networks(checkpoint, devices.replicated(mesh), draws=draws)
    return Model(resized, mode, weights, mesh, compute_dtype, source=str(checkpoint), step=step)


# ---- What is computed, from weights and uint8 pictures.


def feats_of(
    weights: Weights, images: UInt8[Array, "B H W 3"], *, architecture: Architecture, compute_dtype: str, flip: bool
) -> Float32[Array, "B D"]:
    """The re-ID features of pictures by running statistics; with `flip`, means over them and their mirror images."""
    images = augmentation.normalise(images)

    def feats(images):
        encoder, stats = (weights[field] for field in ENCODER)
        return architecture.feats(encoder, stats, images, jnp.dtype(compute_dtype)).astype(jnp.float32)

    return (feats(images) + feats(images[:, :, ::-1])) / 2 if flip else feats(images)


def drawn_by(
    weights: Weights, images: UInt8[Array, "B H W 3"], *, architecture: Architecture, compute_dtype: str
) -> Float32[Array, "B S S 3"]:
    """The decoder's drawings of pictures by running statistics, as they are; good ones lie in [-1, 1]."""

    def run(network: nnx.Module, field: str, inputs: PyTree) -> PyTree:
        network.eval()
        graph, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
        return nnx.merge(graph, weights[field], weights[f"{field}_stats"])(inputs)

    dtype = jnp.dtype(compute_dtype)
    encoder = nnx.eval_shape(lambda: architecture.new_encoder(nnx.Rngs(0), dtype))
    decoder = nnx.eval_shape(lambda: architecture.new_decoder(nnx.Rngs(0), dtype))
    stages = run(encoder, "encoder", augmentation.normalise(images)).stages
    return run(decoder, "decoder", tuple(stages)).texture


def textures_of(
    weights: Weights, images: UInt8[Array, "B H W 3"], *, architecture: Architecture, compute_dtype: str
) -> UInt8[Array, "B S S 3"]:
    """The decoder's drawings as pictures."""
    drawn = drawn_by(weights, images, architecture=architecture, compute_dtype=compute_dtype)
    return as_pixels(drawn)


def as_pixels(drawn: Float32[Array, "B S S 3"]) -> UInt8[Array, "B S S 3"]:
    """Drawings in [-1, 1] as uint8; what lies outside is clipped."""
    return jnp.round(127.5 * (jnp.clip(drawn, -1, 1) + 1)).astype(jnp.uint8)
