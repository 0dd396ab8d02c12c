"""Progress that moves evenly through passes of which a part is only known on the way."""

from __future__ import annotations

import math
from collections.abc import Callable

Advance = Callable[[int], object]


class Steady:
    """Spreads the nodes that are left to be told over the work that is left.

    Parameters
    ----------
    advance : callable
        Told a number of nodes, again and again; their sum is ``nodes``.
    nodes : int
        Number of nodes in all.
    """

    def __init__(self, advance: Advance, nodes: int) -> None:
        self._advance = advance
        self._untold = nodes
        self._left = float(nodes)
        self._per_unit = 0.0

    def skip(self, nodes: int) -> None:
        """Tell what an interrupted run had done."""
        self._left -= nodes
        self._tell()

    def expect(self, work: float) -> None:
        """Say how much work is left, in any unit."""
        self._per_unit = self._left / max(work, 1.0)

    def __call__(self, work: float) -> None:
        """Tell the nodes that are worth this work."""
        self._left = max(0.0, self._left - work * self._per_unit)
        self._tell()

    def finish(self) -> None:
        """Tell the rest."""
        self._left = 0.0
        self._tell()

    def _tell(self) -> None:
        whole = self._untold - math.ceil(self._left)
        if whole > 0:
            self._untold -= whole
            self._advance(whole)
