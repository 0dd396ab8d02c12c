"""Merging lists of neighbors, and keeping the k best of many similarities (Numba)."""

from __future__ import annotations

import numba as nb
import numpy as np

from ..bits import lowest_bit
from .comparing import CHUNK, at_least

NONE = np.float32(-1e30)


@nb.njit(cache=True, nogil=True, parallel=True)
def merge_lists(ids_a, similarities_a, ids_b, similarities_b, out_ids, out_similarities):
    """Merge two lists per row, each by decreasing similarity with -1 = none, and keep the best; the first wins ties."""
    for row in nb.prange(out_ids.shape[0]):
        a, b = 0, 0
        for place in range(out_ids.shape[1]):
            while a < ids_a.shape[1] and ids_a[row, a] < 0:
                a += 1
            while b < ids_b.shape[1] and ids_b[row, b] < 0:
                b += 1
            has_a, has_b = a < ids_a.shape[1], b < ids_b.shape[1]
            if has_a and (not has_b or similarities_a[row, a] >= similarities_b[row, b]):
                out_ids[row, place] = ids_a[row, a]
                out_similarities[row, place] = similarities_a[row, a]
                a += 1
            elif has_b:
                out_ids[row, place] = ids_b[row, b]
                out_similarities[row, place] = similarities_b[row, b]
                b += 1
            else:
                out_ids[row, place] = -1
                out_similarities[row, place] = -1e30


@nb.njit(cache=True, nogil=True)
def _keep_best(keys, k):
    """Bring the k largest keys to the front, the least of them to place k - 1 (Hoare's selection)."""
    low, high, wanted = 0, keys.shape[0] - 1, k - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break


@nb.njit(cache=True, nogil=True, inline="always")
def _key(bits, position):
    """Return a key that is larger for a larger float32 (given as its bits), and of equal ones for the lower position."""
    high = bits ^ np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return (np.uint64(high) << np.uint64(32)) | np.uint64(np.uint32(0xFFFFFFFF) - np.uint32(position))


@nb.njit(cache=True, nogil=True, inline="always")
def _similarity(key):
    """Return the float32 that a key was made of."""
    high = np.uint32(key >> np.uint64(32))
    bits = high ^ np.uint32(0x80000000) if high >> np.uint32(31) else high ^ np.uint32(0xFFFFFFFF)
    return np.uint32(bits).view(np.float32)


@nb.njit(cache=True, nogil=True, inline="always")
def _chunk(row, begin, least):
    """Return a place and a mask: bit j is set where entry place + j, ``begin`` or later, is at least ``least``."""
    n = row.shape[0]
    if n >= CHUNK:  # the last chunk ends with the row, without what the one before had
        first = min(begin, n - CHUNK)
        seen = np.uint32(begin - first)
        return first, at_least(row, first, least) >> seen << seen
    mask = np.uint32(0)
    for j in range(n):
        mask |= np.uint32(row[j] >= least) << np.uint32(j)
    return 0, mask


@nb.njit(cache=True, nogil=True)
def offer(similarities, queries, positions, k, out_least, out_counts, out_keys):
    """Keep for each query the k best of its similarities (m, n) to the vectors at ``positions`` (n,).

    Row i of the similarities is that of query ``queries[i]``. Its best so far are among the first ``out_counts[q]`` of
    ``out_keys[q]``, which has room for more than k: only when it is full they are sorted out. ``out_least[q]`` is the least
    similarity that could be among the k best. Of equal ones those of lower positions are kept, so that the order in which lists
    come does not matter.
    """
    bits = similarities.view(np.uint32)
    n = similarities.shape[1]
    for i in range(similarities.shape[0]):
        q, row = queries[i], similarities[i]
        keys, count, least = out_keys[q], out_counts[q], out_least[q]
        for begin in range(0, n, CHUNK):
            first, mask = _chunk(row, begin, least)
            while mask:
                j = first + lowest_bit(mask)
                mask &= mask - np.uint32(1)
                key = _key(bits[i, j], positions[j])
                if row[j] > least or (row[j] == least and key > keys[k - 1]):  # identical vectors come in thousands
                    keys[count] = key
                    count += 1
                    if count == keys.shape[0]:
                        _keep_best(keys, k)
                        count, least = k, _similarity(keys[k - 1])
        out_counts[q], out_least[q] = count, least


@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _inner(a, i, b, j, begin, end):
    """Return the inner product of parts of two rows; slices would count references, which threads share."""
    total = np.float32(0)
    for place in range(begin, end):
        total += a[i, place] * b[j, place]
    return total


@nb.njit(cache=True, nogil=True)
def tail_norms(vectors, prefixes, rounding, out):
    """Write the norms of what is left of each vector (n, d) behind prefixes (l,), ascending, and more for rounding (n, l)."""
    for i in range(vectors.shape[0]):
        squares, end = np.float32(0), vectors.shape[1]
        for level in range(prefixes.shape[0] - 1, -1, -1):
            squares += _inner(vectors, i, vectors, i, prefixes[level], end)
            out[i, level], end = np.sqrt(squares), prefixes[level]
        norm = np.sqrt(squares + _inner(vectors, i, vectors, i, 0, end))
        for level in range(prefixes.shape[0]):
            out[i, level] += rounding * norm


@nb.njit(cache=True, nogil=True)
def _with_tails(vectors, tails, rows, out):
    """Write the beginnings of some vectors and the norms of the rest to ``out`` (m, p + 1)."""
    p = out.shape[1] - 1
    for i in range(rows.shape[0]):
        for j in range(p):
            out[i, j] = vectors[rows[i], j]
        out[i, p] = tails[rows[i]]


@nb.njit(cache=True, nogil=True)
def _offer_bounded(bounds, asking, first_query, database, begin_row, end_row, prefixes, level, k, best):
    """Do what `offer` does, for inner products of which the bounds (m, n) are known; return how many of these were high."""
    least_of, counts, all_keys = best
    queries, query_tails = asking
    vectors, tails, all_rows, all_names = database
    rows, names = all_rows[begin_row:end_row], all_names[begin_row:end_row]
    p, d, following = prefixes[level], queries.shape[1], min(level + 1, prefixes.shape[0] - 1)
    computed = 0
    for i in range(bounds.shape[0]):
        q, row = first_query + i, bounds[i]
        keys, count, least = all_keys[q], counts[q], least_of[q]
        for begin in range(0, bounds.shape[1], CHUNK):
            first, mask = _chunk(row, begin, least)
            while mask:
                j = first + lowest_bit(mask)
                mask &= mask - np.uint32(1)
                if row[j] < least:  # which has grown
                    continue
                computed += 1
                s = rows[j]
                closer = row[j] - query_tails[q, level] * tails[s, level] + query_tails[q, following] * tails[s, following]
                if closer + _inner(queries, q, vectors, s, p, prefixes[following]) < least:
                    continue
                similarity = np.float32(_inner(queries, q, vectors, s, 0, d))
                key = _key(similarity.view(np.uint32), names[j])
                if similarity > least or (similarity == least and key > keys[k - 1]):  # identical vectors come in thousands
                    keys[count] = key
                    count += 1
                    if count == keys.shape[0]:
                        _keep_best(keys, k)
                        count, least = k, _similarity(keys[k - 1])
        counts[q], least_of[q] = count, least
    return computed


@nb.njit(cache=True, nogil=True)
def offer_products(asking, database, prefixes, level, k, work, best):
    """Offer to some vectors their inner products with some of a database; return for how many the bound was not enough.

    ``asking`` are vectors and what `tail_norms` says of them; ``database`` these, the rows that are meant, and the positions that
    are kept. A product is at most that of the first values and the norms of the others: such bounds are made by matrix products,
    tile by tile in ``work``, and only where they reach the least of the query (``best``: as the last three of `offer`) the inner
    product is computed, each by itself.
    """
    queries, query_tails = asking
    vectors, tails, rows, _ = database
    left, right, bounds = work
    width, step, computed = prefixes[level] + 1, right.shape[0], 0
    members = np.arange(queries.shape[0])
    for first in range(0, rows.shape[0], step):
        last = min(first + step, rows.shape[0])
        n = last - first
        b = right.reshape(-1)[: n * width].reshape(n, width)
        _with_tails(vectors, tails[:, level], rows[first:last], b)
        tile = max(1, min(left.shape[0], bounds.shape[0] // n))
        for begin in range(0, queries.shape[0], tile):
            some = members[begin : begin + tile]
            m = some.shape[0]
            a = left.reshape(-1)[: m * width].reshape(m, width)
            _with_tails(queries, query_tails[:, level], some, a)
            found = bounds[: m * n].reshape(m, n)
            np.dot(a, b.T, found)
            computed += _offer_bounded(found, asking, begin, database, first, last, prefixes, level, k, best)
    return computed


@nb.njit(cache=True, nogil=True)
def keep_nearest(nearness, first, out_best, out_nearest):
    """Keep for each row the largest nearness (m, n) so far, and its column, counted from ``first``; the first of equal ones."""
    for i in range(nearness.shape[0]):
        row, best, nearest = nearness[i], out_best[i], out_nearest[i]
        for begin in range(0, row.shape[0], CHUNK):
            place, mask = _chunk(row, begin, best)
            while mask:
                j = place + lowest_bit(mask)
                mask &= mask - np.uint32(1)
                if row[j] > best:
                    best, nearest = row[j], first + j
        out_best[i], out_nearest[i] = best, nearest


@nb.njit(cache=True, nogil=True)
def add_by_list(vectors, lists, out_sums):
    """Add each vector (n, d) to the sum of its list (lists, d) float64."""
    for i in range(vectors.shape[0]):
        for j in range(vectors.shape[1]):
            out_sums[lists[i], j] += vectors[i, j]


@nb.njit(cache=True, nogil=True)
def sort_best(counts, keys, out_positions, out_similarities):
    """Write the best of each query, best first; -1 and -1e30 where there are fewer than k."""
    for q in range(out_positions.shape[0]):
        keys[q, : counts[q]].sort()
        for place in range(out_positions.shape[1]):
            at = counts[q] - 1 - place
            if at < 0:
                out_positions[q, place], out_similarities[q, place] = -1, NONE
            else:
                out_positions[q, place] = np.uint32(0xFFFFFFFF) - np.uint32(keys[q, at] & np.uint64(0xFFFFFFFF))
                out_similarities[q, place] = _similarity(keys[q, at])


@nb.njit(cache=True, nogil=True)
def order_by_list(lists, out_starts, out_order):
    """Sort vectors by their inverted list, stable; ``out_starts`` (lists + 1,) int64, all zero before, says where each begins."""
    for i in range(lists.shape[0]):
        out_starts[lists[i]] += 1
    for r in range(1, out_starts.shape[0]):
        out_starts[r] += out_starts[r - 1]
    for i in range(lists.shape[0] - 1, -1, -1):  # each list is filled from its end
        out_starts[lists[i]] -= 1
        out_order[out_starts[lists[i]]] = i


@nb.njit(cache=True, nogil=True)
def group_by_list(probes, out_starts, out_members):
    """List the queries that probe each list, ascending: ``probes`` (q, p), ``out_members`` (q p,); starts as `order_by_list`."""
    for i in range(probes.shape[0]):
        for j in range(probes.shape[1]):
            out_starts[probes[i, j]] += 1
    for r in range(1, out_starts.shape[0]):
        out_starts[r] += out_starts[r - 1]
    for i in range(probes.shape[0] - 1, -1, -1):  # each list is filled from its end
        for j in range(probes.shape[1]):
            r = probes[i, j]
            out_starts[r] -= 1
            out_members[out_starts[r]] = i


@nb.njit(cache=True, nogil=True)
def list_near(products, norms, radius, asked, rounding, out):
    """Write where products (n,) with a centroid and ``radius`` times the norm reach what is asked; return how many."""
    count = 0
    for i in range(products.shape[0]):
        out[count] = i
        count += products[i] + radius * norms[i] >= asked - rounding * (1 + norms[i])
    return count


@nb.njit(cache=True, nogil=True, parallel=True)
def put_rows(rows, places, begin, end, out):
    """Write the rows whose places are from ``begin`` to ``end`` there, counted from ``begin``."""
    for i in nb.prange(rows.shape[0]):
        place = np.int64(places[i])
        if begin <= place < end:
            for j in range(rows.shape[1]):
                out[place - begin, j] = rows[i, j]


@nb.njit(cache=True, nogil=True)
def take_entering(spans, entries, out_ids, out_similarities):
    """Write what stands from ``spans[i, 0]`` to ``spans[i, 1]`` among entries (m, 2), id and bits of the similarity, to row i."""
    similarities = entries.view(np.float32)
    for i in range(spans.shape[0]):
        out_ids[i] = -1
        out_similarities[i] = NONE
        for place in range(np.int64(spans[i, 1]) - np.int64(spans[i, 0])):
            entry = np.int64(spans[i, 0]) + place
            out_ids[i, place] = entries[entry, 0]
            out_similarities[i, place] = similarities[entry, 1]
