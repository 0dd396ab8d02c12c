"""How long `graph` will take, step by step: a small W is built, and seeds are compared with some of the lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import measure_building, table_passes
from ..memory import MemoryBudget, StagePlan
from ..neighbors import (
    QUERY_ROWS,
    SAMPLES,
    OrderedLists,
    entered_lists,
    entering,
    locality_order,
    merge_neighbors,
    reach_for,
    search,
    search_lists,
)
from ..store import DiskRates, Store, measure_disk
from .completion import How, by_lists
from .ordered_search import open_lists
from .plans import BLOCK_ROWS
from .seconds import Seconds, to_seconds
from .traffic import FEW_SEEDS

# A table of fewer entries is turned into W before it is worth measuring the machine.
WORTH_A_FORECAST = 2**25
# Entries of W for one of the table: some edges are reciprocal.
_ENTRIES = 1.75
# Stretches of lists that seeds are compared with, and vectors of all of them.
_STRETCHES, _SOME_ROWS = 8, 2**15


def building_seconds(
    table: np.ndarray, n: int, k: int, plan: StagePlan, *, disk: DiskRates | None, budget: MemoryBudget, threads: int
) -> Seconds:
    """Return the seconds of the steps in which W of n nodes with k neighbors is built; ``table`` has some rows of such."""
    rates = measure_building(table[:, :k], n, threads=threads)
    passes = table_passes(n, k, budget=MemoryBudget(max(budget.total, plan.least_bytes)))
    entries = float(n) * k
    building = {"counted": entries, "scattered": passes * entries, "merged": entries}
    counts = {"building": building, "checking": {"checked": entries}}
    written = 20 * n + int(4 * _ENTRIES * n * k)
    return to_seconds(counts, rates, reads={}, writes={"building": written}, disk=disk)


def graph_seconds(store: Store, k: int, plan: StagePlan, how: How, *, budget: MemoryBudget, threads: int) -> Seconds:
    """Return the seconds of each step of `graph` for the neighbor tables of a store.

    How many seeds are compared with a list depends on all of them. So a part of each step is done, with the arrays that are
    there, and the rest is assumed to be like it.
    """
    table = store.array("background/neighbor_ids")
    n = len(table) + (len(store.array("seeds/vectors")) if "seeds/neighbor_ids" in store else 0)
    seconds, disk = {}, measure_disk(store.path, reading=False)
    if "seeds/neighbor_ids" in store:
        seconds = _Completion(store, k, how, threads).seconds()
        seconds["merging"] += 8 * n * k / disk.write if disk else 0.0
    return seconds | building_seconds(table, n, k, plan, disk=disk, budget=budget, threads=threads)


def seed_copies_bytes(n_seeds: int, dim: int) -> int:
    """Return the bytes of memory for the seeds in the order of their lists, and once more while these are searched."""
    return 8 * n_seeds * dim


@dataclass(frozen=True)
class _Completion:
    """Times parts of the completion of a table with seeds."""

    store: Store
    k: int
    how: How
    threads: int

    def seconds(self) -> Seconds:
        """Return the seconds of each step."""
        seeds = np.ascontiguousarray(self.store.array("seeds/vectors"))
        n, m = len(self.store.array("background/vectors")), len(seeds)
        tests = len(self.store.array("tests/vectors")) if "tests/neighbor_ids" in self.store else 0
        found = {"merging": (n + m + tests) * self._merging()}
        if not by_lists(self.store):
            return found | {"searching seeds": (n + m + tests) * self._exact(seeds, self.threads * QUERY_ROWS)}
        if self.how.exact:
            found["searching seeds"] = (m + tests) * self._exact(seeds, self.threads * QUERY_ROWS)
        else:
            found["searching seeds"] = (m + tests) * self._by_lists(seeds)
        return found | self._entering(seeds)

    def _merging(self) -> float:
        """Return the seconds to merge a row."""
        rows = slice(0, BLOCK_ROWS)
        ids, similarities = (
            np.asarray(self.store.array(f"background/{name}")[rows]) for name in ("neighbor_ids", "similarities")
        )
        return _best_of(lambda: merge_neighbors(ids, similarities, ids, similarities, k=self.k)) / len(ids)

    def _exact(self, seeds: np.ndarray, queries: int) -> float:
        """Return the seconds to compare a vector with all seeds."""
        some = np.resize(seeds[:queries], (queries, seeds.shape[1]))
        database = seeds[: 4 * QUERY_ROWS]
        seconds = _best_of(lambda: list(search(database, some, k=min(self.k, len(database)))))
        return seconds / queries * len(seeds) / len(database)

    def _by_lists(self, seeds: np.ndarray) -> float:
        """Return the seconds to compare a vector with the seeds of the lists near it."""
        centroids = np.ascontiguousarray(self.store.array("background/centroids"))
        order, starts = locality_order(self.store.array("seeds/lists"), len(centroids))
        lists = OrderedLists(centroids, starts, order, seeds[order])
        some, probes = seeds[: self.threads * QUERY_ROWS], int(self.store.record("neighbors.background")["probes"])
        options = {"k": min(self.k, len(seeds)), "probes": probes, "threads": self.threads}
        return _best_of(lambda: list(search_lists(lists, some, **options))) / len(some)

    def _entering(self, seeds: np.ndarray) -> Seconds:
        """Return the seconds to find the seeds that enter, and of the samples."""
        lists, least = self._some_lists()
        rng, part = np.random.default_rng(self.how.seed), len(least) / len(self.store.array("background/vectors"))
        ordered = seeds[np.argsort(self.store.array("seeds/lists"), kind="stable")]
        few = np.ascontiguousarray(seeds[np.sort(rng.choice(len(seeds), min(SAMPLES, len(seeds)), replace=False))])
        options: dict[str, Any] = {"k": min(self.k, len(seeds)), "threads": self.threads}
        found = list(entering(lists, few, least, reach=None, **options))
        pairs = _best_of(lambda: list(entering(lists, few, least, reach=None, **options))) / part
        reach, reaching = None, 0.0
        if not self.how.exact and len(seeds) > FEW_SEEDS:
            entered = entered_lists(lists, found, len(few))
            if entered[2].any():
                reach = reach_for(lists, few, least, entered, target_recall=self.how.target_recall)
            reaching = pairs
        seconds = {"entering": _best_of(lambda: list(entering(lists, ordered, least, reach=reach, **options))) / part}
        if not self.how.exact:
            one_by_one = self._exact(seeds, min(SAMPLES, len(seeds)))
            seconds["samples"] = reaching + pairs + min(SAMPLES, len(seeds)) * one_by_one
        return seconds

    def _some_lists(self) -> tuple[OrderedLists, np.ndarray]:
        """Return some stretches of the lists in memory, and what is asked of a seed to enter those of their vectors."""
        lists, similarities = open_lists(self.store), self.store.array("background/similarities")
        count = len(lists.centroids)
        length = max(1, int(_SOME_ROWS / _STRETCHES * count / len(lists.order)))
        begins = np.unique(np.linspace(0, max(0, count - length), _STRETCHES).astype(np.int64) // length * length)
        numbers = np.concatenate([np.arange(b, min(b + length, count)) for b in begins])
        positions = np.concatenate([np.arange(lists.starts[i], lists.starts[i + 1]) for i in numbers])
        starts = np.concatenate([[0], np.cumsum(np.diff(lists.starts)[numbers])])
        order = np.asarray(lists.order[positions])
        some = OrderedLists(np.ascontiguousarray(lists.centroids[numbers]), starts, order, np.asarray(lists.vectors[positions]))
        return some, np.ascontiguousarray(similarities[order][:, self.k - 1])


def _best_of(call: Callable[[], object]) -> float:
    """Return the seconds of the faster of two calls; the first may compile."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
