"""What runs of the protocol are weighed by against each other: the seconds that they take on some machine of two cores.

Only how they stand to each other counts. Figures for many nodes are those of benchmarks/README.md; what a graph, a diffusion or
a step costs however small it is was measured on digits, with one thread, by the clock of the processor.
"""

from __future__ import annotations

from ..store import Store
from .low_shot import LowShot, Protocol
from .low_shot_background import Background
from .low_shot_logistic import GRID, STEPS
from .low_shot_smooth import MUS
from .low_shot_variant import COEFFICIENTS, Variant

# A graph, and each neighbor in it.
_GRAPH, _NEIGHBOR = 0.07, 1.6e-6
# A diffusion, a pass over W, and what a class takes of a neighbor in it, with the power of their number (bench_scaling).
_DIFFUSION, _PASS, _ENTRY, _CLASSES = 0.03, 7e-4, 3.3e-9, 0.71
# A limit takes some passes, whatever the most is.
_LIMIT_PASSES = 50
# A fusion, and each score in it.
_FUSION, _SCORE = 5e-5, 3e-8
# A search of the kNN classifier.
_SEARCH = 0.015
# A step of logistic regression, and one that is smooth over the graph; a multiply-add of dense products.
_STEP, _SMOOTH_STEP, _PRODUCT = 5e-5, 2e-4, 2e-11
# How many steps group 1 will choose is not known: one of the numbers in the middle.
_CHOSEN_STEPS = STEPS[-2]


def diffusion_work(store: Store, protocol: Protocol, variant: Variant, background: Background | None, *, fusion: bool) -> float:
    """Weigh diffusions over a variant's graphs, and their fusions."""
    return sum(
        _of_group(problem, protocol, variant, background.n if background else 0)
        + fusion * _fusions(problem, protocol, variant, first=number == 1)
        for number, problem in zip(protocol.groups, protocol.problems(store), strict=True)
    )


def _of_group(problem: LowShot, protocol: Protocol, variant: Variant, others: int) -> float:
    fixed = others + variant.transductive * len(problem.test_rows)
    inside = variant.setting == "in-domain"
    work = 0.0
    for n in protocol.n_per_class:
        neighbors = variant.k * (fixed + (len(problem.train_rows) if inside else problem.n_labelled(n)))
        graphs = 1 / len(protocol.n_per_class) if inside else protocol.draws  # one serves all draws
        passes = _LIMIT_PASSES if variant.limit else variant.max_iter
        diffusion = _DIFFUSION + passes * (_PASS + _ENTRY * neighbors * problem.n_classes**_CLASSES)
        work += graphs * (_GRAPH + _NEIGHBOR * neighbors) + protocol.draws * diffusion
    return work


def _fusions(problem: LowShot, protocol: Protocol, variant: Variant, *, first: bool) -> float:
    fused = protocol.draws * len(protocol.n_per_class) * len(COEFFICIENTS) * (variant.kept if first else 1)
    return fused * (_FUSION + _SCORE * len(problem.test_rows) * problem.n_classes)


def logistic_work(store: Store, protocol: Protocol) -> float:
    """Weigh the trainings of logistic regression."""
    d, problems = store.entry("background/descriptors").shape[1], protocol.problems(store)
    rows = [setting["batch_size"] for setting in GRID]
    tried = sum(_training(d, problems[0], each, max(STEPS)) for each in rows)
    chosen = sum(_training(d, problem, max(rows), _CHOSEN_STEPS) for problem in problems)
    return protocol.draws * len(protocol.n_per_class) * (tried + chosen)


def _training(d: int, problem: LowShot, rows: float, steps: int) -> float:
    """Weigh a training of some steps with batches of so many rows, forward and backward."""
    return steps * (_STEP + 2 * rows * d * problem.n_classes * _PRODUCT)


def smooth_work(store: Store, protocol: Protocol) -> float:
    """Weigh the trainings that are smooth over the graph."""
    return protocol.draws * len(protocol.n_per_class) * len(MUS) * _CHOSEN_STEPS * _SMOOTH_STEP


def knn_work(store: Store, protocol: Protocol) -> float:
    """Weigh the searches of the kNN classifier."""
    dim, work = store.entry("background/vectors").shape[1], 0.0
    for problem in protocol.problems(store):
        for n in protocol.n_per_class:
            work += protocol.draws * (_SEARCH + _PRODUCT * dim * problem.n_labelled(n) * len(problem.test_rows))
    return work
