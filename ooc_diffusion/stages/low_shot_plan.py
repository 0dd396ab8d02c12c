"""What a run of the protocol costs: the largest of its graphs and diffusions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..memory import StagePlan
from ..store import Store
from .low_shot import LowShot
from .neighbors import plan_again
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, plan_diffuse, plan_graph, plan_neighbors
from .settings import Settings

if TYPE_CHECKING:
    from .low_shot_diffusion import Variant


def plan_low_shot(
    store: Store,
    variant: Variant,
    problems: list[LowShot],
    n_background: int,
    *,
    fusion: bool,
    widest: int = 0,
    searched: Store | None = None,
    settings: Settings,
) -> StagePlan:
    """Plan the protocol for one setting; with fusion, or a prior, logistic regression is asked block by block.

    ``widest`` is the k of the widest graph for which the neighbors are searched; ``searched`` the background, where that has
    the neighbors that are taken, so that only others are searched in it.
    """
    dim = store.entry("background/vectors").shape[1]
    tests, n_classes = max(len(p.test_rows) for p in problems), max(p.n_classes for p in problems)
    moving = max(len(p.train_rows) for p in problems) + (tests if variant.transductive else 0)
    n = moving + n_background
    # rows, columns, node ids and queries of the images, beside what the stages plan
    d = store.entry("background/descriptors").shape[1]
    k, wide = min(variant.k, n - 1), min(max(variant.k, widest), n - 1)
    beside = 32 * n + 16 * tests * (wide + EXTRA_NEIGHBORS)
    if fusion or variant.estimated:  # a block of descriptors, and of scores in float64
        beside += BLOCK_ROWS * (12 * d + 64 * n_classes)
    weighted = variant.weights.get("weighting", "constant") != "constant"
    plans = [
        plan_again(searched, max(moving, tests), settings)
        if searched
        else plan_neighbors(
            n_background or n, n, dim, k=wide, index="auto", train=True, budget=settings.budget, threads=settings.threads
        ),
        plan_graph(
            n,
            k,
            budget=settings.budget,
            n_seeds=moving if n_background else 0,
            dim=dim,
            tests=tests,
            weighted=weighted,
            mutual=bool(variant.weights.get("mutual")),
            threads=settings.threads,
            width=wide + EXTRA_NEIGHBORS,
        ),
        plan_diffuse(
            n,
            int(1.75 * n * k),
            n_classes,
            variant.max_iter,
            rows=tests + 1000,
            budget=settings.budget,
            kept=variant.kept,
            n_seeds=moving,
            weighted=weighted,
            coupled=variant.eta.get("normalization", "columns") not in ("columns", "none") or bool(variant.eta.get("reset")),
            zhou=variant.eta.get("solver", "iterate") if "alpha" in variant.eta else None,
        ),
    ]
    own = 0 if searched else n_background
    kept = plans[0].disk_bytes + 4 * own * dim if own else 0  # the background, searched, in its own store
    scratch = sum(plan.disk_bytes for plan in plans) + max(plan.scratch_bytes for plan in plans) + 4 * n * dim
    peak, least = (max(getattr(plan, name) for plan in plans) + beside for name in ("memory_bytes", "least_bytes"))
    work = f"{n:,} nodes, {n_classes:,} classes, {tests:,} tests"
    return StagePlan("low-shot", work, peak, least, kept, scratch, sum(plan.operations for plan in plans))
