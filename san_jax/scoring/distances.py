"""Distances between features, in float32; products use full float32 precision on every device."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from san_jax.errors import UserError

DISTANCES = ("euclidean", "cosine", "chi_square")
# A squared distance is at most twice the sum of the two squared norms.
LARGEST_NORM = float(np.finfo(np.float32).max / 4)
CHUNK = 8  # elements of a feature whose chi-square terms are added up in one loop


def distmat(
    query_feats: Float[Array, "Q D"],
    gallery_feats: Float[Array, "G D"],
    *,
    query_norms: Float32[Array, "Q"],
    gallery_norms: Float32[Array, "G"],
    distance: str = "euclidean",
) -> Float32[Array, "Q G"]:
    """Distances of queries to gallery pictures, never negative.

    "euclidean" is the *squared* Euclidean distance, with an error of about 1e-6 times the squared norms. "cosine" is
    1 - cosine: from 0 to 2, and 1 if a feature is all zeros. "chi_square" is for histograms: half the sum of
    (a - b)^2 / (|a| + |b|), from 0 to 1 if they sum to 1; terms with a = b = 0 are 0.

    From 64 elements on, equal gallery rows get equal distances. The last bits of a product depend on its shape, so
    only distances of one call should be compared. The norms are those of `squared_norms`; callers that go tile by tile
    compute them once.

    Raises:
      UserError: there is no such distance.
    """
    query_feats, gallery_feats = query_feats.astype(jnp.float32), gallery_feats.astype(jnp.float32)
    if distance == "chi_square":
        return _chi_square(query_feats, gallery_feats)
    # HIGHEST: by default GPUs multiply in TF32 and TPUs in bfloat16, which swaps close ranks.
    product = jnp.matmul(query_feats, gallery_feats.T, precision=jax.lax.Precision.HIGHEST)
    # The last step must round the same way wherever the compiler repeats it: 2 * product is exact, and a quotient
    # cannot be fused into the difference, while "1 - a * b" may be rounded once in one loop and twice in another.
    match distance:
        case "euclidean":
            distances = query_norms[:, None] + gallery_norms[None, :] - 2 * product
        case "cosine":
            lengths = jnp.sqrt(query_norms)[:, None] * jnp.sqrt(gallery_norms)[None, :]
            distances = 1 - product / jnp.maximum(lengths, np.finfo(np.float32).tiny)
        case _:
            raise UserError(f"distance {distance!r} is none of {', '.join(DISTANCES)}")
    return jnp.maximum(distances, 0)


def _chi_square(query_feats, gallery_feats):
    """Chi-square distances, chunk by chunk of the features, so that memory holds only one [Q G] array."""
    room = ((0, -query_feats.shape[1] % CHUNK), (0, 0))
    # Transposed: gallery pictures are adjacent in memory, so that XLA vectorises the loop over them.
    chunks = [jnp.pad(feats.T, room).reshape(-1, CHUNK, len(feats)) for feats in (query_feats, gallery_feats)]

    def chunk_distances(query, gallery):
        terms = 0
        for a, b in zip(query[:, :, None], gallery[:, None, :], strict=True):
            terms += jnp.square(a - b) / jnp.maximum(jnp.abs(a) + jnp.abs(b), np.finfo(np.float32).tiny)
        return terms / 2

    first = chunk_distances(*(chunk[0] for chunk in chunks))
    rest = [chunk[1:] for chunk in chunks]
    return jax.lax.scan(lambda total, chunk: (total + chunk_distances(*chunk), None), first, rest)[0]


@jax.jit
def whole_distmat(query_feats: Float[Array, "Q D"], gallery_feats: Float[Array, "G D"]) -> Float32[Array, "Q G"]:
    """Squared Euclidean distances, for few enough queries that the whole matrix fits into memory."""
    norms = dict(query_norms=squared_norms(query_feats), gallery_norms=squared_norms(gallery_feats))
    return distmat(query_feats, gallery_feats, **norms)


@jax.jit
def squared_norms(feats: Float[Array, "N D"]) -> Float32[Array, "N"]:
    """Sum of squares of each row, in float32."""
    return jnp.sum(jnp.square(feats.astype(jnp.float32)), axis=-1)


def check_finite(norms: Float32[Array, "N"], *, name: str) -> None:
    """Checks that features with these squared norms have finite distances.

    Args:
      norms: squared norms of the features.
      name: query or gallery, for the message.

    Raises:
      UserError: features hold NaN or inf, or are so large that distances overflow; names the first such row.
    """
    refuse_broken(*(int(number) for number in _broken(norms)), name=name)


def refuse_broken(num_broken: int, first: int, *, name: str) -> None:
    """Raises the UserError of `check_finite` if `num_broken` rows, the first of them `first`, are broken."""
    if num_broken:
        raise UserError(
            f"{name} features hold NaN, inf or too large numbers in {num_broken} rows, first in row {first}; "
            "look at that picture and at the weights"
        )


@jax.jit
def _broken(norms):
    broken = ~(norms < LARGEST_NORM)
    return jnp.sum(broken), jnp.argmax(broken)
