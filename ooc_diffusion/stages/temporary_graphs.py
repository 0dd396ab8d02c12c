"""Graphs over changing sets of images, built by the stages of the chain in a temporary store."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash

from ..graph import Graph
from ..store import Store, adopt, clean
from .graph import graph, open_graph, query_table
from .low_shot_background import SEARCHED_STAGES, Background
from .neighbors import neighbors, search_again
from .plans import BLOCK_ROWS
from .settings import ROLES, Settings

# Rows of an array.
Rows = tuple[np.ndarray, np.ndarray]
# The same, or None for all rows.
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
    fixed : bool
        Whether the store has vectors, searched among themselves, that are in each graph.
    widest : int
        Most neighbors per node of any graph: what is searched for, where there are so many.
    settings : Settings
        Options of the run.
    built : int
        Graphs that were built.

    Notes
    -----
    With ``fixed``, a background, the nodes that change are the seeds of the chain: they come first, and the tables are merged as
    in section 3.5 of the paper. Without it they are the background. A graph of fewer neighbors than were searched for takes the
    first columns of the tables: the same as those of a search for so many.
    """

    store: Store
    tests: Rows
    fixed: bool
    widest: int
    settings: Settings
    built: int = 0
    _nodes: list[str] = field(default_factory=list)
    _edges: dict[str, Any] | None = None

    @property
    def block_seconds(self) -> dict[str, float]:
        """Seconds that each block of the last graph took, whenever it was found, by the names of the paper (appendix D).

        ``W_BB``, ``W_LL``, ``W_LB``, ``W_BL``: who searches among whom; without fixed vectors all is W_LL. ``tests``: they search
        among all nodes. ``merge``: of both tables. ``building W``, and ``the rest``: comparing, sampling and checking.
        """
        roles = {"W_BB": "background", "W_LB": "seeds"} if self.fixed else {"W_LL": "background"}
        roles["tests"] = "tests"
        searched = {name: self.store.record(f"neighbors.{role}")["seconds"] for name, role in roles.items()}
        built = self.store.record("graph")
        inside = {**built.get("block_seconds", {}), "building W": built["step_seconds"]["building"]}
        inside["the rest"] = built["seconds"] - sum(inside.values())
        return {name: searched.get(name, 0.0) + inside.get(name, 0.0) for name in {**searched, **inside}}

    def build(self, parts: Sequence[Rows], weights: Mapping[str, Any], *, k: int) -> tuple[Graph, np.ndarray]:
        """Build the graph of some vectors, and those that are fixed, unless it is the last one that was built.

        Parameters
        ----------
        parts : sequence of (numpy.ndarray, numpy.ndarray of int64)
            The vectors, rows of the same arrays each time, in the order of the node ids from 0 on. Fixed ones come behind.
        weights : mapping
            How edges are weighted: arguments of `graph`.
        k : int
            Neighbors per node, at most ``widest``.

        Returns
        -------
        graph : Graph
            Valid until the next is built, its maps for good.
        queries : numpy.ndarray of shape (q, k), int32
            Neighbors of the tests.
        """
        nodes, edges = [xxhash.xxh3_128_hexdigest(rows.data) for _, rows in parts], {**weights, "k": k}
        if (nodes, edges) != (self._nodes, self._edges):
            self.built += 1
            if nodes != self._nodes:
                self._search(parts, k)
            graph(self.store, **edges, settings=self.settings)
            clean(self.store)
            self._nodes, self._edges = nodes, edges
        return open_graph(self.store), query_table(self.store)[:, :k]

    def _search(self, parts: Sequence[Part], k: int) -> None:
        if self.built == 1:
            self._publish("tests", [self.tests])
        self._publish("seeds" if self.fixed else "background", parts)
        if self.fixed:
            search_again(self.store, ROLES[1:], self.settings)
        else:
            n = self.store.entry("background/vectors").shape[0]
            neighbors(self.store, k=table_k(k, self.widest, n), settings=self.settings)

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


class GraphKeeper(contextlib.ExitStack):
    """Keeps `TemporaryGraphs` while several runs share them.

    Parameters
    ----------
    widest : int
        Most neighbors per node that any of these runs will ask for: all is searched once, for so many. Default 0: as many as the
        run asks for that comes.
    """

    def __init__(self, widest: int = 0) -> None:
        super().__init__()
        self.widest = widest
        self._kept: dict[tuple[Any, ...], TemporaryGraphs] = {}

    def graphs(self, store: Store, *, tests: Rows, background: Background | None, k: int, settings: Settings) -> TemporaryGraphs:
        """Return graphs in a temporary store inside of another, those of an earlier run where all is the same.

        Parameters
        ----------
        store : Store
            The other store.
        tests : (numpy.ndarray, numpy.ndarray of int64)
            Vectors outside the graphs.
        background : Background, optional
            What is in each graph.
        k : int
            Neighbors per node.
        settings : Settings
            Options of the run.
        """
        fixed = None if background is None else tuple(background.parameters(k).values())
        widest = max(k, self.widest)
        key = (store.path, xxhash.xxh3_128_hexdigest(tests[1].data), fixed, widest)
        if key not in self._kept:
            quiet = replace(settings, overwrite=True, dry_run=False, progress=Settings.progress)
            temporary = Store.temporary(inside=store.path / "jobs")
            self.enter_context(temporary.lock)
            if background is not None:
                sought = k if background.takes_own(k) else table_k(k, widest, background.n)
                adopt(temporary, background.searched(store, k=sought, settings=settings), SEARCHED_STAGES)
                background.refuse_changed(temporary, k)
            self._kept[key] = TemporaryGraphs(temporary, tests, background is not None, widest, quiet)
        return self._kept[key]


def table_k(k: int, widest: int, n: int) -> int:
    """Return how many neighbors are searched for among n images: the most that will be asked for, k of them now."""
    return max(k, min(widest, n))
