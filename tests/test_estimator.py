"""LabelDiffusion keeps scikit-learn's conventions and equals the naive computation."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

import ooc_diffusion.estimator as module
from ooc_diffusion import LabelDiffusion, diffuse
from ooc_diffusion.diffusion.room import Room
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import MemoryMeter
from tests.reference import naive_coupled, naive_diffuse, naive_query_scores, naive_w


def naive_nearest(X, queries, k):
    """Ids of the k nearest rows by euclidean distance, ties by lower id."""
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - X[None].astype(np.float64), axis=2)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def naive_shares(scores):
    sums = scores.sum(axis=1, keepdims=True)
    return scores / np.where(sums > 0, sums, 1)


def blobs(n=150, d=5, classes=3, seed=0, spread=1.0):
    """Points without ties around one center per class, and their classes."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    centers = 4 * rng.normal(size=(classes, d))
    return (centers[truth] + spread * rng.normal(size=(n, d))).astype(np.float32), truth


def few_labels(truth, n_per_class, seed=0):
    rng = np.random.default_rng(seed)
    y = np.full(len(truth), -1)
    for c in np.unique(truth):
        chosen = rng.choice(np.flatnonzero(truth == c), n_per_class, replace=False)
        y[chosen] = c
    return y


def expected_failures(estimator):
    return {"check_classifiers_classes": "it takes -1 for the name of a class; here, as in LabelPropagation, it means unlabelled"}


@parametrize_with_checks([LabelDiffusion(n_neighbors=3)], expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("normalization", ["columns", "none"])
@pytest.mark.parametrize("n_iter", [0, 1, 4])
def test_equals_the_naive_computation(n_iter, normalization):
    X, truth = blobs()
    fitted, queries, y = X[:120], X[120:], few_labels(truth[:120], 2)
    model = LabelDiffusion(n_neighbors=6, n_iter=n_iter, normalization=normalization).fit(fitted, y)
    seeds = np.flatnonzero(y >= 0)
    W = naive_w(naive_nearest(fitted, fitted, 6))
    L = naive_diffuse(W, seeds, y[seeds], 3, n_iter, normalization)[-1]
    np.testing.assert_allclose(model.label_distributions_, naive_shares(L), rtol=1e-5, atol=1e-7)
    reached = L.sum(axis=1) > 0
    np.testing.assert_array_equal(model.unreached_, ~reached)
    expected = np.where(reached, L.argmax(axis=1), -1)
    expected[seeds] = y[seeds]
    np.testing.assert_array_equal(model.transduction_, expected)
    scores = naive_query_scores(L, naive_nearest(fitted, queries, 6))
    np.testing.assert_allclose(model.predict_proba(queries), naive_shares(scores), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(model.predict(queries), np.where(scores.sum(axis=1) > 0, scores.argmax(axis=1), -1))
    assert model.n_iter_ == n_iter


@pytest.mark.parametrize("eta", [{"normalization": "sinkhorn"}, {"normalization": "gamma", "power": 1.5, "reset": True}])
def test_other_normalizations_equal_the_naive_computation(eta):
    X, truth = blobs()
    y = few_labels(truth, 2)
    model = LabelDiffusion(n_neighbors=6, n_iter=3, **eta).fit(X, y)
    seeds = np.flatnonzero(y >= 0)
    L = naive_coupled(naive_w(naive_nearest(X, X, 6)), seeds, y[seeds], 3, 3, **eta)[-1]
    np.testing.assert_allclose(model.label_distributions_, naive_shares(L), rtol=1e-5, atol=1e-7)


def test_cosine_equals_euclidean_on_unit_vectors():
    X, truth = blobs(spread=2.0)
    X *= np.random.default_rng(1).uniform(0.1, 10, (len(X), 1)).astype(np.float32)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    y = few_labels(truth, 2)
    cosine = LabelDiffusion(n_neighbors=6, metric="cosine").fit(X, y)
    euclidean = LabelDiffusion(n_neighbors=6).fit(unit, y)
    np.testing.assert_allclose(cosine.label_distributions_, euclidean.label_distributions_, rtol=1e-6)
    np.testing.assert_allclose(cosine.predict_proba(X[:9]), euclidean.predict_proba(unit[:9]), rtol=1e-6)
    plain = LabelDiffusion(n_neighbors=6).fit(X, y)
    assert not np.allclose(plain.label_distributions_, euclidean.label_distributions_)


def test_vectors_far_from_the_origin_keep_their_neighbors():
    X, truth = blobs(400, 16)
    y = few_labels(truth, 2)
    near = LabelDiffusion(n_neighbors=6).fit(X, y)
    moved = np.float32(10_000) + X
    far = LabelDiffusion(n_neighbors=6).fit(moved, y)
    rounded = LabelDiffusion(n_neighbors=6).fit(moved - np.float32(10_000), y)
    assert np.isclose(near.label_distributions_, far.label_distributions_, rtol=0.01, atol=0.01).mean() > 0.95
    np.testing.assert_allclose(far.label_distributions_, rounded.label_distributions_, rtol=1e-6)


LABELS = {
    "strings with None": (np.array(["no", "yes", "a longer name"], object), None, object),
    "ints": (np.array([7, 3, 12]), -1, np.int64),
    "floats": (np.array([2.0, 5.0, 9.0]), -1, np.float64),
    "negative ints": (np.array([-7, 0, 4]), -1, np.int64),
    "small ints": (np.array([1, 2, 3], np.int8), -1, np.int8),
    "unsigned": (np.array([1, 2, 200], np.uint8), None, object),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind):
    names, missing, dtype = LABELS[kind]
    X, truth = blobs()
    known = few_labels(truth, 2)
    y = np.full(len(X), missing, dtype)
    y[known >= 0] = names[known[known >= 0]]
    model = LabelDiffusion(n_neighbors=6, n_iter=12).fit(X, y)
    assert model.classes_.tolist() == sorted(names.tolist())
    found = [names.tolist().index(value) for value in model.transduction_]
    plain = LabelDiffusion(n_neighbors=6, n_iter=12).fit(X, known)
    assert found == plain.transduction_.tolist()
    assert (np.array(found) == truth).mean() > 0.95
    assert model.predict(X[:20]).tolist() == [names[c] for c in plain.predict(X[:20])]


def test_all_labelled_and_one_class():
    X, truth = blobs()
    model = LabelDiffusion(n_neighbors=6).fit(X, truth)
    np.testing.assert_array_equal(model.transduction_, truth)
    assert not model.unreached_.any()
    one = LabelDiffusion(n_neighbors=6).fit(X, np.where(truth == 1, 1, -1))
    assert one.classes_.tolist() == [1]
    reached = ~one.unreached_
    assert (one.transduction_[reached] == 1).all()
    np.testing.assert_array_equal(one.label_distributions_[reached], 1.0)
    auto = LabelDiffusion(n_neighbors=6, n_iter="auto").fit(X, np.where(np.arange(len(X)) == 5, 1, -1))
    assert auto.transduction_[5] == 1


@pytest.mark.parametrize(("labels", "missing"), [([4, 9], -1), (["here", "there"], None)])
def test_unreached_vectors(labels, missing):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3)).astype(np.float32)
    X[:, 0] += np.repeat([0, 100, 200], 30)  # the third part has no label
    y = np.full(90, missing, object if missing is None else int)
    y[[0, 30]] = labels
    model = LabelDiffusion(n_neighbors=5, n_iter=20).fit(X, y)
    np.testing.assert_array_equal(model.unreached_, np.arange(90) >= 60)
    assert model.transduction_.tolist() == [labels[0]] * 30 + [labels[1]] * 30 + [missing] * 30
    assert (model.label_distributions_[60:] == 0).all()
    np.testing.assert_allclose(model.label_distributions_[:60].sum(axis=1), 1, rtol=1e-6)
    queries = X[[1, 31, 61]] + np.float32(0.01)
    assert model.predict(queries).tolist() == [*labels, missing]
    assert model.predict_proba(queries).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_the_number_of_iterations_is_chosen():
    X, truth = blobs(300, spread=1.5)
    y = few_labels(truth, 4)
    model = LabelDiffusion(n_neighbors=5, n_iter="auto").fit(X, y)
    assert 1 <= model.n_iter_ <= 30
    fixed = LabelDiffusion(n_neighbors=5, n_iter=model.n_iter_).fit(X, y)
    assert fixed.label_distributions_.tobytes() == model.label_distributions_.tobytes()
    alone = LabelDiffusion(n_neighbors=5, n_iter="auto").fit(X, few_labels(truth, 1))
    assert (~alone.unreached_).mean() > 0.9  # by coverage


def test_a_memmap_is_neither_copied_nor_written(tmp_path, monkeypatch):
    X, truth = blobs()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    y = few_labels(truth, 2)
    seen = []
    original = module.search
    monkeypatch.setattr(module, "search", lambda vectors, *a, **kw: seen.append(vectors) or original(vectors, *a, **kw))
    model = LabelDiffusion(n_neighbors=6).fit(mapped, y)
    assert all(np.shares_memory(vectors, mapped) for vectors in seen)
    assert model.label_distributions_.tobytes() == LabelDiffusion(n_neighbors=6).fit(X, y).label_distributions_.tobytes()
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), X)


def test_same_bytes_for_any_budget_and_thread_count(monkeypatch):
    X, truth = blobs(5000, 8, 4, spread=3.0)
    y, queries = few_labels(truth, 3), X[:700] + np.float32(0.05)
    results = set()
    for budget, threads in (("auto", 1), ("auto", 2), ("2GiB", 2), ("50%", None)):
        model = LabelDiffusion(n_neighbors=7, memory_budget=budget, threads=threads).fit(X, y)
        results.add(model.label_distributions_.tobytes() + model.predict_proba(queries).tobytes())
    monkeypatch.setattr("ooc_diffusion.diffusion.scores.make_room", lambda n, left, **kw: Room(min(1, left), False, 999, 99))
    model = LabelDiffusion(n_neighbors=7).fit(X, y)
    results.add(model.label_distributions_.tobytes() + model.predict_proba(queries).tobytes())
    assert len(results) == 1


def test_inverted_lists_nearly_equal_exact_search():
    X, truth = blobs(6000, 8, 4, spread=2.0)
    y = few_labels(truth, 3)
    exact = LabelDiffusion(n_neighbors=8).fit(X, y)
    inverted = LabelDiffusion(n_neighbors=8, index="IVFFlat").fit(X, y)
    assert (exact.transduction_ == inverted.transduction_).mean() > 0.99
    assert (exact.predict(X[:500] + np.float32(0.1)) == inverted.predict(X[:500] + np.float32(0.1))).mean() > 0.99


def test_many_classes_are_scored_within_the_budget():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 4)).astype(np.float32)
    model = LabelDiffusion(n_neighbors=30, n_iter=1).fit(X, np.where(np.arange(5000) < 1000, np.arange(5000), -1))
    with MemoryMeter(interval_seconds=0.002) as meter:
        before = meter.sample()
        found = model.predict_proba(X)
    # scores and their shares, not the 30 neighbors' rows of each query (4096 * 30 * 1000 * 8 bytes)
    assert meter.peak - before < 6 * found.nbytes + 2**27


@pytest.mark.parametrize("n_per_class", [1, 2, 3, 5])
def test_better_than_the_nearest_label_on_digits(n_per_class):
    X, truth = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    ours, nearest = [], []
    for seed in range(3):
        y = few_labels(truth, n_per_class, seed)
        rest, seeds = np.flatnonzero(y < 0), np.flatnonzero(y >= 0)
        model = LabelDiffusion(n_neighbors=10, n_iter="auto").fit(X, y)
        ours.append((model.transduction_[rest] == truth[rest]).mean())
        distances = ((X[rest, None] - X[None, seeds]) ** 2).sum(axis=2)
        nearest.append((y[seeds][distances.argmin(axis=1)] == truth[rest]).mean())
    assert np.mean(ours) > np.mean(nearest) + 0.05


BAD = {
    "k": ({"n_neighbors": 151}, "n_neighbors is 151, but n_samples is 150; give at most 150"),
    "no neighbor": ({"n_neighbors": 0}, "n_neighbors is 0; give a whole number"),
    "fraction": ({"n_neighbors": 2.5}, "n_neighbors is 2.5; give a whole number"),
    "n_iter": ({"n_iter": -1}, "n_iter is -1; give 0 or more iterations, or 'auto'"),
    "n_iter word": ({"n_iter": "many"}, "n_iter is 'many'"),
    "normalization": ({"normalization": "softmax"}, "normalization 'softmax' is not one of columns, none"),
    "power": ({"power": 3}, "`power` is 3; give a number above 1 and at most 2"),
    "metric": ({"metric": "manhattan"}, "metric 'manhattan' is not one of euclidean, cosine"),
    "index": ({"index": "HNSW"}, "index 'HNSW' is not one of auto, Flat, IVFFlat"),
    "few for lists": ({"index": "IVFFlat"}, "IVFFlat needs at least 4096 vectors, there are 150; use Flat"),
    "budget": ({"memory_budget": "4"}, "did you mean 4GiB"),
    "precision": ({"precision": "half"}, "precision 'half' is not one of float32, bfloat16"),
    "precision of rows": (
        {"precision": "bfloat16", "normalization": "rows"},
        "rows, sinkhorn, gamma, `reset` and `alpha` take no bfloat16",
    ),
    "precision of a reset": (
        {"precision": "bfloat16", "reset": True},
        "rows, sinkhorn, gamma, `reset` and `alpha` take no bfloat16",
    ),
    "threads": ({"threads": 0}, "threads must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parameters(case):
    X, truth = blobs()
    change, message = BAD[case]
    with pytest.raises(BadInput, match=message) as error:
        LabelDiffusion(**change).fit(X, few_labels(truth, 2))
    assert "\n" not in str(error.value)


def test_no_label_is_refused():
    X, _ = blobs()
    for y in (np.full(150, -1), np.full(150, None)):
        with pytest.raises(BadInput, match="no vector is labelled: y is -1"):
            LabelDiffusion().fit(X, y)


def test_a_budget_too_small_names_the_smallest():
    X, truth = blobs()
    with pytest.raises(DoesNotFit, match=r"needs a memory budget of \d+MiB"):
        LabelDiffusion(memory_budget="64MiB").fit(X, few_labels(truth, 2))


def test_clone_and_parameters():
    model = LabelDiffusion(n_neighbors=4, n_iter="auto", memory_budget="1GiB", random_state=3)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert twin.get_params()["n_neighbors"] == 4
    assert twin.set_params(n_iter=2).n_iter == 2
    assert repr(LabelDiffusion(n_neighbors=4, random_state=3)) == "LabelDiffusion(n_neighbors=4, random_state=3)"


def test_a_store_is_used_again(tmp_path, monkeypatch):
    X, truth = blobs()
    first = LabelDiffusion(n_neighbors=6, store=tmp_path / "graph").fit(X, few_labels(truth, 2))
    files = sorted((tmp_path / "graph").rglob("*.npy"))
    assert len(files) == 5
    built = [path.stat().st_mtime_ns for path in files]
    monkeypatch.setattr("ooc_diffusion.graph.api.write_graph", None)  # would fail if it were called
    again = LabelDiffusion(n_neighbors=6, store=tmp_path / "graph").fit(X, few_labels(truth, 5))
    assert sorted((tmp_path / "graph").rglob("*.npy")) == files
    assert [path.stat().st_mtime_ns for path in files] == built
    fresh = LabelDiffusion(n_neighbors=6).fit
    monkeypatch.undo()
    assert again.label_distributions_.tobytes() == fresh(X, few_labels(truth, 5)).label_distributions_.tobytes()
    assert first.label_distributions_.tobytes() != again.label_distributions_.tobytes()
    other = LabelDiffusion(n_neighbors=6, store=tmp_path / "graph").fit(2 * X[::-1], few_labels(truth, 2)[::-1])
    np.testing.assert_allclose(other.label_distributions_[::-1], first.label_distributions_, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["columns", "none"])
def test_bfloat16_is_that_of_the_engine(tmp_path, normalization):
    X, truth = blobs(spread=5.0)
    y = few_labels(truth, 2)
    options = {"n_iter": 4, "normalization": normalization, "precision": "bfloat16"}
    model = LabelDiffusion(n_neighbors=6, store=tmp_path, **options).fit(X, y)
    scores = diffuse(tmp_path / "label-diffusion", np.flatnonzero(y >= 0), y[y >= 0], 3, **options)
    np.testing.assert_allclose(model.label_distributions_, naive_shares(scores.astype(np.float64)), rtol=1e-6)
    exact = LabelDiffusion(n_neighbors=6, store=tmp_path, **{**options, "precision": "float32"}).fit(X, y)
    assert 0 < np.abs(model.label_distributions_ - exact.label_distributions_).max() < 4 * 2**-7
    chosen = LabelDiffusion(n_neighbors=6, n_iter="auto", precision="bfloat16").fit(X, y)
    assert (chosen.transduction_ == truth).mean() > 0.5


def test_as_many_neighbors_as_vectors():
    X, truth = blobs(30)
    y = few_labels(truth, 2)
    model = LabelDiffusion(n_neighbors=30, n_iter=2).fit(X, y)
    seeds = np.flatnonzero(y >= 0)
    expected = naive_diffuse(naive_w(naive_nearest(X, X, 30)), seeds, y[seeds], 3, 2)[-1]
    np.testing.assert_allclose(model.label_distributions_, naive_shares(expected), rtol=1e-5)
