"""How the memory budget is divided for one batch of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..memory import MemoryBudget, pages
from . import kernels
from .precision import ELEMENTS
from .registers import MOST_COLUMNS

# Rows of W processed at once: enough work to keep all threads busy, little enough that a block of L_{t+1} is small.
BLOCK_ENTRIES = 2**22
BLOCK_ROWS = 2**17
# Blocks of one batch, sums of pushed values, arrays of Python, the smallest of numbers.
FIXED_BYTES = 12 * 2**20
# With so many columns W is read seldom enough that L_{t+1} had better stay in memory than go through a file.
_ENOUGH_COLUMNS = 32
# This part of the memory is for sparse columns that were brought forward together with those of later batches.
_KEPT_PART = 12
# Of what the budget leaves beside an L that goes through files, sparse columns may take so many bytes per row: with 50 entries in
# each row of W, pushing more records of 8 bytes than that would cost more than the dense product.
_MOST_SPARSE = 16
_LINE_BYTES = 64
# From here on an array is worth pages of its own.
_LARGE_BYTES = 16 * pages.PAGE_BYTES


@dataclass(frozen=True)
class Room:
    """What a batch may hold.

    Parameters
    ----------
    columns : int
        Columns of L processed together, C'.
    in_memory : bool
        Whether L_{t+1} is kept in memory, and not in a file.
    sparse_bytes : int
        What sparse columns of the batch may take.
    kept_bytes : int
        What sparse columns of this batch and later ones may take together.
    """

    columns: int
    in_memory: bool
    sparse_bytes: int
    kept_bytes: int


def make_room(n: int, n_columns: int, *, budget: MemoryBudget, itemsize: int = 4, beside: int = 0) -> Room:
    """Divide the memory for at most ``n_columns`` columns over n nodes, with ``itemsize`` bytes for each entry.

    ``beside`` are bytes that are held besides, for the seeds.

    Raises
    ------
    DoesNotFit
        Where not one column fits.
    """
    fixed = FIXED_BYTES + masks_bytes(n) + beside
    budget.require(fixed + column_bytes(n), what=f"diffusing over {n} nodes")
    left = budget.room() - fixed
    sparse_column = sparse_bytes(n, itemsize)
    column = column_bytes(n, itemsize) + sparse_column
    most = min(n_columns, MOST_COLUMNS)
    enough = left // (column + itemsize * n) >= min(most, _ENOUGH_COLUMNS)
    in_memory = enough and left >= _adjoint_bytes(n, in_memory=True)
    whole = column + itemsize * n if in_memory else column
    most = min(most, _ENOUGH_COLUMNS) if in_memory else most
    columns = whole_lines(max(1, min(most, left // whole)), most, itemsize)
    if columns == 1 or columns == n_columns:
        kept = 0
    else:  # as far as it does not take a line of columns
        kept = min(left // _KEPT_PART, n_columns * sparse_column, left - columns * whole)
    sparse = min(left - kept - columns * (whole - sparse_column), columns * (sparse_column if in_memory else _MOST_SPARSE * n))
    return Room(columns, in_memory, max(0, sparse) + (itemsize * n * columns if in_memory else 0), kept)


def whole_lines(columns: int, most: int, itemsize: int) -> int:
    """Return a number of columns whose rows fill lines of the cache, or divide one; ``most`` is all there are."""
    if columns == most:
        return columns
    per_line = columns_per_line(itemsize)
    return columns // per_line * per_line if columns >= per_line else 1 << (columns.bit_length() - 1)


def columns_per_line(itemsize: int) -> int:
    """Return how many entries of a row of L a line of the cache holds."""
    return _LINE_BYTES // itemsize


def room_bytes(n: int, room: Room, itemsize: int = 4) -> int:
    """Return the bytes that a batch takes besides `FIXED_BYTES` and `masks_bytes`, or the adjoint before it."""
    batch = room.columns * column_bytes(n, itemsize) + room.sparse_bytes + room.kept_bytes
    return max(batch, _adjoint_bytes(n, in_memory=room.in_memory))


def column_bytes(n: int, itemsize: int = 4) -> int:
    """Return the bytes that one column takes at least: L_t, its partial sums, blocks of L_{t+1}, of its sums, of scores.

    A tenth of N is for going through L by segments: what that takes is less than a tenth of N for all columns of an L of 2 GiB.
    """
    return itemsize * n + n // 10 + 8 * (n // kernels.SUM_ROWS + 1) + 16 * min(n, BLOCK_ROWS)


def _adjoint_bytes(n: int, *, in_memory: bool) -> int:
    """Return the bytes of the column that gives the column sums where few rows are read: float32 in either precision."""
    return column_bytes(n) + (4 * n if in_memory else 0)


def sparse_bytes(n: int, itemsize: int = 4) -> int:
    """Return the bytes that there are for a sparse column beside a dense one, at least: an eighth of these."""
    return itemsize * n // 8 + 64


def seed_bytes(n_seeds: int, n_iter: int) -> int:
    """Return the bytes that seeds take: while L_0 is made of them, and for what each adds to its column in every iteration."""
    return n_seeds * (64 + 16 * (n_iter + 1))


def masks_bytes(n: int) -> int:
    """Return the bytes for knowing which rows are needed: one bit per node and iteration, and for the sums of columns again."""
    return 9 * n // 4


def make_rows(n: int, columns: int, dtype: np.dtype = ELEMENTS["float32"]) -> np.ndarray:
    """Return an array (n, columns) of anything, its rows aligned with the lines of the cache as far as these allow.

    NumPy's own begin 16 bytes behind a line, so that each row of 64 bytes would touch two. Large arrays lie in huge pages.
    """
    size = dtype.itemsize * n * columns
    if size >= _LARGE_BYTES:
        return pages.allocate(size).view(dtype).reshape(n, columns)
    held = np.empty(size + _LINE_BYTES, np.uint8)
    first = -held.ctypes.data % _LINE_BYTES
    return held[first : first + size].view(dtype).reshape(n, columns)
