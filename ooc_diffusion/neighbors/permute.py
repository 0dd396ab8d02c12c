"""Putting the rows of an array that does not fit in memory into another order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .kernels import put_rows

# Rows that are read at once.
BLOCK_ROWS = 2**16


def permuted(
    source: np.ndarray, places: np.ndarray, *, memory_bytes: int, start: int = 0, dtype: str | np.dtype | None = None
) -> Iterator[np.ndarray]:
    """Yield the rows of an array in another order, as many at a time as fit in memory.

    Each range of the result takes one pass over the source, from front to end: long reads, no scratch.

    Parameters
    ----------
    source : numpy.ndarray of shape (n, ...)
        May be a memmap.
    places : numpy.ndarray of shape (n,), uint32
        The place of each row in the result; may be a memmap.
    memory_bytes : int
        What a range may take, besides two blocks of 65 536 rows.
    start : int
        First row of the result that is wanted. Default 0.
    dtype : dtype, optional
        Type of the result. Default: that of the source.

    Yields
    ------
    numpy.ndarray of shape (m, ...)
        The next rows; the memory is used again.
    """
    n = len(source)
    kind = source.dtype if dtype is None else np.dtype(dtype)
    length = max(1, min(n - start, memory_bytes // row_bytes(source, kind)))
    memory = np.empty((length, *source.shape[1:]), kind)
    flat, bits = memory.reshape(length, -1), np.dtype(f"u{kind.itemsize}")  # Numba knows no float16
    for begin in range(start, n, length):
        end = min(begin + length, n)
        for first in range(0, n, BLOCK_ROWS):
            block = np.ascontiguousarray(source[first : first + BLOCK_ROWS], kind).reshape(-1, flat.shape[1])
            put_rows(block.view(bits), places[first : first + BLOCK_ROWS], begin, end, flat.view(bits))
        yield memory[: end - begin]


def row_bytes(source: np.ndarray, dtype: np.dtype) -> int:
    """Return the bytes of one row of an array as another type."""
    return dtype.itemsize * int(np.prod(source.shape[1:], dtype=np.int64))


def inverse(order: np.ndarray) -> np.ndarray:
    """Return the place of each id, given the id at each place: uint32 (n,)."""
    places = np.empty(len(order), np.uint32)
    for first in range(0, len(order), BLOCK_ROWS):
        block = order[first : first + BLOCK_ROWS]
        places[block] = np.arange(first, first + len(block), dtype=np.uint32)
    return places
