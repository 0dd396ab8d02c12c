"""How long the steps of a stage take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Clock:
    """Adds up the seconds of steps by name; the time of a step within a step is that of the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._step: str | None = None
        self._since = 0.0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time inside a ``with`` block for a step."""
        before = self._turn(name)
        try:
            yield
        finally:
            self._turn(before)

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items; the time that getting them takes counts for a step."""
        left = iter(items)
        while True:
            with self.step(name):
                try:
                    item = next(left)
                except StopIteration:
                    return
            yield item

    def _turn(self, name: str | None) -> str | None:
        now, before = time.perf_counter(), self._step
        if before is not None:
            self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._step, self._since = name, now
        return before
