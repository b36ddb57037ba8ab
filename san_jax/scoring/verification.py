"""Verification: whether two pictures show the same person, judged by a threshold on their distance (TPR at FPR)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int64

from san_jax.devices import SplitRows
from san_jax.errors import UserError
from san_jax.scoring import distances, tiles

FPRS = (1e-2, 1e-3, 1e-4)
BINS = 1024  # of a histogram; with two passes, the final bins are a few millionths of the range wide
ROWS = 8  # of a tile that are counted at once; each needs several arrays of its length


class OperatingPoint(NamedTuple):
    """A point of the ROC curve: the highest threshold at a bin's edge whose false positive rate is at most `fpr`.

    Attributes:
      fpr: the requested rate: the largest share of pairs of different people that may be accepted.
      tpr: share of the pairs of the same person that are accepted.
      error: upper bound of the exact `tpr` minus this one: the share of pairs of the same person in the next bin.
      threshold: pairs are accepted if their distance is below this.
      bin_width: width of a bin, in units of distance.
    """

    fpr: float
    tpr: float
    error: float
    threshold: float
    bin_width: float


class Histograms(NamedTuple):
    """Numbers of pairs by distance: below `low`, in equal bins from `low` to `high`, and above `high`.

    Attributes:
      low, high: distances.
      strangers: pairs of two different people.
      one_person: pairs of pictures of one person.
    """

    low: float
    high: float
    strangers: Int64[np.ndarray, "n"]
    one_person: Int64[np.ndarray, "n"]

    @property
    def edges(self) -> Float[np.ndarray, "m"]:
        """Upper edges of all bins except the last, which has none."""
        return np.linspace(self.low, self.high, len(self.strangers) - 1)


def tpr_at_fpr(
    query_feats: Float[Array | np.ndarray, "Q D"],
    gallery_feats: Float[Array | np.ndarray, "G D"] | SplitRows,
    *,
    query_pids: Int[np.ndarray, "Q"],
    gallery_pids: Int[np.ndarray, "G"],
    query_camids: Int[np.ndarray, "Q"],
    gallery_camids: Int[np.ndarray, "G"],
    fprs: Sequence[float] = FPRS,
    distance: str = "euclidean",
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> list[OperatingPoint]:
    """True positive rate at each of `fprs`, over all pairs of a query and a gallery picture.

    Pairs of one person by one camera do not count; the Market-1501 metric removes them too. A first histogram over all
    distances finds the range of the thresholds, a second one covers this range alone. Memory is one tile, the counts of
    a few of its rows, and 16 kB for each query. The other arguments are those of `ranking.rank`.

    Raises:
      UserError: features are not finite, there are none, or there is no pair of one person or of different people.
    """
    tiles.check_any(query_feats, gallery_feats)

    def histograms(low: float, high: float) -> Histograms:
        per_query = {"pid": query_pids.astype(np.int32), "camid": query_camids.astype(np.int32)}
        shared = {"pid": gallery_pids.astype(np.int32), "camid": gallery_camids.astype(np.int32)}
        shared |= {"low": np.float32(low), "high": np.float32(high)}
        feats = query_feats, gallery_feats
        counts = tiles.by_tiles(_count, per_query, shared, *feats, distance=distance, tile=tile, mesh=mesh)
        return Histograms(low, high, *np.asarray(counts).sum(axis=0, dtype=np.int64))

    coarse = histograms(0.0, _largest(query_feats, gallery_feats, distance))
    kinds = ((coarse.one_person, "of one person under two cameras"), (coarse.strangers, "of two identities"))
    for pairs, whose in kinds:
        if not pairs.sum():
            raise UserError(f"there is no pair {whose} among query and gallery pictures; check pids and camids")
    places = [_last_edge(coarse, fpr) for fpr in fprs]
    # One more bin on either side: the passes round differently, so that a distance at an edge may change bins.
    fine = histograms(coarse.edges[max(min(places) - 1, 0)], coarse.edges[min(max(places) + 2, BINS)])
    return [_operating_point(fine, fpr) for fpr in fprs]


def _largest(query_feats, gallery_feats, distance):
    """An upper bound of all distances, up to rounding."""
    if distance != "euclidean":
        return 2.0
    gallery = gallery_feats.array if isinstance(gallery_feats, SplitRows) else gallery_feats
    lengths = [float(jnp.sqrt(distances.squared_norms(x).max())) for x in (query_feats, gallery)]
    return max(sum(lengths) ** 2, np.finfo(np.float32).tiny * BINS)


def _last_edge(histograms, fpr):
    """Index of the last edge with at most this share of the strangers below it; -1 if there is none."""
    below = np.cumsum(histograms.strangers)
    return int(np.searchsorted(below[:-1], fpr * below[-1], side="right")) - 1


def _operating_point(histograms, fpr):
    place = _last_edge(histograms, fpr)
    pairs = histograms.one_person / histograms.one_person.sum()
    width = (histograms.high - histograms.low) / BINS
    threshold = float(histograms.edges[place]) if place >= 0 else histograms.low - width
    return OperatingPoint(fpr, float(pairs[: place + 1].sum()), float(pairs[place + 1]), threshold, width)


def _count(tile: tiles.Tile, query, gallery):
    """Histograms [B 2 n] of the distances of every query: to other people, and to pictures of its person."""
    low, high = gallery["low"], gallery["high"]
    rows = jnp.minimum(tile.rows, len(gallery["pid"]) - 1)
    pids, camids = gallery["pid"][rows], gallery["camid"][rows]

    def count(query):
        distance, pid, camid = query
        same = pid == pids
        counts = jnp.isfinite(distance) & ~(same & (camid == camids))
        # Rounding is monotonic: a larger distance never falls into a lower bin.
        place = jnp.clip(jnp.floor((distance - low) * (BINS / (high - low))), -1, BINS).astype(jnp.int32) + 1
        found = lax.pcast(jnp.zeros((2, BINS + 2), jnp.int32), tile.axes, to="varying")
        return found.at[same.astype(jnp.int32), place].add(counts.astype(jnp.int32))

    found = lax.map(count, (tile.distmat, query["pid"], query["camid"]), batch_size=ROWS)
    return lax.psum(found, tile.axes)
