"""Similarities of a neighbor table that came without them (Numba)."""

from __future__ import annotations

import numba as nb
import numpy as np

from .kernels import NONE


@nb.njit(cache=True, nogil=True, parallel=True)
def row_products(queries, ids, vectors, out):
    """Write the inner products of each query (b, d) with the vectors (n, d) that its row of ids (b, w) names; -1 = none."""
    for row in nb.prange(ids.shape[0]):
        for place in range(ids.shape[1]):
            if ids[row, place] < 0:
                out[row, place] = NONE
                continue
            total = np.float64(0)
            for i in range(queries.shape[1]):
                total += np.float64(queries[row, i]) * np.float64(vectors[ids[row, place], i])
            out[row, place] = total
