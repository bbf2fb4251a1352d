"""Independent pieces of work on every core, for tests that compute and wait for nobody."""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`work` of each item, in their order. The first exception is raised here.

    The pieces run while nothing else of the test run does, so what measures time elsewhere is not disturbed.
    """
    pieces = list(items)
    with ProcessPoolExecutor(os.cpu_count() or 1, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(work, pieces, chunksize=max(1, len(pieces) // 32)))
