"""Logistic regression that is smooth over the graph: its gradient, its edges, and what it does."""

import numpy as np
import pytest
import torch

from ooc_diffusion import build_graph
from ooc_diffusion.classify import EdgeSampler, Smoothness, softmax, train_logistic
from ooc_diffusion.classify.graph_logistic import smooth_gradient
from tests.reference import awkward_table, naive_w

N, D, C = 60, 5, 4


@pytest.fixture(params=["constant", "weighted"])
def table(request, rng):
    ids, weights = awkward_table(rng, N, 4)
    return ids, weights if request.param == "weighted" else None


def penalty(weights, bias, X, W):
    """1 / N Σ_i Σ_j W_ij |p_i - p_j|², float64, an edge at a time."""
    logits = X @ weights + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return sum(W[i, j] * np.square(p[i] - p[j]).sum() for i in range(len(X)) for j in range(len(X))) / len(X)


def test_the_gradient_is_that_of_finite_differences(rng):
    x = torch.from_numpy(rng.normal(size=(7, 2, D)))
    weights, bias = torch.from_numpy(rng.normal(size=(D, C))), torch.from_numpy(rng.normal(size=C))
    by_weights, by_bias, value = smooth_gradient(weights, bias, x)
    edges = np.zeros((14, 14))
    edges[np.arange(0, 14, 2), np.arange(1, 14, 2)] = 1
    X = x.numpy().reshape(14, D)
    np.testing.assert_allclose(value, 2 * penalty(weights.numpy(), bias.numpy(), X, edges), rtol=1e-12)
    for parameter, gradient in ((weights, by_weights), (bias, by_bias)):
        numeric = np.empty(parameter.shape)
        for place in np.ndindex(*parameter.shape):
            both = []
            for step in (1e-6, -1e-6):
                parameter[place] += step
                both.append(float(smooth_gradient(weights, bias, x)[2]))
                parameter[place] -= step
            numeric[place] = (both[0] - both[1]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-9)


def test_edges_are_drawn_by_their_weight_in_w(table):
    ids, weights = table
    order = np.random.default_rng(2).permutation(N).astype(np.uint32)
    sampler = EdgeSampler(build_graph(ids, weights=weights, order=order), np.random.default_rng(0))
    drawn = sampler.draw(400_000)
    counts = np.zeros((N, N))
    np.add.at(counts, tuple(drawn.T), 1)
    expected = naive_w(ids, weights).toarray()
    alone = expected.sum(axis=1) == 0
    expected[alone, alone] = 1
    assert (counts[expected == 0] == 0).all()
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), expected, atol=0.03)
    np.testing.assert_allclose(counts.sum(axis=1) / len(drawn), 1 / N, rtol=0.1)


def problem(rng, table):
    ids, weights = table
    X = rng.normal(size=(N, D)).astype(np.float32)
    graph, seeds = build_graph(ids, weights=weights), np.arange(0, N, 4)
    y = rng.integers(0, C, len(seeds))
    return X, graph, seeds, y


def smoothness(mu, graph, X, seed=0):
    return Smoothness(mu, EdgeSampler(graph, np.random.default_rng(seed)), lambda rows: X[rows])


def test_without_weight_it_is_logistic_regression(rng, table):
    X, graph, seeds, y = problem(rng, table)
    options = {"n_classes": C, "n_steps": 200, "seed": 3}
    plain = train_logistic(X[seeds], y, **options)
    same = train_logistic(X[seeds], y, **options, smooth=smoothness(0.0, graph, X))
    assert (same.weights.tobytes(), same.bias.tobytes()) == (plain.weights.tobytes(), plain.bias.tobytes())


def test_differences_along_edges_fall_and_the_seed_decides(rng, table):
    X, graph, seeds, y = problem(rng, table)
    W = naive_w(*table).toarray()
    options = {"n_classes": C, "n_steps": 400}
    values = []
    for mu in (0.0, 1.0, 10.0):
        model = train_logistic(X[seeds], y, **options, smooth=smoothness(mu, graph, X))
        p = softmax(model.log_probabilities(X)).astype(np.float64)
        values.append(penalty(np.eye(C), np.zeros(C), np.log(p), W))
    assert values[2] < 0.5 * values[1] < 0.4 * values[0]
    again = train_logistic(X[seeds], y, **options, smooth=smoothness(10.0, graph, X))
    other = train_logistic(X[seeds], y, **options, smooth=smoothness(10.0, graph, X, seed=1))
    assert again.weights.tobytes() == model.weights.tobytes() != other.weights.tobytes()


def test_the_objective_is_minimized(rng, table):
    """Full batches of all edges are not drawn, but the mean over many draws is the gradient of the whole penalty."""
    X, graph, _, _ = problem(rng, table)
    W = naive_w(*table).toarray()
    weights, bias = rng.normal(size=(D, C)), rng.normal(size=C)
    smooth = smoothness(2.0, graph, X)
    tensors = [torch.from_numpy(values.astype(np.float32)) for values in (weights, bias, np.zeros(D))]
    found = smooth.gradient(*tensors, 1.0, 200_000)[1].numpy()
    numeric = np.empty(C)
    for c in range(C):
        both = []
        for step in (1e-5, -1e-5):
            moved = bias.copy()
            moved[c] += step
            both.append(penalty(weights, moved, X, W))
        numeric[c] = 2.0 * (both[0] - both[1]) / 2e-5
    np.testing.assert_allclose(found, numeric, atol=0.01)
    assert abs(numeric).max() > 0.03
