"""Compares an exported file with the networks that it was made from, on pictures that both compute."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Shaped, UInt8
from PIL import Image

from san_jax import devices
from san_jax import model as models
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.runtimes.interface import FEATS, TEXTURES, Interface

PICTURES, SEED = 10, 0
SPLIT = 1  # pictures of the first batch; the others are the second one
CLOSEST = 1e-4  # largest difference of float32, as a share of the output's L2 norm
FLIPPED = 0.01  # largest share of texels that may be rounded to the next level
COSINES = {"float16": 0.999, "int8": 0.95}  # least cosine similarity


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How far an output is from ours.

    Attributes:
      passes: whether that is near enough.
      text: the figures, after the output's name.
    """

    passes: bool
    text: str


def pictures(*, height: int, width: int, count: int = PICTURES) -> UInt8[np.ndarray, "{count} {height} {width} 3"]:
    """Pictures with large and small patches of colour, always the same."""
    draw = np.random.default_rng(SEED)

    def patches(rows: int, columns: int) -> np.ndarray:
        colours = draw.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        resized = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized, np.float32)

    drawn = [0.6 * patches(4, 2) + 0.3 * patches(16, 8) + 0.1 * patches(height, width) for _ in range(count)]
    return np.round(drawn).astype(np.uint8)


def expected(model: Model, interface: Interface) -> dict[str, np.ndarray]:
    """The outputs of our networks for `pictures`, in float32; all processes must call it together."""
    size = dict(height=interface.architecture.height, width=interface.architecture.width)
    model, shown = dataclasses.replace(model, compute_dtype="float32", onednn=False), pictures(**size)
    found = {FEATS: model.features(shown)} if interface.feats else {}
    if interface.textures and interface.takes_pixels:
        found[TEXTURES] = model.textures(shown)
    elif interface.textures:
        (drawn,) = model.over(models.drawn_by, [(devices.put_everywhere(model.mesh, shown),)])
        found[TEXTURES] = drawn.transpose(0, 3, 1, 2)
    return found


def checked(
    run: Callable[[Shaped[np.ndarray, "B _ _ _"]], dict[str, np.ndarray]],
    interface: Interface,
    wanted: Mapping[str, np.ndarray],
    *,
    precision: str,
    what: str,
    advice: str,
) -> str:
    """Runs an exported file in two batches, of one picture and of the others, and compares.

    Args:
      run: the file, from pictures to outputs by name.
      interface: its inputs and outputs.
      wanted: as `expected`.
      precision: float32, float16 or int8: decides what is near enough.
      what: the file, for messages.
      advice: the way out if it is not near enough.

    Returns:
      The figures, for the user.

    Raises:
      UserError: it cannot be run, or an output is missing or too far from ours.
    """
    size = dict(height=interface.architecture.height, width=interface.architecture.width)
    fed = interface.fed(pictures(**size))
    try:
        parts = [run(part) for part in np.split(fed, [SPLIT])]
    except Exception as error:  # every runtime has its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{what} is not written: the exported network does not run ({reason}); {advice}") from error
    figures = []
    for name, ours in wanted.items():
        if any(name not in part for part in parts):
            raise UserError(f"{what} is not written: the exported network has no output {name}; {advice}")
        verdict = judged(np.concatenate([part[name] for part in parts]), ours, precision=precision)
        if not verdict.passes:
            raise UserError(f"{what} is not written: {name} of the exported network {verdict.text}; {advice}")
        figures.append(f"{name} {verdict.text}")
    return ", ".join(figures)


def judged(found: np.ndarray, ours: np.ndarray, *, precision: str) -> Verdict:
    """Compares two arrays [B ...]: by the farthest picture's L2 norm, the texels' levels, or the cosine similarity."""
    if found.shape != ours.shape or found.dtype != ours.dtype:
        return Verdict(False, f"are {found.dtype} {list(found.shape)}, not {ours.dtype} {list(ours.shape)}")
    if not np.isfinite(ours).all():
        return Verdict(False, "cannot be compared, since those of san_jax are not finite")
    if precision != "float32":
        least = float(cosines(as_rows(found), as_rows(ours)).min())
        wanted = COSINES[precision]
        passes = bool(least >= wanted)
        return Verdict(passes, f"have a cosine similarity to san_jax's of {least:.6f} or more (needed: {wanted})")
    if ours.dtype == np.uint8:
        away = np.abs(found.astype(int) - ours)
        largest, share = int(away.max(initial=0)), float(np.mean(away > 0))
        passes = largest <= 1 and share <= FLIPPED
        levels = "1 level" if largest == 1 else f"{largest} levels"
        return Verdict(passes, f"differ from san_jax's by {levels} of 255 or less, in {share:.3%} of the values")
    away, norms = as_rows(found) - as_rows(ours), np.linalg.norm(as_rows(ours), axis=1)
    largest = float((np.linalg.norm(away, axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)).max())
    text = f"differ from san_jax's by {largest:.1e} of their L2 norm or less (allowed: {CLOSEST:.0e})"
    return Verdict(bool(largest <= CLOSEST), text)


def as_rows(values: np.ndarray) -> Float64[np.ndarray, "B n"]:
    """One row for each picture; pixels in [-1, 1]."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    return rows / 127.5 - 1 if values.dtype == np.uint8 else rows


def cosines(found: Float64[np.ndarray, "B n"], ours: Float64[np.ndarray, "B n"]) -> Float64[np.ndarray, " B"]:
    """The cosine similarity of each pair of rows; 1 for equal ones, even if they are zero."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(ours, axis=1)
    return np.where((found == ours).all(axis=1), 1.0, np.sum(found * ours, axis=1) / np.maximum(norms, 1e-300))
