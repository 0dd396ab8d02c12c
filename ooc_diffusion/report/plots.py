"""Plots as SVG text to stand inside an HTML page.

They hold no word of the user: names stand in a legend that the page draws, where any script has its glyphs. Lines and
letters take the color of the text around them, so one picture serves light and dark. The same data gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .contents import Accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .study import Chart


@dataclass(frozen=True)
class Style:
    """How one series looks: a color, a marker of matplotlib, and the same marker as a character for the legend."""

    color: str
    marker: str
    glyph: str


# Colors of Okabe and Ito that are told apart by all eyes and stand on white and on black; the markers say it once more.
STYLES = (
    Style("#0072b2", "o", "●"),
    Style("#d55e00", "s", "■"),
    Style("#009e73", "^", "▲"),
    Style("#cc79a7", "D", "◆"),
    Style("#e69f00", "v", "▼"),
    Style("#56b4e9", "P", "✚"),
)

_INK = "#010203"  # stands for the color of the surrounding text until the SVG is written


def style(index: int) -> Style:
    """Return the style of a series; they repeat after the last."""
    return STYLES[index % len(STYLES)]


def accuracy_svg(n_per_class: Sequence[int], curves: Sequence[tuple[Style, Sequence[Accuracy]]], *, metric: str = "top-1") -> str:
    """Plot accuracy with error bars over the number of labels per class.

    Parameters
    ----------
    n_per_class : sequence of int
        Places on the x axis.
    curves : sequence of (Style, sequence of (float, float or None))
        For each method its look, and (mean, standard deviation) as fractions of 1.
    metric : str
        Word for the y axis; also keeps the ids of two plots on one page apart. Default "top-1".
    """

    def draw(axes: Axes) -> None:
        for look, curve in curves:
            means = [100 * mean for mean, _ in curve]
            errors = [100 * (std or 0.0) for _, std in curve]
            axes.errorbar(n_per_class, means, yerr=errors, color=look.color, marker=look.marker, capsize=3)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(n_per_class), [str(n) for n in n_per_class])
        axes.minorticks_off()
        axes.set_xlabel("labels per class")
        axes.set_ylabel(f"{metric} accuracy (%)")

    return _svg(draw, prefix=f"plot-{metric}-")


def iterations_svg(curves: Sequence[tuple[Style, Sequence[float]]]) -> str:
    """Plot mean accuracy over the iterations 0, 1, 2, ... of diffusion, one line for each number of labels per class."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for look, means in curves:
            axes.plot(range(len(means)), [100 * mean for mean in means], color=look.color, marker=look.marker)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("iteration")
        axes.set_ylabel("top-1 accuracy (%)")

    return _svg(draw, prefix="plot-iterations-")


def chart_svg(chart: Chart, *, prefix: str) -> str:
    """Plot a chart of the study, its series with error bars in the order of `style`; ``prefix`` keeps ids on one page apart."""

    def draw(axes: Axes) -> None:
        for index, line in enumerate(chart.lines):
            look = style(index)
            means, errors = [100 * mean for mean, _ in line.y], [100 * (std or 0.0) for _, std in line.y]
            axes.errorbar(line.x, means, yerr=errors, color=look.color, marker=look.marker, capsize=3)
        if chart.log is not None:
            axes.set_xscale("log", base=chart.log)
        places = sorted({x for line in chart.lines for x in line.x})
        if chart.log == 2:
            axes.set_xticks(places, [f"{x:g}" for x in places])
            axes.minorticks_off()
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)

    return _svg(draw, prefix=prefix)


def standalone(svg: str) -> str:
    """Return an SVG of this module as a file of its own."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="black"'
    return svg.replace("<svg ", f"<svg {names} ", 1) + "\n"


def learning_curve_png(curve: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot loss and accuracy over the epochs of a training, side by side, as a picture.

    Parameters
    ----------
    curve : sequence of mapping
        For each epoch ``epoch``, ``loss``, ``accuracy``, ``held_out_loss`` and ``held_out_accuracy`` (None where nothing is
        held out).
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(9.0, 3.4), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        epochs = [row["epoch"] for row in curve]
        for axes, name, scale, unit in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), ("", " (%)"), strict=True):
            for look, kind, word in zip(STYLES, ("", "held_out_"), ("trained on", "held out"), strict=False):
                values = [row[kind + name] for row in curve]
                if None not in values:
                    axes.plot(epochs, [scale * value for value in values], color=look.color, marker=look.marker, label=word)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            axes.set_ylabel(name + unit)
            axes.grid(alpha=0.15)
            axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _svg(draw: Callable[[Axes], None], *, prefix: str) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a style file of the user does not show on the page
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "ooc_diffusion",
                "svg.fonttype": "none",
                "font.size": 10,
                "text.color": _INK,
                "axes.edgecolor": _INK,
                "axes.labelcolor": _INK,
                "xtick.color": _INK,
                "ytick.color": _INK,
                "grid.color": _INK,
                "grid.alpha": 0.15,
                "axes.grid": True,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "lines.markersize": 5,
                "lines.linewidth": 1.6,
            }
        )
        figure = Figure(figsize=(4.0, 2.9), layout="constrained")
        draw(figure.add_subplot())
        return _inline(figure, prefix)


def _inline(figure: Figure, prefix: str) -> str:
    """Return the SVG element alone, its ids unique on the page, without names of standards that look like links."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", text).strip()
