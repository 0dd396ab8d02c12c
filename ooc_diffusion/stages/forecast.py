"""How long `neighbors` and `graph` will take, step by step: counts of work times what a short measurement of the machine says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import psutil

from ..memory import MemoryBudget, StagePlan, format_size
from ..neighbors import (
    Inverted,
    OrderedLists,
    Rates,
    choose_index,
    count_search,
    guess_probes,
    longer,
    measure_rates,
    n_lists,
    n_probes,
    part_visited,
    query_rows,
    some_vectors,
)
from ..parallel import limit_threads, resolve_threads
from ..store import DiskRates, Store, measure_disk
from .graph_forecast import building_seconds
from .ordered_search import open_lists
from .plans import EXTRA_NEIGHBORS
from .seconds import Seconds, to_seconds
from .settings import Settings
from .traffic import searching_lists

logger = logging.getLogger(__name__)

# A run of fewer multiply-adds is over before it is worth measuring the machine.
WORTH_A_FORECAST = 2.0**38
# Random vectors and rows of a table that stand for those that are not there yet, and how far apart neighbors stand.
_RANDOM_ROWS, _RANDOM_TABLE_ROWS, _NEAR = 2**12, 2**16, 2**10


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
        Lists that are visited for each image, where that is known.
    target_recall : float or None
        The recall from which they follow. Where they are not known yet, `guess_probes` says how many they may be.
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
        target_recall: float | None,
        threads: int,
        store: Store | None = None,
    ) -> None:
        self.assumed = target_recall is not None and probes is None
        self._probes, self._target_recall = probes, target_recall
        self._vectors, self._n, self._threads, self.store = vectors, n, threads, store
        self._how: dict[str, Any] = {"k": k, "width": width, "index": index, "sampled": target_recall is not None}

    @cached_property
    def _some(self) -> np.ndarray:
        return some_vectors(self._vectors)

    @cached_property
    def probes(self) -> int:
        """Lists that are visited for each image, as far as is known."""
        if self._probes is None and self._target_recall is not None:
            return guess_probes(self._some, self._n, k=self._how["k"], target_recall=self._target_recall)
        return self._probes or n_probes(max(1, n_lists(self._n)))

    @cached_property
    def _rates(self) -> Rates:
        lists, n = n_lists(self._n), self._n
        length = max(1, n // max(1, lists))
        return measure_rates(
            self._some,
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
        return None if self.store is None else measure_disk(self.store.path, reading=not self._cached)

    @cached_property
    def _cached(self) -> bool:
        held = 2 * 4 * self._n * self._vectors.shape[1]  # as they came, and in order
        return held < psutil.virtual_memory().available

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
        return to_seconds(counts, self._rates, reads={} if self._cached else plan.reads, writes=writes, disk=self._disk)

    def known_lists(self) -> OrderedLists | None:
        """Return the lists that an earlier run left, where they are to be searched."""
        if self.store is None or self._how["index"] != "list-major" or "background/ordered" not in self.store:
            return None
        return open_lists(self.store)

    def measured_longer(self, centroids: np.ndarray, lists: np.ndarray, probes: int) -> float:
        """Return `Rates.longer` of the lists as they came out."""
        lengths = np.zeros(len(centroids), np.int64)
        for first in range(0, len(lists), 2**20):
            lengths += np.bincount(lists[first : first + 2**20], minlength=len(centroids))
        return longer(self._some, np.ascontiguousarray(centroids), lengths, probes=probes)


def search_forecast(
    store: Store, settings: Settings, *, k: int, index: str, probes: int | None, target_recall: float | None
) -> SearchForecast:
    """Return the forecast of a search; where a recall decides, with as many probes as it took in the run before."""
    vectors = store.array("background/vectors")
    made = store.manifest.stages.get("neighbors.background", {"record": {}, "parameters": {}})
    before = made["record"].get("probes") if target_recall is not None and made["parameters"].get("index") == index else None
    return SearchForecast(
        vectors,
        len(vectors),
        k=k,
        width=min(k + EXTRA_NEIGHBORS, len(vectors)),
        index=index,
        probes=probes or before,
        target_recall=target_recall,
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
        self._probes = 0

    def planned(self, role: str | None = None) -> dict[str, Any]:
        """Return ``planned_seconds`` by step, and ``probes_assumed`` where they will follow from a recall.

        With a role, and lists of an earlier run, also ``expected_reads``.
        """
        if self._search is None:
            return {}
        seconds = self._search.seconds(self._q, self._plan, train=self._train)
        assumed = {"probes_assumed": self._search.probes} if self._search.assumed else {}
        found = {"planned_seconds": seconds, **assumed}
        if role is not None and (lists := self._search.known_lists()) is not None:
            store = self._search.store
            queries = None if self._train or store is None else store.array(f"{role}/vectors")
            found |= self._reads(lists, self._search.probes, queries)
        return found

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
            self.foretold, self._probes = {"planned_seconds": seconds}, probes
            self._log(f"{probes} lists probed")

    def see(self, lists: OrderedLists) -> None:
        """Foretell what will be read of the lists as they are."""
        if self._search is not None and self.foretold:
            self.foretold |= self._reads(lists, self._probes)
            logger.info("about %s will be read of the lists", format_size(self.foretold["expected_reads"]["searching"]))

    def _reads(self, lists: OrderedLists, probes: int, queries: np.ndarray | None = None) -> dict[str, Any]:
        part = part_visited(lists, queries, probes=probes)
        n, d = lists.vectors.shape
        about: dict[str, Any] = {"itemsize": lists.vectors.dtype.itemsize, "probes": probes, "train": self._train, "part": part}
        return {"expected_reads": {**self._plan.reads, "searching": searching_lists(n, self._q, d, **about)}}

    def _log(self, why: str) -> None:
        seconds = self.foretold["planned_seconds"]
        steps = ", ".join(f"{step} {time:.1f} s" for step, time in seconds.items())
        logger.info("%s takes about %.0f s (%s): %s", self._plan.stage, sum(seconds.values()), why, steps)


def plan_seconds(
    plans: Sequence[StagePlan],
    n: int,
    *,
    dim: int,
    k: int,
    index: str,
    budget: MemoryBudget,
    threads: int | None = None,
    on_gpu: bool = False,
) -> dict[str, Seconds]:
    """Return the seconds of `neighbors` and `graph` by stage and step, with random vectors where there are none yet.

    Of `neighbors` on a GPU nothing is foretold.
    """
    planned, threads, k = {plan.stage: plan for plan in plans}, resolve_threads(threads), min(k, n - 1)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((min(n, _RANDOM_ROWS), dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    how: dict[str, Any] = {"k": k, "width": min(k + EXTRA_NEIGHBORS, n), "index": choose_index(n, index)}
    rows = min(n, _RANDOM_TABLE_ROWS)
    # neighbors stand near each other in the order of lists
    table = (np.arange(rows)[:, None] + rng.integers(-_NEAR, _NEAR, (rows, k))) % rows
    with limit_threads(threads):
        search = SearchForecast(vectors, n, probes=None, target_recall=None, threads=threads, **how)
        searching = {} if on_gpu else {"neighbors": search.seconds(n, planned["neighbors"], train=True)}
        building = building_seconds(table, n, k, planned["graph"], disk=None, budget=budget, threads=threads)
        return {**searching, "graph": building}
