"""Seeds apart from the background: the four blocks, merged, are the table of one search over all of them."""

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.evaluate import evaluate
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from tests.graph.test_build import as_matrix
from tests.reference import naive_diffuse, naive_query_scores
from tests.stages.chain import DIM, K, build, digits, import_roles, naive_chain, write_labels


@pytest.fixture(scope="module", params=[40, 3], ids=["40 seeds", "fewer seeds than neighbors"])
def sample(request):
    return digits(260, 60, request.param)


@pytest.fixture(scope="module")
def store(tmp_path_factory, sample):
    return build(tmp_path_factory.mktemp("blocks") / "store", sample)


@pytest.fixture(scope="module")
def naive(sample):
    return naive_chain(sample)


def test_the_completed_table_equals_one_search(store, naive):
    np.testing.assert_array_equal(store.array("graph/neighbor_ids"), naive.table)
    np.testing.assert_allclose(store.array("graph/similarities"), naive.similarities, atol=1e-6)
    np.testing.assert_array_equal(store.array("graph/query_ids"), naive.test_table)
    np.testing.assert_allclose(as_matrix(Graph(store)), naive.W.toarray(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("rows", ["tests", "nodes"])
def test_scores_and_predictions_equal_naive_ones(store, sample, naive, rows):
    m = len(sample.seeds)
    labels = write_labels(store.path, range(m), sample.seeds_truth)
    names = sorted({str(c) for c in sample.seeds_truth})
    classes = np.array([names.index(str(c)) for c in sample.seeds_truth])
    settings = Settings(overwrite=True)
    record = diffuse(store.path, labels=labels, rows=rows, n_iter=3, settings=settings)
    assert (record["seed_role"], record["class_names"]) == ("seeds", names)
    L = naive_diffuse(naive.W, np.arange(m), classes, len(names), 3)[-1]
    expected = L if rows == "nodes" else naive_query_scores(L, naive.test_table)
    np.testing.assert_allclose(store.array("diffusion/scores"), expected, rtol=1e-5, atol=1e-12)
    classify(store.path, method="diffusion", settings=settings)
    best = np.where(expected.sum(axis=1) > 0, expected.argmax(axis=1), -1)
    if rows == "nodes":
        best[:m] = classes
    np.testing.assert_array_equal(store.array("predictions/labels"), best)


def test_gaussian_weights_of_the_completed_table(tmp_path, sample):
    store = build(tmp_path / "store", sample, weighting="gaussian", sigma=0.4)
    expected = naive_chain(sample, sigma=0.4).W.toarray()
    np.testing.assert_allclose(as_matrix(Graph(store)), expected, rtol=2e-5, atol=1e-9)


def test_evaluate_draws_its_own_seeds(store):
    with pytest.raises(BadInput, match="has seeds apart from the background"):
        evaluate(store.path)


def test_seeds_that_come_after_the_graph_are_not_taken_for_background(tmp_path, sample):
    folder = tmp_path / "store"
    import_roles(folder, sample, roles=["background", "tests"])
    reduce(folder, dim=DIM)
    neighbors(folder, k=K)
    graph(folder)
    import_roles(folder, sample, roles=["seeds"])
    labels = write_labels(folder, range(len(sample.seeds)), sample.seeds_truth)
    with pytest.raises(BadInput, match="got seeds or tests after its graph was built"):
        diffuse(folder, labels=labels)
    reduce(folder, dim=DIM)
    neighbors(folder, k=K)
    with pytest.raises(BadInput, match="got seeds or tests after its graph was built"):
        diffuse(folder, labels=labels)
    with pytest.raises(BadInput, match="stage graph .* was finished with another .*another seeds/.*--overwrite"):
        graph(folder)
    graph(folder, settings=Settings(overwrite=True))
    assert diffuse(folder, labels=labels, n_iter=2)["seeds"] == len(sample.seeds)


def test_tests_that_come_after_the_graph_are_not_searched_in_the_background_alone(tmp_path, sample):
    folder = tmp_path / "store"
    import_roles(folder, sample, roles=["background", "seeds"])
    reduce(folder, dim=DIM)
    neighbors(folder, k=K)
    graph(folder)
    import_roles(folder, sample, roles=["tests"])
    reduce(folder, dim=DIM)
    neighbors(folder, k=K)
    labels = write_labels(folder, range(len(sample.seeds)), sample.seeds_truth)
    with pytest.raises(BadInput, match="got seeds or tests after its graph was built"):
        diffuse(folder, labels=labels)
