"""The product L ← W L by rows and by entries, column sums and reading of rows (Numba).

Sums over neighbors are accumulated in float64, in the order of the neighbors: an entry of L depends neither on the rows and
columns processed beside it, nor on the number of threads, nor on whether its neighbors were gathered (`multiply`) or sent it
their values (`push`), since adding zeros changes nothing.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from .registers import sum_rows, sum_weighted_rows

POSITION = np.uint32((1 << 31) - 1)
SUM_ROWS = 8192
# Rows whose column sums are added first when all columns are normalized together: few, since they must fit in memory.
NORMALIZED_ROWS = 256


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply(bounds, rows, indptr, indices, row_scale, L, out):
    """Write rows of W L: ``out[k] = row_scale[i] * sum_j S[i, j] L[j]``, i = ``rows[k]``; S is 1 per edge, 2 per reciprocal edge.

    ``indptr``, ``indices`` and ``row_scale`` are those of a block of rows, which ``rows`` counts from 0; ``bounds`` cuts ``rows``
    into parts of equal work. L has at most `MOST_COLUMNS` columns: wider rows are slower to gather than two narrow ones.
    """
    first = indptr[0]
    for part in nb.prange(bounds.shape[0] - 1):
        for k in range(bounds[part], bounds[part + 1]):
            i = rows[k]
            sum_rows(indices, indices, indptr[i] - first, indptr[i + 1] - first, row_scale[i], L, out, k)


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply_weighted(bounds, rows, indptr, indices, weights, row_scale, L, out):
    """Do the same with explicit weights: ``out[k] = row_scale[i] * sum_j weights[i, j] L[j]``."""
    first = indptr[0]
    for part in nb.prange(bounds.shape[0] - 1):
        for k in range(bounds[part], bounds[part + 1]):
            i = rows[k]
            sum_weighted_rows(indices, weights, indptr[i] - first, indptr[i + 1] - first, row_scale[i], L, out, k)


@nb.njit(cache=True, nogil=True)
def _send(position, value, indptr, indices, weights, total, touched):
    """Add what a row of L gives to its neighbors: S is symmetric, so its row holds the weights with which they count it."""
    weighted = weights.shape[0] > 0
    for e in range(indptr[position], indptr[position + 1]):
        p = indices[e] & POSITION
        times = np.float64(weights[e]) if weighted else 1.0 + np.float64(indices[e] >> 31)
        total[p] += times * value
        touched[p >> 6] |= np.uint64(1) << np.uint64(p & 63)


@nb.njit(cache=True, nogil=True, parallel=True)
def push(starts, positions, values, graph, total, touched, out_starts, out_counts, out_positions, out_values, out):
    """Write W x for sparse columns x: column c has ``values`` at ascending ``positions`` from ``starts[c]`` to ``starts[c + 1]``.

    The result goes to ``out_positions`` and ``out_values`` from ``out_starts[c]`` on, ``out_counts[c]`` entries; or into the
    columns of ``out`` (N, C) where that is not empty. ``total`` (workers, N) and ``touched`` (workers, N / 64) are zero before
    and after. ``graph`` is (indptr, indices, weights, row_scale); without weights an edge counts 1, a reciprocal one 2.
    """
    indptr, indices, weights, row_scale = graph
    workers, columns = total.shape[0], starts.shape[0] - 1
    for worker in nb.prange(workers):
        sums, words = total[worker], touched[worker]
        for c in range(worker, columns, workers):
            for s in range(starts[c], starts[c + 1]):
                _send(positions[s], np.float64(values[s]), indptr, indices, weights, sums, words)
            end = out_starts[c]
            for word in range(words.shape[0]):
                bits = words[word]
                while bits != 0:
                    p = (word << 6) + _lowest_bit(bits)
                    bits &= bits - np.uint64(1)
                    value = np.float32(sums[p] * row_scale[p])
                    sums[p] = 0.0
                    if out.shape[0] > 0:
                        out[p, c] = value
                    else:
                        out_positions[end] = p
                        out_values[end] = value
                    end += 1
                words[word] = 0
            out_counts[c] = end - out_starts[c]


@nb.njit(cache=True, nogil=True)
def _lowest_bit(bits):
    """Return the place of the lowest bit that is set (halving; ``bits`` is not 0)."""
    place = np.int64(0)
    for half in (32, 16, 8, 4, 2, 1):
        if bits & ((np.uint64(1) << np.uint64(half)) - np.uint64(1)) == 0:
            bits >>= np.uint64(half)
            place += half
    return place


@nb.njit(cache=True, nogil=True)
def count_sent(starts, positions, indptr, out):
    """Write for each sparse column how many entries of W its values are sent along."""
    for c in range(starts.shape[0] - 1):
        out[c] = 0
        for s in range(starts[c], starts[c + 1]):
            out[c] += indptr[positions[s] + 1] - indptr[positions[s]]


@nb.njit(cache=True, nogil=True)
def spread(starts, positions, values, out):
    """Write sparse columns into ``out`` (N, C)."""
    for c in range(starts.shape[0] - 1):
        for s in range(starts[c], starts[c + 1]):
            out[positions[s], c] = values[s]


@nb.njit(cache=True, nogil=True)
def collect(L, starts, out_counts, out_positions, out_values):
    """Write the entries of L (N, C) that are not zero, those of column c from ``starts[c]`` on, ``out_counts[c]`` of them."""
    out_counts[:] = 0
    for i in range(L.shape[0]):
        for c in range(L.shape[1]):
            if L[i, c] != 0:
                out_positions[starts[c] + out_counts[c]] = i
                out_values[starts[c] + out_counts[c]] = L[i, c]
                out_counts[c] += 1


@nb.njit(cache=True, nogil=True)
def mark_neighbors(rows, indptr, indices, out):
    """Set ``out[j]`` for every neighbor j of ``rows``, which count from the first row of the block of ``indptr``."""
    for k in range(rows.shape[0]):
        for e in range(indptr[rows[k]] - indptr[0], indptr[rows[k] + 1] - indptr[0]):
            out[indices[e] & POSITION] = True


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


@nb.njit(cache=True, nogil=True, parallel=True)
def normalize(M, column_scale, power, by_rows, sums, out):
    """Write ``(M * column_scale) ** power``, each row then divided by its sum if ``by_rows``; ``out`` may be M (rows, C) itself.

    ``sums`` (ceil(rows / 256), C) float64 gets the column sums, before rounding, of each 256 rows: whoever adds them one after
    the other gets the same sums for any number of threads and of rows at once. Rows of zeros stay. By rows, ``power`` is 1.
    """
    for group in nb.prange(sums.shape[0]):
        sums[group, :] = 0.0
        for i in range(group * NORMALIZED_ROWS, min((group + 1) * NORMALIZED_ROWS, M.shape[0])):
            row_scale = 1.0
            if by_rows:
                total = 0.0
                for c in range(M.shape[1]):
                    total += M[i, c] * column_scale[c]
                row_scale = 1.0 / total if total > 0 else 0.0
            for c in range(M.shape[1]):
                value = M[i, c] * column_scale[c] * row_scale
                if power != 1.0:
                    value = value**power
                sums[group, c] += value
                out[i, c] = value
