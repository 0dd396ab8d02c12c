"""What every collection of images looks like to the rest of the package: numbered rows that never move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import BadInput

if TYPE_CHECKING:
    from PIL import Image


class UnreadableImage(BadInput):
    """An image that cannot be decoded. Its message is one line: the reason, without the name of the image."""


class ImageSource(Protocol):
    """A numbered collection of images.

    Attributes
    ----------
    fingerprint : str
        32 hexadecimal digits (xxh3, 128 bits) that change with the collection.
    description : mapping
        Keyword arguments, JSON-able, with which `open_source` opens the collection again.
    truth : int32 array (n,) or None
        Class of each image where the collection knows it, -1 where it does not.
    class_names : list of str or None
        Name of each class.
    """

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def description(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def truth(self) -> np.ndarray | None: ...  # noqa: D102

    @property
    def class_names(self) -> list[str] | None: ...  # noqa: D102

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Return the stable id of row ``i``: a relative path with ``/`` between its parts."""

    def read(self, i: int) -> Image.Image:
        """Decode the image of row ``i``, upright and of mode L or RGB; raise `UnreadableImage` where that fails."""


def check_row(i: int, n: int) -> int:
    """Return ``i`` where it is a row number of a collection of ``n`` images; raise IndexError where it is not."""
    if not 0 <= i < n:
        raise IndexError(f"row {i} is outside of a collection of {n} images")
    return int(i)


def locate_row(i: int, lengths: Sequence[int]) -> tuple[int, int]:
    """Return which of several consecutive parts holds row ``i``, and its row there; raise IndexError outside of all."""
    rest = check_row(i, sum(lengths))
    part = 0
    while rest >= lengths[part]:
        rest -= lengths[part]
        part += 1
    return part, rest
