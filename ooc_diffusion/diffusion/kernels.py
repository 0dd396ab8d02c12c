"""The product L ← W L for an L that is dense, column sums and reading of rows (Numba); for one that is not: `sparse_kernels`.

Sums over neighbors are accumulated in float64, in the order of the neighbors: an entry of L depends neither on the rows and
columns processed beside it, nor on the number of threads, nor on whether its neighbors were gathered (`multiply`) or sent it
their values (`sparse_kernels.send`), since adding zeros changes nothing.

L is float32, or uint16 with the bits of bfloat16, to which sums are then rounded in all of these ways alike, by way of float32.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from .registers import narrow, sum_rows, sum_weighted_rows, widen

POSITION = np.uint32((1 << 31) - 1)
SUM_ROWS = 8192
PIECE = 1024
# Rows whose column sums are added first when all columns are normalized together: few, since they must fit in memory.
NORMALIZED_ROWS = 256


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply(bounds, rows, indptr, indices, row_scale, L, out):
    """Write rows of W L: ``out[k] = row_scale[i] * sum_j S[i, j] L[j]``, i = ``rows[k]``; S is 1 per edge, 2 per reciprocal edge.

    ``indptr``, ``indices`` and ``row_scale`` are those of a block of rows, which ``rows`` counts from 0; ``bounds`` cuts ``rows``
    into parts of equal work. An ``out`` with more than these rows is for all of the block: row i then goes to ``out[i]``. L has
    at most `MOST_COLUMNS` columns: wider rows are slower to gather than two narrow ones.
    """
    first, apart = indptr[0], out.shape[0] == rows.shape[0]
    for part in nb.prange(bounds.shape[0] - 1):
        for k in range(bounds[part], bounds[part + 1]):
            i, after = np.int64(rows[k]), np.int64(rows[min(k + 1, rows.shape[0] - 1)])
            a, b = indptr[i] - first, indptr[i + 1] - first
            sum_rows(indices, indices, a, b, max(b, indptr[after] - first), row_scale[i], L, out, k if apart else i)


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply_weighted(bounds, rows, indptr, indices, weights, row_scale, L, out):
    """Do the same with explicit weights: ``out[k] = row_scale[i] * sum_j weights[i, j] L[j]``."""
    first, apart = indptr[0], out.shape[0] == rows.shape[0]
    for part in nb.prange(bounds.shape[0] - 1):
        for k in range(bounds[part], bounds[part + 1]):
            i, after = np.int64(rows[k]), np.int64(rows[min(k + 1, rows.shape[0] - 1)])
            a, b = indptr[i] - first, indptr[i + 1] - first
            sum_weighted_rows(indices, weights, a, b, max(b, indptr[after] - first), row_scale[i], L, out, k if apart else i)


@nb.njit(cache=True, nogil=True)
def _by_segment(rows, indptr, indices, weights, bits, out_ends, out_starts, out_indices, out_weights):
    """Copy the entries of rows by segments of 2^bits positions, those of a segment in the order of the rows.

    Segment s of row k begins at ``out_starts[k, s]`` and ends where row k + 1 begins, the last row's at ``out_ends[s]``. Entries
    of a row ascend, so that those of a segment lie together.
    """
    out_ends[:] = 0
    for k in range(rows.shape[0]):
        begin, end = np.uint64(indptr[rows[k]] - indptr[0]), np.uint64(indptr[rows[k] + 1] - indptr[0])
        out_starts[k, :] = np.uint32(0)
        for e in range(begin, end):  # the last one of a segment stays
            out_starts[k, np.uint64(indices[e] & POSITION) >> bits] = np.uint32(e - begin + np.uint64(1))
        before = np.uint32(0)
        for s in range(out_ends.shape[0]):
            until = max(before, out_starts[k, s])
            out_ends[s] += until - before
            out_starts[k, s] = before = until
    total = 0
    for s in range(out_ends.shape[0]):
        total, out_ends[s] = total + out_ends[s], total
    for k in range(rows.shape[0]):
        begin = e = np.uint64(indptr[rows[k]] - indptr[0])
        for s in range(out_ends.shape[0]):
            end, at = begin + np.uint64(out_starts[k, s]), np.uint64(out_ends[s])
            out_starts[k, s] = np.uint32(at)
            while e < end:
                out_indices[at] = indices[e]
                if weights.shape[0] > 0:
                    out_weights[at] = weights[e]
                at, e = at + np.uint64(1), e + np.uint64(1)
            out_ends[s] = np.int64(at)


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply_by_segments(bounds, firsts, rows, block, row_scale, bits, L, ends, starts, ordered, sums, out):
    """Do the same as `multiply`, ``block`` being (indptr, indices, weights), for an L larger than what is found fast.

    The entries of the rows of a part are multiplied segment after segment of 2^bits rows of L, ascending, so that the sums are
    made in the same order. ``firsts`` counts the entries before each part. ``ends`` (parts, segments) int64, ``starts`` (rows,
    segments) uint32, ``ordered``, (indices, weights) of as many entries, and ``sums`` (rows, C) float64 are scratch.
    """
    indptr, indices, weights = block
    apart = out.shape[0] == rows.shape[0]
    for part in nb.prange(bounds.shape[0] - 1):
        begin, end = bounds[part], bounds[part + 1]
        own_indices = ordered[0][firsts[part] : firsts[part + 1]]
        own_weights = ordered[1][firsts[part] : firsts[part + 1]]
        _by_segment(rows[begin:end], indptr, indices, weights, bits, ends[part], starts[begin:end], own_indices, own_weights)
        sums[begin:end] = 0.0
        for s in range(ends.shape[1]):
            for k in range(begin, end):
                first = np.int64(starts[k, s])
                after = np.int64(starts[k + 1, s]) if k + 1 < end else ends[part, s]
                if weights.shape[0] > 0:
                    sum_weighted_rows(own_indices, own_weights, first, after, after, row_scale[0], L, sums, k)
                else:
                    sum_rows(own_indices, own_indices, first, after, after, row_scale[0], L, sums, k)
        for k in range(begin, end):
            at = k if apart else np.int64(rows[k])
            for c in range(out.shape[1]):
                out[at, c] = narrow(sums[k, c] * row_scale[rows[k]], out)


@nb.njit(cache=True, nogil=True, parallel=True)
def place_rows(positions, rows, out):
    """Copy rows to their positions, which differ."""
    for k in nb.prange(rows.shape[0]):
        for c in range(rows.shape[1]):
            out[positions[k], c] = rows[k, c]


@nb.njit(cache=True, nogil=True)
def mark_neighbors(rows, indptr, indices, out):
    """Set the bit in ``out`` of every neighbor of ``rows``, which count from the first row of the block of ``indptr``."""
    for k in range(rows.shape[0]):
        for e in range(indptr[rows[k]] - indptr[0], indptr[rows[k] + 1] - indptr[0]):
            _set_bit(indices[e] & POSITION, out)


@nb.njit(cache=True, nogil=True)
def copy_rows(rows, indptr, entries, out):
    """Copy the ``entries`` of ``rows``, which count from the first row of the block of ``indptr``, one behind the other."""
    end = 0
    for k in range(rows.shape[0]):
        for e in range(indptr[rows[k]] - indptr[0], indptr[rows[k] + 1] - indptr[0]):
            out[end] = entries[e]
            end += 1


@nb.njit(cache=True, nogil=True)
def mark_read(neighbors, position, out):
    """Set the bit in ``out`` of the position of every neighbor (ids, -1 = none)."""
    for q in range(neighbors.shape[0]):
        for place in range(neighbors.shape[1]):
            if neighbors[q, place] >= 0:
                _set_bit(position[neighbors[q, place]], out)


@nb.njit(cache=True, nogil=True)
def _set_bit(p, out):
    """Set bit p in the order of `numpy.packbits`."""
    out[p >> 3] |= np.uint8(128 >> (p & 7))


@nb.njit(cache=True, nogil=True, parallel=True)
def sum_columns(L, partial, out):
    """Sum each column in float64: per block of 8192 rows into ``partial`` (blocks, columns), then block after block."""
    for block in nb.prange(partial.shape[0]):
        partial[block, :] = 0.0
        for i in range(block * SUM_ROWS, min((block + 1) * SUM_ROWS, L.shape[0])):
            for c in range(L.shape[1]):
                partial[block, c] += widen(L[i, c])
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
                    total[c] += widen(L[position[j], c])
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
