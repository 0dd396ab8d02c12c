"""The HTML page: one file that needs no other file, no network and no script."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import wording
from .contents import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile
from .plots import accuracy_svg, iterations_svg, style
from .stages_table import stages_table
from .thumbnails import thumbnail_uri

if TYPE_CHECKING:
    from jinja2 import Environment

    from .walks import Stop

__all__ = [
    "ClassPanel",
    "Evaluation",
    "Gallery",
    "MethodCurve",
    "Page",
    "StageLine",
    "Tile",
    "render_page",
    "write_page",
]

OPEN_CLASSES = 20
_UNREACHED_TILES = 48


def write_page(page: Page, path: str | os.PathLike[str]) -> None:
    """Write the page; whoever opens ``path`` meanwhile sees the old file or the new one, never a half.

    Parameters
    ----------
    page : Page
        What to show.
    path : path-like
        The HTML file; its folder exists.
    """
    replace_text(render_page(page), path)


def replace_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file in place of the one that is there, never a half."""
    path = Path(path)
    draft = path.with_name(f".page-{secrets.token_hex(8)}.tmp")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def render_page(page: Page) -> str:
    """Return the page as HTML; the same contents give the same text."""
    tiles, side = _gallery_limits(len(page.classes))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            stages=stages_table(page.stages),
            plots=_plots(page.evaluation),
            blocks=_blocks(page.evaluation),
            open_classes=OPEN_CLASSES,
            largest_class=max((panel.count for panel in page.classes), default=0),
            tiles=tiles,
            side=side,
            unreached_tiles=_UNREACHED_TILES,
        )
    )


def _gallery_limits(n_classes: int) -> tuple[int, int]:
    """Return how many tiles a gallery shows and their side in pixels, so that the file stays small with many classes."""
    if n_classes <= OPEN_CLASSES:
        return 8, 72
    return (5, 48) if n_classes <= 100 else (3, 48)


def environment() -> Environment:
    """Return what the templates are rendered with: escaping, and filters for numbers, names and pictures."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        # Every value that the template prints passes here, before it is escaped.
        return value if isinstance(value, Markup) or not isinstance(value, str) else wording.visible(value)

    def picture(tile: Tile | Stop, side: int) -> Markup | None:
        uri = thumbnail_uri(tile.image, side=side)
        return None if uri is None else Markup(uri)

    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "accuracy": wording.accuracy,
        "base": _last_part,
        "confidence": wording.confidence,
        "count": wording.count,
        "counted": wording.counted,
        "duration": wording.duration,
        "percent": wording.percent,
        "picture": picture,
        "size": wording.size,
    }
    return found


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1] or name


def _blocks(evaluation: Evaluation | None) -> list[dict[str, Any]]:
    """Return the parts of the accuracy table, each with the best mean of each column."""
    if evaluation is None:
        return []
    return [
        {"metric": metric, "rows": rows, "best": [max(means) for means in zip(*_means(rows), strict=True)]}
        for metric, rows in evaluation.blocks()
    ]


def _means(rows: Iterable[tuple[str, Any]]) -> list[list[float]]:
    # A missing mean is not a number; it is the best of nothing.
    return [[mean if mean == mean else -1.0 for mean, _ in curve] for _, curve in rows]


def _plots(evaluation: Evaluation | None) -> list[dict[str, Any]]:
    """Return the plots, each with its SVG, a sentence for those who do not see it, and the legend."""
    from markupsafe import Markup

    if evaluation is None or not evaluation.n_per_class:
        return []
    # A method keeps its look in every plot, also where others are missing.
    looks = [(method, style(index)) for index, method in enumerate(evaluation.methods)]
    curves = {
        "top-1": [(look, method.name, method.top1) for method, look in looks],
        "top-5": [(look, method.name, method.top5) for method, look in looks if method.top5 is not None],
    }
    plots = [
        {
            "name": f"{metric} accuracy over labels per class",
            "legend": [(look, name) for look, name, _ in rows],
            "svg": Markup(accuracy_svg(evaluation.n_per_class, [(row[0], row[2]) for row in rows], metric=metric)),
        }
        for metric, rows in curves.items()
        if rows
    ]
    if evaluation.iterations:
        lines = [(style(index), n, means) for index, (n, means) in enumerate(evaluation.iterations.items())]
        plots.append(
            {
                "name": "top-1 accuracy over iterations of diffusion",
                "legend": [(look, f"n = {n}") for look, n, _ in lines],
                "svg": Markup(iterations_svg([(look, means) for look, _, means in lines])),
            }
        )
    return plots
