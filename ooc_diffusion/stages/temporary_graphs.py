"""Graphs over changing sets of images, built by the stages of the chain in a temporary store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..graph import Graph
from ..store import Store, clean
from .graph import graph, open_graph, query_table
from .neighbors import neighbors, search_again
from .plans import BLOCK_ROWS
from .settings import Settings

# Rows of an array: (array, rows), or (array, None) for all of them.
Part = tuple[np.ndarray, np.ndarray | None]


@dataclass
class TemporaryGraphs:
    """Builds one graph after the other in the same store.

    Parameters
    ----------
    store : Store
        Temporary; its lock is held.
    tests : (numpy.ndarray of shape (n, d), numpy.ndarray of shape (q,))
        Vectors outside the graphs: rows of an array.
    fixed : numpy.ndarray of shape (n, d), float32, or None
        Vectors that are in each graph, searched among themselves once.
    k : int
        Neighbors per node.
    weights : dict
        How edges are weighted: arguments of `graph`.
    settings : Settings
        Options of the run.
    built : int
        Graphs that were built.

    Notes
    -----
    With ``fixed``, a background, the nodes that change are the seeds of the chain: they come first, and the tables are merged as
    in section 3.5 of the paper. Without it they are the background.
    """

    store: Store
    tests: Part
    fixed: np.ndarray | None
    k: int
    weights: dict[str, Any]
    settings: Settings
    built: int = 0
    _last: list[str] = field(default_factory=list)

    def build(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Graph, np.ndarray]:
        """Build the graph of some vectors, and those that are fixed, unless it is the last one that was built.

        Parameters
        ----------
        parts : sequence of (numpy.ndarray, numpy.ndarray of int64)
            The vectors, rows of the same arrays each time, in the order of the node ids from 0 on. Fixed ones come behind.

        Returns
        -------
        graph : Graph
            Valid until the next is built, its maps for good.
        queries : numpy.ndarray of shape (q, k), int32
            Neighbors of the tests.
        """
        which = [xxhash.xxh3_128_hexdigest(rows.data) for _, rows in parts]
        if which != self._last:
            self._build(parts)
            self._last = which
        return open_graph(self.store), query_table(self.store)[:, : self.k]

    def _build(self, parts: Sequence[Part]) -> None:
        if self.built == 0:
            self._publish("tests", [self.tests])
            if self.fixed is not None:
                self._publish("background", [(self.fixed, None)])
        self._publish("background" if self.fixed is None else "seeds", parts)
        if self.built and self.fixed is not None:
            search_again(self.store, self.settings)
        else:
            neighbors(self.store, k=self.k, settings=self.settings)
        graph(self.store, **self.weights, settings=self.settings)
        clean(self.store)
        self.built += 1

    def _publish(self, role: str, parts: Sequence[Part]) -> None:
        """Write vectors as those of a role, in place of those before."""
        with self.store.job(f"reduce.{role}", parameters={"built": self.built}, overwrite=True) as job:
            lengths = [len(array if rows is None else rows) for array, rows in parts]
            vectors = job.array(f"{role}/vectors", "<f4", (sum(lengths), parts[0][0].shape[1]))
            for (array, rows), length in zip(parts, lengths, strict=True):
                for first in range(0, length, BLOCK_ROWS):
                    block = slice(first, min(first + BLOCK_ROWS, length))
                    vectors.append(np.ascontiguousarray(array[block if rows is None else rows[block]]))
            job.publish({})


@contextlib.contextmanager
def temporary_graphs(
    inside: Path, *, tests: Part, fixed: np.ndarray | None, k: int, weights: dict[str, Any], settings: Settings
) -> Iterator[TemporaryGraphs]:
    """Make `TemporaryGraphs` in a folder, for the time of a ``with`` block."""
    quiet = replace(settings, overwrite=True, dry_run=False, progress=Settings.progress)
    store = Store.temporary(inside=inside)
    with store.lock:
        yield TemporaryGraphs(store, tests, fixed, k, weights, quiet)
