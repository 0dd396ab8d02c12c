"""Search and merge against the naive oracles."""

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.neighbors import (
    Inverted,
    assign_lists,
    choose_index,
    draw_sample,
    exact,
    measure_recall,
    merge_neighbors,
    n_lists,
    recall,
    recall_of_table,
    resolve_device,
    search,
    train_centroids,
    training,
)
from ooc_diffusion.parallel import limit_threads
from tests.reference import naive_merge, naive_neighbors


def unit_vectors(n, d, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def found(*args, **kwargs):
    ids, similarities = zip(*search(*args, **kwargs), strict=True)
    return np.concatenate(ids), np.concatenate(similarities)


@pytest.fixture
def rows_at_once(monkeypatch):
    def set_rows(database_rows, query_rows):
        monkeypatch.setattr(exact, "DATABASE_ROWS", database_rows)
        monkeypatch.setattr(exact, "QUERY_ROWS", query_rows)

    return set_rows


@pytest.mark.parametrize("database_rows", [1, 149, 150, 151])
@pytest.mark.parametrize("query_rows", [1, 149, 150, 151])
def test_exact_search_for_any_block(rows_at_once, database_rows, query_rows):
    rows_at_once(database_rows, query_rows)
    X = unit_vectors(150, 7)
    ids, similarities = found(X, X, k=6)
    expected_ids, expected = naive_neighbors(X, 6)
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    assert (ids == expected_ids).mean() > 0.99


@pytest.mark.parametrize("k", [1, 31, 400])
@pytest.mark.parametrize("d", [3, 70])
def test_of_equally_similar_vectors_those_of_lower_ids_are_found(rows_at_once, d, k):
    rows_at_once(100, 64)
    X = np.random.default_rng(2).integers(-2, 3, (333, d)).astype(np.float32)  # whose products float32 has exactly
    products = X @ X.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    ids, similarities = found(X, X, k=k)
    np.testing.assert_array_equal(ids[:, : order.shape[1]], order)
    np.testing.assert_array_equal(similarities[:, : order.shape[1]], np.take_along_axis(products, order, axis=1))
    assert (ids[:, order.shape[1] :] == -1).all()


@pytest.mark.parametrize("d", [3, 70])
def test_the_nearest_by_distance_far_from_the_origin(rows_at_once, d):
    rows_at_once(100, 64)
    X = np.random.default_rng(3).normal(size=(333, d)).astype(np.float32) + np.float32(500)
    distances = ((X[:, None].astype(np.float64) - X) ** 2).sum(axis=2)
    expected = np.sort(distances, axis=1)[:, :9]
    ids, similarities = found(X, X, k=9, metric="euclidean")
    np.testing.assert_allclose(-similarities, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.take_along_axis(distances, ids.astype(int), axis=1), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("metric", ["inner product", "euclidean"])
def test_the_bytes_depend_on_neither_threads_nor_blocks(rows_at_once, metric):
    X = np.round(np.random.default_rng(4).normal(size=(700, 70)), 1).astype(np.float32)
    results = set()
    for threads, database_rows, query_rows in ((1, 700, 700), (2, 700, 100), (3, 33, 64), (1, 333, 1)):
        rows_at_once(database_rows, query_rows)
        if metric == "euclidean":
            rows_at_once(700, query_rows)  # the origin is the mean of the first rows
        with limit_threads(threads):
            ids, similarities = found(X, X, k=12, metric=metric)
        results.add((ids.tobytes(), similarities.tobytes()))
    assert len(results) == 1


def test_fewer_vectors_than_neighbors_are_padded():
    X = unit_vectors(3, 4)
    ids, similarities = found(X, X, k=5)
    assert (np.sort(ids[:, :3], axis=1) == [0, 1, 2]).all()
    assert (ids[:, 3:] == -1).all()
    assert (similarities[:, 3:] == np.float32(-1e30)).all()


def test_negative_similarities_are_neighbors_too():
    X = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    ids, similarities = found(X, X, k=2)
    assert ids.tolist() == [[0, 1], [1, 0]]
    assert similarities.tolist() == [[1, -1], [1, -1]]


def test_inverted_lists_find_nearly_all_and_only_true_similarities():
    rng = np.random.default_rng(1)
    centers = unit_vectors(60, 16, seed=2)
    X = centers[rng.integers(0, 60, 6000)] + 0.15 * rng.normal(size=(6000, 16)).astype(np.float32)
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    centroids = train_centroids(X)
    assert centroids.shape == (n_lists(6000), 16)
    lists = assign_lists(X, centroids)
    distances = ((X[:200, None] - centroids) ** 2).sum(axis=2)
    assert (lists[:200] == distances.argmin(axis=1)).mean() > 0.99
    ids, similarities = found(X, X[:500], k=10, inverted=Inverted(centroids, lists))
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", X[:500], X[ids]), similarities, atol=1e-5)
    all_compared, _ = found(X, X[:500], k=10)
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(ids, all_compared, strict=True)]) > 0.98


def test_thousands_of_identical_vectors():
    X = np.concatenate([np.tile(unit_vectors(1, 8), (5000, 1)), unit_vectors(1000, 8, seed=5)])
    centroids = train_centroids(X)
    ids, _ = found(X, X[4990:5100], k=5, inverted=Inverted(centroids, assign_lists(X, centroids)))
    assert (ids[:10] < 5000).all()
    assert (ids[10:, 0] == np.arange(5000, 5100)).all()


def test_searching_from_a_later_block_gives_the_same_bytes():
    X = unit_vectors(9000, 8)
    ids, similarities = found(X, X, k=5)
    later_ids, later = found(X, X, k=5, start=4096)
    assert later_ids.tobytes() == ids[4096:].tobytes()
    assert later.tobytes() == similarities[4096:].tobytes()


@pytest.mark.parametrize("k", [1, 3, 8, 12])
def test_merge_equals_naive_merge(k):
    rng = np.random.default_rng(4)
    tables = []
    for width, offset in ((5, 0), (4, 1000)):
        similarities = -np.sort(-np.round(rng.normal(size=(200, width)), 1).astype(np.float32), axis=1)
        ids = rng.integers(0, 900, (200, width)).astype(np.int32) + offset
        ids[rng.random((200, width)) < 0.2] = -1
        tables += [ids, similarities]
    tables[0][3] = tables[2][3] = -1
    ids, similarities = merge_neighbors(*tables, k=k)
    expected_ids, expected = naive_merge(*tables, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(similarities[ids >= 0], expected[expected_ids >= 0].astype(np.float32))


def test_recall_counts_what_is_missing():
    X = unit_vectors(400, 6)
    ids, _ = found(X, X, k=10)
    sample = draw_sample(X, k=10, n_samples=400)
    assert measure_recall(sample, ids[sample.rows], X) == {"recall": 1.0, "uncertainty": 0.0, "samples": 400}
    worse = ids.copy()
    worse[:, 8:] = -1
    assert measure_recall(sample, worse[sample.rows], X)["recall"] == pytest.approx(0.8)
    far = ids.copy()
    far[:, 7:] = np.argsort(X @ X.T, axis=1)[:, :3]
    assert measure_recall(sample, far[sample.rows], X)["recall"] == pytest.approx(0.7)


@pytest.mark.parametrize("compared", [1, 7, 8192])
def test_identical_vectors_stand_for_each_other_in_recall(monkeypatch, compared):
    monkeypatch.setattr(recall, "_COMPARED", compared)
    X = unit_vectors(400, 6)
    X[150:] = X[150]
    ids, _ = found(X, X, k=10)
    sample = draw_sample(X, k=10, n_samples=100, seed=3)
    others = ids.copy()
    others[150:] = 399 - np.arange(10)  # other copies than those of the exact search
    assert len(np.intersect1d(others[150:], ids[150:])) == 0
    assert measure_recall(sample, others[sample.rows], X)["recall"] == 1.0
    others[150:, 4:] = np.arange(6)
    copies = (sample.rows >= 150).mean()
    assert measure_recall(sample, others[sample.rows], X)["recall"] == pytest.approx(1 - 0.6 * copies)


@pytest.mark.parametrize(("broken", "fewest", "most"), [(0.01, 1000, 1000), (0.5, 5000, 7000)])
def test_as_many_rows_as_one_percent_takes(broken, fewest, most):
    """Rows are right or wrong as a whole, the widest interval there is."""
    rng = np.random.default_rng(3)
    X = unit_vectors(12_000, 6)
    ids, _ = found(X, X, k=5)
    ids[rng.random(len(X)) < broken] = -1
    measured = recall_of_table(ids, X, k=4, seed=1)
    assert fewest <= measured["samples"] <= most
    assert measured["uncertainty"] <= 0.01
    assert abs(measured["recall"] - (ids[:, 0] >= 0).mean()) < 2 * measured["uncertainty"]
    assert recall_of_table(ids, X, k=4, seed=1) == measured
    assert recall_of_table(ids, X, k=4, seed=2) != measured


def test_all_rows_of_a_small_table_are_measured():
    X = unit_vectors(1500, 6)
    truth, _ = found(X, X, k=8)
    ids = truth.copy()
    ids[::2, 1:] = -1
    ids[1::3] = np.arange(8)
    measured = recall_of_table(ids, X, k=8)
    hits = sum(len(set(a) & set(b)) for a, b in zip(truth.tolist(), ids.tolist(), strict=True))
    assert (measured["samples"], measured["uncertainty"]) == (1500, 0)
    assert measured["recall"] == pytest.approx(hits / truth.size)


def test_recall_is_not_measured_on_the_vectors_that_lists_begin_with(monkeypatch):
    n = 6000
    X, begun = np.arange(n, dtype=np.float32)[:, None], []
    monkeypatch.setattr(
        training, "move_centroids", lambda sample, centroids, *rest, **device: begun.append(centroids) or centroids
    )
    train_centroids(X, seed=5)
    both = np.intersect1d(begun[0], draw_sample(X, k=1, seed=5).rows)
    assert 0.3 < len(both) / (len(begun[0]) * 1000 / n) < 2  # what chance gives


def test_the_index_is_chosen_by_size():
    assert choose_index(100_000, "auto") == "Flat"
    assert choose_index(100_001, "auto") == "list-major"
    with pytest.raises(BadInput, match="at least 4096"):
        choose_index(100, "IVFFlat")
    with pytest.raises(BadInput, match="not one of auto, Flat, IVFFlat, list-major"):
        choose_index(100, "HNSW")


def test_a_missing_gpu_is_an_error_and_not_a_fallback():
    import faiss

    if faiss.get_num_gpus():
        pytest.skip("faiss finds a GPU")
    assert resolve_device("auto") == "cpu"
    with pytest.raises(BadInput, match="no GPU"):
        resolve_device("cuda")


@pytest.mark.gpu
def test_gpu_search_equals_the_exact_one():
    import faiss

    if not faiss.get_num_gpus():
        pytest.skip("faiss finds no GPU")
    X = unit_vectors(5000, 16)
    np.testing.assert_allclose(found(X, X, k=5, device="cuda")[1], found(X, X, k=5)[1], atol=1e-5)
