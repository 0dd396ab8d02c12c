"""What `evaluate --protocol paper` and `study` refuse: one line, before any work, with classes by their names."""

import json
import re

import numpy as np
import pytest

from ooc_diffusion.stages import low_shot_logistic

from ..stages.low_shot_chain import SPLIT, clusters, import_clusters
from .helpers import digit_images, done, files_below, run, write_images

BUDGET = ("--memory-budget", "2GiB", "--device", "cpu")
NAMES = ("apple", "fig", "pear", "quince")
TRAIN, TESTS = 12, 4
PARTS = {"base_classes_1": ["fig"], "novel_classes_1": ["pear"], "base_classes_2": ["apple"], "novel_classes_2": ["quince"]}
# of base classes all images are labelled
LABELLED, NODES = TRAIN + 1, 2 * TRAIN


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_shot_logistic, "STEPS", (10,))
        yield


@pytest.fixture(scope="module")
def fruit(tmp_path_factory):
    """A store of digits as images of four named classes, and a split of these; images and vectors are not to be changed."""
    root = tmp_path_factory.mktemp("fruit")
    pictures, truth = digit_images(200)
    for part, rows in (("train", slice(TRAIN)), ("tests", slice(TRAIN, TRAIN + TESTS))):
        places = [(c, i) for c in range(4) for i in np.flatnonzero(truth == c)[rows]]
        names = [f"{NAMES[c]}/{i:03}.png".encode() for c, i in places]
        write_images(root / part, pictures[[i for _, i in places]], names)
        role = "background" if part == "train" else "tests"
        done("extract", root / part, "--store", root / "s", "--role", role, "--model", "pixels", "--class-folders", *BUDGET)
    done("reduce", "--store", root / "s", "--dim", "0", *BUDGET)
    (root / "split.json").write_text(json.dumps(PARTS))
    return root


def evaluate(root, *options, n="1"):
    paper = ("--protocol", "paper", "--split", root / "split.json", "--n-per-class", n, "--draws", "1", "--max-iter", "1")
    return run("evaluate", "--store", root / "s", *paper, *BUDGET, *options)


def study(root, *words, n="1"):
    fixed = ("--split", root / "split.json", "--n-per-class", n, "--draws", "1", "--max-iter", "1", *BUDGET)
    return run("study", *words, "--data", root / "s", *fixed)


def few(k, n, where):
    return f"error: --k is {k}, but with few labels there are {n} images in the graph ({where}); give a --k of at most {n - 1}"


@pytest.mark.parametrize(
    ("setting", "most", "there", "where"),
    [
        ("none", LABELLED - 1, "with few labels there", "n = 1, group 1"),
        ("transductive", LABELLED + 2 * TESTS - 1, "with few labels there", "n = 1, group 1"),
        ("in-domain", NODES - 1, "there", "group 1"),
    ],
)
def test_neighbors_are_fewer_than_the_images_of_the_smallest_graph(fruit, setting, most, there, where):
    before = files_below(fruit / "s")
    for k in (most + 1, 100_000):
        for more in ((), ("--dry-run",)):
            ran = evaluate(fruit, "--setting", setting, "--k", k, *more, n="2,1")
            told = f"but {there} are {most + 1} images in the graph ({where}); give a --k of at most {most}"
            assert (ran.code, ran.error) == (3, f"error: --k is {k}, {told}")
    assert evaluate(fruit, "--setting", setting, "--k", most, "--dry-run", n="2,1").code == 0
    assert files_below(fruit / "s") == before


def test_the_smallest_graph_is_that_of_fewest_labels(fruit):
    """More labels per class make more nodes."""
    assert evaluate(fruit, "--k", LABELLED, n="1,3").error == few(LABELLED, LABELLED, "n = 1, group 1")
    assert evaluate(fruit, "--k", LABELLED + 2, n="3,5").error == few(LABELLED + 2, LABELLED + 2, "n = 3, group 1")
    assert evaluate(fruit, "--k", LABELLED + 1, "--dry-run", n="3,5").code == 0


def test_as_many_neighbors_as_there_may_be_are_run(fruit, tmp_path):
    record = json.loads(evaluate(fruit, "--k", LABELLED - 1, "--json").out)
    assert 0 <= record["accuracy"]["group 2"]["diffusion"]["1"][0][0] <= 1


def test_another_collection_has_as_many_images_as_each_is_to_have_neighbors(fruit):
    before = files_below(fruit / "s")
    others = ("--setting", "out-of-domain", "--background", fruit / "s", "--size", "5")
    for more in ((), ("--dry-run",)):
        ran = evaluate(fruit, *others, "--k", "6", *more)
        told = f"--k is 6, but there are only 5 images of {fruit}/s; give a --k of at most 5"
        assert (ran.code, ran.error) == (3, f"error: {told}")
    assert evaluate(fruit, *others, "--k", "5", "--dry-run").code == 0
    assert files_below(fruit / "s") == before


def test_a_study_refuses_neighbors_before_anything_is_made(fruit, tmp_path):
    out, before = ("--output", tmp_path / "out"), files_below(fruit / "s")
    for names, k, told in (
        (["knn", "table2"], LABELLED, few(LABELLED, LABELLED, "n = 1, group 1")),
        (
            ["smooth"],
            NODES,
            f"error: --k is {NODES}, but there are {NODES} images in the graph (group 1); give a --k of at most {NODES - 1}",
        ),
    ):
        for more in ((), ("--dry-run",)):
            ran = study(fruit, *names, "--k", k, *out, *more)
            assert (ran.code, ran.error) == (3, told)
    for names, k in ((["smooth"], LABELLED), (["figure2"], 100_000)):  # they build no such graph
        assert study(fruit, *names, "--k", k, *out, "--dry-run").code == 0
    assert files_below(fruit / "s") == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--k", "100000"), r"--k is 100000, but with few labels there are 2\d\d images in the graph \(n = 2, group 1\); give a"),
        (
            ("--split", "SPLIT"),
            r"/split.json: 'fig' in base_classes_1 is none of the 10 classes; give numbers from 0 on, or",
        ),
        (("--n-per-class", "9999"), r"a novel class has \d+ training images, less than each of 9999; lower --n-per-class, or "),
    ],
)
def test_a_data_set_is_not_described_for_a_study_that_is_refused(fruit, tmp_path, more, told):
    words = [fruit / "split.json" if word == "SPLIT" else word for word in more]
    ran = run("study", "table1", "--data", "digits", "--output", tmp_path / "out", *words, *BUDGET)
    assert ran.code == 3
    assert re.search(told, ran.error)
    assert not (tmp_path / "out").exists()


def test_a_background_of_a_study_has_more_images_than_each_has_neighbors(fruit, tmp_path):
    others = ("table3", "--output", tmp_path / "out", "--background", fruit / "s")
    for size in ("5", "5,20"):
        ran = study(fruit, *others, "--size", size, "--k", "5")
        assert (ran.code, ran.error) == (3, "error: --size 5 is not above --k = 5; leave it out, or lower --k")
    ran = study(fruit, *others, "--k", 4 * TRAIN)
    told = f"{fruit}/s has {4 * TRAIN} images, not more than --k = {4 * TRAIN}; give a larger collection, or lower --k"
    assert (ran.code, ran.error) == (3, f"error: {told}")
    assert not (tmp_path / "out").exists()


def test_a_study_writes_to_a_folder(fruit, tmp_path):
    (tmp_path / "out").write_text("mine")
    for more in ((), ("--dry-run",)):
        for folder in ("out", "out/deeper/still"):
            ran = study(fruit, "table2", "--k", "3", "--output", tmp_path / folder, *more)
            assert (ran.code, ran.error) == (3, f"error: {tmp_path}/out is a file; give a folder as --output")
    assert (tmp_path / "out").read_text() == "mine"
    ran = study(fruit, "table2", "--k", "3", "--output", "/proc/out")  # where nobody may make one
    assert (ran.code, "/proc" in ran.error) == (8, True)


def test_images_without_classes_are_not_studied(fruit, tmp_path):
    import_clusters(tmp_path)
    for more in ((), ("--dry-run",)):
        ran = run("study", "table2", "--data", tmp_path / "others", "--output", tmp_path / "out", *BUDGET, *more)
        told = f"{tmp_path}/others has no background/truth; extract images with classes, or import them with --truth"
        assert (ran.code, ran.error) == (3, f"error: {told}")
    assert not (tmp_path / "out").exists()


def test_classes_are_told_by_their_names(fruit, tmp_path):
    n = str(TRAIN + 1)
    told = f"class 'pear' has {TRAIN} training images, {n} are to be labelled; lower --n-per-class, or leave the class out of"
    assert evaluate(fruit, "--k", "3", n=f"1,{n}").error == f"error: {told} the split"
    told = f"a novel class has {TRAIN} training images, less than each of {n}; lower --n-per-class, or leave class 'pear' out of"
    assert study(fruit, "table2", "--k", "3", "--output", tmp_path / "out", n=n).error == f"error: {told} the split"
    done("neighbors", "--store", fruit / "s", "--k", "3", *BUDGET)
    done("graph", "--store", fruit / "s", *BUDGET)
    ran = run("evaluate", "--store", fruit / "s", "--n-per-class", n, *BUDGET)
    assert ran.error == f"error: class 'apple' has {TRAIN} images, {n} are to be drawn: lower the number per class"


def test_classes_without_images_are_told(tmp_path):
    """By number, where they have no names."""
    _, truth, _, test_truth, _ = clusters()
    (tmp_path / "split.json").write_text(json.dumps(SPLIT.as_json()))
    import_clusters(tmp_path, test_truth=np.full_like(test_truth, 6))
    told = "no test is of a class of the split (4, 1, 7, ...); give tests of these classes, or split others"
    assert evaluate(tmp_path, "--k", "3").error == f"error: {told}"
    np.save(tmp_path / "x_truth.npy", np.where(truth == 4, 6, truth))
    done("import", tmp_path / "x.npy", "--store", tmp_path / "s", "--truth", tmp_path / "x_truth.npy", "--overwrite", *BUDGET)
    done("reduce", "--store", tmp_path / "s", "--dim", "0", "--overwrite", *BUDGET)
    assert evaluate(tmp_path, "--k", "3").error == "error: class 4 has no training images; leave it out of the split"


def test_without_tests_of_novel_classes_nothing_is_told_of_them(tmp_path):
    truth = clusters()[3].copy()
    for group in SPLIT.groups:
        truth[np.isin(truth, group.novel)] = 6
    import_clusters(tmp_path, test_truth=truth)
    (tmp_path / "split.json").write_text(json.dumps(SPLIT.as_json()))
    words = ("--data", tmp_path / "s", "--split", tmp_path / "split.json", "--output", tmp_path / "out", "--k", "3")
    options = ("--n-per-class", "1", "--draws", "3", "--max-iter", "2", *BUDGET)
    record = json.loads(done("study", "table5", *words, *options, "--json"))
    assert [(claim["verdict"], claim["figures"]) for claim in record["claims"]] == [
        ("cannot be tested here", "no test is of a novel class")
    ]
    assert "nan" not in (tmp_path / "out" / "study.html").read_text()


@pytest.mark.parametrize("n", ["0", "2,0", "1,-3"])
def test_numbers_of_labelled_images_are_above_zero(fruit, tmp_path, n):
    least = n.split(",")[-1]
    for ran in (
        evaluate(fruit, "--k", "3", n=n),
        study(fruit, "table2", "--k", "3", "--output", tmp_path / "out", n=n),
        run("evaluate", "--store", fruit / "s", "--n-per-class", n, *BUDGET),
    ):
        assert (ran.code, ran.error) == (2, f"error: --n-per-class '{n}' has {least} in it; give numbers of 1 or more")


def test_a_budget_that_one_of_the_runs_does_not_fit_is_refused_before_the_first(fruit):
    plans = json.loads(evaluate(fruit, "--k", "3", "--dry-run", "--json").out)["plans"]
    least = {plan["stage"]: plan["least_bytes"] for plan in plans}
    assert max(least.values()) > least["low-shot-logistic"] + 2**21
    before = files_below(fruit / "s")
    ran = evaluate(fruit, "--k", "3", "--seed", "8", "--memory-budget", f"{max(least.values()) // 2**20 - 1}MiB")
    assert (ran.code, "needs a memory budget of" in ran.error) == (7, True)
    assert files_below(fruit / "s") == before
