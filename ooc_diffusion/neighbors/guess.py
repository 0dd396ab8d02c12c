"""How many lists a recall will take, as far as a small sample of the vectors tells."""

from __future__ import annotations

import numpy as np

from .lists import n_lists, n_probes
from .nearest import assign_lists
from .recall import draw_sample, probes_for
from .training import move_centroids

_ITERATIONS, _SAMPLES = 4, 500
# With a hundred times as many vectors twice as many lists (measured, see benchmarks/bench_scaling_neighbors.py).
_GROWTH = 0.15


def guess_probes(some: np.ndarray, n: int, *, k: int, target_recall: float) -> int:
    """Guess the probes that a recall takes among n vectors, from those that it takes among some of them.

    Parameters
    ----------
    some : numpy.ndarray of shape (m, d), float32
        Vectors of those.
    n : int
        How many there are.
    k : int
        Neighbors that count.
    target_recall : float
        See `probes_for`.

    Returns
    -------
    int
        Where the sample is too small to have lists, as many as are visited when no recall is asked for (`n_probes`).
    """
    lists = n_lists(len(some))
    if not lists:
        return n_probes(max(1, n_lists(n)))
    rng = np.random.default_rng(0)
    centroids = some[rng.choice(len(some), lists, replace=False)]
    for _ in range(_ITERATIONS):
        centroids = move_centroids(some, centroids, rng)
    sample = draw_sample(some, k=k, n_samples=_SAMPLES)
    probes = probes_for(sample, assign_lists(some, centroids), centroids, target_recall=target_recall)
    return min(n_lists(n), round(probes * (n / len(some)) ** _GROWTH))
