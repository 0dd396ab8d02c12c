"""What the whole way of `label` costs, stage after stage."""

from __future__ import annotations

from ..errors import DoesNotFit
from ..memory import MemoryBudget, StagePlan
from .plans import plan_classify, plan_diffuse, plan_extract, plan_graph, plan_list, plan_neighbors, plan_reduce


def plan_all(
    n: int,
    *,
    d: int,
    dim: int,
    k: int,
    n_classes: int,
    n_iter: int,
    budget: MemoryBudget,
    index: str = "auto",
    device: str = "cpu",
    network: bool = True,
) -> list[StagePlan]:
    """Plan the whole way of `label` for n images with descriptors of d values, whose neighbors are searched on a device."""
    buffer = 3 * 32 * 3 * 224 * 224 * 4 if network else 3 * 256 * 4 * d
    k = min(k, n - 1)
    nnz = int(1.75 * n * k)
    return [
        plan_list(n, budget=budget),
        plan_extract(n, d, buffer_bytes=buffer, network=network, budget=budget),
        plan_reduce(n, d, dim, train=True, budget=budget),
        plan_neighbors(n, n, dim, k=k, index=index, device=device, train=True, budget=budget),
        plan_graph(n, k, budget=budget),
        plan_diffuse(n, nnz, n_classes, n_iter, rows=n, budget=budget, folds=5),
        plan_classify(n, d, n_classes, network=True, budget=budget),
    ]


def check_all(plans: list[StagePlan], budget: MemoryBudget) -> None:
    """Raise `DoesNotFit` naming the smallest budget that would do for all stages, unless the budget is at least that."""
    worst = max(plans, key=lambda plan: plan.least_bytes)
    if budget.total < worst.least_bytes:
        least = f"{-(-worst.least_bytes // 2**20)}MiB"
        raise DoesNotFit(
            f"the memory budget of {-(-budget.total // 2**20)}MiB is too small: stage {worst.stage} needs {least}; "
            f"give --memory-budget {least} or more"
        )
