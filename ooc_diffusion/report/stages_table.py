"""Plan against actual: the lines of the stages and their total."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .contents import StageLine
from .wording import UNKNOWN, duration, size


@dataclass(frozen=True)
class StageRow:
    """One line of the table, as text."""

    stage: str
    work: str
    cells: list[str]
    share: float
    over: bool
    resumed: bool
    done_before: bool


@dataclass(frozen=True)
class StagesTable:
    """The lines, and the total below them."""

    rows: list[StageRow]
    total: list[str]


def stages_table(lines: Sequence[StageLine]) -> StagesTable:
    """Return the table: planned and measured memory, planned and written bytes, planned and measured time."""
    seconds = sum(line.seconds or 0.0 for line in lines)
    rows = [
        StageRow(
            stage=line.stage,
            work=line.work,
            cells=[
                size(line.planned_memory),
                size(line.peak_memory),
                size(line.planned_disk),
                size(line.disk),
                duration(line.planned_seconds),
                duration(line.seconds),
            ],
            share=100 * (line.seconds or 0.0) / seconds if seconds > 0 else 0.0,
            over=line.planned_memory is not None and (line.peak_memory or 0) > line.planned_memory,
            resumed=line.resumed,
            done_before=line.done_before,
        )
        for line in lines
    ]
    # Stages run one after another: their memory does not add up, the disk and the time do.
    total = [
        _total(max, (line.planned_memory for line in lines), size),
        _total(max, (line.peak_memory for line in lines), size),
        _total(sum, (line.planned_disk for line in lines), size),
        _total(sum, (line.disk for line in lines), size),
        _total(sum, (line.planned_seconds for line in lines), duration),
        _total(sum, (line.seconds for line in lines), duration),
    ]
    return StagesTable(rows, total)


def _total(combine: Callable, values: Iterable[float | None], shown: Callable) -> str:
    every = list(values)
    known = [value for value in every if value is not None]
    if not known:
        return UNKNOWN
    # A part that nobody measured makes the total a lower bound.
    return ("" if len(known) == len(every) else "≥ ") + shown(combine(known))
