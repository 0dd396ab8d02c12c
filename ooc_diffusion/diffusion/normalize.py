"""η where it is not linear: columns that lie in several arrays on disk are normalized side by side, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..memory import MemoryBudget
from . import kernels
from .engine import column_scale
from .room import FIXED_BYTES

SINKHORN_ALTERNATIONS = 5
# Longer reads are not faster.
_MOST_BLOCK_BYTES = 2**25

# The column sums (C,) of a matrix whose columns were scaled by (C,), raised to a power, and whose rows were normalized if True.
ColumnSums = Callable[[np.ndarray, float, bool], np.ndarray]


@dataclass(frozen=True)
class Eta:
    """What is done to each row: multiplied by a column scale, raised to a power, divided by its sum.

    Parameters
    ----------
    column_scale : numpy.ndarray of shape (C,), float64
        Factor of each column.
    power : float
        Exponent of each entry.
    by_rows : bool
        Whether each row is divided by its sum.
    """

    column_scale: np.ndarray
    power: float
    by_rows: bool

    @classmethod
    def of(cls, normalization: str, power: float, target: np.ndarray, sums_of: ColumnSums) -> Eta:
        """Find the scales that make η of a matrix.

        Parameters
        ----------
        normalization : str
            Name of η.
        power : float
            r of Γ_r.
        target : numpy.ndarray of shape (C,), float64
            What Sinkhorn's columns are to sum to.
        sums_of : callable
            Reads the matrix once and returns its column sums.

        Notes
        -----
        For column sums 1/s of M, Γ_r(M diag(s)) is (M diag(s))^r divided by its column sums q, which is (M diag(s q^(-1/r)))^r.
        The rows that Sinkhorn has normalized follow from the scale of the columns, so the matrix is only read in between.
        """
        ones = np.ones(len(target))
        if normalization in ("none", "rows"):
            return cls(ones, 1.0, normalization == "rows")
        scale = column_scale(sums_of(ones, 1.0, False))
        if normalization == "columns":
            return cls(scale, 1.0, False)
        if normalization == "gamma":
            return cls(scale * column_scale(sums_of(scale, power, False)) ** (1 / power), power, False)
        scale *= target
        for _ in range(SINKHORN_ALTERNATIONS - 1):
            scale *= target * column_scale(sums_of(scale, 1.0, True))
        return cls(scale, 1.0, True)


class SideBySide:
    """A matrix whose columns lie in several arrays on disk.

    Parameters
    ----------
    panels : list of numpy.ndarray of shape (N, C'), float32
        Mapped; from the first column to the last.
    rows : int
        Rows that are read at once, from `block_rows`; the results do not depend on it.
    """

    def __init__(self, panels: list[np.ndarray], rows: int) -> None:
        self.panels = panels
        self.ends = np.cumsum([panel.shape[1] for panel in panels])
        self.n, self.columns = len(panels[0]), int(self.ends[-1])
        self.rows = min(rows, self.n)

    def column_sums(self, scale: np.ndarray, power: float, by_rows: bool) -> np.ndarray:
        """Return the column sums after the steps of an `Eta`, float64 (C,)."""
        total = np.zeros(self.columns)
        for _, _, sums in self.normalized(Eta(scale, power, by_rows)):
            for group in sums:
                total += group
        return total

    def normalized(self, eta: Eta) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield η of the rows from some row on, float32 (rows, C), with their column sums (groups, C); not to be kept."""
        whole = np.empty((self.rows, self.columns), np.float32)
        sums = np.empty((-(-self.rows // kernels.NORMALIZED_ROWS), self.columns))
        for first in range(0, self.n, self.rows):
            block = whole[: min(self.rows, self.n - first)]
            for panel, part in zip(self.panels, self.split(block), strict=True):
                part[:] = panel[first : first + len(block)]
            groups = sums[: -(-len(block) // kernels.NORMALIZED_ROWS)]
            kernels.normalize(block, eta.column_scale, eta.power, eta.by_rows, groups, block)
            yield first, block, groups

    def split(self, block: np.ndarray) -> list[np.ndarray]:
        """Return the columns of each panel in a block (rows, C)."""
        return np.split(block, self.ends[:-1], axis=1)


def block_rows(n: int, n_classes: int, *, budget: MemoryBudget) -> int:
    """Return how many rows of all columns are read at once: multiples of those whose sums are added first.

    Raises
    ------
    DoesNotFit
        Where not even these fit.
    """
    unit = _unit_bytes(n, n_classes)
    at_most = min(-(-n // kernels.NORMALIZED_ROWS), max(1, _MOST_BLOCK_BYTES // unit))
    fixed = FIXED_BYTES + _scales_bytes(n_classes)
    what = f"normalizing {n_classes} classes together"
    return kernels.NORMALIZED_ROWS * budget.units(unit, what=what, fixed_bytes=fixed, at_most=at_most)


def normalizing_bytes(n: int, n_classes: int, rows: int = 1) -> int:
    """Return the bytes that normalizing takes besides `FIXED_BYTES`, so many rows at once; default: as few as can be."""
    return _scales_bytes(n_classes) + -(-rows // kernels.NORMALIZED_ROWS) * _unit_bytes(n, n_classes)


def _unit_bytes(n: int, n_classes: int) -> int:
    """Return the bytes of the rows whose sums are added first: read, copied panel by panel to be written, and their sums."""
    return 8 * n_classes * min(n, kernels.NORMALIZED_ROWS) + 8 * n_classes


def _scales_bytes(n_classes: int) -> int:
    return 64 * n_classes
