"""How the memory budget is divided for one batch of columns."""

from __future__ import annotations

from dataclasses import dataclass

from ..memory import MemoryBudget
from . import kernels
from .registers import MOST_COLUMNS

# Rows of W processed at once: enough work to keep all threads busy, little enough that a block of L_{t+1} is small.
BLOCK_ENTRIES = 2**22
BLOCK_ROWS = 2**17
# Blocks of one batch, arrays of Python, the smallest of numbers.
FIXED_BYTES = 4 * 2**20
# With so many columns W is read seldom enough that L_{t+1} had better stay in memory than go through a file.
_ENOUGH_COLUMNS = 32
# Sums of pushed columns may take this part of the memory.
_PUSH_PART = 6


@dataclass(frozen=True)
class Room:
    """What a batch may hold.

    Parameters
    ----------
    columns : int
        Columns of L processed together, C'.
    workers : int
        Columns that may be pushed at once, each with sums for all N nodes; 0 = none.
    in_memory : bool
        Whether L_{t+1} is kept in memory, and not in a file.
    """

    columns: int
    workers: int
    in_memory: bool


def make_room(n: int, n_columns: int, *, budget: MemoryBudget, threads: int) -> Room:
    """Divide the memory for at most ``n_columns`` columns over n nodes.

    Raises
    ------
    DoesNotFit
        Where not one column fits.
    """
    fixed = FIXED_BYTES + masks_bytes(n)
    workers = max(0, min(threads, (budget.room() - fixed) // (_PUSH_PART * push_bytes(n))))
    fixed += workers * push_bytes(n)
    column = column_bytes(n) + (sparse_bytes(n) if workers else 0)
    columns = budget.units(column, what=f"diffusing over {n} nodes", fixed_bytes=fixed, at_most=min(n_columns, MOST_COLUMNS))
    both = (budget.room() - fixed) // (column + 4 * n)
    in_memory = both >= min(n_columns, _ENOUGH_COLUMNS)
    return Room(min(columns, both) if in_memory else columns, workers, in_memory)


def room_bytes(n: int, room: Room) -> int:
    """Return the bytes that a batch takes besides `FIXED_BYTES` and `masks_bytes`."""
    column = column_bytes(n) + (sparse_bytes(n) if room.workers else 0) + (4 * n if room.in_memory else 0)
    return room.workers * push_bytes(n) + room.columns * column


def column_bytes(n: int) -> int:
    """Return the bytes that one column takes at least: L_t, its partial sums, a block of L_{t+1}, of scores."""
    return 4 * n + 8 * (n // kernels.SUM_ROWS + 1) + 8 * min(n, BLOCK_ROWS)


def sparse_bytes(n: int) -> int:
    """Return the bytes that a column may take while it is sparse: 8 for each of its entries, of this and the next iterate."""
    return 16 * sparse_entries(n)


def sparse_entries(n: int) -> int:
    """Return how many entries per column sparse columns may have on average."""
    return n // 32 + 1


def push_bytes(n: int) -> int:
    """Return the bytes of the sums of one column that is pushed: float64 and one bit per node."""
    return 8 * n + n // 8 + 8


def masks_bytes(n: int) -> int:
    """Return the bytes for knowing which rows are needed: one byte per node while marking, one bit per iteration after."""
    return 2 * n
