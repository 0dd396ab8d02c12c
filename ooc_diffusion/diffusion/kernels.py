"""The product L ← W L, column sums and reading of rows (Numba).

Sums over neighbors are accumulated in float64, in the order of the neighbors: the result of a row depends neither on the rows and
columns processed beside it nor on the number of threads.
"""

from __future__ import annotations

import numba as nb
import numpy as np

POSITION = np.uint32((1 << 31) - 1)
SUM_ROWS = 8192


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply(bounds, indptr, indices, row_scale, L, out):
    """Write rows of W L: ``out[i] = row_scale[i] * sum_j S[i, j] L[j]`` with S 1 per edge, 2 per reciprocal edge.

    ``indptr`` (rows + 1,) and ``indices`` are those of the rows of ``out``; ``bounds`` cuts them into parts of equal work.
    """
    first = indptr[0]
    columns = L.shape[1]
    for part in nb.prange(bounds.shape[0] - 1):
        total = np.empty(columns, np.float64)
        for i in range(bounds[part], bounds[part + 1]):
            total[:] = 0.0
            for e in range(indptr[i] - first, indptr[i + 1] - first):
                j = indices[e] & POSITION
                times = 1.0 + np.float64(indices[e] >> 31)
                for c in range(columns):
                    total[c] += times * L[j, c]
            for c in range(columns):
                out[i, c] = total[c] * row_scale[i]


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply_weighted(bounds, indptr, indices, weights, row_scale, L, out):
    """Do the same with explicit weights: ``out[i] = row_scale[i] * sum_j weights[i, j] L[j]``."""
    first = indptr[0]
    columns = L.shape[1]
    for part in nb.prange(bounds.shape[0] - 1):
        total = np.empty(columns, np.float64)
        for i in range(bounds[part], bounds[part + 1]):
            total[:] = 0.0
            for e in range(indptr[i] - first, indptr[i + 1] - first):
                j = indices[e] & POSITION
                times = np.float64(weights[e])
                for c in range(columns):
                    total[c] += times * L[j, c]
            for c in range(columns):
                out[i, c] = total[c] * row_scale[i]


@nb.njit(cache=True, nogil=True, parallel=True)
def sum_columns(L, partial, out):
    """Sum each column in float64: per block of 8192 rows into ``partial`` (blocks, columns), then block after block."""
    for block in nb.prange(partial.shape[0]):
        partial[block, :] = 0.0
        for i in range(block * SUM_ROWS, min((block + 1) * SUM_ROWS, L.shape[0])):
            for c in range(L.shape[1]):
                partial[block, c] += L[i, c]
    out[:] = 0.0
    for block in range(partial.shape[0]):
        for c in range(out.shape[0]):
            out[c] += partial[block, c]


@nb.njit(cache=True, nogil=True, parallel=True)
def read_rows(neighbors, position, L, column_scale, out):
    """Write scores of queries: ``out[q] = column_scale * sum_j L[j]`` over the neighbors (ids, -1 = none) of each query."""
    columns = L.shape[1]
    for q in nb.prange(neighbors.shape[0]):
        total = np.zeros(columns, np.float64)
        for place in range(neighbors.shape[1]):
            j = neighbors[q, place]
            if j >= 0:
                for c in range(columns):
                    total[c] += L[position[j], c]
        for c in range(columns):
            out[q, c] = total[c] * column_scale[c]


@nb.njit(cache=True, nogil=True)
def count_reached(L):
    """Return the number of rows with at least one positive entry."""
    reached = 0
    for i in range(L.shape[0]):
        for c in range(L.shape[1]):
            if L[i, c] > 0:
                reached += 1
                break
    return reached
