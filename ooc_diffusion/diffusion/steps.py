"""What the steps of a diffusion did: kind, rows, edges, bytes from disk, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..memory import disk_bytes_read


@dataclass
class Step:
    """The steps of one kind that led to L_t, of one batch of columns or of several.

    Parameters
    ----------
    t : int
        The iteration.
    kind : str
        ``push``, ``dense``, ``masked`` or ``joined`` (two steps in one, whose time is noted with the first); ``sums`` with t = 0
        is the column that gives the sums of all others.
    batches : int
        Batches of columns.
    rows : int
        Rows that were computed, or, where values were pushed, entries of L_{t-1} that were not zero.
    edges : int
        Entries of W that were multiplied with a row of L, or, where values were pushed, with one entry.
    disk_bytes : int
        Bytes read from disk; what the system's cache held is not among them.
    seconds : float
        Time.
    """

    t: int
    kind: str
    batches: int = 0
    rows: int = 0
    edges: int = 0
    disk_bytes: int = 0
    seconds: float = 0.0


class Steps:
    """All steps of a diffusion, added up by iteration and kind.

    Parameters
    ----------
    state : list of dict
        What `as_state` had returned, for a run that goes on.
    """

    def __init__(self, state: list[dict[str, Any]] | None = None) -> None:
        self.replace(state or [])

    def replace(self, state: list[dict[str, Any]]) -> None:
        """Take other steps instead."""
        self._steps = {(step["t"], step["kind"]): Step(**step) for step in state}

    def add(self, t: int, kind: str, **figures: Any) -> None:
        """Add the figures of one or more batches."""
        step = self._steps.setdefault((t, kind), Step(t, kind))
        for name, value in figures.items():
            setattr(step, name, getattr(step, name) + value)

    def as_state(self) -> list[dict[str, Any]]:
        """Return the steps in their order, as JSON values."""
        return [asdict(self._steps[key]) for key in sorted(self._steps)]

    def count(self) -> dict[str, int]:
        """Return how many steps of each kind there were."""
        counts: dict[str, int] = {}
        for (t, kind), step in sorted(self._steps.items()):
            if t > 0:
                counts[kind] = counts.get(kind, 0) + step.batches
        return counts


def stopwatch() -> Callable[[], dict[str, Any]]:
    """Return a function that tells the seconds and the bytes from disk since now, as `Steps.add` takes them."""
    started, read = time.monotonic(), disk_bytes_read()
    return lambda: {"seconds": time.monotonic() - started, "disk_bytes": disk_bytes_read() - read}
