"""Walks back to the seeds are those of brute force over a dense W, whatever the order of the nodes, the budget, the threads."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import paths as room
from ooc_diffusion.diffusion import walk_back
from tests.reference import awkward_table, naive_diffuse, naive_diffuse_rounded, naive_float32, naive_w, naive_w0, naive_walk

N, K, CLASSES, T = 61, 5, 4, 4


def case(seed, *, weighted, order=None, n=N):
    """A graph with all that goes wrong, seeds and their classes (class 3 of one seed), and the table."""
    rng = np.random.default_rng(seed)
    ids, weights = awkward_table(rng, n, K)
    weights = weights if weighted else None
    seeds = rng.choice(n, 10, replace=False)
    classes = np.append(rng.integers(0, CLASSES - 1, 9), CLASSES - 1)
    graph = build_graph(ids, weights=weights, order=None if order is None else rng.permutation(n).astype(np.uint32))
    queries = rng.integers(-1, n, (12, 4))
    queries[5] = -1
    return graph, ids, weights, seeds, classes, queries


def iterates(graph, seeds, classes, n_iter=T, **options):
    return diffuse(graph, seeds, classes, CLASSES, n_iter=n_iter, normalization="none", every_iteration=True, **options)


def symmetric(ids, weights):
    """S = W0 + W0ᵀ with the weights as they are stored: products with float32 iterates are then exact, ties are ties."""
    W0 = naive_w0(ids, len(ids), weights).toarray()
    return (W0 + W0.T).astype(np.float32).astype(np.float64)


def starts(queries, n):
    return [*queries, *([i] for i in range(n))]


@pytest.mark.parametrize("order", [None, "shuffled"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_iter", [0, 1, T])
def test_equals_brute_force(weighted, order, n_iter):
    graph, ids, weights, seeds, classes, queries = case(3, weighted=weighted, order=order)
    L = iterates(graph, seeds, classes, n_iter)
    positions = graph.order if order else None
    exact = naive_diffuse_rounded(
        ids,
        seeds,
        classes,
        CLASSES,
        n_iter,
        weights=weights,
        order=positions,
        rounded=naive_float32,
    )
    S, lost, stays = symmetric(ids, weights), 0, 0
    for start in starts(queries, N):
        for c in range(CLASSES):
            expected, found = naive_walk(S, exact, start, c), walk_back(graph, L, np.array(start), c)
            if expected is None:
                assert found is None
                lost += 1
                continue
            assert found[0].tolist() == [node for node, _ in expected]
            np.testing.assert_allclose(found[1], [share for _, share in expected], rtol=1e-12)
            stays += int((np.diff(found[0]) == 0).sum())
    assert lost > 20  # the queries without neighbors, and other components
    assert stays > 0 or n_iter == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_no_hop_contributes_less_than_another_in_float64(weighted):
    """Against the plain float64 iteration with the normalized W, where float32 may decide near ties otherwise."""
    graph, ids, weights, seeds, classes, queries = case(4, weighted=weighted, order="shuffled")
    W = naive_w(ids, weights).toarray()
    plain, L = naive_diffuse(W, seeds, classes, CLASSES, T, "none"), iterates(graph, seeds, classes)
    seen = 0
    for start in starts(queries, N):
        for c in range(CLASSES):
            found = walk_back(graph, L, np.array(start), c)
            if found is None:
                continue
            seen += 1
            nodes, shares = found
            assert nodes[0] in seeds[classes == c]
            transitions = [W[after, before] for before, after in pairwise(nodes)]
            assert min(transitions) > 0  # each hop is an edge, or a stay on a diagonal that is there
            for t in range(T):
                contributions = W[nodes[t + 1]] * plain[t][:, c]
                assert contributions[nodes[t]] >= contributions.max() * (1 - 1e-5)
                np.testing.assert_allclose(shares[t], contributions[nodes[t]] / plain[t + 1][nodes[t + 1], c], rtol=1e-5)
    assert seen > 60


@pytest.mark.parametrize("normalization", ["columns", "none"])
def test_normalized_columns_give_the_same_walks(normalization):
    graph, _, _, seeds, classes, _ = case(5, weighted=True)
    plain = iterates(graph, seeds, classes)
    scaled = diffuse(graph, seeds, classes, CLASSES, n_iter=T, normalization=normalization, every_iteration=True)
    for i in range(N):
        one, other = (walk_back(graph, L, np.array([i]), 0) for L in (plain, scaled))
        assert (one is None) == (other is None)
        assert one is None or one[0].tolist() == other[0].tolist()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), weighted=st.booleans(), n_iter=st.integers(0, 5))
def test_every_walk_ends_in_a_seed_of_its_class_over_edges(seed, weighted, n_iter):
    graph, ids, weights, seeds, classes, queries = case(seed, weighted=weighted, order="shuffled", n=30)
    S, L = symmetric(ids, weights), iterates(graph, seeds, classes, n_iter)
    for start in starts(queries, 30):
        for c in range(CLASSES):
            found = walk_back(graph, L, np.array(start), c)
            reached = any(L[-1][j, c] > 0 for j in start if j >= 0)
            assert (found is not None) == reached
            if found is None:
                continue
            nodes, shares = found
            assert nodes[0] in seeds[classes == c]
            assert nodes[-1] in start
            assert np.prod([S[after, before] for before, after in pairwise(nodes)]) > 0
            assert ((shares > 0) & (shares <= 1)).all()


def test_ties_go_to_the_smallest_id_wherever_it_stands():
    """Nodes 1 to 6 list 0 and nobody else; all but 0 are seeds, so that all contribute the same to node 0."""
    ids = np.array([[0, -1], *([i, 0] for i in range(1, 7))])
    for order in (np.arange(7), np.arange(7)[::-1], np.array([3, 6, 0, 5, 1, 4, 2])):
        graph = build_graph(ids, order=order.astype(np.uint32))
        L = diffuse(graph, np.arange(2, 7), np.zeros(5, int), 1, n_iter=1, normalization="none", every_iteration=True)
        nodes, shares = walk_back(graph, L, np.array([0]), 0)
        assert (nodes.tolist(), shares[0]) == ([2, 0], 0.2)
        nodes, _ = walk_back(graph, L, np.array([5, 4, -1, 6]), 0)
        assert nodes.tolist() == [4, 4]


@pytest.mark.parametrize("entries", [1, 2, 7])
def test_rows_in_parts_give_the_same(monkeypatch, entries):
    graph, _, _, seeds, classes, queries = case(6, weighted=False, order="shuffled")
    L = iterates(graph, seeds, classes)
    expected = [walk_back(graph, L, np.array(start), c) for start in starts(queries, N) for c in range(CLASSES)]
    monkeypatch.setattr(room, "_ENTRIES", entries)
    found = [walk_back(graph, L, np.array(start), c) for start in starts(queries, N) for c in range(CLASSES)]
    for one, other in zip(expected, found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or one[0].tolist() == other[0].tolist()
