"""Several training sets as one: their identities and cameras are renumbered, one set after the other."""

import bisect
import hashlib
from collections.abc import Sequence

import numpy as np

from san_jax.batch import Record, Source


class JoinedSource:
    """The records of all sources, one source after the other; itself a `Source`.

    Identities and cameras of different sets are taken as different, as by `-s` of the released code.
    """

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self._starts = np.cumsum([0] + [len(source) for source in sources]).tolist()
        self.name = ",".join(source.name for source in sources)
        self.names = [name for source in sources for name in source.names]
        self.pids = _numbered_on([source.pids for source in sources])
        self.people = [pid for source in sources for pid in source.people]
        self.camids = _numbered_on([source.camids for source in sources])
        self.has_textures = all(source.has_textures for source in sources)

    @property
    def digest(self) -> str:
        """Digest of all sources; empty if one of them has none."""
        digests = [source.digest for source in self._sources]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest() if all(digests) else ""

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Source:
        """The sources as one; a single source is returned as it is."""
        return sources[0] if len(sources) == 1 else cls(sources)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Record:
        part = bisect.bisect_right(self._starts, row) - 1
        record = self._sources[part][row - self._starts[part]]
        return {**record, "pid": int(self.pids[row]), "camid": int(self.camids[row])}


def _numbered_on(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Renumbers from 0, int32: in ascending order within each source, one source after the other."""
    found, first = [], 0
    for part in parts:
        distinct, places = np.unique(part, return_inverse=True)
        found.append(places + first)
        first += len(distinct)
    return np.concatenate(found).astype(np.int32)
