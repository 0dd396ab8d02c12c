"""Several collections as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .source import ImageSource, UnreadableImage, locate_row

if TYPE_CHECKING:
    from PIL import Image


class JoinedSource:
    """The images of several sources one after the other; what describes a collection is that of the first.

    Parameters
    ----------
    sources : sequence of ImageSource and int
        The sources, and the number of images of those that are gone: nobody can read these.
    """

    truth: None = None

    def __init__(self, sources: Sequence[ImageSource | int]) -> None:
        self._sources = sources
        self._lengths = [source if isinstance(source, int) else len(source) for source in sources]
        assert not isinstance(sources[0], int)
        self.fingerprint: str = sources[0].fingerprint
        self.description: Mapping[str, Any] = sources[0].description
        self.class_names: list[str] | None = sources[0].class_names

    @property
    def sources(self) -> list[ImageSource]:
        """The sources that are not gone."""
        return [source for source in self._sources if not isinstance(source, int)]

    def __len__(self) -> int:
        return sum(self._lengths)

    def name(self, i: int) -> str:
        """Return the name that row ``i`` has in its source."""
        part, row = locate_row(i, self._lengths)
        source = self._sources[part]
        return str(i) if isinstance(source, int) else source.name(row)

    def read(self, i: int) -> Image.Image:
        """Return the image of row ``i``; raise `UnreadableImage` where its source is gone or cannot read it."""
        part, row = locate_row(i, self._lengths)
        source = self._sources[part]
        if isinstance(source, int):
            raise UnreadableImage("its descriptor came without an image")
        return source.read(row)
