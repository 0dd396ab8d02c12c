"""Naive oracles: slow, obvious, independent of the package.

Loops and dense float64 NumPy or SciPy only. The package's results are compared with these on small inputs; nothing here
is fast, and nothing here imports ``ooc_diffusion``, so that a mistake cannot hide on both sides.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

__all__ = [
    "awkward_table",
    "naive_bfloat16",
    "naive_coupled",
    "naive_csr",
    "naive_diffuse",
    "naive_diffuse_rounded",
    "naive_float32",
    "naive_knn_scores",
    "naive_markov",
    "naive_merge",
    "naive_neighbors",
    "naive_normalized",
    "naive_query_scores",
    "naive_top_k_accuracy",
    "naive_w",
    "naive_w0",
    "naive_walk",
    "naive_zhou",
]


def naive_neighbors(X, k, queries=None):
    """Exact search by inner product: ids int64 (q, k) and similarities float64 (q, k), best first, ties by lower id.

    ``queries`` default to ``X`` itself (each point then finds itself). Rows are padded with -1 and -inf.
    """
    X = np.asarray(X, dtype=np.float64)
    queries = X if queries is None else np.asarray(queries, dtype=np.float64)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    sims = np.full((len(queries), k), -np.inf)
    for row, query in enumerate(queries):
        scored = [(-float(X[i] @ query), i) for i in range(len(X))]
        for place, (negative, i) in enumerate(sorted(scored)[:k]):
            ids[row, place], sims[row, place] = i, -negative
    return ids, sims


def naive_w0(neighbor_ids, n, weights=None):
    """W0 as float64 CSR (n, n): row i holds 1 (or the weight) at each neighbor that row i of the table lists.

    -1 is no neighbor; a repeated id counts once, at its first place; the diagonal is kept. Tables of fewer than n rows
    leave the last rows empty.
    """
    dense = np.zeros((n, n))
    for i, row in enumerate(np.asarray(neighbor_ids)):
        seen = set()
        for place, j in enumerate(row):
            if j < 0 or j in seen:
                continue
            seen.add(j)
            dense[i, j] = 1.0 if weights is None else float(weights[i, place])
    return sp.csr_array(dense)


def naive_w(neighbor_ids, weights=None):
    """W = D^-1 (W0 + W0^T) as float64 CSR (n, n): each row sums to 1, rows without entries stay zero."""
    W0 = naive_w0(neighbor_ids, len(neighbor_ids), weights).toarray()
    S = W0 + W0.T
    for i in range(len(S)):
        total = S[i].sum()
        if total > 0:
            S[i] /= total
    return sp.csr_array(S)


def naive_csr(neighbor_ids, weights=None, order=None):
    """The graph at rest to the last bit: indptr int64, indices uint32, row scale float32, and weights float32 or None.

    Rows and entries stand at their positions in ``order``; the high bit of an entry marks an edge listed by both ends. The
    weight of such an edge is the float32 sum of both, and a row sum is taken in float64: per neighbor first the weight with
    which the row lists it, then the one with which it is listed.
    """
    n = len(neighbor_ids)
    position = np.empty(n, dtype=np.int64)
    position[np.arange(n) if order is None else order] = np.arange(n)
    halves = [{} for _ in range(n)]
    for i, row in enumerate(np.asarray(neighbor_ids)):
        for place, j in enumerate(row):
            if j >= 0 and (position[j], 0) not in halves[position[i]]:
                weight = np.float32(1 if weights is None else weights[i, place])
                halves[position[i]][position[j], 0] = halves[position[j]][position[i], 1] = weight
    entries, values, scale, lengths = [], [], [], []
    for row in halves:
        merged, total = {}, 0.0
        for (q, _), weight in sorted(row.items()):
            merged[q] = [*merged.get(q, []), weight]
            total += float(weight)
        entries += [q + (len(both) == 2) * 2**31 for q, both in merged.items()]
        values += [both[0] + both[1] if len(both) == 2 else both[0] for both in merged.values()]
        lengths.append(len(merged))
        scale.append(1 / total if total > 0 else 0)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = None if weights is None else np.array(values, dtype=np.float32)
    return indptr, np.array(entries, dtype=np.uint32), np.array(scale, dtype=np.float32), values


def naive_diffuse(W, seeds, seed_classes, n_classes, n_iter, normalization="columns"):
    """L_0 .. L_T, a list of dense float64 (n, n_classes) arrays with L_{t+1} = W L_t from one-hot seeds.

    ``"columns"`` divides each column of each L_t by its sum when it is handed out (columns of zeros stay zero);
    ``"none"`` does not.
    """
    if normalization not in ("columns", "none"):
        raise ValueError(normalization)
    W = W.toarray() if sp.issparse(W) else np.asarray(W, dtype=np.float64)
    L = np.zeros((len(W), n_classes))
    for node, label in zip(seeds, seed_classes, strict=True):
        L[node, label] = 1.0
    plain = [L]
    for _ in range(n_iter):
        plain.append(W @ plain[-1])
    if normalization == "none":
        return plain
    result = []
    for L in plain:
        sums = L.sum(axis=0)
        result.append(L / np.where(sums > 0, sums, 1.0))
    return result


def naive_walk(W, iterates, start, c):
    """Walk back from L_T to a seed of class c: [(node, share), ...] from iteration 0 to T, None where no label has come.

    ``W`` is dense, ``iterates`` L_0 .. L_T by node id. A share is W_ij L_t[j] over the sum of these, for the last node its entry
    over the sum over ``start`` (-1 is skipped). Of equal contributions the one of the smallest id counts.
    """

    def largest(contributions):
        best = None
        for j, value in sorted(contributions):
            if value > 0 and (best is None or value > best[1]):
                best = j, value
        return None if best is None else (best[0], best[1] / sum(value for _, value in contributions))

    found = largest([(j, float(iterates[-1][j, c])) for j in start if j >= 0])
    if found is None:
        return None
    walk = [found]
    for L in iterates[-2::-1]:
        walk.append(largest([(j, float(W[walk[-1][0], j]) * float(L[j, c])) for j in range(len(W))]))
    return walk[::-1]


def naive_bfloat16(values):
    """Values rounded to float32, and from there to the nearest bfloat16, ties to the even one; float64."""
    bits = np.asarray(values).astype(np.float32).view(np.uint32).astype(np.int64)
    upper, rest = bits // 2**16, bits % 2**16
    upper += (rest > 2**15) | ((rest == 2**15) & (upper % 2 == 1))
    return (upper * 2**16).astype(np.uint32).view(np.float32).astype(np.float64)


def naive_float32(values):
    """Values rounded to float32; float64."""
    return np.asarray(values).astype(np.float32).astype(np.float64)


def naive_diffuse_rounded(
    neighbor_ids, seeds, seed_classes, n_classes, n_iter, *, weights=None, order=None, rounded=naive_bfloat16
):
    """L_0 .. L_T, unnormalized, to the last bit: float64 sums in the order of the entries at rest, each then ``rounded``.

    One row and one entry after the other, over the graph of `naive_csr`; (n, n_classes) float64 by node id.
    """
    indptr, entries, scale, weights = naive_csr(neighbor_ids, weights, order)
    position = np.arange(len(scale)) if order is None else np.argsort(order)
    L = np.zeros((len(scale), n_classes))
    L[position[seeds], seed_classes] = 1.0
    result = [L]
    for _ in range(n_iter):
        sums = np.zeros_like(L)
        for i in range(len(sums)):
            for e in range(indptr[i], indptr[i + 1]):
                times = 1.0 + float(entries[e] >> 31) if weights is None else float(weights[e])
                sums[i] += times * result[-1][entries[e] & (2**31 - 1)]
        result.append(rounded(sums * scale[:, None].astype(np.float64)))
    return [L[position] for L in result]


def naive_normalized(L, normalization, power=2.0, prior=None):
    """η(L), float64; columns and rows without a positive sum are left alone.

    ``"columns"`` and ``"rows"`` divide by sums. ``"sinkhorn"`` does five times: columns to sums in proportion to ``prior``
    (default uniform), then rows to sum 1. ``"gamma"`` divides columns by their sums, raises entries to ``power``, and divides
    columns by their sums.
    """
    L = np.array(L, dtype=np.float64)
    n, n_classes = L.shape

    def columns(shares):
        for c in range(n_classes):
            total = sum(L[i, c] for i in range(n))
            if total > 0:
                for i in range(n):
                    L[i, c] = L[i, c] / total * shares[c]

    def rows():
        for i in range(n):
            total = sum(L[i, c] for c in range(n_classes))
            if total > 0:
                for c in range(n_classes):
                    L[i, c] /= total

    if normalization == "columns":
        columns(np.ones(n_classes))
    elif normalization == "rows":
        rows()
    elif normalization == "sinkhorn":
        for _ in range(5):
            columns(np.ones(n_classes) if prior is None else prior)
            rows()
    elif normalization == "gamma":
        columns(np.ones(n_classes))
        L **= power
        columns(np.ones(n_classes))
    elif normalization != "none":
        raise ValueError(normalization)
    return L


def naive_coupled(W, seeds, seed_classes, n_classes, n_iter, normalization, *, reset=False, power=2.0, prior=None):
    """L_0 .. L_T, a list of dense float64 (n, n_classes) arrays: one-hot seeds, then L_{t+1} = reset(η(W L_t)) as it is.

    The reset, where it is wanted, sets the rows of seeds back to those of L_0.
    """
    W = W.toarray() if sp.issparse(W) else np.asarray(W, dtype=np.float64)
    L = np.zeros((len(W), n_classes))
    for node, label in zip(seeds, seed_classes, strict=True):
        L[node, label] = 1.0
    result = [L]
    for _ in range(n_iter):
        L = naive_normalized(W @ L, normalization, power, prior)
        if reset:
            for node in seeds:
                L[node] = result[0][node]
        result.append(L)
    return result


def naive_query_scores(L, query_neighbor_ids):
    """Float64 (q, C): per query the plain sum of the rows of L at its neighbors; -1 is skipped, repeats count again."""
    L = np.asarray(L, dtype=np.float64)
    scores = np.zeros((len(query_neighbor_ids), L.shape[1]))
    for row, neighbors in enumerate(query_neighbor_ids):
        for j in neighbors:
            if j >= 0:
                scores[row] += L[j]
    return scores


def naive_merge(ids_a, sims_a, ids_b, sims_b, k):
    """Merge two neighbor tables row by row: ids int64 (q, k), similarities float64 (q, k) by decreasing similarity.

    -1 never wins, whatever its similarity; at equal similarity the first table comes first, then the earlier place. The
    two tables speak of different points, so ids are not compared. Rows are padded with -1 and -inf.
    """
    ids = np.full((len(ids_a), k), -1, dtype=np.int64)
    sims = np.full((len(ids_a), k), -np.inf)
    for row in range(len(ids_a)):
        candidates = []
        for table, (some_ids, some_sims) in enumerate([(ids_a[row], sims_a[row]), (ids_b[row], sims_b[row])]):
            for place, (j, s) in enumerate(zip(some_ids, some_sims, strict=True)):
                if j >= 0:
                    candidates.append((-float(s), table, place, int(j)))
        for place, (negative, _, _, j) in enumerate(sorted(candidates)[:k]):
            ids[row, place], sims[row, place] = j, -negative
    return ids, sims


def naive_knn_scores(seed_vectors, seed_classes, queries, n_classes, n_neighbors):
    """Votes int64 (q, C) and summed similarities float64 (q, C) of the nearest seeds, by inner product.

    The predicted class has most votes; among those the largest summed similarity; among those the lowest number.
    """
    ids, sims = naive_neighbors(seed_vectors, n_neighbors, queries)
    votes = np.zeros((len(ids), n_classes), dtype=np.int64)
    summed = np.zeros((len(ids), n_classes))
    for row in range(len(ids)):
        for j, s in zip(ids[row], sims[row], strict=True):
            if j >= 0:
                votes[row, seed_classes[j]] += 1
                summed[row, seed_classes[j]] += s
    return votes, summed


def naive_top_k_accuracy(scores, truth, k, positive_only=True):
    """Share of rows whose true class is among the k largest scores; ties by lower class.

    With ``positive_only`` a class whose score is not above zero does not count, so a row of zeros is wrong.
    """
    hits = 0
    for row, label in zip(scores, truth, strict=True):
        ranked = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        hits += any(c == label and (row[c] > 0 or not positive_only) for c in ranked)
    return hits / len(truth)


def awkward_table(rng, n, k, *, n_components=3, isolated=0.1, missing=0.15, repeated=0.15, no_self=0.2):
    """A neighbor table with all that goes wrong: ids int64 (n, k) and positive weights float32 (n, k).

    Nodes fall into ``n_components`` that never list each other, the first as large as all others together. Everybody in
    the first lists node 0, the hub. A share ``isolated`` of the other nodes lists nobody and is listed by nobody (rows
    of -1), a share ``no_self`` does not list itself, and of the remaining places a share ``missing`` is -1 and a share
    ``repeated`` is a copy of an earlier place, anywhere in the row.
    """
    component = np.where(np.arange(n) < (n + 1) // 2, 0, np.arange(n) % max(1, n_components - 1) + 1)
    if n_components == 1:
        component[:] = 0
    alone = rng.random(n) < isolated
    alone[0] = False
    ids = np.full((n, k), -1, dtype=np.int64)
    for i in np.flatnonzero(~alone):
        friends = np.flatnonzero((component == component[i]) & ~alone & (np.arange(n) != i))
        listed = list(rng.permutation(friends)[:k])
        if rng.random() >= no_self:
            listed.insert(0, i)
        if component[i] == 0 and 0 not in listed[:k]:
            listed.insert(int(rng.integers(0, k)), 0)
        row = listed[:k]
        ids[i, : len(row)] = row
        for place in range(1, len(row)):
            if ids[i, place] == 0:
                continue
            draw = rng.random()
            if draw < missing:
                ids[i, place] = -1
            elif draw < missing + repeated:
                ids[i, place] = ids[i, rng.integers(0, place)]
    weights = rng.uniform(0.05, 2.0, size=(n, k)).astype(np.float32)
    return ids, weights


def naive_list_search(X, lists, centroids, queries, k, probes):
    """The k best vectors of the lists nearest to each query, of equal ones that of the lower list and id; -1 = none."""
    found = []
    for query in queries.astype(np.float64):
        near = np.argsort(((centroids - query) ** 2).sum(axis=1), kind="stable")[:probes]
        inside = [i for number in range(len(centroids)) for i in np.flatnonzero(lists == number) if number in near]
        similarities = X[inside].astype(np.float64) @ query
        best = np.argsort(-similarities, kind="stable")[:k]
        found.append([*np.array(inside, int)[best], *[-1] * (k - len(best))])
    return np.array(found)


def naive_zhou(neighbor_ids, weights, seeds, seed_classes, n_classes, alpha, n_iter=None, *, mutual=False):
    """L_0 .. L_T of L_{t+1} = α 𝒲 L_t + (1 - α) L_0, 𝒲 = D^(-1/2) (W0 + W0ᵀ) D^(-1/2), dense float64; without T the limit alone.

    The limit is (1 - α) (I - α 𝒲)^(-1) L_0, by elimination. Rows and columns of nodes without edges are zero in 𝒲. In a
    ``mutual`` graph an edge is only where both of its ends list the other.
    """
    W0 = naive_w0(neighbor_ids, len(neighbor_ids), weights).toarray()
    S = W0 + W0.T
    if mutual:
        lists = naive_w0(neighbor_ids, len(neighbor_ids)).toarray() > 0
        S *= lists & lists.T
    degrees = S.sum(axis=1)
    for i in range(len(S)):
        for j in range(len(S)):
            if S[i, j] > 0:
                S[i, j] /= np.sqrt(degrees[i] * degrees[j])
    L = np.zeros((len(S), n_classes))
    for node, label in zip(seeds, seed_classes, strict=True):
        L[node, label] = 1.0
    if n_iter is None:
        return np.linalg.solve(np.eye(len(S)) - alpha * S, (1 - alpha) * L)
    result = [L]
    for _ in range(n_iter):
        result.append(alpha * S @ result[-1] + (1 - alpha) * L)
    return result


def naive_markov(W, power, threshold=0.0, most=1000):
    """Clusters (n,) by full Markov clustering of a dense W, numbered by their first node: W = Γ_r(W W) until nothing changes.

    An entry below the threshold is dropped unless it is the largest of its column, which is divided by its sum again.
    """
    W = W.toarray() if sp.issparse(W) else np.array(W, dtype=np.float64)
    n = len(W)
    for _ in range(most):
        squared = (W @ W) ** power
        for j in range(n):
            total = squared[:, j].sum()
            if total > 0:
                squared[:, j] /= total
                largest = squared[:, j].max()
                for i in range(n):
                    if squared[i, j] < threshold and squared[i, j] < largest:
                        squared[i, j] = 0
                squared[:, j] /= squared[:, j].sum()
        done = np.abs(squared - W).max() < 1e-9
        W = squared
        if done:
            break
    clusters = np.full(n, -1)
    for start in range(n):
        if clusters[start] >= 0:
            continue
        number, waiting = clusters.max() + 1, [start]
        while waiting:
            i = waiting.pop()
            if clusters[i] < 0:
                clusters[i] = number
                waiting += [j for j in range(n) if W[i, j] > 0 or W[j, i] > 0]
    return clusters
