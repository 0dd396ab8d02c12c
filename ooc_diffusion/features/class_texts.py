"""Classes that a file of descriptors knows by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from ..errors import BadInput

# More different names are no classes, but names of images; so many are held in memory.
_MOST_CLASSES = 2**17


class ClassTexts:
    """Numbers classes in the order of their names; a text that is missing or empty is no class.

    Parameters
    ----------
    read : callable
        Given a number of rows, yields the texts of all rows in lists of at most so many.
    what : str
        Where they are, for messages.
    """

    def __init__(self, read: Callable[[int], Iterator[Sequence[str | None]]], what: str) -> None:
        self._read, self._what = read, what

    @cached_property
    def names(self) -> list[str]:
        """The names, sorted; the texts are read for that."""
        found: set[str | None] = set()
        for texts in self._read(8192):
            found.update(texts)
            if len(found) > _MOST_CLASSES:
                raise BadInput(f"{self._what} has more than {_MOST_CLASSES} different names; give a column of classes")
        return sorted(text for text in found if text)

    def numbers(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the class of each row, (b,) int32, -1 where there is none."""
        number = {name: c for c, name in enumerate(self.names)}
        for texts in self._read(rows):
            yield np.array([number.get(text or "", -1) for text in texts], np.int32)
