"""The one place that turns bytes into rows per chunk and columns per batch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

from ..errors import DoesNotFit
from .meter import anonymous_bytes
from .sizes import format_size, parse_size

# What the libraries themselves hold once they are at work (measured: numba and faiss 230 MiB, with torch and torchvision
# 560 MiB; Python 3.11, Linux x86-64). Planned even where they are not loaded yet, so that a plan does not depend on the moment.
_LIBRARIES = 256 * 2**20
_LIBRARIES_WITH_TORCH = 768 * 2**20
# What is held is rounded up to this, or two looks at the same work would differ by some pages.
_STEP = 4 * 2**20


@dataclass(frozen=True)
class MemoryBudget:
    """A limit on the anonymous and shared memory of the process tree.

    Parameters
    ----------
    total : int
        The limit in bytes.
    """

    total: int

    @classmethod
    def parse(cls, size: str | int | MemoryBudget) -> MemoryBudget:
        """Read a budget from text (see `parse_size`), from bytes, or pass one through."""
        if isinstance(size, MemoryBudget):
            return size
        return cls(size if isinstance(size, int) else parse_size(size))

    def overhead(self, *, torch: bool = False) -> int:
        """Bytes that are not for arrays: the libraries, or what the process holds already where that is more."""
        _give_back()
        held = -(-anonymous_bytes() // _STEP) * _STEP
        return max(_LIBRARIES_WITH_TORCH if torch else _LIBRARIES, held)

    def room(self, *, torch: bool = False) -> int:
        """Bytes left for the arrays of a stage (may be negative)."""
        return self.total - self.overhead(torch=torch)

    def units(self, unit_bytes: int, *, what: str, fixed_bytes: int = 0, at_most: int | None = None, torch: bool = False) -> int:
        """Return how many rows, columns or blocks of ``unit_bytes`` fit beside ``fixed_bytes``.

        Parameters
        ----------
        unit_bytes : int
            Bytes of one row, column or block.
        what : str
            What is being done, for the error message.
        fixed_bytes : int
            Bytes held besides, whatever the number of units. Default 0.
        at_most : int, optional
            More than this is of no use.
        torch : bool
            Whether torch is loaded in this stage.

        Returns
        -------
        int
            At least 1.

        Raises
        ------
        DoesNotFit
            Where not even one unit fits; the message names the smallest budget that would do.
        """
        count = (self.room(torch=torch) - fixed_bytes) // max(1, unit_bytes)
        if count < 1:
            self.require(fixed_bytes + unit_bytes, what=what, torch=torch)
        return max(1, count if at_most is None else min(count, at_most))

    def require(self, array_bytes: int, *, what: str, torch: bool = False) -> None:
        """Raise `DoesNotFit` unless ``array_bytes`` of arrays fit; the message names the smallest budget that would do."""
        if array_bytes > self.room(torch=torch):
            least = self.overhead(torch=torch) + array_bytes
            raise DoesNotFit(
                f"{what} needs a memory budget of {_rounded_up(least)} at least, "
                f"but it is {format_size(self.total)}; give --memory-budget {_rounded_up(least)} or more"
            )


def _give_back() -> None:
    """Let the C library return what was freed: it keeps hundreds of MiB of small pieces, of networks for example."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


def _rounded_up(size: int) -> str:
    return f"{-(-size // 2**20)}MiB"


@dataclass(frozen=True)
class StagePlan:
    """What a stage would cost, computed from sizes alone before anything is written.

    Parameters
    ----------
    stage : str
        Name of the stage.
    work : str
        What is computed, in the field's units, for people.
    memory_bytes : int
        Peak of anonymous memory that the stage will hold under the given budget.
    least_bytes : int
        Smallest budget that would do.
    disk_bytes : int
        Bytes of the arrays that the stage publishes.
    scratch_bytes : int
        Bytes on disk that are needed while the stage runs and given back at its end.
    operations : float
        Multiply-adds.
    reads : dict
        Bytes that are read from disk, by step, where the system keeps nothing from one pass to the next; empty where that is not
        planned.
    write_bytes : int
        Bytes that are written to disk; 0 where that is not planned.
    recall_bytes : int
        Bytes that are read beyond ``reads`` at most, where a recall is poor and therefore measured on more rows.
    identical_bytes : int
        Bytes beyond ``scratch_bytes`` at most, written and read once, where thousands of images are identical.
    """

    stage: str
    work: str
    memory_bytes: int
    least_bytes: int
    disk_bytes: int
    scratch_bytes: int = 0
    operations: float = 0.0
    reads: dict[str, int] = field(default_factory=dict)
    write_bytes: int = 0
    recall_bytes: int = 0
    identical_bytes: int = 0
