"""By which rules the chapters of a study were judged."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ...evaluation import paper
from ..stage_names import digest


@cache
def rules() -> str:
    """Return what tells rules, the words of claims and the figures of the paper from those of another time: of their source."""
    return digest_of([*Path(__file__).parent.glob("*.py"), Path(paper.__file__)])


def digest_of(files: Iterable[Path]) -> str:
    """Return what tells the contents of files from others, wherever these lie."""
    return digest({file.name: file.read_text(encoding="utf-8") for file in files})
