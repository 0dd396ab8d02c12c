"""Drawing edges of the graph (Numba)."""

from __future__ import annotations

import numba as nb
import numpy as np

POSITION = np.uint32((1 << 31) - 1)


@nb.njit(cache=True, nogil=True)
def draw_edges(uniform, indptr, indices, weights, out):
    """Write the positions of both ends of an edge for each row of ``uniform`` (m, 2): a node, and a neighbor of it by its W.

    ``weights`` of no entries stand for 1 per edge, 2 per reciprocal edge. A node without edges, or with none that weighs, is both
    ends.
    """
    n = indptr.shape[0] - 1
    for draw in range(uniform.shape[0]):
        i = min(np.int64(uniform[draw, 0] * n), n - 1)
        out[draw, 0] = i
        out[draw, 1] = i
        begin, end = indptr[i], indptr[i + 1]
        total = 0.0
        for e in range(begin, end):
            total += weights[e] if weights.shape[0] > 0 else 1.0 + (indices[e] >> 31)
        below = uniform[draw, 1] * total
        for e in range(begin, end):
            below -= weights[e] if weights.shape[0] > 0 else 1.0 + (indices[e] >> 31)
            if below < 0.0:
                out[draw, 1] = np.int64(indices[e] & POSITION)
                break
