"""Chapters as they lie in the folder of a study, and the page of those that belong together."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...report import Chapter, chapter_csv, chapter_of
from ...report.page import replace_text
from ...report.plots import chart_svg, standalone

logger = logging.getLogger(__name__)

PAGE = "study.html"


@dataclass(frozen=True)
class Saved:
    """Chapters of one folder that were made with the same parameters.

    Parameters
    ----------
    chapters : list of Chapter
        In the order of the names.
    commands : list of str
        The command lines that made them, each once.
    neighbors : list of str
        Which neighbors the images of their backgrounds have, each once.
    """

    chapters: list[Chapter]
    commands: list[str]
    neighbors: list[str]


def save_chapter(chapter: Chapter, folder: Path, *, run: dict[str, Any], neighbors: Sequence[str], command: str) -> None:
    """Write JSON, CSV and plots of a chapter; the JSON says with which parameters it was made, over which neighbors."""
    values = {**asdict(chapter), "run": run, "neighbors": neighbors, "command": command}
    replace_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", _file(folder, chapter.name))
    replace_text(chapter_csv(chapter), folder / f"{chapter.name}.csv")
    for number, chart in enumerate(chapter.charts, start=1):
        svg = standalone(chart_svg(chart, prefix=f"{chapter.name}-{number}-"))
        replace_text(svg, folder / f"{chapter.name}-{number}.svg")


def saved_chapters(folder: Path, names: Sequence[str], *, run: dict[str, Any]) -> Saved:
    """Read the chapters of a folder that were made with the same parameters; warn of the others, which are left out."""
    found = {name: _read(_file(folder, name)) for name in names if _file(folder, name).exists()}
    same = {name: values for name, values in found.items() if values.get("run") == run}
    others = [name for name in found if name not in same]
    if others:
        logger.warning(
            "%s in %s: made with other options or from other images, or judged by other rules, so not on the page; make it "
            "again, or give another `output`",
            ", ".join(others),
            folder,
        )
    commands = dict.fromkeys(values["command"] for values in same.values())
    neighbors = sorted({told for values in same.values() for told in values.get("neighbors", [])})
    return Saved([chapter_of(values) for values in same.values()], list(commands), neighbors)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _read(path: Path) -> dict[str, Any]:
    """Return the values of a file; none where it is something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
