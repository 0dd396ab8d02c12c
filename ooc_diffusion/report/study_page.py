"""The page of a study: for each table and figure what was found, what the paper found, and which of its claims hold."""

from __future__ import annotations

import os
from typing import Any

from . import wording
from .page import environment, replace_text
from .plots import chart_svg, style
from .study import FAILS, HOLDS, UNTESTED, Cell, Chapter, Grid, StudyPage

# Verdicts with the character that says them at a glance, and their class in the style sheet.
_VERDICTS = {HOLDS: ("✓", "holds"), FAILS: ("✗", "fails"), UNTESTED: ("–", "untested")}


def write_study(page: StudyPage, path: str | os.PathLike[str]) -> None:
    """Write the page; whoever opens ``path`` meanwhile sees the old file or the new one."""
    replace_text(render_study(page), path)


def render_study(page: StudyPage) -> str:
    """Return the page as HTML; the same contents give the same text."""
    counted = {verdict: sum(c.verdict == verdict for each in page.chapters for c in each.claims) for verdict in _VERDICTS}
    return (
        environment()
        .get_template("study.html.j2")
        .render(
            page=page,
            verdicts=_VERDICTS,
            counted=counted,
            plots={chapter.name: _plots(chapter) for chapter in page.chapters},
            cells=grid_cells,
        )
    )


def grid_cells(grid: Grid) -> list[tuple[str, list[str]]]:
    """Return the rows of a table with their cells as text."""
    return [(name, [cell_text(cell) for cell in cells]) for name, cells in grid.rows]


def cell_text(cell: Cell) -> str:
    """Return a cell as text: accuracies in percent."""
    if cell is None:
        return wording.UNKNOWN
    return cell if isinstance(cell, str) else wording.accuracy(cell)


def _plots(chapter: Chapter) -> list[dict[str, Any]]:
    from markupsafe import Markup

    return [
        {
            "name": chart.title,
            "legend": [(style(index), line.name) for index, line in enumerate(chart.lines)],
            "svg": Markup(chart_svg(chart, prefix=f"{chapter.name}-{number}-")),
        }
        for number, chart in enumerate(chapter.charts)
    ]
