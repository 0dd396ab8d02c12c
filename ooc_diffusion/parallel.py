"""How many threads the libraries use, stated once for all of them."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import BadInput

Result = TypeVar("Result")


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads to use: all cores this process may run on, unless stated."""
    cores = len(os.sched_getaffinity(0))
    if threads is None:
        return cores
    if threads < 1:
        raise BadInput(f"threads must be at least 1, not {threads}")
    return min(threads, cores)


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[int]:
    """Hold Numba, faiss and BLAS to ``threads`` threads inside a ``with`` block.

    Yields
    ------
    int
        The number in force.
    """
    import numba
    from threadpoolctl import threadpool_limits

    wanted = resolve_threads(threads)
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    before = numba.get_num_threads()
    numba.set_num_threads(min(wanted, most))
    try:
        with threadpool_limits(wanted):
            yield wanted
    finally:
        numba.set_num_threads(before)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread inside a ``with`` block: it rounds otherwise for another number of threads."""
    import faiss
    import scipy.linalg.cython_blas  # noqa: F401  only a BLAS that is loaded is held
    from threadpoolctl import threadpool_limits

    threads = faiss.omp_get_max_threads()
    with threadpool_limits(1, user_api="blas"):
        faiss.omp_set_num_threads(threads)  # which an OpenBLAS on OpenMP has lowered with its own
        yield


def in_order(work: Callable[..., Result], tasks: Iterable[tuple[Any, ...]], *, threads: int) -> Iterator[Result]:
    """Call a function with each of some arguments in so many threads at once; yield what it returns, in their order.

    One task more than there are threads is under way or waits to be asked for, so that what is kept does not grow.
    """
    pending: deque[Future[Result]] = deque()
    left = iter(tasks)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(pending) <= threads and (task := next(left, None)) is not None:
                    pending.append(pool.submit(work, *task))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
