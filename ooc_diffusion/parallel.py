"""How many threads the libraries use, stated once for all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .errors import BadInput


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
    from threadpoolctl import threadpool_limits

    threads = faiss.omp_get_max_threads()
    with threadpool_limits(1, user_api="blas"):
        faiss.omp_set_num_threads(threads)  # which an OpenBLAS on OpenMP has lowered with its own
        yield
