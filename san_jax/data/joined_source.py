"""Several training sets as one: their people and cameras numbered on, one set after the other."""

import bisect
from collections.abc import Sequence

import numpy as np

from san_jax.batch import Record, Source


class JoinedSource:
    """The records of all sources in a row; a `Source` itself.

    Nobody is the same person in two sets, and no camera the same camera, as in the released code's `-s`.
    """

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self._starts = np.cumsum([0] + [len(source) for source in sources]).tolist()
        self._first_pids = _first_numbers([source.pids for source in sources])
        self._first_camids = _first_numbers([source.camids for source in sources])
        self.name = ",".join(source.name for source in sources)
        self.names = [name for source in sources for name in source.names]
        self.pids = _numbered_on([source.pids for source in sources], self._first_pids)
        self.camids = _numbered_on([source.camids for source in sources], self._first_camids)
        self.has_textures = all(source.has_textures for source in sources)

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Source:
        """The sources as one; a single one stays as it is."""
        return sources[0] if len(sources) == 1 else cls(sources)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Record:
        part = bisect.bisect_right(self._starts, row) - 1
        record = self._sources[part][row - self._starts[part]]
        return {
            **record,
            "pid": record["pid"] + self._first_pids[part],
            "camid": record["camid"] + self._first_camids[part],
        }


def _first_numbers(numbers: Sequence[np.ndarray]) -> list[int]:
    """What to add to the numbers of each source."""
    return np.cumsum([0] + [int(part.max()) + 1 for part in numbers])[:-1].tolist()


def _numbered_on(numbers: Sequence[np.ndarray], first: Sequence[int]) -> np.ndarray:
    return np.concatenate([part + start for part, start in zip(numbers, first, strict=True)]).astype(np.int32)
