"""Tables for terminals and the one-file HTML page."""

from .contents import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile
from .page import render_page, write_page
from .text import accuracy_table_text
from .thumbnails import thumbnail
from .walks import Stop, Walk, WalkPage, render_walks, walk_png

__all__ = [
    "ClassPanel",
    "Evaluation",
    "Gallery",
    "MethodCurve",
    "Page",
    "StageLine",
    "Stop",
    "Tile",
    "Walk",
    "WalkPage",
    "accuracy_table_text",
    "render_page",
    "render_walks",
    "thumbnail",
    "walk_png",
    "write_page",
]
