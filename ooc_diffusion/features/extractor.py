"""From a collection of images to rows of descriptors, in batches that never depend on the memory at hand."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import BadInput
from ..images import ImageSource, UnreadableImage, white_image
from .checks import check_descriptors

if TYPE_CHECKING:
    from PIL import Image

# Batches that are decoded while the one before them is described.
_AHEAD = 2
# Pieces of a batch per thread: small enough that one slow image does not hold up the batch.
_PIECES_PER_THREAD = 4
# A batch that takes so long is enough to tell the time of an image.
_MEASURED_SECONDS = 0.25


class Extractor(Protocol):
    """Turns images into descriptors.

    Attributes
    ----------
    dim : int
        Values per descriptor.
    batch_images : int
        Images that are described together: a constant of the class, so that the results do not depend on the memory budget.
    identity : mapping
        All that determines the numbers, JSON-able: model, hash of the weights, preprocessing, kind of device.
    """

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def batch_images(self) -> int: ...  # noqa: D102

    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return what `describe` needs of an image, always of the same shape and dtype. Called from several threads."""

    def describe(self, batch: np.ndarray) -> np.ndarray:
        """Return float32 (b, dim) descriptors of b prepared images."""


@dataclass(frozen=True)
class Block:
    """Descriptors of consecutive images.

    Parameters
    ----------
    first_row : int
        Row of the first of them.
    descriptors : float32 array (b, dim)
        One row per image; an unreadable image has the descriptor of a white one.
    failures : list of (int, str)
        Row and reason of each unreadable image, rows ascending.
    """

    first_row: int
    descriptors: np.ndarray
    failures: list[tuple[int, str]]


def describe_images(source: ImageSource, extractor: Extractor, *, start: int = 0, threads: int = 1) -> Iterator[Block]:
    """Describe all images from a row on.

    Batches start at multiples of ``extractor.batch_images``, so that a run that is taken up again gives the same bytes as one
    that never stopped; so does any number of threads.

    Parameters
    ----------
    source : ImageSource
        The images.
    extractor : Extractor
        The descriptor.
    start : int
        First row, a multiple of ``extractor.batch_images``. Default 0.
    threads : int
        Threads that decode, up to two batches ahead. Default 1: no thread besides the caller's.

    Yields
    ------
    Block
        Of ``extractor.batch_images`` rows; the last may be shorter.

    Raises
    ------
    BadInput
        Where ``start`` is between two batches, or where a descriptor is not finite.
    """
    if start % extractor.batch_images:
        raise BadInput(f"row {start} is not the start of a batch; give a multiple of {extractor.batch_images}")
    white = extractor.prepare(white_image())
    with _prepared(source, extractor, white, start, threads) as batches:
        for batch in batches:
            descriptors = extractor.describe(batch.images)
            check_descriptors(descriptors, batch.first_row, "descriptors of the images")
            yield Block(batch.first_row, descriptors, batch.failures())


def preparation_bytes(extractor: Extractor) -> int:
    """Return the bytes that `describe_images` holds at once: prepared batches and one block of descriptors.

    The activations of a network come on top, and so does one decoded image per thread.
    """
    white = extractor.prepare(white_image())
    return extractor.batch_images * ((_AHEAD + 1) * white.nbytes + 4 * extractor.dim)


def measure_describing(extractor: Extractor) -> float:
    """Return the seconds that describing an image takes, decoding left out: of white images, in batches as large as it takes."""
    batch = np.repeat(extractor.prepare(white_image())[np.newaxis], extractor.batch_images, axis=0)
    extractor.describe(batch[:1])  # warms up
    images = 1
    while True:
        taken = min(_seconds(extractor, batch[:images]) for _ in range(2))  # others may be at work
        if taken >= _MEASURED_SECONDS or images == len(batch):
            return taken / images
        images = min(2 * images, len(batch))


def _seconds(extractor: Extractor, batch: np.ndarray) -> float:
    started = time.perf_counter()
    extractor.describe(batch)
    return time.perf_counter() - started


class _Batch:
    """Images in preparation: every piece of rows writes into its own part of one array."""

    def __init__(self, first_row: int, end_row: int, white: np.ndarray) -> None:
        self.first_row = first_row
        self.end_row = end_row
        self.images = np.empty((end_row - first_row, *white.shape), white.dtype)
        self._white = white
        self._failures: list[tuple[int, str]] = []
        self.pending: list[Future[None]] = []

    def fill(self, source: ImageSource, extractor: Extractor, first: int, end: int) -> None:
        for row in range(first, end):
            try:
                self.images[row - self.first_row] = extractor.prepare(source.read(row))
            except UnreadableImage as error:
                self.images[row - self.first_row] = self._white
                self._failures.append((row, str(error)))

    def failures(self) -> list[tuple[int, str]]:
        return sorted(self._failures)


@contextmanager
def _prepared(
    source: ImageSource, extractor: Extractor, white: np.ndarray, start: int, threads: int
) -> Iterator[Iterator[_Batch]]:
    size, n = extractor.batch_images, len(source)
    batches = (_Batch(first, min(first + size, n), white) for first in range(start, n, size))
    if threads == 1:
        yield _fill_one_by_one(batches, source, extractor)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        yield _fill_ahead(batches, source, extractor, pool, max(1, -(-size // (threads * _PIECES_PER_THREAD))))
    finally:
        # After an interruption only the pieces at hand are finished, not the batches ahead.
        pool.shutdown(wait=True, cancel_futures=True)


def _fill_one_by_one(batches: Iterator[_Batch], source: ImageSource, extractor: Extractor) -> Iterator[_Batch]:
    for batch in batches:
        batch.fill(source, extractor, batch.first_row, batch.end_row)
        yield batch


def _fill_ahead(
    batches: Iterator[_Batch], source: ImageSource, extractor: Extractor, pool: ThreadPoolExecutor, piece: int
) -> Iterator[_Batch]:
    ahead: deque[_Batch] = deque()
    for batch in batches:
        for first in range(batch.first_row, batch.end_row, piece):
            end = min(first + piece, batch.end_row)
            batch.pending.append(pool.submit(batch.fill, source, extractor, first, end))
        ahead.append(batch)
        if len(ahead) > _AHEAD:
            yield _finished(ahead.popleft())
    while ahead:
        yield _finished(ahead.popleft())


def _finished(batch: _Batch) -> _Batch:
    for future in batch.pending:
        future.result()
    return batch
