"""Searching with a faiss index that people have already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..memory import MemoryBudget, StagePlan
from ..neighbors import ForeignIndex, foreign_bytes
from ..parallel import resolve_threads
from .import_descriptors import file_identity, refuse_changed
from .plans import BLOCK_ROWS, SLACK
from .settings import Worker
from .traffic import reads_without_search


@dataclass(frozen=True)
class OwnIndex:
    """A faiss index in a file.

    Parameters
    ----------
    path : str
        The file.
    size : int
        Its bytes.
    parameters : dict
        Which file it was when this was made.
    """

    path: str
    size: int
    parameters: dict[str, Any]

    def require_same(self) -> None:
        """Raise `BadInput` unless the file is there as it was."""
        if not Path(self.path).is_file() or file_identity(self.path) != self.parameters["index_file"]:
            raise BadInput(
                f"{self.path} is no longer the index that the background was searched with, and seeds and tests are searched "
                "with it, too; put it back as it was, or run neighbors anew"
            )

    def plan(
        self, plan: StagePlan, budget: MemoryBudget, n: int, q: int, dim: int, *, width: int, threads: int | None
    ) -> StagePlan:
        """Return what searching q queries costs, given the plan of an exact search among n vectors."""
        searching = foreign_bytes(self.size, n, dim, width, threads=resolve_threads(threads))
        least = budget.overhead() + SLACK + searching
        return replace(
            plan,
            work=f"an index of {self.size:,} bytes, of {n:,} vectors",
            memory_bytes=max(plan.memory_bytes, least),
            least_bytes=max(plan.least_bytes, least),
            operations=0.0,
            # tried before anything is trained, and all vectors are looked at where it searches by L2
            reads=reads_without_search(plan) | {"index": 2 * self.size, "asking": 4 * dim * (q + n)},
        )


def open_index(file: str | Path) -> OwnIndex:
    """Note which file holds an index; it is read where it is searched."""
    identity = file_identity(file)
    if not Path(file).is_file():
        raise BadInput(f"{file} is no file; give one that faiss.write_index wrote")
    return OwnIndex(str(file), identity["bytes"], {"index_file": identity})


def try_index(worker: Worker, own: OwnIndex, vectors: np.ndarray, *, width: int, probes: int | None) -> None:
    """Raise `BadInput` where the file is no index of these vectors; see `ForeignIndex`."""
    with ForeignIndex(own.path, vectors, k=width, probes=probes, threads=worker.threads) as index:
        firsts = range(0, len(vectors), BLOCK_ROWS)
        if index.by_distance and not all(vectors[first : first + BLOCK_ROWS].any(axis=1).all() for first in firsts):
            raise BadInput(
                f"{own.path} searches by L2, but the background has vectors of zeros (images that could not be read), which are "
                "near to everything then; give an index by inner product"
            )


def search_own_index(
    worker: Worker, own: OwnIndex, vectors: np.ndarray, queries: np.ndarray, *, role: str, width: int, probes: int | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Write the neighbor table of a role; return its ids, and ``kind`` and ``probes`` of the index for the record."""
    ids = worker.job.array(f"{role}/neighbor_ids", "<i4", (len(queries), width))
    similarities = worker.job.array(f"{role}/similarities", "<f4", (len(queries), width))
    worker.advance(ids.rows)
    with ForeignIndex(own.path, vectors, k=width, probes=probes, threads=worker.threads) as index:
        for block_ids, block in index.blocks(queries, start=ids.rows):
            ids.append(block_ids)
            similarities.append(block)
            worker.job.checkpoint()
            worker.advance(len(block))
    refuse_changed(worker, {"index_file": own.path}, own.parameters)
    return ids.view(), {"kind": index.kind} | ({"probes": index.probes} if index.probes else {})
