"""Results computed ahead of time by threads, in order. Pillow decodes and resizes without Python's lock."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_threads(workers: int | None) -> int:
    """Threads for a number of workers: that number, or one for each core of this process if it is None."""
    return len(os.sched_getaffinity(0)) if workers is None else workers


def ahead(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None) -> Iterator[Result]:
    """Yields `function(item)` for each item, in order; one call per thread runs or has finished ahead of time.

    Args:
      function: called in the threads. What it raises is raised here, in the place of its result.
      items: read one by one.
      workers: threads; None = one for each core of this process; 0 = calls in the calling thread, when asked for.
    """
    threads = num_threads(workers)
    if not threads:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
