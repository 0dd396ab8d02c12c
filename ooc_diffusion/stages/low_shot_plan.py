"""What a run of the protocol costs: the largest of its graphs and diffusions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..diffusion import Diffusion, most_passes
from ..memory import MemoryBudget, StagePlan
from ..store import Store
from ..store.npy import HEADER_BYTES
from .completion import by_lists
from .low_shot import LowShot
from .low_shot_variant import Variant
from .neighbors import plan_again
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, plan_diffuse, plan_graph, plan_neighbors
from .search_options import where_searched
from .settings import Settings


def plan_low_shot(
    store: Store,
    variant: Variant,
    problems: list[LowShot],
    n_background: int,
    *,
    draws: int,
    fusion: bool,
    widest: int = 0,
    searched: Store | None = None,
    settings: Settings,
) -> StagePlan:
    """Plan the protocol for one setting; with fusion, or a prior, logistic regression is asked block by block.

    It was trained before in the same process, where torch stays. ``widest`` is the k of the widest graph for which the neighbors
    are searched; ``searched`` the background, where that has the neighbors that are taken, so that only others are searched in
    it.
    """
    dim = store.entry("background/vectors").shape[1]
    tests, n_classes = max(len(p.test_rows) for p in problems), max(p.n_classes for p in problems)
    moving = max(len(p.train_rows) for p in problems) + (tests if variant.transductive else 0)
    n = moving + n_background
    # rows, columns, node ids and queries of the images, beside what the stages plan
    d = store.entry("background/descriptors").shape[1]
    k, wide = min(variant.k, n - 1), min(max(variant.k, widest), n - 1)
    beside = 32 * n + 16 * tests * (wide + EXTRA_NEIGHBORS)
    budget = settings.budget
    if fusion or variant.estimated:  # a block of descriptors, and of scores in float64
        torch = budget.overhead(torch=True) - budget.overhead()
        beside += BLOCK_ROWS * (12 * d + 64 * n_classes) + torch
        budget = MemoryBudget(budget.total - torch)
    weighted = variant.weights.get("weighting", "constant") != "constant"
    index, device = where_searched(n_background or n, dim, "auto", settings)
    none = np.empty(0, np.int64)
    what = Diffusion(none, none, n_classes, variant.max_iter, **variant.eta)
    plans = [
        plan_again(searched, max(moving, tests), replace(settings, memory_budget=budget))
        if searched
        else plan_neighbors(
            n_background or n, n, dim, k=wide, index=index, device=device, train=True, budget=budget, threads=settings.threads
        ),
        plan_graph(
            n,
            k,
            budget=budget,
            n_seeds=moving if n_background else 0,
            dim=dim,
            tests=tests,
            by_lists=by_lists(searched) if searched else index == "list-major",
            weighted=weighted,
            mutual=bool(variant.weights.get("mutual")),
            threads=settings.threads,
            width=wide + EXTRA_NEIGHBORS,
        ),
        plan_diffuse(
            n,
            int(1.75 * n * k),
            n_classes,
            most_passes(what),
            rows=tests + 1000,
            budget=budget,
            kept=variant.kept,
            n_seeds=moving,
            weighted=weighted,
            coupled=what.coupled,
            zhou=None if what.alpha is None else what.solver,
        ),
    ]
    own = 0 if searched else n_background
    kept = plans[0].disk_bytes + 4 * own * dim if own else 0  # the background, searched, in its own store
    runs = draws * sum(len(problem.sizes) for problem in problems)
    scratch = sum(plan.disk_bytes for plan in plans) + max(plan.scratch_bytes for plan in plans) + 4 * n * dim
    scratch += 8 * runs * variant.surface_values * fusion
    peak, least = (max(getattr(plan, name) for plan in plans) + beside for name in ("memory_bytes", "least_bytes"))
    work = f"{n:,} nodes, {tests:,} tests, {runs:,} diffusion{'s' * (runs > 1)}: {plans[-1].work}"
    # a diffusion is run once more with the chosen number of iterations
    operations = runs * sum(plan.operations for plan in [*plans, plans[-1]])
    disk = kept + result_bytes(variant, problems, draws=draws, fusion=fusion)
    identical = max(plan.identical_bytes for plan in plans)
    return StagePlan("low-shot", work, peak, least, disk, scratch, operations, identical_bytes=identical)


def result_bytes(variant: Variant, problems: list[LowShot], *, draws: int, fusion: bool) -> int:
    """Return the bytes of the accuracies that are published, a part of the disk of `plan_low_shot`."""
    runs = draws * sum(len(problem.sizes) for problem in problems)
    return 3 * HEADER_BYTES + 8 * runs * variant.result_values(fusion=fusion)
