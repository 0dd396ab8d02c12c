"""Inverted lists and the order of vectors by them."""

import numpy as np

from ooc_diffusion.neighbors import assign_lists, bisect_centroids, locality_order, train_centroids


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
    lists = np.array([2, 0, 1, 0, 2, 1], np.int32)
    order, starts = locality_order(lists, 4)
    assert order.tolist() == [1, 3, 2, 5, 0, 4]
    assert starts.tolist() == [0, 2, 4, 6, 6]


def test_vectors_of_one_list_stand_together():
    X = np.random.default_rng(1).normal(size=(5000, 3)).astype(np.float32)
    centroids = train_centroids(X)
    lists = assign_lists(X, centroids)
    order, starts = locality_order(lists, len(centroids))
    assert sorted(order.tolist()) == list(range(5000))
    for number in range(len(centroids)):
        np.testing.assert_array_equal(order[starts[number] : starts[number + 1]], np.flatnonzero(lists == number))
