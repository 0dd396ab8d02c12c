"""Fashion-MNIST, the whole protocol: the tool agrees with an independent SciPy computation and with the known figures."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from ooc_diffusion import diffuse
from ooc_diffusion.evaluation import draw_seeds
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages.evaluate import evaluate, summarize_evaluation
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store

FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
SIZES = [1, 2, 5, 10, 20]
DRAWS = 5
K, MAX_ITER = 30, 30
BUDGET = 2 * 2**30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no {FOLDER}: install dataset-fashion-mnist or set FASHION_MNIST"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fashion") / "store"
    settings = Settings(memory_budget="2GiB")
    for role, split in (("background", "train"), ("tests", "test")):
        extract("fashion-mnist", store=folder, role=role, root=str(FOLDER), split=split, model="pixels", settings=settings)
    reduce(folder, dim=64, settings=settings)
    neighbors(folder, k=K, settings=settings)
    graph(folder, settings=settings)
    evaluate(folder, draws=DRAWS, max_iter=MAX_ITER, settings=settings)
    return Store(folder)


def read(name):
    with gzip.open(FOLDER / f"{name}.gz") as file:
        data = file.read()
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def naive_nearest(vectors, queries, k):
    """Ids of the k largest inner products, in no order."""
    found = []
    for first in range(0, len(queries), 500):
        similarities = queries[first : first + 500] @ vectors.T
        found.append(np.argpartition(-similarities, k, axis=1)[:, :k].copy())  # a view would keep all of it
    return np.concatenate(found)


@pytest.fixture(scope="module")
def naive():
    """Everything from the files on, with NumPy and SciPy alone: W, the tests' neighbors, both truths."""
    train, test = (read(f"{name}-images-idx3-ubyte").reshape(-1, 784).astype(np.float64) / 255 for name in ("train", "t10k"))
    mean = train.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((train - mean).T))
    vectors, queries = ((X - mean) @ directions[:, ::-1][:, :64] for X in (train, test))
    vectors, queries = ((X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32) for X in (vectors, queries))
    table, test_table = naive_nearest(vectors, vectors, K), naive_nearest(vectors, queries, K)
    train_truth, test_truth = (read(f"{name}-labels-idx1-ubyte").astype(int) for name in ("train", "t10k"))
    return table, weights(table), test_table, train_truth, test_truth


def weights(table):
    n, k = table.shape
    W0 = sp.csr_array((np.ones(n * k, np.float32), (np.repeat(np.arange(n), k), table.reshape(-1))), shape=(n, n))
    S = (W0 + W0.T).tocsr()
    return (sp.diags_array((1 / S.sum(axis=1)).astype(np.float32)) @ S).tocsr()


def naive_test_scores(W, test_table, seeds, columns, n_columns):
    """Scores of the tests after each iteration, columns normalized when they are read."""
    n = W.shape[0]
    rows = np.repeat(np.arange(len(test_table)), test_table.shape[1])
    sums = sp.csr_array((np.ones(len(rows), np.float32), (rows, test_table.reshape(-1))), shape=(len(test_table), n))
    L = np.zeros((n, n_columns), np.float32)
    L[seeds, columns] = 1
    for t in range(MAX_ITER + 1):
        L = W @ L if t else L
        yield (sums @ L) / L.sum(axis=0, dtype=np.float64)


def of_one_draw(train_truth, number):
    """Seeds of all n at once, a column for each n and class."""
    nodes, classes = draw_seeds(train_truth, n_per_class=SIZES[-1], seed=number)
    place = np.arange(len(nodes)) % SIZES[-1]
    seeds = np.concatenate([nodes[place < n] for n in SIZES])
    columns = np.concatenate([10 * i + classes[place < n] for i, n in enumerate(SIZES)])
    return seeds, columns


def test_neighbors_agree(store, naive):
    table = store.array("background/neighbor_ids")[:, :K]
    assert table.shape == (60_000, K)
    assert (np.sort(table, axis=1) == np.sort(naive[0], axis=1)).all(axis=1).mean() > 0.99
    tests = store.array("tests/neighbor_ids")[:, :K]
    assert (np.sort(tests, axis=1) == np.sort(naive[2], axis=1)).all(axis=1).mean() > 0.99


@pytest.mark.parametrize("number", range(DRAWS))
def test_accuracies_agree_with_an_independent_computation(store, naive, number):
    _, W, test_table, train_truth, test_truth = naive
    found = store.record("evaluate")["draws"][number]
    seeds, columns = of_one_draw(train_truth, number)
    for t, scores in enumerate(naive_test_scores(W, test_table, seeds, columns, 10 * len(SIZES))):
        for i, n in enumerate(SIZES):
            block = scores[:, 10 * i : 10 * i + 10]
            right = ((block.argmax(axis=1) == test_truth) & (block.max(axis=1) > 0)).sum()
            assert abs(found[str(n)]["iterations"][t]["top1"] * 10_000 - right) <= 10, (n, t)


def test_scores_equal_scipy_on_the_same_table(store, naive):
    """From the tool's own neighbor tables on, without near ties: 1e-5 everywhere, in every iteration."""
    table, tests = (np.asarray(store.array(f"{role}/neighbor_ids")[:, :K]) for role in ("background", "tests"))
    seeds, columns = of_one_draw(naive[3], 0)
    W = weights(table).astype(np.float64)
    found = diffuse(Graph(store), seeds, columns, 50, queries=tests, n_iter=MAX_ITER, every_iteration=True, memory_budget="2GiB")
    for ours, theirs in zip(found, naive_test_scores(W, tests, seeds, columns, 50), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)


def test_figures(store):
    summary = summarize_evaluation(store.record("evaluate"))
    expected = {"diffusion, best iteration": [57, 63, 70, 73, 76], "logistic regression": [49, 55, 65, 69, 72]}
    for method, figures in expected.items():
        for n, figure in zip(SIZES, figures, strict=True):
            mean, std = summary[method][n]["top1"]
            assert abs(100 * mean - figure) < max(2.5, 200 * std / DRAWS**0.5), (method, n)
    for n in SIZES:
        chosen, best = (summary[method][n]["top1"][0] for method in ("diffusion", "diffusion, best iteration"))
        assert best - 0.05 < chosen <= best
        assert summary["fusion"][n]["top1"][0] > summary["kNN"][n]["top1"][0]


def test_time_and_memory(store):
    records = [made["record"] for made in store.manifest.stages.values()]
    for record in records:
        assert record.get("peak_memory_bytes", 0) <= BUDGET, record["stage"]
        assert record.get("peak_memory_bytes", 0) <= record["plan"]["memory_bytes"], record["stage"]
    assert sum(record["seconds"] for record in records) < 600
