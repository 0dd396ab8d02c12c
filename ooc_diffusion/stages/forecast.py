"""How long `neighbors` and `graph` will take, step by step: counts of work times what a short measurement of the machine says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import psutil

from ..graph import GraphRates, measure_building, table_passes
from ..memory import MemoryBudget, StagePlan
from ..neighbors import Counts, Inverted, Rates, count_search, longer, measure_rates, n_lists, n_probes, query_rows, some_vectors
from ..parallel import resolve_threads
from ..store import DiskRates, Store, measure_disk
from .plans import EXTRA_NEIGHBORS
from .settings import Settings

logger = logging.getLogger(__name__)

Seconds = dict[str, float]
# A run of fewer multiply-adds is over before it is worth measuring the machine.
WORTH_A_FORECAST = 2.0**38


def to_seconds(
    counts: Counts, rates: Rates | GraphRates, *, reads: Mapping[str, int], writes: Mapping[str, int], disk: DiskRates | None
) -> Seconds:
    """Turn counts of work, and bytes where these pass through a disk, into seconds by step.

    Parameters
    ----------
    counts : dict
        Of each step, by the names of rates.
    rates : Rates or GraphRates
        Seconds of one.
    reads, writes : mapping
        Bytes by step.
    disk : DiskRates or None
        None where the system's cache holds all that is read; nothing then waits for the disk.
    """
    seconds = {step: sum(times * getattr(rates, name) for name, times in of.items()) for step, of in counts.items()}
    if disk is None:
        return seconds
    for step in seconds:
        reading = reads.get(step, 0) / disk.read
        # the next lists are read while one is searched
        seconds[step] = max(seconds[step], reading) if step == "searching" else seconds[step] + reading
        seconds[step] += writes.get(step, 0) / disk.write
    return seconds


class SearchForecast:
    """Foretells the seconds of `neighbors`; the machine is measured when it is first asked.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        The background, or vectors like it.
    n : int
        Images of the background.
    k, width : int
        Neighbors per image, and those that are stored.
    index : str
        ``"Flat"``, ``"IVFFlat"`` or ``"list-major"``, on the CPU.
    probes : int or None
        Lists that are visited for each image. None where nobody knows yet: as many as the paper visits are assumed (`n_probes`).
    sampled : bool
        Whether they follow from a recall.
    threads : int
        Threads.
    store : Store, optional
        Where arrays are written.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        n: int,
        *,
        k: int,
        width: int,
        index: str,
        probes: int | None,
        sampled: bool,
        threads: int,
        store: Store | None = None,
    ) -> None:
        self.assumed = sampled and not probes
        self.probes = probes or n_probes(max(1, n_lists(n)))
        self._vectors, self._n, self._store, self._threads = vectors, n, store, threads
        self._how: dict[str, Any] = {"k": k, "width": width, "index": index, "sampled": sampled}

    @cached_property
    def _rates(self) -> Rates:
        lists, n = n_lists(self._n), self._n
        length = max(1, n // max(1, lists))
        return measure_rates(
            some_vectors(self._vectors),
            index=self._how["index"],
            k=self._how["width"],
            lists=lists,
            length=length,
            asking=query_rows(n, self.probes) * self.probes // max(1, lists),
            probes=min(self.probes, max(1, lists)),
            threads=self._threads,
        )

    @cached_property
    def _disk(self) -> DiskRates | None:
        held = 2 * 4 * self._n * self._vectors.shape[1]  # as they came, and in order
        if self._store is None or held < psutil.virtual_memory().available:
            return None
        return measure_disk(self._store.path)

    def seconds(self, q: int, plan: StagePlan, *, train: bool, probes: int | None = None, longer: float | None = None) -> Seconds:
        """Return the seconds of each step for q images of a role, with what is known meanwhile of probes and `Rates.longer`."""
        d, width = self._vectors.shape[1], self._how["width"]
        counts = count_search(
            self._n,
            q,
            d,
            train=train,
            probes=probes or self.probes,
            longer=self._rates.longer if longer is None else longer,
            **self._how,
        )
        table = 8 * q * width
        writes = {"ordering": plan.disk_bytes - table, "searching": table, "putting back": table}
        return to_seconds(counts, self._rates, reads=plan.reads, writes=writes, disk=self._disk)

    def measured_longer(self, centroids: np.ndarray, lists: np.ndarray, probes: int) -> float:
        """Return `Rates.longer` of the lists as they came out."""
        lengths = np.zeros(len(centroids), np.int64)
        for first in range(0, len(lists), 2**20):
            lengths += np.bincount(lists[first : first + 2**20], minlength=len(centroids))
        return longer(some_vectors(self._vectors), np.ascontiguousarray(centroids), lengths, probes=probes)


def search_forecast(store: Store, settings: Settings, *, k: int, index: str, probes: int | None, sampled: bool) -> SearchForecast:
    """Return the forecast of a search; where a recall decides, with as many probes as it took in the run before."""
    vectors = store.array("background/vectors")
    made = store.manifest.stages.get("neighbors.background", {"record": {}, "parameters": {}})
    before = made["record"].get("probes") if sampled and made["parameters"].get("index") == index else None
    return SearchForecast(
        vectors,
        len(vectors),
        k=k,
        width=min(k + EXTRA_NEIGHBORS, len(vectors)),
        index=index,
        probes=probes or before,
        sampled=sampled,
        threads=resolve_threads(settings.threads),
        store=store,
    )


class RoleForecast:
    """What is foretold of the search of one role, again as soon as more is known.

    Parameters
    ----------
    search : SearchForecast or None
        None where nothing can be foretold.
    q : int
        Images of the role.
    plan : StagePlan
        What it costs.
    train : bool
        Whether it is the background.
    """

    def __init__(self, search: SearchForecast | None, q: int, plan: StagePlan, *, train: bool) -> None:
        self._search, self._q, self._plan, self._train = search, q, plan, train
        self.foretold: dict[str, Any] = {}

    def planned(self) -> dict[str, Any]:
        """Return ``planned_seconds`` by step, and ``probes_assumed`` where they will follow from a recall."""
        if self._search is None:
            return {}
        seconds = self._search.seconds(self._q, self._plan, train=self._train)
        assumed = {"probes_assumed": self._search.probes} if self._search.assumed else {}
        return {"planned_seconds": seconds, **assumed}

    def begin(self, *, resumed: bool) -> None:
        """Foretell a run from its beginning, where it is long."""
        if self._search is not None and not resumed and self._plan.operations >= WORTH_A_FORECAST:
            self.foretold = self.planned()
            self._log(f"{self._search.probes} lists probed, " + ("as is assumed" if self._search.assumed else "as is known"))

    def know(self, probes: int, inverted: Inverted) -> None:
        """Foretell again with the probes and the lists as they are."""
        if self._search is not None and self.foretold:
            longer = self._search.measured_longer(inverted.centroids, inverted.lists, probes)
            seconds = self._search.seconds(self._q, self._plan, train=self._train, probes=probes, longer=longer)
            self.foretold = {"planned_seconds": seconds}
            self._log(f"{probes} lists probed")

    def _log(self, why: str) -> None:
        seconds = self.foretold["planned_seconds"]
        steps = ", ".join(f"{step} {time:.1f} s" for step, time in seconds.items())
        logger.info("%s takes about %.0f s (%s): %s", self._plan.stage, sum(seconds.values()), why, steps)


def building_seconds(table: np.ndarray, n: int, k: int, plan: StagePlan, *, budget: MemoryBudget, threads: int) -> Seconds:
    """Return the seconds of the steps in which W of n nodes with k neighbors is built; ``table`` has some rows of such."""
    rates = measure_building(table[:, :k], threads=threads)
    passes = table_passes(n, k, budget=MemoryBudget(max(budget.total, plan.least_bytes)))
    entries = float(n) * k
    counts = {
        "building": {"counted": entries, "scattered": passes * entries, "merged": entries},
        "checking": {"checked": entries},
    }
    return to_seconds(counts, rates, reads={}, writes={}, disk=None)
