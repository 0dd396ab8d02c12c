"""Columns with a prior: once at the end, in every iteration, on either path."""

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from tests.diffusion.test_coupled import PRIOR, C, T, make_case
from tests.reference import naive_coupled, naive_diffuse, naive_normalized, naive_query_scores, naive_zhou

SHARES = PRIOR / PRIOR.sum()


@pytest.fixture(scope="module", params=["constant", "weighted"])
def case(request):
    return make_case(331, request.param == "weighted")


def test_each_column_sums_to_its_share(case):
    graph, W, seeds, classes, queries = case
    expected = [L * SHARES for L in naive_diffuse(W, seeds, classes, C, T)]
    found = diffuse(graph, seeds, classes, C, n_iter=T, every_iteration=True, prior=PRIOR)
    of_queries = diffuse(graph, seeds, classes, C, n_iter=T, queries=queries[:3], prior=PRIOR)
    for t in range(T + 1):
        np.testing.assert_allclose(found[t], expected[t], rtol=2e-6, atol=1e-12)
    np.testing.assert_allclose(found[T].sum(axis=0, dtype=np.float64)[: C - 1], SHARES[: C - 1], rtol=1e-5)
    np.testing.assert_allclose(of_queries, naive_query_scores(expected[T], queries[:3]), rtol=2e-6, atol=1e-12)


def test_at_the_end_equals_in_each_iteration(case):
    graph, W, seeds, classes, _ = case
    L = naive_diffuse(W, seeds, classes, C, 0)[0] * SHARES
    for _ in range(T):
        L = naive_normalized(W @ L, "columns") * SHARES
    np.testing.assert_allclose(diffuse(graph, seeds, classes, C, n_iter=T, prior=PRIOR), L, rtol=2e-6, atol=1e-12)


def test_the_unit_of_the_prior_is_of_no_account(case):
    graph, _, seeds, classes, queries = case
    found = [diffuse(graph, seeds, classes, C, queries=queries, prior=factor * PRIOR) for factor in (1, 1024)]
    assert found[0].tobytes() == found[1].tobytes()


def test_with_the_reset_it_is_applied_in_each_iteration(case):
    graph, W, seeds, classes, _ = case
    W = W.toarray()
    first = naive_coupled(W, seeds, classes, C, 0, "columns")[0]
    L = first
    for _ in range(T):
        L = naive_normalized(W @ L, "columns") * SHARES
        L[seeds] = first[seeds]
    found = diffuse(graph, seeds, classes, C, n_iter=T, prior=PRIOR, reset=True)
    np.testing.assert_allclose(found, L, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("solver", ["iterate", "conjugate-gradient"])
def test_with_alpha(solver):
    ids = np.stack([np.arange(40), (np.arange(40) + 1) % 40, (np.arange(40) * 7) % 40], axis=1)
    seeds, classes = np.arange(6), np.arange(6)
    limit = naive_zhou(ids, None, seeds, classes, C, 0.8)
    expected = naive_zhou(ids, None, seeds, classes, C, 0.8, T)[-1] if solver == "iterate" else limit
    expected = naive_normalized(expected, "columns") * SHARES
    found = diffuse(build_graph(ids), seeds, classes, C, n_iter=T, prior=PRIOR, alpha=0.8, solver=solver, tolerance=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
