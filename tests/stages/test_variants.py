"""The variants of the paper as stages: each equals the naive computation on real images, and says what it costs."""

import functools
import shutil

import numpy as np
import pytest

from ooc_diffusion.classify import softmax, train_logistic
from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import draw_seeds
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages import prior as prior_room
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import _meaningful, graph
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.graph.test_build import as_matrix
from tests.graph.test_mutual import naive_mutual
from tests.reference import naive_coupled, naive_diffuse, naive_query_scores, naive_w, naive_zhou
from tests.stages.chain import build, digits, naive_chain, write_labels

train = functools.partial(train_logistic, n_steps=200)
AGAIN = Settings(overwrite=True)


@pytest.fixture(scope="module", autouse=True)
def short_trainings():
    with pytest.MonkeyPatch.context() as patch:
        for module in ("classify", "selection", "prior"):
            patch.setattr(f"ooc_diffusion.stages.{module}.train_logistic", train)
        yield


@pytest.fixture(scope="module")
def sample():
    return digits()


@pytest.fixture(scope="module")
def store(tmp_path_factory, sample):
    return build(tmp_path_factory.mktemp("variants") / "store", sample)


@pytest.fixture(scope="module")
def naive(sample):
    return naive_chain(sample)


@pytest.fixture(scope="module")
def few(store, sample):
    seeds, classes = draw_seeds(sample.background_truth, n_per_class=3, seed=4)
    seeds, classes = seeds[np.argsort(seeds)], classes[np.argsort(seeds)]  # the order in which labels are read
    return write_labels(store.path, seeds, classes), seeds, classes


@pytest.mark.parametrize("normalization", ["columns", "sinkhorn"])
def test_a_prior_from_a_file(store, naive, few, tmp_path, normalization):
    labels, seeds, classes = few
    frequencies = np.arange(10, 20)[::-1]
    file = tmp_path / "prior.csv"
    file.write_text("frequency,class\n7,dog\n" + "".join(f"{frequencies[c]},{c}\n" for c in range(10)))
    options = {"labels": labels, "n_iter": 3, "prior": file, "prior_power": 2.0, "normalization": normalization}
    diffuse(store.path, **options, settings=AGAIN)
    shares = frequencies**2.0 / (frequencies**2.0).sum()
    if normalization == "columns":
        L = naive_diffuse(naive.W, seeds, classes, 10, 3)[-1] * shares
    else:
        L = naive_coupled(naive.W, seeds, classes, 10, 3, "sinkhorn", prior=shares)[-1]
    np.testing.assert_allclose(store.array("diffusion/scores"), naive_query_scores(L, naive.test_table), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(store.array("diffusion/prior"), frequencies / frequencies.sum(), rtol=1e-12)
    assert diffuse(store.path, **options)["skipped"]
    with pytest.raises(BadInput, match="prior_power"):
        diffuse(store.path, **{**options, "prior_power": 1.0})


@pytest.mark.parametrize("block", [7, 300])
def test_an_estimated_prior_is_the_mean_of_what_logistic_regression_predicts(store, sample, few, monkeypatch, block):
    monkeypatch.setattr(prior_room, "BLOCK_ROWS", block)
    labels, seeds, classes = few
    record = diffuse(store.path, labels=labels, n_iter=2, prior="estimate", prior_power=0.5, settings=AGAIN)
    model = train(sample.background[seeds], classes.astype(np.int64), n_classes=10, seed=0)
    expected = softmax(model.log_probabilities(sample.background)).astype(np.float64).mean(axis=0)
    found = store.array("diffusion/prior")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    plain = np.array(store.array("diffusion/scores"))
    diffuse(store.path, labels=labels, n_iter=2, settings=AGAIN)
    powered = expected**0.5 / (expected**0.5).sum()
    np.testing.assert_allclose(plain, store.array("diffusion/scores") * powered, rtol=1e-5)
    assert record["plan"]["work"].startswith("logistic regression over 300 nodes, then ")
    assert record["plan"]["least_bytes"] > 768 * 2**20  # torch


def test_an_interrupted_estimate_goes_on_behind_its_last_block(store, few, tmp_path, monkeypatch):
    labels = few[0]
    monkeypatch.setattr(prior_room, "BLOCK_ROWS", 64)
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    diffuse(store.path, labels=labels, n_iter=2, settings=AGAIN)
    folder = tmp_path / "store"
    shutil.copytree(store.path, folder)
    diffuse(store.path, labels=labels, n_iter=1, prior="estimate", settings=AGAIN)
    expected = {name: store.array(name).tobytes() for name in ("diffusion/prior", "diffusion/scores")}
    calls, at = [], 3

    def counted(values):
        if len(calls) == at:
            raise KeyboardInterrupt
        calls.append(len(values))
        return softmax(values)

    monkeypatch.setattr(prior_room, "softmax", counted)
    with pytest.raises(KeyboardInterrupt):
        diffuse(folder, labels=labels, n_iter=1, prior="estimate", settings=AGAIN)
    at = None
    record = diffuse(folder, labels=labels, n_iter=1, prior="estimate", settings=AGAIN)
    assert record["resumed"]
    assert calls == [64, 64, 64, 64, 300 - 4 * 64]
    assert {name: Store(folder).array(name).tobytes() for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,frequency\n0,1\n", "has the columns name, frequency; give class,frequency"),
        ("", "has the columns none"),
        ("class,frequency\n0,1\n0,2\n", "line 3: class '0' stands there twice"),
        ("class,frequency\n0,-1\n", "line 2: frequency '-1' is no number above 0"),
        ("class,frequency\n0,many\n", "frequency 'many' is no number"),
        ("class,frequency\n0,nan\n", "frequency 'nan' is no number"),
        ("class,frequency\n0,1,2\n", "line 2 has 3 fields"),
        ("class,frequency\n0,1\n", "has no frequency of class '1'"),
        ('class,frequency\n"0', "is no CSV in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_wrong_prior_is_refused(store, few, tmp_path, text, message):
    file = tmp_path / "prior.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=message):
        diffuse(store.path, labels=few[0], n_iter=1, prior=file)


def test_options_that_contradict_each_other_are_refused(store, few):
    for options, message in [
        ({"prior": "estimate", "normalization": "rows"}, "`prior` is for `normalization` columns or sinkhorn, not rows"),
        ({"prior": "estimate", "prior_power": -1.0}, "`prior_power` is -1.0; give a number of 0 or more"),
        ({"alpha": 0.5, "reset": True}, "`alpha` is for `normalization` columns or none"),
        ({"alpha": 0.5, "solver": "conjugate-gradient", "n_iter": 3}, "has no number of iterations; leave out `n_iter`"),
        ({"solver": "conjugate-gradient"}, "`solver` conjugate-gradient is for `alpha`"),
    ]:
        with pytest.raises(BadInput, match=message):
            diffuse(store.path, labels=few[0], **options)


def test_alpha_by_iteration(store, naive, few):
    labels, seeds, classes = few
    L = naive_zhou(naive.table, None, seeds, classes, 10, 0.8, 3)[-1]
    record = diffuse(store.path, labels=labels, n_iter=3, alpha=0.8, settings=AGAIN)
    expected = naive_query_scores(L / L.sum(axis=0), naive.test_table)
    np.testing.assert_allclose(store.array("diffusion/scores"), expected, rtol=1e-5, atol=1e-9)
    assert record["steps"] == {"dense": 3}
    assert "no skipping" in record["plan"]["work"]
    chosen = diffuse(store.path, labels=labels, alpha=0.8, settings=AGAIN)
    assert chosen["n_iter_chosen_by"] == "cross-validation"
    assert chosen["n_iter"] > 0


def test_alpha_in_closed_form(store, naive, few):
    labels, seeds, classes = few
    L = naive_zhou(naive.table, None, seeds, classes, 10, 0.8)
    options = {"labels": labels, "alpha": 0.8, "solver": "conjugate-gradient", "tolerance": 1e-6}
    planned = diffuse(store.path, **options, settings=Settings(dry_run=True))["plan"]
    record = diffuse(store.path, **options, settings=AGAIN)
    expected = naive_query_scores(L / L.sum(axis=0), naive.test_table)
    np.testing.assert_allclose(store.array("diffusion/scores"), expected, rtol=1e-3, atol=1e-6)
    assert (record["n_iter"], record["n_iter_chosen_by"]) == (0, "closed form")
    assert 0 < record["residual"] <= 1e-6
    assert record["steps"] == {"dense": record["solver_steps"] + 1}
    passes = int(planned["work"].rpartition("at most ")[2].split()[0])
    assert record["steps"]["dense"] < passes / 6 <= 110  # five folds besides
    held_out = store.array("diffusion/held_out")
    assert len(held_out) == 30
    assert store.array("diffusion/held_out_scores").shape == (30, 10)
    fold = store.array("diffusion/folds") == 0
    known = naive_zhou(naive.table, None, seeds[~fold], classes[~fold], 10, 0.8)
    known /= known.sum(axis=0)
    ours = store.array("diffusion/held_out_scores")[: fold.sum()]
    np.testing.assert_allclose(ours, known[seeds[fold]], rtol=1e-3, atol=1e-6)


def test_the_mutual_graph_with_alpha(store, naive, few):
    labels, seeds, classes = few
    graph(store.path, mutual=True, settings=AGAIN)
    for options in ({"n_iter": 3}, {"solver": "conjugate-gradient"}):
        diffuse(store.path, labels=labels, rows="nodes", alpha=0.8, **options, settings=AGAIN)
        L = naive_zhou(naive.table, None, seeds, classes, 10, 0.8, options.get("n_iter"), mutual=True)
        L = L[-1] if "n_iter" in options else L
        np.testing.assert_allclose(store.array("diffusion/scores"), L / L.sum(axis=0), rtol=2e-4)
    assert not np.allclose(L, naive_zhou(naive.table, None, seeds, classes, 10, 0.8), rtol=0.01)
    graph(store.path, settings=AGAIN)


def naive_meaningful(similarities, rate):
    """s (1 - exp(-λ s))^k, a neighbor at a time."""
    weights = np.zeros(similarities.shape)
    for i, row in enumerate(similarities):
        x = [np.sqrt(max(0.0, 2 - 2 * s)) for s in row]
        for place in range(len(row)):
            s = (x[-1] - x[place]) / (x[-1] - x[0])
            weights[i, place] = s * (1 - np.exp(-rate * s)) ** len(row)
    return weights


def test_meaningful_neighbors_equal_the_formula(store, naive):
    record = graph(store.path, weighting="meaningful", rate=4.0, settings=AGAIN)
    expected = naive_w(naive.table, naive_meaningful(store.array("background/similarities")[:, :6].astype(float), 4.0)).toarray()
    found = as_matrix(Graph(store))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    assert record["nnz"] == naive.W.nnz  # the last neighbor weighs 0, and is there
    assert abs(found - naive.W.toarray()).max() > 0.1
    assert store.parameters("graph") == {"k": 6, "weighting": "meaningful", "rate": 4.0}


def test_meaningful_weights_of_equal_distances_and_short_rows():
    squared = np.array([[0, 0, 0, np.nan], [0, 0.25, 1, np.nan], [np.nan] * 4])
    found = _meaningful(squared, 3.0)
    full, half = (1 - np.exp(-3)) ** 4, 0.5 * (1 - np.exp(-1.5)) ** 4
    np.testing.assert_allclose(found, [[full, full, full, np.nan], [full, half, 0, np.nan], [np.nan] * 4])


def test_the_mutual_graph_as_a_stage(store, naive):
    graph(store.path, mutual=True, settings=AGAIN)
    np.testing.assert_allclose(as_matrix(Graph(store)), naive_mutual(naive.table, None)[0], rtol=3e-7)
    assert store.parameters("graph")["mutual"] is True
    graph(store.path, settings=AGAIN)
    assert "mutual" not in store.parameters("graph")
    with pytest.raises(BadInput, match="`rate` is 0.0; give a number above 0"):
        graph(store.path, weighting="meaningful", rate=0.0)
