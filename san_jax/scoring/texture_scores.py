"""How well textures are drawn: L1, PSNR and SSIM of held-out pairs by running statistics, and a look at some."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, PyTree, UInt8

from san_jax import contact_sheet, devices
from san_jax.batch import Source
from san_jax.contact_sheet import Cell
from san_jax.data import augmentation, input_pipeline
from san_jax.networks.architecture import Architecture
from san_jax.scoring.feature_extraction import fetched

SCORES = ("L1", "PSNR", "SSIM")
UNITS = "L1 of textures in [-1, 1], PSNR in dB"
WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
C1, C2 = 0.01**2, 0.03**2  # of SSIM, for pictures in [0, 1]
LEAST_MSE = 1e-10  # so that a picture drawn to the last bit has 100 dB
NUM_SHOWN = 8
SHOWN_SEED = 0  # one seed for all, so that two runs are compared on the same pairs

Weights = Mapping[str, PyTree]  # the fields of a TrainState from `encoder` to `decoder_stats`


@dataclasses.dataclass(frozen=True)
class Painter:
    """Draws the textures of pairs, and compares them with the true ones.

    Attributes:
      architecture: of encoder and decoder; gives the pictures' size too.
      mesh: over whose devices every batch is cut.
      batch_size: pictures at once, over all devices; rounded up to a multiple of their number.
      compute_dtype: float32 or bfloat16; the scores are computed in float32 either way.
      workers: processes that read and decode.
    """

    architecture: Architecture
    mesh: Mesh
    batch_size: int = 100
    compute_dtype: str = "float32"
    workers: int = 2

    @functools.cached_property
    def of_batch(self) -> Callable[[Weights, Array, Array], tuple[Array, Array]]:
        """(weights, pictures, true textures) -> scores [B 3] and drawings uint8 [B S S 3] on every device, jitted."""
        return jax.jit(
            functools.partial(draw_and_score, architecture=self.architecture, compute_dtype=self.compute_dtype),
            out_shardings=devices.replicated(self.mesh),
        )

    def __call__(
        self, weights: Weights, source: Source
    ) -> tuple[Float32[np.ndarray, "n 3"], UInt8[np.ndarray, "n S S 3"]]:
        """Scores and drawings of all pairs of a split in their order."""
        count = self.mesh.size
        pairs = input_pipeline.scored_pairs(
            source,
            batch_size=-(-self.batch_size // count) * count,
            height=self.architecture.height,
            width=self.architecture.width,
            mesh=self.mesh,
            workers=self.workers,
        )
        found = fetched(self.of_batch(weights, images, textures) for images, textures in pairs)
        scores, drawn = zip(*found, strict=True)
        return np.concatenate(scores)[: len(source)], np.concatenate(drawn)[: len(source)]


def evaluate(
    weights: Weights, sources: Sequence[Source], *, painter: Painter
) -> tuple[dict[str, dict[str, float]], UInt8[np.ndarray, "H W 3"]]:
    """Scores by set, and a sheet with some pairs of the first.

    L1 is that of the loss: textures in [-1, 1], drawings as they are. PSNR (dB) and SSIM are of pictures in [0, 1],
    drawings clipped. All are means over the pairs.

    Args:
      weights: of encoder and decoder.
      sources: pairs, one set or more; each is scored by itself.
      painter: draws.
    """
    found = {source.name: painter(weights, source) for source in sources}
    means = {name: scores.mean(axis=0, dtype=np.float64).tolist() for name, (scores, _) in found.items()}
    _, drawn = found[sources[0].name]
    rows = np.sort(np.random.default_rng(SHOWN_SEED).choice(len(drawn), min(NUM_SHOWN, len(drawn)), replace=False))
    size = dict(height=painter.architecture.height, width=painter.architecture.width)
    shown = sheet(sources[0], rows.tolist(), drawn[rows], **size)
    return {name: dict(zip(SCORES, numbers, strict=True)) for name, numbers in means.items()}, shown


def sheet(
    source: Source, rows: Sequence[int], drawn: UInt8[np.ndarray, "n S S 3"], *, height: int, width: int
) -> UInt8[np.ndarray, "H W 3"]:
    """A column for each pair: the picture as the network sees it, the drawing, the true texture."""
    records = [source[row] for row in rows]
    images = input_pipeline.decode_all(source, records, "image", height=height, width=width)
    textures = input_pipeline.decode_all(source, records, "texture", height=height, width=height)
    return contact_sheet.draw(
        [[Cell(picture) for picture in pictures] for pictures in (images, drawn, textures)],
        row_titles=["picture", "drawn", "true"],
        column_titles=[record["name"] for record in records],
        cell_height=height,
    )


def as_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores by set, for people."""
    width = max(map(len, scores), default=0)
    lines = [" ".join([" " * width, *(f"{name:>7}" for name in SCORES)])]
    lines += [
        f"{data:{width}} {numbers['L1']:7.4f} {numbers['PSNR']:7.2f} {numbers['SSIM']:7.4f}"
        for data, numbers in scores.items()
    ]
    return "\n".join(lines)


def draw_and_score(
    weights: Weights,
    images: UInt8[Array, "B H W 3"],
    textures: UInt8[Array, "B S S 3"],
    *,
    architecture: Architecture,
    compute_dtype: str,
) -> tuple[Float32[Array, "B 3"], UInt8[Array, "B S S 3"]]:
    """Scores of every picture's drawing, and the drawing as a picture."""
    drawn = draw_textures(weights, images, architecture=architecture, compute_dtype=compute_dtype)
    l1 = jnp.abs(drawn - augmentation.scale_texture(textures)).mean(axis=(1, 2, 3))
    seen, true = jnp.clip((drawn + 1) / 2, 0, 1), textures.astype(jnp.float32) / 255
    return jnp.stack([l1, psnr(seen, true), ssim(seen, true)], axis=1), jnp.round(255 * seen).astype(jnp.uint8)


def draw_textures(
    weights: Weights, images: UInt8[Array, "B H W 3"], *, architecture: Architecture, compute_dtype: str
) -> Float32[Array, "B H H 3"]:
    """The decoder's drawings of pictures by running statistics; good ones lie in [-1, 1]."""

    def run(network: nnx.Module, field: str, inputs: PyTree) -> PyTree:
        network.eval()
        graph, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
        return nnx.merge(graph, weights[field], weights[f"{field}_stats"])(inputs)

    dtype = jnp.dtype(compute_dtype)
    encoder = nnx.eval_shape(lambda: architecture.new_encoder(nnx.Rngs(0), dtype))
    decoder = nnx.eval_shape(lambda: architecture.new_decoder(nnx.Rngs(0), dtype))
    stages = run(encoder, "encoder", augmentation.normalise(images)).stages
    return run(decoder, "decoder", tuple(stages)).texture


def psnr(seen: Float[Array, "B H W C"], true: Float[Array, "B H W C"]) -> Float32[Array, "B"]:
    """Peak signal-to-noise ratio of pictures in [0, 1], in dB; 100 for equal ones."""
    mse = jnp.square(seen - true).mean(axis=(1, 2, 3))
    return -10 * jnp.log10(jnp.maximum(mse, LEAST_MSE))


def ssim(seen: Float[Array, "B H W C"], true: Float[Array, "B H W C"]) -> Float32[Array, "B"]:
    """Structural similarity of pictures in [0, 1], mean over channels and over the windows that lie in the picture.

    References:
      Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
    """
    mean_seen, mean_true = smooth(seen), smooth(true)
    variances = smooth(seen**2) - mean_seen**2 + smooth(true**2) - mean_true**2
    covariance = smooth(seen * true) - mean_seen * mean_true
    similarity = (2 * mean_seen * mean_true + C1) * (2 * covariance + C2)
    similarity /= (mean_seen**2 + mean_true**2 + C1) * (variances + C2)
    return similarity.mean(axis=(1, 2, 3))


def smooth(maps: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Means under SSIM's window, a Gaussian, at all places where it lies in the picture."""
    weights = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / SIGMA**2)
    for axis in (1, 2):
        size = maps.shape[axis] - WINDOW + 1
        maps = sum(
            weight * jax.lax.slice_in_dim(maps, start, start + size, axis=axis)
            for start, weight in enumerate((weights / weights.sum()).tolist())
        )
    return maps
