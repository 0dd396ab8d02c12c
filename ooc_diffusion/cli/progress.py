"""Progress with rate and time left: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import click

_SECONDS_BETWEEN_LINES = 10.0


def make_progress(quiet: bool) -> Callable[[str, int | None, str], AbstractContextManager[Any]]:
    """Return the progress that suits the error stream."""
    if quiet:
        return _none
    return _bar if sys.stderr.isatty() else _lines


@contextlib.contextmanager
def _none(stage: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@contextlib.contextmanager
def _bar(stage: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}, {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(stage, total=total, unit=unit, rate="")
        meter = _Meter(total)

        def advance(done: int) -> None:
            meter.add(done)
            progress.update(task, advance=done, rate=meter.rate_text(unit))

        yield advance


@contextlib.contextmanager
def _lines(stage: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    meter = _Meter(total)
    last = time.monotonic()

    def advance(done: int) -> None:
        nonlocal last
        meter.add(done)
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            click.echo(f"{stage}: {meter.text(unit)}", err=True)

    click.echo(f"{stage}: {total:,} {unit}" if total is not None else stage, err=True)
    yield advance


class _Meter:
    """Counts units; what a resumed run had done before does not count as speed."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = 0
        self.before = 0
        self.started = time.monotonic()

    def add(self, done: int) -> None:
        if self.done == 0 and time.monotonic() - self.started < 0.5:
            self.before = done
        self.done += done

    @property
    def rate(self) -> float:
        return (self.done - self.before) / max(1e-9, time.monotonic() - self.started)

    def rate_text(self, unit: str) -> str:
        return f"{self.rate:,.0f} {unit}/s" if self.rate >= 10 else f"{self.rate:.2g} {unit}/s"

    def text(self, unit: str) -> str:
        text = f"{self.done:,} {unit}, {self.rate_text(unit)}"
        if self.total and self.rate > 0:
            text = f"{self.done:,} of {self.total:,} {unit}, {self.rate_text(unit)}"
            text += f", {(self.total - self.done) / self.rate:,.0f} s left"
        return text
