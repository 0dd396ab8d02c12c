"""A neighbor table of the background that people have already, in place of a search."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..memory import MemoryBudget, StagePlan
from ..neighbors import SAMPLES, best_first, check_ids, check_similarities, distinct, require_products
from ..store import load_npy, load_raw
from .import_descriptors import file_identity, refuse_changed
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, SLACK
from .settings import Worker
from .traffic import alone, reads_without_search

# A block of the table is at most so many entries, however wide its rows are; what is held for each of them.
_ENTRIES = 2**19
_ENTRY_BYTES = 64
# Files without a header as the paper's are named: what ends their names is the number of neighbors, not the size of a number.
_RAW = re.compile(r"\.(?:int|float)(\d+)$")


@dataclass(frozen=True)
class OwnTable:
    """A neighbor table in files.

    Parameters
    ----------
    ids : numpy.ndarray of shape (n, w), integers
        Ids, best first; -1 = none. Mapped.
    similarities : numpy.ndarray of shape (n, w), floats, or None
        Inner products, falling along a row. None: they are computed.
    files : dict
        The path of ``table``, and of ``similarities`` where given.
    parameters : dict
        Which files these were when they were opened.
    """

    ids: np.ndarray
    similarities: np.ndarray | None
    files: dict[str, str]
    parameters: dict[str, Any]

    @property
    def block_rows(self) -> int:
        """Rows that are read at a time."""
        return max(1, min(BLOCK_ROWS, _ENTRIES // self.ids.shape[1]))

    def plan(self, plan: StagePlan, budget: MemoryBudget, dim: int, width: int) -> StagePlan:
        """Return what taking ``width`` neighbors costs, given the plan of a search by the same index among vectors (n, dim)."""
        values, (n, wide) = self.similarities, self.ids.shape
        least = budget.overhead() + SLACK + _ENTRY_BYTES * self.block_rows * wide
        if values is None:  # they are read where the ids of a block point
            compared = 4 * n * dim + -(-n // self.block_rows) * alone(self.block_rows * wide, 4 * dim, 4 * n * dim)
        else:
            some = alone(SAMPLES, 4 * dim, 4 * n * dim) + alone(SAMPLES * width, 4 * dim, 4 * n * dim)
            compared = some + 2 * alone(SAMPLES, 4 * width, 4 * n * width)
        table = self.ids.nbytes + (0 if values is None else values.nbytes)
        return replace(
            plan,
            work=f"a table of {n:,} x {wide:,} neighbors",
            memory_bytes=max(plan.memory_bytes, least),
            least_bytes=max(plan.least_bytes, least),
            operations=0.0,
            reads=reads_without_search(plan) | {"table": table, "comparing": compared},
        )


@dataclass(frozen=True)
class EarlierTable:
    """A table that was taken before: of its files nothing is read again.

    Parameters
    ----------
    parameters : dict
        Which files these were then.
    """

    parameters: dict[str, Any]


def open_table(table: str | Path, similarities: str | Path | None, *, n: int, k: int, width: int | None = None) -> OwnTable:
    """Map the files of a table of n rows, with k ids or more each, and check dtypes and shapes.

    Files named ``.int32``, ``.float32`` and the like, and all where a ``width`` is given, have no header: row after row of so
    many int32 or float32.
    """
    files = {"table": table} | ({} if similarities is None else {"similarities": similarities})
    parameters = {name: file_identity(path) for name, path in files.items()} | ({} if width is None else {"table_width": width})
    ids = _open(table, "<i4", n, width)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise BadInput(f"{table} holds {ids.dtype} {ids.shape}; a neighbor table is integers of shape (images, neighbors)")
    if len(ids) != n:
        raise BadInput(f"{table} has {len(ids)} rows, but there are {n} background images; give one row for each, in their order")
    if ids.shape[1] < k:
        raise BadInput(f"{table} has {ids.shape[1]} neighbors in a row, fewer than `k` = {k}; give a wider table, or less")
    values = None
    if similarities is not None:
        values = _open(similarities, "<f4", n, width)
        if values.shape != ids.shape or values.dtype.kind != "f":
            raise BadInput(f"{similarities} holds {values.dtype} {values.shape}; give floats of shape {ids.shape}, as the table")
    return OwnTable(ids, values, {name: str(path) for name, path in files.items()}, parameters)


def _open(file: str | Path, dtype: str, n: int, width: int | None) -> np.ndarray:
    named = _RAW.search(Path(file).name)
    if width is None and named is None:
        return load_npy(file)
    wide = width if width is not None else int(named[1]) if named else 0
    values = load_raw(file, dtype, max(1, wide), option="`table_width`")
    if len(values) != n:
        each, more = divmod(values.nbytes, n * values.itemsize)
        fitting = f"; `table_width` {each} would fit" if each and not more else ""
        raise BadInput(
            f"{file} has {values.nbytes} bytes, which are {len(values)} rows of {wide} {values.dtype}, but there are {n} "
            f"background images; give a file of {n} x {wide} x {values.itemsize} bytes, or its `table_width`{fitting}"
        )
    return values


def copy_table(worker: Worker, own: OwnTable, vectors: np.ndarray, *, k: int) -> np.ndarray:
    """Write a table as that of the background, ``background/neighbor_ids`` and ``similarities``; return the ids.

    Every row is checked. Rows without repetitions keep as many neighbors as a search would give, k + 2, where the table has them.
    """
    width = min(own.ids.shape[1], k + EXTRA_NEIGHBORS)
    ids = worker.job.array("background/neighbor_ids", "<i4", (len(vectors), width))
    similarities = worker.job.array("background/similarities", "<f4", (len(vectors), width))
    worker.advance(ids.rows)
    for first in range(ids.rows, len(vectors), own.block_rows):
        block_ids, block = _block(own, vectors, first)
        ids.append(np.ascontiguousarray(block_ids[:, :width]))
        similarities.append(np.ascontiguousarray(block[:, :width]))
        worker.job.checkpoint()
        worker.advance(len(block))
    worker.job.checkpoint(now=True)
    refuse_changed(worker, own.files, own.parameters)
    if own.similarities is not None:
        rows = np.linspace(0, len(vectors) - 1, min(SAMPLES, len(vectors)), dtype=np.int64)
        some, values = ids.view()[rows], similarities.view()[rows]
        require_products(vectors[rows], some, values, vectors, what=own.files["similarities"])
    return ids.view()


def _block(own: OwnTable, vectors: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    rows = slice(first, first + own.block_rows)
    ids = check_ids(np.asarray(own.ids[rows]), n=len(vectors), what=own.files["table"], first=first)
    if own.similarities is None:
        return distinct(*best_first(vectors[rows], ids, vectors))
    values = np.asarray(own.similarities[rows])
    return distinct(ids, check_similarities(values, ids, what=own.files["similarities"], first=first))
