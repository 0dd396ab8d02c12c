"""Inverted lists and the order of vectors by them."""

import numpy as np
import pytest

from ooc_diffusion.neighbors import (
    assign_lists,
    bisect_centroids,
    locality_order,
    nearest,
    train_centroids,
    training,
    training_rows,
)
from ooc_diffusion.parallel import limit_threads


def test_bisection_puts_near_centroids_near():
    rng = np.random.default_rng(0)
    line = np.sort(rng.random(64))[:, None] * np.ones(5)
    shuffle = rng.permutation(64)
    found = shuffle[bisect_centroids(line[shuffle].astype(np.float32))]
    assert found.tolist() in (list(range(64)), list(range(63, -1, -1)))


def test_centroids_come_in_locality_order():
    angles = np.random.default_rng(0).random(5000) * np.pi
    centroids = train_centroids(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    # each half is cut where it is widest and may be turned round, but stays together
    steps = np.abs(np.diff(np.arctan2(centroids[:, 1], centroids[:, 0])))
    assert np.median(steps) < 1.5 * np.pi / len(centroids)


def test_locality_order_is_stable_by_list():
    order, starts = locality_order(np.array([2, 0, 1, 0, 2, 1], np.int32), 4)
    assert order.tolist() == [1, 3, 2, 5, 0, 4]
    assert starts.tolist() == [0, 2, 4, 6, 6]


def test_vectors_of_one_list_stand_together():
    X = np.random.default_rng(1).normal(size=(5000, 3)).astype(np.float32)
    centroids = train_centroids(X)
    numbers = assign_lists(X, centroids)
    order, starts = locality_order(numbers, len(centroids))
    assert sorted(order.tolist()) == list(range(5000))
    for number in range(len(centroids)):
        np.testing.assert_array_equal(order[starts[number] : starts[number + 1]], np.flatnonzero(numbers == number))


@pytest.mark.parametrize("shift", [0, 300])
@pytest.mark.parametrize(("rows", "centroids_at_once"), [(1, 1), (7, 33), (999, 64), (2**9, 2**11)])
def test_the_nearest_centroid(monkeypatch, shift, rows, centroids_at_once):
    rng = np.random.default_rng(0)
    X, C = (rng.normal(size=(n, 6)).astype(np.float32) + np.float32(shift) for n in (500, 130))
    C[50] = C[20]  # of equally near ones the first
    X[7] = C[20]
    monkeypatch.setattr(nearest, "_ROWS", rows)
    monkeypatch.setattr(nearest, "_CENTROIDS", centroids_at_once)
    distances = ((X[:, None].astype(np.float64) - C) ** 2).sum(axis=2)
    numbers = assign_lists(X, C)
    assert numbers.dtype == np.int32
    assert numbers[7] == 20
    np.testing.assert_allclose(distances[np.arange(500), numbers], distances.min(axis=1), rtol=1e-4)
    assert (numbers == distances.argmin(axis=1)).mean() > 0.99
    assert assign_lists(X[:0], C).shape == (0,)


def test_threads_change_no_centroid():
    X = np.random.default_rng(0).normal(size=(5000, 9)).astype(np.float32)
    with limit_threads(1):
        expected = train_centroids(X, seed=3).tobytes()
    with limit_threads(2):
        assert train_centroids(X, seed=3).tobytes() == expected
        assert train_centroids(X, seed=4).tobytes() != expected


def test_means_and_empty_lists():
    rng = np.random.default_rng(0)
    X, numbers = rng.normal(size=(400, 3)).astype(np.float32), rng.choice([0, 2, 3], 400).astype(np.int32)
    means = training._means(X, numbers, np.zeros((5, 3), np.float32), rng)
    for number in (0, 2, 3):
        np.testing.assert_allclose(means[number], X[numbers == number].mean(axis=0), atol=1e-6)
    for number in (1, 4):
        assert (np.abs(means[number] / means[[0, 2, 3]] - 1) <= 1.01 * training._BESIDE).all(axis=1).any()


@pytest.mark.parametrize("identical", [0, 2000, 5000])
def test_centroids_are_near_their_vectors(identical):
    """As near as those of faiss, whose k-means starts and goes on alike, and even with many identical vectors."""
    import faiss

    X = np.random.default_rng(2).normal(size=(5000, 8)).astype(np.float32)
    X[:identical] = 1
    centroids = train_centroids(X)
    assert np.isfinite(centroids).all()
    far = ((X - centroids[assign_lists(X, centroids)]) ** 2).sum()
    other = faiss.Kmeans(8, len(centroids), niter=10, seed=1, min_points_per_centroid=1, max_points_per_centroid=1000)
    other.train(X)
    peer = ((X - other.centroids[assign_lists(X, other.centroids)]) ** 2).sum()
    assert far <= 1.03 * peer + 1e-3


def test_the_sample_of_the_training_is_bounded():
    assert training_rows(10**6, 64) == 100 * 4 * 1000
    assert training_rows(10**8, 256) == 2**31 // (4 * 256)
    assert training_rows(10**8, 2048) == 20 * 4 * 10**4
    assert training_rows(5000, 2048) == 5000
