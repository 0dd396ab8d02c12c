"""The variants of the paper through the command line."""

import json
import shutil

import numpy as np
import pytest

from ooc_diffusion.store import Store

from .helpers import done, read_csv, run


@pytest.fixture
def root(vectors, tmp_path):
    """A copy of the store, 20 labelled images of two classes, and how frequent these are."""
    shutil.copytree(vectors, tmp_path / "s")
    (tmp_path / "few.csv").write_text("row,label\n" + "".join(f"{i},{'ab'[i % 5 == 0]}\n" for i in range(20)))
    (tmp_path / "prior.csv").write_text("class,frequency\na,3\nb,1\n")
    return tmp_path


def diffuse(root, *more):
    words = ["diffuse", "--store", root / "s", "--labels", root / "few.csv", "--overwrite", "--json"]
    return json.loads(done(*words, *more))


def test_diffuse_with_a_prior_and_with_alpha(root):
    diffuse(root, "--n-iter", "2")
    plain = np.array(Store(root / "s").array("diffusion/scores"))
    diffuse(root, "--n-iter", "2", "--prior", root / "prior.csv", "--prior-power", "2")
    np.testing.assert_allclose(Store(root / "s").array("diffusion/scores"), plain * [0.9, 0.1], rtol=1e-6)
    planned = diffuse(root, "--prior", "estimate", "--dry-run")["plan"]
    assert planned["work"].startswith("logistic regression over 60 nodes, then 2 classes")
    diffuse(root, "--n-iter", "2", "--prior", "estimate")
    assert Store(root / "s").array("diffusion/prior").sum() == pytest.approx(1)
    solved = diffuse(root, "--alpha", "0.9", "--solver", "conjugate-gradient", "--tolerance", "1e-4", "--max-steps", "90")
    assert solved["residual"] <= 1e-4
    assert diffuse(root, "--alpha", "0.9")["n_iter_chosen_by"] == "cross-validation"
    shown = done("diffuse", "--store", root / "s", "--labels", root / "few.csv", "--alpha", "0.9")
    assert "done before" in shown


def test_graph_weights_and_mutual_edges(root):
    for words in (["--weighting", "meaningful", "--rate", "5"], ["--mutual"], ["--weighting", "gaussian", "--mutual"]):
        record = json.loads(done("graph", "--store", root / "s", "--overwrite", "--json", *words))
        assert record["nnz"] <= 60 * 10
        assert (record["reciprocal_share"] == 1) == ("--mutual" in words)


def test_cluster(root):
    out = root / "clusters.csv"
    words = ["cluster", "--store", root / "s", "--power", "1.5", "--output", out]
    assert "squares of W" in done(*words, "--dry-run")
    assert not out.exists()
    shown = done(*words)
    labels = Store(root / "s").array("clusters/labels")
    assert shown.startswith(f"cluster: clusters {labels.max() + 1}, cluster steps ")
    rows = read_csv(out)
    assert rows == [{"path": str(i), "cluster": str(number)} for i, number in enumerate(labels)]
    ran = run(*words)
    assert (ran.code, ran.error) == (3, f"error: {out} exists; give another --output, or --overwrite to replace it")
    assert "done before" in done(*words, "--overwrite")
    ran = run(*words, "--overwrite", "--memory-budget", "64MiB")
    assert (ran.code, "stage cluster needs a memory budget of" in ran.error) == (7, True)


def test_classify_by_knn_and_by_logistic_regression_over_the_graph(root):
    diffuse(root, "--n-iter", "2")
    words = ["classify", "--store", root / "s", "--overwrite", "--json"]
    five = json.loads(done(*words, "--method", "knn"))
    votes = np.array(Store(root / "s").array("predictions/labels"))
    json.loads(done(*words, "--method", "knn", "--k", "1000"))
    assert five["method"] == "knn"
    assert (votes != Store(root / "s").array("predictions/labels")).any()
    json.loads(done(*words, "--method", "logistic"))
    plain = Store(root / "s").array("predictions/confidence").tobytes()
    json.loads(done(*words, "--method", "graph-logistic", "--smoothness", "0"))
    assert Store(root / "s").array("predictions/confidence").tobytes() == plain
    json.loads(done(*words, "--method", "graph-logistic", "--smoothness", "2"))
    assert Store(root / "s").array("predictions/confidence").tobytes() != plain


def test_more_voters_than_labelled_images_are_warned_of(root):
    diffuse(root, "--n-iter", "2")
    words = ["classify", "--store", root / "s", "--overwrite", "--method", "knn"]
    for k, told in ((19, ""), (20, "--k is 20, but 20 images are labelled: all of them vote on every image, so that")):
        ran = run(*words, "--k", k, quiet=False)
        assert ran.code == 0
        assert bool(told) == ("labelled" in ran.err)
        assert told in ran.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["classify", "--method", "fusion", "--k", "7"], 2, "--k belongs to --method knn"),
        (["classify", "--smoothness", "1"], 2, "--smoothness belongs to --method graph-logistic"),
        (["diffuse", "--prior-power", "2"], 2, "--prior-power belongs to --prior"),
        (["diffuse", "--solver", "iterate"], 2, "--solver belongs to --alpha"),
        (["diffuse", "--alpha", "0.5", "--max-steps", "9"], 2, "--max-steps belongs to --solver conjugate-gradient"),
        (["graph", "--rate", "9"], 2, "--rate belongs to --weighting meaningful"),
        (["diffuse", "--alpha", "0.5", "--reset"], 3, "--alpha is for --normalization columns or none, without --reset"),
        (["diffuse", "--prior", "no.csv"], 3, "no.csv cannot be read"),
        (["diffuse", "--prior", "estimate", "--normalization", "gamma"], 3, "--prior is for --normalization columns or sinkhorn"),
        (["diffuse", "--solver", "conjugate-gradient", "--alpha", "0.5", "--n-iter", "2"], 3, "has no number of iterations"),
    ],
)
def test_what_does_not_go_together_is_one_line(root, words, code, message):
    if words[0] == "diffuse":
        words = [*words, "--labels", root / "few.csv"]
    elif words[0] == "classify":
        diffuse(root, "--n-iter", "1")
    ran = run(words[0], "--store", root / "s", *words[1:])
    assert ran.code == code
    assert message in ran.error


def test_classes_that_are_not_solved_for_are_one_warning(root):
    words = ["diffuse", "--store", root / "s", "--labels", root / "few.csv", "--overwrite", "--json"]
    ran = run(*words, "--alpha", "0.99", "--solver", "conjugate-gradient", "--max-steps", "2", quiet=False)
    assert json.loads(ran.out)["unsolved_classes"] == 2
    told = [line for line in ran.err.splitlines() if "conjugate gradients" in line]
    assert len(told) == 1
    assert told[0].endswith("above the --tolerance of 1e-05; give more --max-steps, or a smaller --alpha")
