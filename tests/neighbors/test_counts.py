"""The work that is planned is the work that is counted where it is done."""

import threading
from collections import Counter

import numpy as np
import pytest

from ooc_diffusion.neighbors import (
    OrderedLists,
    assign_lists,
    count_search,
    list_major,
    locality_order,
    n_lists,
    nearest_lists,
    part_visited,
    query_rows,
    search_lists,
    train_centroids,
    training,
)
from ooc_diffusion.neighbors.bounded import key_bytes
from ooc_diffusion.neighbors.counts import bisections, kept
from ooc_diffusion.neighbors.lists import bisect_centroids
from ooc_diffusion.neighbors.rates import longer, measure_rates, some_vectors

N, DIM, K = 9000, 8, 12


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, DIM))[rng.integers(0, 40, N)] + 0.5 * rng.normal(size=(N, DIM))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def database(vectors):
    centroids = train_centroids(vectors)
    order, starts = locality_order(assign_lists(vectors, centroids), len(centroids))
    return OrderedLists(centroids, starts, order, vectors[order])


class Products:
    """Counts the products with centroids and with vectors of lists."""

    def __init__(self, monkeypatch):
        self.made, self.lock = Counter(), threading.Lock()
        products = list_major.Tiles.products
        counts = self

        def counted(tiles, queries, rows, vectors, numbers=None):
            for found, some, part in products(tiles, queries, rows, vectors, numbers):
                with counts.lock:
                    counts.made["listed" if numbers is None else "near"] += found.size
                yield found, some, part

        monkeypatch.setattr(list_major.Tiles, "products", counted)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("probes", [1, 20, 200])
def test_products_of_lists(database, monkeypatch, own, probes):
    monkeypatch.setattr(list_major, "_FEWEST_AROUND", 50)
    monkeypatch.setattr(list_major, "FEWEST_QUERIES", 1024)
    counting = Products(monkeypatch)
    queries = None if own else np.ascontiguousarray(database.vectors[::3])
    list(search_lists(database, queries, k=K, probes=probes, threads=2))
    q = N if own else len(queries)
    asking = database.vectors if own else queries
    near = nearest_lists(database.centroids, asking, probes=probes)
    true_longer = np.diff(database.starts)[near].mean() / np.diff(database.starts).mean()
    how = {"k": K, "width": K, "index": "list-major", "train": own, "probes": probes, "sampled": False}
    planned = count_search(N, q, DIM, longer=true_longer, **how)["searching"]
    assert counting.made["near"] - (len(asking) * len(database.centroids)) == planned["near"]  # those of this test besides
    assert counting.made["listed"] == pytest.approx(planned["listed"], rel=0.02)
    assert planned["sorted"] == q * K


def test_all_lists_are_all_products(database, monkeypatch):
    counting = Products(monkeypatch)
    lists = len(database.centroids)
    list(search_lists(database, k=K, probes=lists, threads=1))
    how = {"k": K, "width": K, "index": "list-major", "train": True, "probes": lists, "sampled": True, "longer": 1.0}
    assert counting.made["listed"] == N**2
    assert count_search(N, N, DIM, **how)["searching"]["listed"] == pytest.approx(N**2)
    assert count_search(N, N, DIM, **how)["samples"] == {"exact": 2000 * N, "near": 1000 * lists}


@pytest.mark.parametrize("k", [1, 5, 32])
@pytest.mark.parametrize("n", [20, 100, 5000])
def test_what_is_kept_of_similarities_in_any_order(k, n):
    rng = np.random.default_rng(k)
    places, rows, total = key_bytes(k) // 8, 30, 0
    for row in rng.random((rows, n)):
        held, least = [], -np.inf
        for value in row:
            if value > least:
                total += 1
                held.append(value)
                if len(held) == places:
                    held = sorted(held)[-k:]
                    least = held[0]
    assert kept(k, n) == pytest.approx(total / rows, rel=0.25 if k < 32 else 0.1)


def test_training_and_assigning(vectors, monkeypatch):
    made = Counter()
    kernel, eigh = training.assign_lists, np.linalg.eigh

    def counted(block, centroids, **options):
        made["assign"] += len(block) * len(centroids)
        return kernel(block, centroids, **options)

    def split(matrix):
        made["split"] += 1
        return eigh(matrix)

    monkeypatch.setattr(training, "assign_lists", counted)
    monkeypatch.setattr(np.linalg, "eigh", split)
    train_centroids(vectors)
    how = {"k": K, "width": K, "train": True, "probes": 1, "sampled": False, "longer": 1.0}
    counts = count_search(N, N, DIM, index="Flat", **how)
    assert counts["training"] == made
    assert counts["assigning"] == {"assign": N * n_lists(N)}
    assert counts["searching"] == {"flat": N**2}
    assert set(count_search(N, N, DIM, index="IVFFlat", **how)) == {"training", "assigning", "samples", "searching"}
    assert count_search(100, 30, DIM, index="Flat", **how) == {"searching": {"flat": 3000}}  # too few for lists
    for lists in (0, 1, 2, 3, 7, 100):
        made.clear()
        bisect_centroids(vectors[:lists])
        assert bisections(lists) == made["split"]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("probes", [2, 10, 60])
def test_the_part_that_a_block_visits(database, monkeypatch, own, probes):
    monkeypatch.setattr(list_major, "FEWEST_QUERIES", 512)
    queries = None if own else np.ascontiguousarray(database.vectors[::2])
    asking = database.vectors if own else queries
    rows, lengths, parts = query_rows(len(asking), probes), np.diff(database.starts), []
    for first in range(0, len(asking), rows):
        near = nearest_lists(database.centroids, asking[first : first + rows], probes=probes)
        parts.append(lengths[np.unique(near)].sum() / N)
    assert len(parts) > 5
    monkeypatch.setattr(list_major, "_BLOCKS_SEEN", len(parts))
    # all queries of a block are looked at, then a part of them
    assert part_visited(database, queries, probes=probes) == pytest.approx(np.mean(parts), rel=0.05)
    monkeypatch.setattr(list_major, "_QUERIES_SEEN", 150)
    assert part_visited(database, queries, probes=probes) == pytest.approx(np.mean(parts), rel=0.15)


def test_how_long_visited_lists_are():
    centroids = np.eye(3, dtype=np.float32)
    vectors = np.repeat(centroids, [6, 3, 0], axis=0)
    # six see the list of six, three that of three
    assert longer(vectors, centroids, np.array([6, 3, 0]), probes=1) == pytest.approx((6 * 6 + 3 * 3) / 9 / 3)


@pytest.mark.parametrize("index", ["Flat", "IVFFlat", "list-major"])
def test_what_is_counted_is_measured(vectors, index):
    some, lists = some_vectors(vectors), n_lists(N)
    rates = measure_rates(some, index=index, k=K, lists=lists, length=20, asking=300, probes=40, threads=2)
    how = {"k": K, "width": K, "index": index, "train": True, "probes": 40, "sampled": True, "longer": 1.0}
    for of in count_search(N, N, DIM, **how).values():
        assert all(getattr(rates, name) > 0 for name in of), of


@pytest.mark.parametrize("n", [1, 50])
def test_exact_search_is_measured_with_few_vectors(vectors, n):
    rates = measure_rates(some_vectors(vectors[:n]), index="Flat", k=K, lists=0, length=1, asking=1, probes=1, threads=2)
    assert rates.flat > 0
