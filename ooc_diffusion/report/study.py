"""What the study shows, as plain frozen data: chapters of tables, plots, and claims with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .contents import Accuracy

HOLDS, FAILS, UNTESTED = "holds here", "does not hold here", "cannot be tested here"

# Mean and deviation as fractions of 1; or a text; or nothing.
Cell = Accuracy | str | None


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and whether it is so here.

    Parameters
    ----------
    source : str
        Where the paper says so.
    text : str
        What it says.
    verdict : {"holds here", "does not hold here", "cannot be tested here"}
        What follows from the rule.
    figures : str
        The figures that decided; where there is nothing to decide by, what is missing.
    rule : str
        How the verdict follows from them.
    """

    source: str
    text: str
    verdict: str
    figures: str
    rule: str


@dataclass(frozen=True)
class Grid:
    """A table of accuracies or texts.

    Parameters
    ----------
    title : str
        What it shows.
    columns : sequence of str
        Heads of the columns; the first is that of the names of the rows.
    rows : sequence of (str, sequence of cells)
        Names and cells of the rows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


@dataclass(frozen=True)
class Line:
    """A series of a plot: places, and (mean, deviation) in fractions of 1 or whatever the axis says."""

    name: str
    x: Sequence[float]
    y: Sequence[Accuracy]


@dataclass(frozen=True)
class Chart:
    """A plot: title, labels of the axes, series; ``log`` is the base of the scale of x, None where it is linear."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log: int | None = None


@dataclass(frozen=True)
class Chapter:
    """One table or figure of the paper, repeated.

    Parameters
    ----------
    name : str
        Its command, such as ``table1``.
    title : str
        Heading.
    about : str
        What was done here, in a sentence or two.
    grids, charts, claims : sequences
        What was found.
    paper : sequence of Grid
        The paper's figures.
    """

    name: str
    title: str
    about: str
    grids: Sequence[Grid] = ()
    charts: Sequence[Chart] = ()
    paper: Sequence[Grid] = ()
    claims: Sequence[Claim] = ()


def chapter_of(values: Mapping[str, Any]) -> Chapter:
    """Return a chapter from what `dataclasses.asdict` made of it, be it by way of JSON."""
    grids, paper = ([_grid(grid) for grid in values[name]] for name in ("grids", "paper"))
    charts = [Chart(**{**chart, "lines": [_line(line) for line in chart["lines"]]}) for chart in values["charts"]]
    claims = [Claim(**claim) for claim in values["claims"]]
    return Chapter(values["name"], values["title"], values["about"], grids, charts, paper, claims)


def _grid(values: Mapping[str, Any]) -> Grid:
    return Grid(values["title"], values["columns"], [(name, [_cell(cell) for cell in cells]) for name, cells in values["rows"]])


def _line(values: Mapping[str, Any]) -> Line:
    return Line(values["name"], values["x"], [(mean, deviation) for mean, deviation in values["y"]])


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str) else (value[0], value[1])


@dataclass(frozen=True)
class StudyPage:
    """The page of a study; ``rule`` says how verdicts come about in general."""

    title: str
    summary: Sequence[tuple[str, str | int]]
    chapters: Sequence[Chapter]
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    rule: str = ""
