"""The entries of blocks of W, read from disk while those of the blocks before are worked on.

A W that the system can keep in its cache is read through it: every pass but the first then finds it in memory. A larger one is
read past the cache, which would hold nothing that comes again: it would push out what does, break up the memory for huge pages,
and keep the cores busy.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..graph import Graph
from ..memory import machine_memory, pages
from ..store.npy import DirectFile, read_ahead
from . import room
from .blocks import Block, Part
from .kernels import PIECE

T = TypeVar("T")
# Indices, and weights: of no length where an edge counts 1 or 2.
Entries = tuple[np.ndarray, np.ndarray]

# Blocks of W, of 16 MiB mostly, that are read through the cache while one is at work.
_AHEAD = 2
# From this part on a block is read whole: scattered pages cost more each.
_WHOLE = 0.5
# A W of more than this part of the memory of the machine would not stay there until the next pass.
_CACHED_PART = 0.5
# Past the cache, one block is read while another is at work.
_SLOTS = 2
NO_WEIGHTS = np.empty(0, np.float32)


@dataclass(frozen=True)
class Span:
    """Entries of W in a row, of which pieces are wanted.

    Parameters
    ----------
    source : Graph or Part
        Where they are read.
    begin, end : int
        The first one, and the one behind the last.
    pieces : numpy.ndarray of shape (m,), bool
        Which pieces, each of `PIECE` entries and 4 KiB of neighbors.
    """

    source: Graph | Part
    begin: int
    end: int
    pieces: np.ndarray

    @property
    def whole(self) -> bool:
        """Whether so much is wanted that all had better be read."""
        return bool(self.pieces.mean() > _WHOLE)


def entries_of(blocks: Iterable[Block]) -> Iterator[tuple[Block, Entries]]:
    """Go through blocks of one source, each with the entries of all its rows, which hold until the next is asked for."""
    return read_spans((block, _rows_at_work(block)) for block in blocks)


def read_spans(spans: Iterable[tuple[T, Span]]) -> Iterator[tuple[T, Entries]]:
    """Go through things that each need a span of one source, with the entries of it; those that are not wanted may be slow."""
    spans = iter(spans)
    first = next(spans, None)
    if first is None:
        return
    spans, source = itertools.chain([first], spans), first[1].source
    with contextlib.ExitStack() as stack:
        direct = _open_direct(source, stack) if reading_bytes(len(source.indices), weighted=source.weights is not None) else None
        yield from _through_cache(spans) if direct is None else _past_cache(spans, direct)


def reading_bytes(nnz: int, *, weighted: bool) -> int:
    """Return the bytes of memory that it takes to read a W of so many entries."""
    entry = 8 if weighted else 4
    return _SLOTS * entry * _slot_entries() if entry * nnz > _CACHED_PART * machine_memory() else 0


def _slot_entries() -> int:
    return room.BLOCK_ENTRIES + 2 * DirectFile.ALIGNMENT


def _rows_at_work(block: Block) -> Span:
    indptr, rows = block.indptr, block.rows
    pieces = np.zeros(int(indptr[-1] - indptr[0]) // PIECE + 1, np.bool_)
    if len(rows) == len(indptr) - 1:
        pieces[:] = True
    else:  # few rows are longer than a piece: what lies between is read when its turn comes
        pieces[(indptr[rows] - indptr[0]) // PIECE] = True
        pieces[(indptr[rows + 1] - indptr[0]) // PIECE] = True
    return Span(block.source, int(indptr[0]), int(indptr[-1]), pieces)


def _through_cache(spans: Iterable[tuple[T, Span]]) -> Iterator[tuple[T, Entries]]:
    waiting: deque[tuple[T, Entries]] = deque()
    for item, span in spans:
        waiting.append((item, _mapped(span)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _mapped(span: Span) -> Entries:
    """Ask the system for the wanted pieces and return what is mapped."""
    source = span.source
    wanted = np.ones_like(span.pieces) if span.whole else span.pieces
    edges = np.flatnonzero(np.diff(wanted.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    for first, last in edges.reshape(-1, 2).tolist():
        entries = span.begin + PIECE * first, min(span.begin + PIECE * last, len(source.indices))
        read_ahead(source.indices, *entries)
        if source.weights is not None:
            read_ahead(source.weights, *entries)
    return source.indices[span.begin : span.end], NO_WEIGHTS if source.weights is None else source.weights[span.begin : span.end]


def _open_direct(source: Graph | Part, stack: contextlib.ExitStack) -> list[DirectFile] | None:
    """Open the files of indices and weights; None where their disk cannot be read past the cache."""
    files = []
    for array in (source.indices, source.weights):
        if array is not None:
            try:
                files.append(DirectFile(array))
            except OSError:
                return None
            stack.callback(files[-1].close)
    return files


def _past_cache(spans: Iterable[tuple[T, Span]], files: list[DirectFile]) -> Iterator[tuple[T, Entries]]:
    memory = [[pages.allocate(4 * _slot_entries()) for _ in files] for _ in range(_SLOTS)]

    def directly(span: Span) -> bool:
        return span.whole and span.end - span.begin <= room.BLOCK_ENTRIES

    def read(span: Span, slot: int) -> Entries:
        if not directly(span):
            return _mapped(span)
        found = [file.read(span.begin, span.end, piece) for file, piece in zip(files, memory[slot], strict=True)]
        return found[0], found[1] if len(found) > 1 else NO_WEIGHTS

    def handed_out(item: T, span: Span, entries: Future[Entries]) -> Iterator[tuple[T, Entries]]:
        yield item, entries.result()
        if not directly(span):  # few passes want the same pages again, and these would stay until others are needed
            for file in files:
                file.forget(span.begin, span.end)

    with ThreadPoolExecutor(1, "reading W") as thread:
        before: tuple[T, Span, Future[Entries]] | None = None
        for number, (item, span) in enumerate(spans):
            reading = item, span, thread.submit(read, span, number % _SLOTS)
            if before is not None:
                yield from handed_out(*before)
            before = reading
        if before is not None:
            yield from handed_out(*before)
