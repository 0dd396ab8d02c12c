"""Tables for terminals and the one-file HTML page."""

from .contents import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile
from .page import render_page, write_page
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
    "render_page",
    "write_page",
]
