"""Tables for terminals and the one-file HTML page."""

from .contents import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile
from .page import render_page, write_page
from .plots import learning_curve_png
from .text import accuracy_table_text

__all__ = [
    "ClassPanel",
    "Evaluation",
    "Gallery",
    "MethodCurve",
    "Page",
    "StageLine",
    "Tile",
    "accuracy_table_text",
    "learning_curve_png",
    "render_page",
    "write_page",
]
