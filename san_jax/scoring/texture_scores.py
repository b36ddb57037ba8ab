"""Quality of generated textures: L1, PSNR and SSIM on held-out pairs, and a contact sheet of some of them.

L1 on the texels that the picture shows is given too, if the pairs say which these are.

BatchNorm uses its running statistics.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from san_jax import devices
from san_jax.batch import Source
from san_jax.data import augmentation, decoded, input_pipeline
from san_jax.data.decoded import Field
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import Cell
from san_jax.model import Model, Weights, drawn_by
from san_jax.networks.architecture import Architecture

SCORES = {"L1": ".4f", "PSNR": ".2f", "SSIM": ".4f", "L1_visible": ".4f"}  # with their formats
UNITS = "L1 of textures in [-1, 1], PSNR in dB"
WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
C1, C2 = 0.01**2, 0.03**2  # of SSIM, for pictures in [0, 1]
LEAST_MSE = 1e-10  # limits PSNR to 100 dB, that of identical pictures
NUM_SHOWN = 8  # pairs on the contact sheet
SHOWN_SEED = 0  # chooses these pairs; the same for all runs, so that two runs show the same pairs


def evaluate(
    model: Model, sources: Sequence[Source], *, batch_size: int = 100, workers: int | None = None
) -> tuple[dict[str, dict[str, float]], UInt8[np.ndarray, "H W 3"]]:
    """Scores by set, and a contact sheet of some pairs of the first set.

    L1 is that of the loss: textures are scaled to [-1, 1], generated ones are not clipped. PSNR (in dB) and SSIM are
    computed on pictures in [0, 1], with generated textures clipped. L1_visible is L1 over the texels that the picture
    shows; rendered pairs know them. All are means over the pairs.

    Args:
      model: a model with a decoder.
      sources: one or more sets of pairs of picture and texture; each is scored by itself.
      batch_size: pictures of a batch over all devices; rounded up to a multiple of the number of devices.
      workers: threads that decode pictures; None = one for each core, 0 = no threads.

    Raises:
      UserError: the model has no decoder.
    """
    first, *others = sources
    of_first, shown = compare({"drawn": model}, first, batch_size=batch_size, workers=workers)
    means = {first.name: of_first["drawn"]}
    for source in others:
        means[source.name] = means_of(score_pairs(model, source, batch_size=batch_size, workers=workers)[0])
    return means, shown


def compare(
    models: Mapping[str, Model], source: Source, *, batch_size: int = 100, workers: int | None = None
) -> tuple[dict[str, dict[str, float]], UInt8[np.ndarray, "H W 3"]]:
    """Scores of some models on one set, by their names, and a contact sheet with a row of textures by each model.

    Arguments and errors are those of `evaluate`; the models have inputs of one size.
    """
    for model in models.values():
        model.check_draws()
    count = len(source)
    rows = np.sort(np.random.default_rng(SHOWN_SEED).choice(count, min(NUM_SHOWN, count), replace=False)).tolist()
    means, drawn = {}, {}
    for name, model in models.items():
        scores, drawn[name] = score_pairs(model, source, shown=rows, batch_size=batch_size, workers=workers)
        means[name] = means_of(scores)
    size = dict(height=model.architecture.height, width=model.architecture.width)
    return means, sheet(source, rows, drawn, **size)


def means_of(scores: Float32[np.ndarray, "n scores"]) -> dict[str, float]:
    """Means over the pairs, by the names of the scores."""
    return dict(zip(SCORES, scores.mean(axis=0, dtype=np.float64).tolist(), strict=False))


def score_pairs(
    model: Model, source: Source, *, shown: Sequence[int] = (), batch_size: int = 100, workers: int | None = None
) -> tuple[Float32[np.ndarray, "n scores"], UInt8[np.ndarray, "k S S 3"]]:
    """Scores of all pairs of a split, in order, and the generated textures of the rows `shown`, which must ascend."""
    size, side = devices.rounded_up(model.mesh, batch_size), model.architecture.height
    pairs = input_pipeline.scored_pairs(
        source, batch_size=size, height=side, width=model.architecture.width, mesh=model.mesh, workers=workers
    )
    all_scores, kept = [], [np.empty((0, side, side, 3), np.uint8)]
    for number, (scores, drawn) in enumerate(model.over(drawing_scores, pairs)):
        all_scores.append(scores)
        kept.append(drawn[[row - number * size for row in shown if number * size <= row < (number + 1) * size]])
    return np.concatenate(all_scores)[: len(source)], np.concatenate(kept)


def sheet(
    source: Source, rows: Sequence[int], drawn: Mapping[str, UInt8[np.ndarray, "n S S 3"]], *, height: int, width: int
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet with a column for each pair: picture (resized for the network), generated and true textures.

    Args:
      source: the pairs.
      rows: which of them to show.
      drawn: title of a row -> their generated textures.
      height, width: of the pictures, in pixels.
    """
    fields = [Field("image", height, width), Field("texture", height, height)]
    images, textures = decoded.decode_rows(source, fields, rows).values()
    return contact_sheet.compose(
        [[Cell(picture) for picture in pictures] for pictures in (images, *drawn.values(), textures)],
        row_titles=["picture", *drawn, "true"],
        column_titles=[source.names[row] for row in rows],
        cell_height=height,
    )


def as_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores by set, as a table in plain text."""
    width = max(map(len, scores), default=0)
    columns = {name: max(7, len(name)) for name in SCORES if any(name in numbers for numbers in scores.values())}
    lines = [" ".join([" " * width, *(f"{name:>{room}}" for name, room in columns.items())])]
    for data, numbers in scores.items():
        cells = [
            f"{format(numbers[name], SCORES[name]) if name in numbers else '-':>{room}}"
            for name, room in columns.items()
        ]
        lines.append(" ".join([f"{data:{width}}", *cells]))
    return "\n".join(lines)


def drawing_scores(
    weights: Weights,
    images: UInt8[Array, "B H W 3"],
    textures: UInt8[Array, "B S S 3"],
    visible: UInt8[Array, "B S S 3"] | None = None,
    *,
    architecture: Architecture,
    compute_dtype: str,
) -> tuple[Float32[Array, "B scores"], UInt8[Array, "B S S 3"]]:
    """The SCORES of every generated texture, and the texture as uint8; a function for `Model.over`.

    L1_visible is left out without `visible`, in which texels that the picture shows are brighter than 127.
    """
    drawn = drawn_by(weights, images, architecture=architecture, compute_dtype=compute_dtype)
    errors = jnp.abs(drawn - augmentation.scale_texture(textures))
    seen, true = jnp.clip((drawn + 1) / 2, 0, 1), textures.astype(jnp.float32) / 255
    scores = [errors.mean(axis=(1, 2, 3)), psnr(seen, true), ssim(seen, true)]
    if visible is not None:
        shown = (visible > 127).astype(jnp.float32)
        scores.append((errors * shown).sum(axis=(1, 2, 3)) / jnp.maximum(shown.sum(axis=(1, 2, 3)), 1))
    return jnp.stack(scores, axis=1), jnp.round(255 * seen).astype(jnp.uint8)


def psnr(seen: Float[Array, "B H W C"], true: Float[Array, "B H W C"]) -> Float32[Array, "B"]:
    """Peak signal-to-noise ratio of pictures in [0, 1], in dB; 100 for equal pictures."""
    mse = jnp.square(seen - true).mean(axis=(1, 2, 3))
    return -10 * jnp.log10(jnp.maximum(mse, LEAST_MSE))


def ssim(seen: Float[Array, "B H W C"], true: Float[Array, "B H W C"]) -> Float32[Array, "B"]:
    """Structural similarity of pictures in [0, 1], averaged over channels and over all windows inside the picture.

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
    """Means under SSIM's Gaussian window, at all positions where the window lies inside the picture."""
    weights = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / SIGMA**2)
    for axis in (1, 2):
        size = maps.shape[axis] - WINDOW + 1
        maps = sum(
            weight * jax.lax.slice_in_dim(maps, start, start + size, axis=axis)
            for start, weight in enumerate((weights / weights.sum()).tolist())
        )
    return maps
