"""The study: each table and figure of the paper, repeated on images that are at hand."""

from .api import CHAPTERS, study

__all__ = ["CHAPTERS", "study"]
