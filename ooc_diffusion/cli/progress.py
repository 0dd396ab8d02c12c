"""Progress with rate and time left: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from ..report.wording import time_left

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES = 10.0
# Longer names stand on a line above their bar, or they would push the rest off a terminal.
_NAME_BESIDE_BAR = 20


def make_progress(quiet: bool) -> Callable[[str, int | None, str], AbstractContextManager[Any]]:
    """Return the progress that suits the error stream."""
    if quiet:
        return _none
    return _Bars().bar if sys.stderr.isatty() else _lines


@contextlib.contextmanager
def _none(stage: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


class _Bars:
    """Bars of stages: one, and below it that of a stage within the stage; a terminal shows one `Progress` at a time."""

    def __init__(self) -> None:
        self._shown: Progress | None = None

    @contextlib.contextmanager
    def bar(self, stage: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        with self._progress() as progress:
            meter = _Meter(total, unit)
            beside = len(stage) <= _NAME_BESIDE_BAR
            if not beside:
                progress.console.print(stage, markup=False, highlight=False)
            task = progress.add_task(stage if beside else "", total=total, told=meter.text)

            def advance(done: int) -> None:
                meter.add(done)
                progress.update(task, advance=done, told=meter.text)

            yield advance

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Progress]:
        with ExitStack() as stack:
            if self._shown is None:
                self._shown = stack.enter_context(_make_bars())
                stack.callback(setattr, self, "_shown", None)
            yield self._shown


def _make_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    name = TextColumn(f"{{task.description:{_NAME_BESIDE_BAR}}}", markup=False)
    told = TextColumn("{task.fields[told]}", markup=False)
    return Progress(name, BarColumn(), told, TimeElapsedColumn(), console=Console(stderr=True))


@contextlib.contextmanager
def _lines(stage: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    meter = _Meter(total, unit)
    last = monotonic()

    def advance(done: int) -> None:
        nonlocal last
        meter.add(done)
        if meter.done and monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = monotonic()
            click.echo(f"{stage}: {meter.text}", err=True)

    click.echo(f"{stage}: {total:,} {unit}" if total is not None else stage, err=True)
    yield advance


class _Meter:
    """Counts units, and their rate from the first report on, which tells what was done before."""

    def __init__(self, total: int | None, unit: str) -> None:
        self._total, self._unit = total, unit
        self._reports: list[tuple[float, int]] = []  # the first and the last: when, and units done until then

    def add(self, done: int) -> None:
        """Take a report of units that were done since the one before."""
        self._reports = [*self._reports[:1], (monotonic(), self.done + done)]

    @property
    def done(self) -> int:
        """Units done so far."""
        return self._reports[-1][1] if self._reports else 0

    @property
    def _rate(self) -> float:
        """Units per second; 0 until something was done since the first report."""
        if not self._reports:
            return 0.0
        (began, before), (now, done) = self._reports[0], self._reports[-1]
        return (done - before) / max(1e-9, now - began)

    @property
    def text(self) -> str:
        """How many units are done, and rate and time left where they are known."""
        rate, total = self._rate, self._total
        parts = [f"{self.done:,} {self._unit}" if total is None else f"{self.done:,} of {total:,} {self._unit}"]
        if rate > 0:
            parts.append(f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s")
            if total is not None and total > self.done:
                parts.append(f"{time_left((total - self.done) / rate)} left")
        return ", ".join(parts)
