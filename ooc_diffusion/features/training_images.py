"""The images that a network is trained on: chosen rows of a collection, kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput
from ..images import ImageSource, UnreadableImage, printable
from ..parallel import in_order
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

# Images that are decoded together to be kept.
_BLOCK = 256


class ChosenImages:
    """Some rows of a collection as a collection: of the others no image is opened.

    Parameters
    ----------
    source : ImageSource
        The collection.
    rows : numpy.ndarray of shape (n,), int64
        Its rows.
    """

    truth: None = None
    class_names: None = None

    def __init__(self, source: ImageSource, rows: np.ndarray) -> None:
        self._source = source
        self._rows = rows
        self.fingerprint = source.fingerprint
        self.description = source.description

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, i: int) -> str:
        """Return the name of image i."""
        return self._source.name(int(self._rows[i]))

    def read(self, i: int) -> Image.Image:
        """Decode image i; raise `UnreadableImage` where that fails."""
        return self._source.read(int(self._rows[i]))


class TrainingImages:
    """Prepared images and their classes, by place.

    Parameters
    ----------
    images : ImageSource
        The images and no others.
    classes : numpy.ndarray of shape (n,), int64
        Class of each, from 0 on.
    preprocessing : Preprocessing
        How they are prepared.
    threads : int
        Threads that decode.
    keep : bool
        Whether all prepared images are held in memory.
    most_failures : int
        Unreadable images above which `BadInput` is raised.
    together : list of TrainingImages, optional
        Those whose unreadable images count as well. This one is appended.

    Attributes
    ----------
    failures : dict of int to str
        Place and reason of each image that could not be read so far. They are left out of batches.
    """

    def __init__(
        self,
        images: ImageSource,
        classes: np.ndarray,
        preprocessing: Preprocessing,
        *,
        threads: int,
        keep: bool,
        most_failures: int,
        together: list[TrainingImages] | None = None,
    ) -> None:
        self.classes = classes
        self.failures: dict[int, str] = {}
        self._images = images
        self._preprocessing = preprocessing
        self._threads = threads
        self._most_failures = most_failures
        self._together = [] if together is None else together
        self._together.append(self)
        self._kept: np.ndarray | None = self._read_all() if keep else None

    def __len__(self) -> int:
        return len(self.classes)

    def batches(self, places: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each array of places the uint8 (b, side, side, channels) pixels and the int64 (b,) classes.

        Images that cannot be read are missing from both. Where pixels are not kept they are decoded ahead.
        """
        tasks = ((each,) for each in places)
        kept = self._kept is not None
        for pixels, read in map(self._take, places) if kept else in_order(self._decode, tasks, threads=self._threads):
            self._refuse_failures()
            yield pixels, self.classes[read]

    def _take(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._kept is not None
        read = self._readable(places)
        return self._kept[read], read

    def _decode(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.empty((len(places), *self._shape), np.uint8)
        for i, place in enumerate(places.tolist()):
            try:
                pixels[i] = self._preprocessing.prepare(self._images.read(place))
            except UnreadableImage as error:
                self.failures[place] = str(error)
        read = self._readable(places)
        return (pixels if len(read) == len(places) else pixels[np.isin(places, read)]), read

    def _readable(self, places: np.ndarray) -> np.ndarray:
        bad = [place in self.failures for place in places.tolist()] if self.failures else [False] * len(places)
        return places[~np.array(bad, bool)]

    def _read_all(self) -> np.ndarray:
        kept = np.zeros((len(self), *self._shape), np.uint8)

        def read(first: int) -> None:
            places = np.arange(first, min(first + _BLOCK, len(self)))
            pixels, readable = self._decode(places)
            kept[readable] = pixels

        for _ in in_order(read, ((first,) for first in range(0, len(self), _BLOCK)), threads=self._threads):
            self._refuse_failures()
        return kept

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self._preprocessing.crop, self._preprocessing.crop, self._preprocessing.channels

    def _refuse_failures(self) -> None:
        if sum(len(each.failures) for each in self._together) > self._most_failures:
            found = [f"{each._told(place)}: {why}" for each in self._together for place, why in sorted(each.failures.items())]
            raise BadInput(
                f"{len(found)} of {sum(map(len, self._together))} images are unreadable, more than --max-failures allows "
                f"({'; '.join(found[:3])}); mend them, or raise --max-failures to go on"
            )

    def _told(self, place: int) -> str:
        return printable(self._images.name(place))


def channel_statistics(images: TrainingImages, places: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, of values 0..1, over some images; float64, rounded to 4 digits."""
    total: Any = 0
    squares: Any = 0
    count = 0
    for pixels, _ in images.batches(np.array_split(places, -(-len(places) // _BLOCK))):
        values = pixels.reshape(-1, pixels.shape[-1]) / 255
        total, squares, count = total + values.sum(axis=0), squares + np.square(values).sum(axis=0), count + len(values)
    mean = total / max(1, count)
    deviation = np.sqrt(np.maximum(squares / max(1, count) - mean**2, 1e-4))
    return [round(float(value), 4) for value in mean], [round(float(value), 4) for value in deviation]
