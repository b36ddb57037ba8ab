"""The encoder over a data set, on all devices: what is left of SAN at test time."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, PyTree, UInt8

from san_jax import devices
from san_jax.batch import Source
from san_jax.data import augmentation, input_pipeline
from san_jax.networks.architecture import Architecture

ALIGNMENT = 64  # bytes; what begins elsewhere JAX copies


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Features of pictures by one encoder.

    Attributes:
      architecture: of the encoder; gives the pictures' size too.
      mesh: over whose devices every batch is cut.
      batch_size: pictures at once, over all devices; rounded up to a multiple of their number.
      compute_dtype: float32 or bfloat16; the features are float32 either way.
      workers: processes that read and decode.
      mirror: whether a feature is the mean over the picture and its mirror image.
    """

    architecture: Architecture
    mesh: Mesh
    batch_size: int = 100
    compute_dtype: str = "float32"
    workers: int = 2
    mirror: bool = False

    @functools.cached_property
    def features_of_batch(self) -> Callable[[PyTree, PyTree, UInt8[Array, "B H W 3"]], Float[Array, "B D"]]:
        """(parameters, running statistics, pictures of the network's size) -> feats on every device, jitted."""
        everywhere = devices.replicated(self.mesh)
        return jax.jit(
            functools.partial(
                features, architecture=self.architecture, compute_dtype=self.compute_dtype, mirror=self.mirror
            ),
            out_shardings=everywhere,
        )

    def __call__(self, encoder: PyTree, stats: PyTree, source: Source) -> Float32[np.ndarray, "n D"]:
        """Features of all pictures of a split in their order."""
        count = self.mesh.size
        batches = input_pipeline.scored_batches(
            source,
            batch_size=-(-self.batch_size // count) * count,
            height=self.architecture.height,
            width=self.architecture.width,
            mesh=self.mesh,
            workers=self.workers,
        )
        return in_one_array(fetched(self.features_of_batch(encoder, stats, images) for images in batches), len(source))


def fetched(results: Iterable[PyTree]) -> Iterator[PyTree]:
    """What is computed of batch after batch, on the host.

    Fetched one batch late: the devices compute while the host waits for pictures, and no queue grows.
    """
    for result, _later in itertools.pairwise(itertools.chain(results, [None])):
        yield jax.device_get(result)


def in_one_array(parts: Iterable[Float32[np.ndarray, "B D"]], num_rows: int) -> Float32[np.ndarray, "n D"]:
    """The first rows of one part or more, where JAX on the CPU shares them instead of making a copy of its own."""
    whole = None
    for part in parts:
        if whole is None:
            whole, num_done = aligned_empty((num_rows, part.shape[1])), 0
        whole[num_done : num_done + len(part)] = part[: num_rows - num_done]
        num_done += len(part)
    return whole


def aligned_empty(shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """An array to be filled, which begins at a multiple of ALIGNMENT."""
    size = 4 * math.prod(shape)
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(np.float32).reshape(shape)


def features(
    encoder: PyTree,
    stats: PyTree,
    images: UInt8[Array, "B H W 3"],
    *,
    architecture: Architecture,
    compute_dtype: str,
    mirror: bool = False,
) -> Float32[Array, "B D"]:
    """The re-ID features of pictures by running statistics; with `mirror`, means over them and their mirror images."""
    images = augmentation.normalise(images)

    def feats(images: Float[Array, "B H W 3"]) -> Float32[Array, "B D"]:
        return architecture.feats(encoder, stats, images, jnp.dtype(compute_dtype))

    return (feats(images) + feats(images[:, :, ::-1])) / 2 if mirror else feats(images)
