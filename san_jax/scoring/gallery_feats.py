"""Exact search in features that stay where they are, in memory-mapped files in half precision, too.

`nearest.nearest` computes a tile of distances to all of a gallery, from one array of features in float32. Here the
gallery is chunks, which are searched one after another. A chunk of a mapped file is not copied. Of one in half
precision only a block at a time exists in float32, small enough for the caches of a core.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Int64

from san_jax.scoring import distances, nearest, tiles
from san_jax.scoring.nearest import Nearest

CHUNK = 8192  # rows of a chunk; others are added to the last one, so that one program is compiled
BLOCK = 512  # rows that are converted to float32 at a time on a CPU: 1 MB of 512 features each
QUERIES = 64  # queries at a time
ALIGNMENT = 64  # bytes; JAX shares memory with arrays on the host that begin at a multiple of it
UNUSED = -1  # gallery row of rows that are searched by nobody
NOWHERE = np.iinfo(np.int32).max  # gallery row where nothing was found yet: it sorts behind all others


class Chunk(NamedTuple):
    """Rows of the gallery on one device.

    Attributes:
      feats: their features.
      norms: squares of their lengths.
      rows: their rows in the gallery, increasing; UNUSED for padding and rows that are gone.
    """

    feats: Float[Array, "C D"]
    norms: Float32[Array, "C"]
    rows: Int32[np.ndarray, "C"]


class GalleryFeats:
    """The features of a gallery, ready for searches.

    Parts of CHUNK rows or more whose memory begins at a multiple of ALIGNMENT bytes, as that of mapped .npy files does,
    are used in place on a CPU. All others are copied. The chunks are shared out among the devices of the mesh, and
    every process holds those of its own devices.

    Args:
      parts: arrays [n D] of float32, float16 or other floats.
      rows: row in the gallery of each row of a part, or UNUSED; by default the parts follow one another.
      mesh: the devices; by default the first one alone.

    Raises:
      UserError: features hold NaN, inf or too large numbers.
    """

    def __init__(
        self,
        parts: Sequence[Float[np.ndarray, "_ D"]],
        rows: Sequence[Int[np.ndarray, "_"]] | None = None,
        *,
        mesh: Mesh | None = None,
    ):
        self._devices = list((mesh or tiles.one_device()).devices.flat)
        if rows is None:
            ends = np.cumsum([len(part) for part in parts])
            rows = [np.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
        self._num_rows = sum(int(np.count_nonzero(of_part >= 0)) for of_part in rows)
        self._num_feats = parts[0].shape[1] if parts else 0
        self._chunks: dict[jax.Device, list[Chunk]] = {}
        for number, (feats, of_chunk) in enumerate(_chunks(parts, rows)):
            device = self._devices[number % len(self._devices)]
            here = self._chunks.setdefault(device, [])
            if device.process_index == jax.process_index():
                there = jax.device_put(feats, device, may_alias=True)
                here.append(Chunk(there, _squared_norms(there), of_chunk))
        self._check_finite()

    def __len__(self) -> int:
        """Number of pictures that are searched."""
        return self._num_rows

    @property
    def shape(self) -> tuple[int, int]:
        """Number of pictures, and of features of each."""
        return self._num_rows, self._num_feats

    def _check_finite(self):
        """Raises a UserError if a distance would not be finite, at all processes."""
        num_broken, first = 0, NOWHERE
        for chunk in self._here():
            broken = chunk.rows[~(np.asarray(chunk.norms) < distances.LARGEST_NORM) & (chunk.rows >= 0)]
            num_broken, first = num_broken + len(broken), min(first, *broken.tolist(), NOWHERE)
        found = _of_all_processes(np.array([num_broken, first], np.int64))
        distances.refuse_broken(int(found[:, 0].sum()), int(found[:, 1].min()), name="gallery")

    def _here(self):
        return [chunk for chunks in self._chunks.values() for chunk in chunks]

    def nearest(
        self,
        query_feats: Float[Array | np.ndarray, "Q D"],
        *,
        k: int,
        distance: str = "euclidean",
        allowed: Bool[np.ndarray, "G"] | None = None,
    ) -> Nearest:
        """The k nearest pictures of every query; those at equal distance in the order of the gallery.

        Args:
          query_feats: of the queries.
          k: number of pictures for each query.
          distance: euclidean (squared) or cosine.
          allowed: which pictures may be found; by default all. Where fewer than k may be, the other distances are inf
            and the rows NOWHERE, so that one program serves any mask.

        Raises:
          UserError: there are no queries or, without `allowed`, fewer than k pictures, or query features are not finite
            or of another length.
        """
        nearest.check(query_feats, self, k, fewer=allowed is not None)
        query = np.asarray(query_feats, np.float32)
        distances.check_finite(distances.squared_norms(query), name="query")
        found = []
        for device, chunks in self._chunks.items():
            if chunks:
                found.append(self._nearest_on(device, chunks, query, k=k, distance=distance, allowed=allowed))
        return self._merged(found, len(query), k)

    def _nearest_on(self, device, chunks, query, *, k, distance, allowed):
        """The nearest of the chunks of one device, [Q k] each; computed while this goes on to the next device."""
        num_tiles = -(-len(query) // QUERIES)
        size = -(-len(query) // num_tiles)
        # The last tile is padded with the last query.
        place = np.minimum(np.arange(num_tiles * size), len(query) - 1).reshape(num_tiles, size)
        queries = jax.device_put(query[place], device)
        best = jax.device_put(_nothing(num_tiles, size, k), device)
        for chunk in chunks:
            rows = chunk.rows
            if allowed is not None:
                rows = np.where((rows >= 0) & allowed[rows], rows, UNUSED)
            options = dict(distance=distance, block=_block_of(chunk))
            best = _search_chunk(best, queries, chunk.feats, chunk.norms, rows, **options)
        return jax.tree.map(lambda x: x.reshape(-1, k)[: len(query)], best)

    def _merged(self, found, num_queries, k):
        """The nearest of all that the devices of all processes have found."""
        found = found or [_nothing(num_queries, k)]
        some = [np.concatenate([np.asarray(x) for x in numbers], axis=1) for numbers in zip(*found, strict=True)]
        if jax.process_count() > 1:
            # A process may hold more chunks than another, but the k nearest of it are as many.
            some = [x[:, :k] for x in _sorted(*some)]
            some = [np.concatenate(list(multihost_utils.process_allgather(x)), axis=1) for x in some]
        return Nearest(*(x[:, :k] for x in _sorted(*some)))


def _block_of(chunk):
    """Rows of a chunk that are multiplied at a time."""
    is_converted = chunk.feats.dtype != np.float32
    return BLOCK if is_converted and next(iter(chunk.feats.devices())).platform == "cpu" else len(chunk.feats)


def _sorted(numbers, rows):
    """Both by distance, and by gallery row among equal ones."""
    order = np.lexsort((rows, numbers))
    return np.take_along_axis(numbers, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _nothing(*shape):
    return Nearest(np.full(shape, np.inf, np.float32), np.full(shape, NOWHERE, np.int32))


def _of_all_processes(numbers: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "processes n"]:
    if jax.process_count() == 1:
        return numbers[None]
    return multihost_utils.process_allgather(numbers).reshape(-1, len(numbers))


def _chunks(parts, rows):
    """Chunks of features with their gallery rows; those that cannot be used in place are copied together."""
    left = []
    for part, of_part in zip(parts, rows, strict=True):
        of_part = np.asarray(of_part)
        whole = len(part) // CHUNK * CHUNK if _usable_in_place(part, of_part) else 0
        for start in range(0, whole, CHUNK):
            yield part[start : start + CHUNK], of_part[start : start + CHUNK].astype(np.int32)
        if whole < len(part):
            left.append((part, np.arange(whole, len(part)), of_part[whole:]))
    yield from _copied(left)


def _usable_in_place(part, rows):
    used = rows[rows >= 0]
    aligned = part.flags.c_contiguous and part.ctypes.data % ALIGNMENT == 0
    return aligned and bool(np.all(used[1:] > used[:-1]))


def _copied(left):
    """Chunks of copies of rows, in the order of the gallery: of all parts, places in them, and gallery rows."""
    if not left:
        return
    number = np.concatenate([np.full(len(places), number) for number, (_, places, _) in enumerate(left)])
    places, rows = (np.concatenate([some[column] for some in left]) for column in (1, 2))
    used = np.flatnonzero(rows >= 0)
    order = used[np.argsort(rows[used], kind="stable")]
    dtype, num_feats = np.result_type(*(part.dtype for part, _, _ in left)), left[0][0].shape[1]
    for start in range(0, len(order), CHUNK):
        some = order[start : start + CHUNK]
        feats = np.zeros((CHUNK, num_feats), dtype)
        for part_number in np.unique(number[some]):
            of_part = np.flatnonzero(number[some] == part_number)
            feats[of_part] = left[part_number][0][places[some[of_part]]]
        of_chunk = np.full(CHUNK, UNUSED, np.int32)
        of_chunk[: len(some)] = rows[some]
        yield feats, of_chunk


@jax.jit
def _squared_norms(feats: Float[Array, "C D"]) -> Float32[Array, "C"]:
    """Block by block, as XLA's conversion of whole chunks to float32 takes ten times as long on a CPU."""
    blocks = feats.reshape(-1, BLOCK, feats.shape[1])
    return lax.map(distances.squared_norms, blocks).reshape(-1)


@functools.partial(jax.jit, static_argnames=("distance", "block"))
def _search_chunk(best, queries, feats, norms, rows, *, distance, block):
    """The k nearest [T B k] of those found so far and of those in a chunk, for tiles of queries [T B D]."""
    num_rows, gallery = len(feats), (feats, norms)

    def on_tile(of_tile):
        query, best = of_tile
        query_norms = distances.squared_norms(query)

        def on_block(start):
            # Without a copy where the block is the whole chunk.
            some, some_norms = (x if block == num_rows else lax.dynamic_slice_in_dim(x, start, block) for x in gallery)
            return distances.distmat(query, some, query_norms=query_norms, gallery_norms=some_norms, distance=distance)

        distmat = lax.map(on_block, jnp.arange(0, num_rows, block))
        distmat = jnp.where(rows >= 0, distmat.transpose(1, 0, 2).reshape(len(query), num_rows), jnp.inf)
        found = nearest.smallest(distmat, min(best.rows.shape[1], num_rows))
        found_rows = jnp.where(jnp.isinf(found.distances), NOWHERE, rows[found.rows])
        both = [jnp.concatenate(two, axis=1) for two in zip(best, (found.distances, found_rows), strict=True)]
        return Nearest(*(x[:, : best.rows.shape[1]] for x in lax.sort(both, num_keys=2)))

    return lax.map(on_tile, (queries, best))
