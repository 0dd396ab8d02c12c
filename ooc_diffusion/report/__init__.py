"""Tables for terminals and the one-file HTML page."""

from .contents import Accuracy, ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile
from .page import render_page, write_page
from .plots import learning_curve_png
from .study import FAILS, HOLDS, UNTESTED, Cell, Chapter, Chart, Claim, Grid, Line, StudyPage, chapter_of
from .study_page import render_study, write_study
from .study_text import chapter_csv, chapter_text
from .text import accuracy_table_text
from .thumbnails import thumbnail
from .walks import Stop, Walk, WalkPage, render_walks, walk_png

__all__ = [
    "FAILS",
    "HOLDS",
    "UNTESTED",
    "Accuracy",
    "Cell",
    "Chapter",
    "Chart",
    "Claim",
    "ClassPanel",
    "Evaluation",
    "Gallery",
    "Grid",
    "Line",
    "MethodCurve",
    "Page",
    "StageLine",
    "Stop",
    "StudyPage",
    "Tile",
    "Walk",
    "WalkPage",
    "accuracy_table_text",
    "chapter_csv",
    "chapter_of",
    "chapter_text",
    "learning_curve_png",
    "render_page",
    "render_study",
    "render_walks",
    "thumbnail",
    "walk_png",
    "write_page",
    "write_study",
]
