"""From descriptors to accuracies: every stage equals the naive computation on real images."""

import functools

import numpy as np
import pytest

from ooc_diffusion import diffuse as engine
from ooc_diffusion.classify import train_logistic
from ooc_diffusion.diffusion import diffuse_once
from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import choose_iterations, draw_seeds, fallback_iterations, seed_folds
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.evaluate import evaluate, summarize_evaluation
from ooc_diffusion.stages.graph import graph, query_table
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.graph.test_build import as_matrix
from tests.reference import naive_coupled, naive_diffuse, naive_knn_scores, naive_query_scores, naive_top_k_accuracy
from tests.stages.chain import DIM, K, build, digits, import_roles, naive_chain, naive_vectors, write_labels

SIZES = [1, 2, 5]
MAX_ITER = 8


train = functools.partial(train_logistic, n_steps=300)


@pytest.fixture(scope="module", autouse=True)
def short_trainings():
    """The training has tests of its own; here it only has to be the same on both sides."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("classify", "selection", "evaluate"):
            patch.setattr(f"ooc_diffusion.stages.{module}.train_logistic", train)
        yield


@pytest.fixture(scope="module")
def sample():
    return digits()


@pytest.fixture(scope="module")
def store(tmp_path_factory, sample):
    return build(tmp_path_factory.mktemp("chain") / "store", sample)


@pytest.fixture(scope="module")
def naive(sample):
    return naive_chain(sample)


def test_vectors_equal_pca_by_svd(store, sample):
    expected = naive_vectors(sample)
    for role in ("background", "tests"):
        found = store.array(f"{role}/vectors")
        assert found.shape == (len(expected[role]), DIM)
        signs = np.sign((found * expected[role]).sum(axis=0))  # the sign of a direction is open
        np.testing.assert_allclose(found * signs, expected[role], atol=2e-6)
    assert store.record("reduce.background")["zero_rows"] == 0


def test_no_pca_is_length_one_alone(tmp_path, sample):
    store = import_roles(tmp_path / "store", sample)
    reduce(tmp_path / "store", dim=0)
    X = sample.tests.astype(np.float64)
    np.testing.assert_allclose(store.array("tests/vectors"), X / np.linalg.norm(X, axis=1, keepdims=True), rtol=1e-6)
    assert "pca/mean" not in store


def test_neighbors_equal_naive_search(store, naive):
    for role, expected in (("background", naive.table), ("tests", naive.test_table)):
        found = store.array(f"{role}/neighbor_ids")
        assert found.shape[1] == K + 2
        np.testing.assert_array_equal(found[:, :K], expected)
    np.testing.assert_allclose(store.array("background/similarities")[:, :K], naive.similarities, atol=1e-6)


def test_graph_equals_naive_w(store, naive):
    np.testing.assert_allclose(as_matrix(Graph(store)), naive.W.toarray(), rtol=2e-7, atol=0)
    record = store.record("graph")
    assert record["nnz"] == naive.W.nnz
    assert record["k"] == K


def test_gaussian_weights_equal_naive_w(tmp_path, sample):
    store = build(tmp_path / "store", sample, weighting="gaussian", sigma=0.4)
    expected = naive_chain(sample, sigma=0.4).W.toarray()
    np.testing.assert_allclose(as_matrix(Graph(store)), expected, rtol=2e-5, atol=1e-9)
    assert store.record("graph")["nnz"] == np.count_nonzero(expected)


def test_a_smaller_k_is_a_prefix(tmp_path, sample):
    import_roles(tmp_path / "store", sample)
    reduce(tmp_path / "store", dim=DIM)
    neighbors(tmp_path / "store", k=K + 3)
    graph(tmp_path / "store", k=K)
    np.testing.assert_allclose(as_matrix(Graph(Store(tmp_path / "store"))), naive_chain(sample).W.toarray(), rtol=2e-7)


@pytest.mark.parametrize("normalization", ["columns", "none"])
@pytest.mark.parametrize("rows", ["tests", "nodes"])
def test_scores_equal_naive_diffusion(store, sample, naive, rows, normalization):
    seeds, classes = draw_seeds(sample.background_truth, n_per_class=3, seed=4)
    labels = write_labels(store.path, seeds, classes)
    record = diffuse(
        store.path, labels=labels, rows=rows, n_iter=4, normalization=normalization, settings=Settings(overwrite=True)
    )
    L = naive_diffuse(naive.W, seeds, classes, 10, 4, normalization)[-1]
    expected = L if rows == "nodes" else naive_query_scores(L, naive.test_table)
    np.testing.assert_allclose(store.array("diffusion/scores"), expected, rtol=1e-5, atol=1e-12)
    assert (record["n_iter"], record["n_iter_chosen_by"], record["rows"]) == (4, "given", rows)
    assert record["class_names"] == [str(c) for c in range(10)]


def test_precision_is_a_parameter_where_it_is_not_float32_and_holds_for_what_is_held_out(store, sample):
    labels = write_labels(store.path, *draw_seeds(sample.background_truth, n_per_class=3, seed=4))
    stage = functools.partial(diffuse, store.path, labels=labels, n_iter=4, normalization="none")
    stage(settings=Settings(overwrite=True))
    assert "precision" not in store.parameters("diffuse")
    names = ("diffusion/scores", "diffusion/held_out_scores")
    expected = [np.array(store.array(name)) for name in names]
    with pytest.raises(BadInput, match=r"precision = None \(now bfloat16\)"):
        stage(precision="bfloat16")
    record = stage(precision="bfloat16", settings=Settings(overwrite=True))
    assert store.parameters("diffuse")["precision"] == "bfloat16"
    assert record["plan"]["scratch_bytes"] == 4 * expected[0].size + 4 * Graph(store).n
    for name, exact in zip(names, expected, strict=True):
        np.testing.assert_allclose(store.array(name), exact, rtol=4 * 2**-8, atol=0)
    # the row of one node is not a sum of rows: its numbers are bfloat16 themselves
    assert (store.array(names[1]).view(np.uint32) % 2**16 == 0).all()
    assert (expected[1].view(np.uint32) % 2**16 != 0).any()


@pytest.mark.parametrize("eta", [{"normalization": "sinkhorn"}, {"normalization": "gamma", "power": 1.5, "reset": True}])
def test_scores_of_coupled_columns_equal_the_naive_ones(store, sample, naive, eta):
    seeds, classes = draw_seeds(sample.background_truth, n_per_class=3, seed=4)
    seeds, classes = seeds[np.argsort(seeds)], classes[np.argsort(seeds)]
    labels = write_labels(store.path, seeds, classes)
    record = diffuse(store.path, labels=labels, rows="tests", n_iter=3, settings=Settings(overwrite=True), **eta)
    L = naive_coupled(naive.W, seeds, classes, 10, 3, **eta)[-1]
    expected = naive_query_scores(L, naive.test_table)
    np.testing.assert_allclose(store.array("diffusion/scores"), expected, rtol=1e-5, atol=1e-12)
    assert record["plan"]["scratch_bytes"] == 4 * expected.size + 8 * L.size
    assert "every column in every iteration, no skipping" in record["plan"]["work"]
    folds, places = store.array("diffusion/folds"), store.array("diffusion/held_out")
    for fold in range(folds.max() + 1):
        known = folds != fold
        out = folds[places] == fold
        L = naive_coupled(naive.W, seeds[known], classes[known], 10, 3, **eta)[-1]
        found = store.array("diffusion/held_out_scores")[out]
        np.testing.assert_allclose(found, L[seeds[places[out]]], rtol=1e-5, atol=1e-12)


def shares(scores):
    sums = scores.sum(axis=1, keepdims=True)
    return scores / np.where(sums > 0, sums, 1)


def naive_fused(log_logistic, scores, coefficient):
    """Late fusion with shares floored at 1e-10, rows of zeros uniform."""
    sums = scores.sum(axis=1, keepdims=True)
    parts = np.where(sums > 0, scores / np.where(sums > 0, sums, 1), 1 / scores.shape[1])
    return coefficient * log_logistic + (1 - coefficient) * np.log(np.maximum(parts, 1e-10))


def naive_log_logistic(X, seeds, classes, queries, n_classes=10):
    """The trained model, applied in float64."""
    model = train(X[seeds], classes, n_classes=n_classes, seed=0, threads=1)
    logits = queries.astype(np.float64) @ model.weights.astype(np.float64) + model.bias
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("method", ["diffusion", "knn", "logistic", "fusion"])
@pytest.mark.parametrize("rows", ["tests", "nodes"])
def test_predictions_of_each_method(store, sample, naive, method, rows):
    seeds, classes = draw_seeds(sample.background_truth, n_per_class=3, seed=4)
    settings = Settings(overwrite=True, threads=1)
    diffuse(store.path, labels=write_labels(store.path, seeds, classes), rows=rows, n_iter=4, settings=settings)
    record = classify(store.path, method=method, coefficient=0.4 if method == "fusion" else None, settings=settings)
    L = naive_diffuse(naive.W, seeds, classes, 10, 4)[-1]
    scores = L if rows == "nodes" else naive_query_scores(L, naive.test_table)
    X = sample.background if rows == "nodes" else sample.tests
    if method == "diffusion":
        expected = shares(scores)
    elif method == "knn":
        vectors = naive.nodes if rows == "nodes" else naive.tests
        votes, similarity = naive_knn_scores(naive.nodes[seeds], classes, vectors, 10, 5)
        expected = votes + 1e-3 * similarity / 5
    else:
        turn = np.argsort(seeds)  # rows of the CSV are sorted, and the sampler draws by place
        expected = naive_log_logistic(sample.background, seeds[turn], classes[turn], X)
        if method == "fusion":
            expected = naive_fused(expected, scores, 0.4)
        expected = shares(np.exp(expected - expected.max(axis=1, keepdims=True)))
    labels, confidence = store.array("predictions/labels"), store.array("predictions/confidence")
    unreached = (scores.sum(axis=1) == 0) & (method in ("diffusion", "fusion"))
    best = np.where(unreached, -1, expected.argmax(axis=1))
    if rows == "nodes":
        best[seeds] = classes
        assert (confidence[seeds] == 1).all()
    np.testing.assert_array_equal(labels, best)
    assert (confidence[labels < 0] == 0).all()
    if method != "knn":
        free = np.setdiff1d(np.flatnonzero(labels >= 0), seeds) if rows == "nodes" else labels >= 0
        np.testing.assert_allclose(confidence[free], expected[free].max(axis=1), rtol=1e-4)
    assert record["unreached"] == unreached.sum()
    assert record["method"] == method


def test_unreached_images_are_minus_one_with_no_confidence(store, sample, naive):
    seeds, classes = draw_seeds(sample.background_truth, n_per_class=1, seed=0)
    settings = Settings(overwrite=True)
    diffuse(store.path, labels=write_labels(store.path, seeds, classes), rows="tests", n_iter=0, settings=settings)
    record = classify(store.path, settings=settings)
    scores = naive_query_scores(naive_diffuse(naive.W, seeds, classes, 10, 0)[-1], naive.test_table)
    unreached = scores.sum(axis=1) == 0
    assert 5 < unreached.sum() < 75
    assert record["unreached"] == unreached.sum()
    assert (store.array("predictions/labels")[unreached] == -1).all()
    assert (store.array("predictions/confidence")[unreached] == 0).all()


@pytest.fixture(scope="module")
def evaluation(store):
    return evaluate(store.path, n_per_class=SIZES, draws=2, max_iter=MAX_ITER, settings=Settings(threads=1, overwrite=True))


def draw(sample, n, number):
    """The draw of n images per class: the first n of the largest draw."""
    nodes, classes = draw_seeds(sample.background_truth, n_per_class=SIZES[-1], seed=number)
    first = np.arange(len(nodes)) % SIZES[-1] < n
    return nodes[first], classes[first]


def top1_top5(scores, truth, logarithms=False):
    return {f"top{k}": naive_top_k_accuracy(scores, truth, k, positive_only=not logarithms) for k in (1, 5)}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("n", SIZES)
def test_evaluation_equals_a_naive_one(evaluation, sample, naive, n, number):
    found = evaluation["draws"][number][str(n)]
    seeds, classes = draw(sample, n, number)
    every = [naive_query_scores(L, naive.test_table) for L in naive_diffuse(naive.W, seeds, classes, 10, MAX_ITER)]
    assert found["iterations"] == [top1_top5(scores, sample.tests_truth) for scores in every]

    folds = seed_folds(classes, seed=0)
    if folds is None:
        n_iter, coefficient = fallback_iterations(np.array([(scores > 0).mean() for scores in every])), 0.0
    else:
        n_iter, coefficient = naive_selection(sample, naive, seeds, classes, folds)
    assert (found["n_iter"], found["coefficient"]) == (n_iter, pytest.approx(coefficient))

    votes, similarity = naive_knn_scores(naive.nodes[seeds], classes, naive.tests, 10, 5)
    log_logistic = naive_log_logistic(sample.background, seeds, classes, sample.tests)
    methods = found["methods"]
    assert methods["kNN"] == top1_top5(votes + 1e-3 * similarity / 5 * (votes > 0), sample.tests_truth)
    assert methods["diffusion"] == found["iterations"][n_iter]
    assert methods["logistic regression"] == top1_top5(log_logistic, sample.tests_truth, True)
    fused_truth = np.where(every[n_iter].any(axis=1), sample.tests_truth, -1)  # where no label arrives, fusion has no answer
    assert methods["fusion"] == top1_top5(naive_fused(log_logistic, every[n_iter], coefficient), fused_truth, True)
    assert methods["diffusion, best iteration"]["top1"] == max(row["top1"] for row in found["iterations"])


def naive_selection(sample, naive, seeds, classes, folds):
    """Iterations by the quadratic score, coefficient by accuracy, on seeds held out fold by fold."""
    held_out = np.zeros((MAX_ITER + 1, len(seeds), 10))
    log_logistic = np.zeros((len(seeds), 10))
    for fold in range(folds.max() + 1):
        known, out = folds != fold, folds == fold
        for t, L in enumerate(naive_diffuse(naive.W, seeds[known], classes[known], 10, MAX_ITER)):
            held_out[t, out] = L[seeds[out]]
        log_logistic[out] = naive_log_logistic(sample.background, seeds[known], classes[known], sample.background[seeds[out]])
    n_iter = choose_iterations(held_out, classes)
    right = [(naive_fused(log_logistic, held_out[n_iter], a / 20).argmax(axis=1) == classes).sum() for a in range(21)]
    return n_iter, int(np.argmax(right)) / 20


def test_the_summary_is_mean_and_standard_deviation(evaluation):
    summary = summarize_evaluation(evaluation)
    for method in evaluation["methods"]:
        for n in SIZES:
            values = [each[str(n)]["methods"][method]["top1"] for each in evaluation["draws"]]
            mean, std = summary[method][n]["top1"]
            assert mean == pytest.approx(sum(values) / 2)
            assert std == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_cross_validation_in_diffuse_equals_the_naive_one(store, sample, naive):
    seeds, classes = draw(sample, 5, 0)
    turn = np.argsort(seeds)
    labels = write_labels(store.path, seeds, classes)
    record = diffuse(store.path, labels=labels, rows="tests", settings=Settings(overwrite=True, threads=1))
    folds = store.array("diffusion/folds")
    np.testing.assert_array_equal(store.array("diffusion/seed_nodes"), seeds[turn])
    held_out = np.zeros((31, len(seeds), 10))
    for fold in range(folds.max() + 1):
        known, out = folds != fold, folds == fold
        diffused = naive_diffuse(naive.W, seeds[turn][known], classes[turn][known], 10, 30)
        for t, L in enumerate(diffused):
            held_out[t, out] = L[seeds[turn][out]]
    best = choose_iterations(held_out, classes[turn])
    assert (record["n_iter"], record["n_iter_chosen_by"]) == (best, "cross-validation")
    places = store.array("diffusion/held_out")
    np.testing.assert_allclose(store.array("diffusion/held_out_scores"), held_out[best][places], rtol=1e-5, atol=1e-12)


def test_given_iterations_leave_the_fusion_what_chosen_ones_do(tmp_path):
    sample = digits(150, 20)
    rows, classes = draw_seeds(sample.background_truth, n_per_class=4, seed=0)
    kept = []
    for given in (False, True):
        (tmp_path / str(given)).mkdir()
        store = build(tmp_path / str(given) / "store", sample)
        labels = write_labels(store.path, rows, classes)
        n_iter = kept[0][0] if given else None
        record = diffuse(store, labels=labels, n_iter=n_iter)
        arrays = [store.array(f"diffusion/{name}").tobytes() for name in ("folds", "held_out", "held_out_scores", "scores")]
        kept.append((record["n_iter"], arrays, classify(store)["coefficient"]))
    assert len(kept[0][1][1]) == 8 * 40
    assert kept[0] == kept[1]


@pytest.mark.parametrize("m", [0, 9])
@pytest.mark.parametrize("k", [39, 40])
def test_a_table_of_all_images(tmp_path, k, m):
    """With as many neighbors as images each row lists all of them."""
    sample = digits(40, 10, m)
    store = build(tmp_path / "store", sample, k=k)
    naive = naive_chain(sample, k)
    nodes, tests = store.array(f"{'graph' if m else 'background'}/neighbor_ids"), query_table(store)
    np.testing.assert_array_equal(nodes[:, :k], naive.table)
    np.testing.assert_array_equal(tests[:, :k], naive.test_table)
    np.testing.assert_allclose(as_matrix(Graph(store)), naive.W.toarray(), rtol=2e-7)
    if k == 40:
        assert (np.sort(store.array("background/neighbor_ids")) == np.arange(40)).all()


def engine_runs(monkeypatch, run):
    """Run something; return what was diffused and the scores of each of its diffusions."""
    runs = []

    def noted(graph, what, **options):
        runs.append((what, np.array(diffuse_once(graph, what, **options))))
        return runs[-1][1]

    for module in ("selection", "evaluate"):
        monkeypatch.setattr(f"ooc_diffusion.stages.{module}.diffuse_once", noted)
    run()
    return runs


def test_evaluation_with_neighboring_seeds_draws_other_images(store, evaluation, monkeypatch):
    drawn = set()
    for seed in (0, 1):
        how = {"n_per_class": [2], "draws": 2, "max_iter": 1, "settings": Settings(threads=1, seed=seed, overwrite=True)}
        runs = engine_runs(monkeypatch, lambda how=how: evaluate(store.path, **how))
        drawn |= {tuple(what.seeds) for what, _ in runs if len(what.seeds) == 20}
        assert ("drawn" in store.parameters("evaluate")) == (seed > 0)
    assert len(drawn) == 4


def test_evaluation_in_bfloat16_reads_what_the_engine_gives(store, evaluation, monkeypatch):
    options = {"n_per_class": [1, 5], "draws": 1, "max_iter": 4}
    stage = functools.partial(evaluate, store.path, **options, settings=Settings(threads=1, overwrite=True))
    runs = engine_runs(monkeypatch, lambda: stage(precision="bfloat16"))
    assert len(runs) == 1 + 5  # one for all n, one per fold of the larger n
    for what, found in runs:
        seeds = (what.seeds, what.seed_classes, what.n_classes)
        again = functools.partial(engine, Graph(store), *seeds, queries=what.queries, n_iter=4, every_iteration=True)
        assert found.tobytes() == again(precision="bfloat16").tobytes()
        assert found.tobytes() != again().tobytes()
    assert store.parameters("evaluate")["precision"] == "bfloat16"
    with pytest.raises(BadInput, match=r"precision = bfloat16 \(now None\)"):
        evaluate(store.path, **options, settings=Settings(threads=1))
    stage()
    assert "precision" not in store.parameters("evaluate")
    with pytest.raises(BadInput, match="precision 'half' is not one of float32, bfloat16"):
        stage(precision="half")
