"""A chapter of the study for terminals, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from .study import Chapter, Claim, Grid
from .study_page import grid_cells


def chapter_text(chapter: Chapter) -> str:
    """Return tables and claims as plain text."""
    parts = [f"{chapter.title}\n{chapter.about}"]
    parts += [_table(grid) for grid in (*chapter.grids, *chapter.paper)]
    if chapter.claims:
        parts.append("\n".join(map(_claim, chapter.claims)))
    return "\n\n".join(parts)


def chapter_csv(chapter: Chapter) -> str:
    """Return all cells, those of the paper and claims too: columns ``source,table,row,column,mean,std,text``.

    Accuracies are fractions of 1.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["source", "table", "row", "column", "mean", "std", "text"])
    for source, grids in (("here", chapter.grids), ("paper", chapter.paper)):
        for grid in grids:
            for name, cells in grid.rows:
                for column, cell in zip(grid.columns[1:], cells, strict=False):
                    numbers = ("", "", cell or "") if cell is None or isinstance(cell, str) else (*map(_number, cell), "")
                    lines.writerow([source, grid.title, name, column, *numbers])
    for claim in chapter.claims:
        figures = f"{claim.figures}; holds where {claim.rule}" if claim.rule else claim.figures
        lines.writerow(["claim", claim.source, claim.text, claim.verdict, "", "", figures])
    return text.getvalue()


def _claim(claim: Claim) -> str:
    rule = f"\n    holds where {claim.rule}" if claim.rule else ""
    return f"{claim.verdict}: {claim.text} ({claim.source}) {claim.figures}{rule}"


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _table(grid: Grid) -> str:
    rows = [list(grid.columns), *([name, *cells] for name, cells in grid_cells(grid))]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(grid.columns))]
    return "\n".join([grid.title, *(_aligned(row, widths) for row in rows)])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *cells = row
    return "  ".join(
        [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False))]
    ).rstrip()
