"""The search list after list, and its kernels, against loops."""

import numpy as np
import pytest

from ooc_diffusion.neighbors import OrderedLists, assign_lists, list_major, locality_order, nearest_lists, search_lists
from ooc_diffusion.neighbors.kernels import CHUNK, group_by_list, offer, sort_best
from ooc_diffusion.store import Store
from tests.reference import naive_list_search

N, D, LISTS = 900, 5, 40


def awkward_vectors(n=N, d=D, seed=0):
    """Unit vectors in clusters, 60 of them identical, some zero."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(12, d))[rng.integers(0, 12, n)] + 0.3 * rng.normal(size=(n, d))
    X[rng.choice(n, min(60, n // 3), replace=False)] = X[0]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X[5:8] = 0
    return X.astype(np.float32)


def ordered(X, centroids, dtype=np.float32):
    lists = assign_lists(X, centroids)
    order, starts = locality_order(lists, len(centroids))
    return OrderedLists(centroids, starts, order, X[order].astype(dtype)), lists


def found(*args, **options):
    ids, similarities = zip(*search_lists(*args, **options), strict=True)
    return np.concatenate(ids), np.concatenate(similarities)


@pytest.fixture(scope="module")
def case():
    X = awkward_vectors()
    centroids = X[np.random.default_rng(1).choice(N, LISTS, replace=False)]
    centroids[3] = 40  # a list without vectors
    database, lists = ordered(X, centroids)
    return X, centroids, lists, database


@pytest.mark.parametrize("probes", [1, 7, LISTS])
@pytest.mark.parametrize("k", [1, 6, 50])
def test_the_best_of_the_lists_that_are_probed(case, k, probes):
    X, centroids, lists, database = case
    queries = awkward_vectors(70, seed=3)[8:]  # behind the zero ones, to which all lists are equally near
    ids, similarities = found(database, queries, k=k, probes=probes, threads=2)
    expected = naive_list_search(X, lists, centroids, queries, k, probes)
    truth = np.where(expected < 0, -1e30, np.einsum("qd,qkd->qk", queries.astype(np.float64), X[expected].astype(np.float64)))
    np.testing.assert_allclose(similarities, truth, atol=1e-6)
    assert ((ids < 0) == (expected < 0)).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in ids)
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", queries, X[ids])[ids >= 0], similarities[ids >= 0], atol=1e-6)


@pytest.mark.parametrize(("list_rows", "products"), [(1, 1), (7, 64), (5000, 1), (5000, 2**18)])
@pytest.mark.parametrize("query_rows", [1, N - 1, N, N + 1])
def test_no_block_changes_what_is_found(case, monkeypatch, list_rows, products, query_rows):
    _, _, _, database = case
    ids, similarities = found(database, k=9, probes=5, threads=1)
    monkeypatch.setattr(list_major, "_LIST_ROWS", list_rows)
    monkeypatch.setattr(list_major, "_PRODUCTS", products)
    monkeypatch.setattr(list_major, "query_rows", lambda q, probes: query_rows)
    again, values = found(database, k=9, probes=5, threads=2)
    np.testing.assert_allclose(values, similarities, atol=1e-6)
    same = again == ids
    # of those that are equal but for rounding either may stand first
    assert same.mean() > 0.9
    assert (np.abs(values - similarities)[~same] < 1e-6).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_resuming_change_no_byte(case, monkeypatch, threads):
    _, _, _, database = case
    monkeypatch.setattr(list_major, "query_rows", lambda q, probes: 100)
    options = {"k": 9, "probes": 5}
    ids, similarities = found(database, threads=2, **options)
    for start in (0, 300, 800):
        again, values = found(database, threads=threads, start=start, **options)
        assert again.tobytes() == ids[start:].tobytes()
        assert values.tobytes() == similarities[start:].tobytes()


def test_the_database_asks_itself_as_any_queries_do(case):
    _, _, _, database = case
    ids, similarities = found(database, k=9, probes=5, threads=1)
    again, values = found(database, database.vectors, k=9, probes=5, threads=1)
    assert again.tobytes() == ids.tobytes()
    assert values.tobytes() == similarities.tobytes()


@pytest.mark.parametrize("position", [None, 0, 11, 40])
def test_each_probed_list_is_visited_once_by_each_query_its_own_first(position):
    rng, count = np.random.default_rng(4), 50
    list_starts = np.sort(np.r_[0, rng.integers(0, 100, 10), 95, 100])  # some end where a block ends, some are empty
    probed = np.array([rng.choice(12, 5, replace=False) for _ in range(count)], np.int32)
    starts, members = np.zeros(13, np.int64), np.empty(probed.size, np.int32)
    group_by_list(probed, starts, members)
    first, others = list_major._visits(starts, members, list_starts, position, count)
    pairs = [[(int(q), number) for number, some in visits for q in some] for visits in (first, others)]
    assert sorted(pairs[0] + pairs[1]) == sorted((q, int(number)) for q, row in enumerate(probed) for number in row)
    own = np.searchsorted(list_starts, np.arange(count) + (position or 0), side="right") - 1
    inside = (list_starts[:-1] >= (position or 0)) & (list_starts[1:] <= (position or 0) + count)
    expected = {(q, int(number)) for q, number in enumerate(own) if number in probed[q] and inside[number]}
    assert set(pairs[0]) == (set() if position is None else expected)
    assert position is None or expected
    lengths = [len(some) for _, some in others]
    assert lengths == sorted(lengths, reverse=True)
    assert min(lengths) > 0


def test_identical_vectors_list_those_that_come_first(case):
    X, _, _, database = case
    same = np.flatnonzero((X[:1] == X).all(axis=1))
    ids, similarities = found(database, X[same], k=20, probes=LISTS, threads=1)
    first = [i for i in database.order if i in set(same)][:20]
    assert all(row.tolist() == first for row in ids)
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


def test_half_precision_and_mapped_vectors(case, tmp_path):
    X, centroids, lists, _ = case
    database, _ = ordered(X, centroids, np.float16)
    with Store(tmp_path / "s", create=True).job("x", parameters={}) as job:
        job.put("vectors", database.vectors)
        job.publish({})
    mapped = OrderedLists(database.centroids, database.starts, database.order, Store(tmp_path / "s").array("vectors"))
    options = {"k": 5, "probes": 6, "threads": 2}
    in_memory, on_disk = found(database, X, **options), found(mapped, X, **options)
    assert in_memory[0].tobytes() == on_disk[0].tobytes()
    assert in_memory[1].tobytes() == on_disk[1].tobytes()
    exact = naive_list_search(X.astype(np.float16), lists, centroids, X, 5, 6)
    assert (in_memory[0] == exact).mean() > 0.9


def test_nearest_lists_are_the_nearest(case, monkeypatch):
    _, centroids, lists, database = case
    distances = ((database.vectors[:, None].astype(np.float64) - centroids) ** 2).sum(axis=2)
    expected = np.sort(distances, axis=1)[:, :6]
    own = lists[database.order]
    monkeypatch.setattr(list_major, "_FEWEST_AROUND", 30)
    for known in (None, own):
        near = nearest_lists(centroids, database.vectors, probes=6, own=known)
        assert near.dtype == np.int32
        assert all(len(set(row)) == 6 for row in near)
        assert (np.abs(np.take_along_axis(distances, near, axis=1) - expected) < 1e-5).mean() > (0.9999 if known is None else 0.9)
    monkeypatch.setattr(list_major, "_FEWEST_AROUND", LISTS)
    np.testing.assert_array_equal(
        nearest_lists(centroids, database.vectors, probes=6, own=own), nearest_lists(centroids, database.vectors, probes=6)
    )


@pytest.mark.parametrize("k", [1, 2, 31])
@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 300])
def test_offers_in_any_order_keep_the_best(k, n):
    rng = np.random.default_rng(n + k)
    similarities = rng.choice([-3e38, -1e30, -1.5, -0.5, 0.25, 0.5, 1.0], (40, n)).astype(np.float32)
    queries, turn = rng.permutation(50)[:40].astype(np.int32), rng.permutation(n).astype(np.int32)
    least, counts, keys = np.full(50, -np.inf, np.float32), np.zeros(50, np.int32), np.empty((50, 2 * k), np.uint64)
    for first in range(0, n, 37):
        part = turn[first : first + 37]
        offer(np.ascontiguousarray(similarities[:, part]), queries, part, k, least, counts, keys)
    positions, best = np.empty((50, k), np.int32), np.empty((50, k), np.float32)
    sort_best(counts, keys, positions, best)
    expected = np.lexsort((np.broadcast_to(np.arange(n), similarities.shape), -similarities))[:, :k]
    np.testing.assert_array_equal(positions[queries][:, : min(k, n)], expected)
    np.testing.assert_array_equal(best[queries][:, : min(k, n)], np.take_along_axis(similarities, expected, axis=1))
    assert (positions[queries][:, n:] == -1).all()
    others = np.setdiff1d(np.arange(50), queries)
    assert (positions[others] == -1).all()
    assert (best[others] == np.float32(-1e30)).all()
