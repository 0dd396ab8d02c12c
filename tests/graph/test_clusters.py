"""Markov clustering: the clusters of the dense process, whatever the blocks, and a refusal where it outgrows the memory."""

import logging

import numpy as np
import pytest

from ooc_diffusion import build_graph
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.graph import clusters, markov_clusters
from ooc_diffusion.memory import MemoryBudget
from tests.reference import awkward_table, naive_markov, naive_neighbors, naive_w

BUDGET = MemoryBudget(2**31)


@pytest.fixture(scope="module", params=["constant", "weighted"])
def case(request):
    """Isolated nodes, a hub, several components."""
    rng = np.random.default_rng(6)
    ids, weights = awkward_table(rng, 90, 5, n_components=4)
    weights = weights if request.param == "weighted" else None
    return build_graph(ids, weights=weights, order=rng.permutation(90).astype(np.uint32)), naive_w(ids, weights)


@pytest.mark.parametrize(("power", "threshold"), [(2.0, 1e-9), (2.0, 1e-5), (1.4, 1e-5), (1.4, 0.02)])
@pytest.mark.parametrize("products", [1, 700, 2**20])
def test_equals_the_dense_process(case, monkeypatch, power, threshold, products):
    graph, W = case
    monkeypatch.setattr(clusters, "_BLOCK_PRODUCTS", products)
    found, about = markov_clusters(graph, power=power, threshold=threshold, budget=BUDGET)
    expected = naive_markov(W, power, threshold)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    assert about["clusters"] == expected.max() + 1 < 90
    assert about["converged"]
    assert about["most_entries"] >= graph.nnz
    if power < 2:
        assert len(set(expected)) < len(set(naive_markov(W, 2.0, 1e-5))), "the power must matter"


def test_groups_of_points_are_found():
    rng = np.random.default_rng(0)
    centers = np.linalg.qr(rng.normal(size=(8, 8)))[0][:4]
    truth = np.repeat(np.arange(4), 25)
    X = centers[truth] + 0.15 * rng.normal(size=(100, 8))
    ids = naive_neighbors(X / np.linalg.norm(X, axis=1, keepdims=True), 12)[0]
    found, _ = markov_clusters(build_graph(ids), power=1.3, budget=BUDGET)
    np.testing.assert_array_equal(found, truth)


def test_nodes_without_edges_are_clusters_by_themselves():
    found, about = markov_clusters(build_graph(np.full((3, 2), -1)), budget=BUDGET)
    assert found.tolist() == [0, 1, 2]
    assert about == {"clusters": 3, "cluster_steps": 1, "converged": True, "most_entries": 0}


def test_what_outgrows_the_memory_is_refused(monkeypatch):
    n = 3000
    rng = np.random.default_rng(1)
    graph = build_graph(np.concatenate([np.arange(n)[:, None], rng.integers(0, n, (n, 9))], axis=1))
    overhead = MemoryBudget(1).overhead()
    monkeypatch.setattr(MemoryBudget, "overhead", lambda self, torch=False: overhead)
    least = overhead + clusters.least_cluster_memory(n, graph.nnz)
    with pytest.raises(DoesNotFit, match="clustering 3000 nodes needs a memory budget of"):
        markov_clusters(graph, budget=MemoryBudget(least - 1))
    with pytest.raises(DoesNotFit, match=r"clustering 3000 nodes, whose W has grown to \d+ entries and more .* needs a memory"):
        markov_clusters(graph, threshold=1e-12, budget=MemoryBudget(least))
    markov_clusters(graph, threshold=0.01, budget=MemoryBudget(least), max_steps=3)


def test_too_few_steps_are_warned_of(case, caplog):
    with caplog.at_level(logging.WARNING, "ooc_diffusion"):
        assert not markov_clusters(case[0], max_steps=2, budget=BUDGET)[1]["converged"]
    assert "still change after 2 steps" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 1.0}, "`power` is 1.0; give a number above 1 and at most 2"),
        ({"power": 2.5}, "`power` is 2.5"),
        ({"threshold": 0.0}, "`threshold` is 0.0; give a number above 0 and below 1"),
        ({"max_steps": 0}, "`max_steps` is 0"),
    ],
)
def test_bad_input(case, options, message):
    with pytest.raises(BadInput, match=message):
        markov_clusters(case[0], **options, budget=BUDGET)
