"""The protocol of the paper from the command line: split, evaluate --protocol paper, study."""

import json
import re
import shlex

import pytest

from ooc_diffusion.evaluation import MEASURES
from ooc_diffusion.stages import low_shot_logistic
from ooc_diffusion.stages.low_shot_diffusion import low_shot
from ooc_diffusion.stages.low_shot_variant import COEFFICIENTS, Variant
from ooc_diffusion.stages.study.claims import RULE

from ..stages.low_shot_chain import QUICK, SPLIT, import_clusters, protocol
from .helpers import digit_images, done, files_below, run, write_images

BUDGET = ("--memory-budget", "2GiB", "--device", "cpu")


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_shot_logistic, "STEPS", (10, 30))
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    import_clusters(root)
    (root / "split.json").write_text(json.dumps(SPLIT.as_json()))
    return root


def evaluate(images, *options, **how):
    paper = ("--protocol", "paper", "--split", images / "split.json", "--k", "3", "--n-per-class", "1,2", "--draws", "2")
    return run("evaluate", "--store", images / "s", *paper, "--max-iter", "2", *BUDGET, *options, **how)


def test_a_split_of_a_data_set_and_of_folders(tmp_path):
    printed = done("split", "digits", "--output", tmp_path / "digits.json", "--seed", "4")
    assert "10 classes: base classes 1 2, novel classes 1 3, base classes 2 2, novel classes 2 3" in printed
    found = json.loads((tmp_path / "digits.json").read_text())
    assert sorted(name for part in found.values() for name in part) == list("0123456789")
    pictures, _ = digit_images(5)
    write_images(tmp_path / "characters", pictures, [b"a/1.png", b"b/c/1.png", b"b/d/1.png", b"e/1.png", b"e/2.png"])
    record = json.loads(done("split", tmp_path / "characters", "--output", tmp_path / "folders.json", "--json"))
    assert record["classes"] == 4
    parts = json.loads((tmp_path / "folders.json").read_text()).values()
    assert sorted(name for part in parts for name in part) == ["a", "b/c", "b/d", "e"]


def test_a_split_replaces_nothing_unasked(tmp_path):
    file = tmp_path / "split.json"
    file.write_text("mine")
    ran = run("split", "digits", "--output", file)
    assert (ran.code, ran.error) == (3, f"error: {file} exists; give another --output, or --overwrite to replace it")
    assert file.read_text() == "mine"
    done("split", "digits", "--output", file, "--overwrite")
    assert file.read_text().startswith("{")
    ran = run("split", "digits", "--output", tmp_path / "none" / "split.json")
    assert (ran.code, ran.error) == (3, f"error: {tmp_path / 'none'} is no folder; make it, or give another --output")


def test_the_table_of_the_protocol_says_what_the_record_says(images):
    ran, printed = evaluate(images, "--setting", "in-domain", "--json"), evaluate(images, "--setting", "in-domain")
    assert (ran.code, ran.err, printed.code) == (0, "", 0)
    record = json.loads(ran.out)
    assert list(record["chosen"]) == ["1", "2"]
    for group, found in record["accuracy"].items():
        for novel, heading in ((0, "all classes"), (2, "novel classes alone")):
            part = printed.out.split(f"{group}, tests of {heading}\n")[1]
            for method, of_n in found.items():
                (line,) = [line for line in part.split("\n\n")[0].splitlines() if line.startswith(method)]
                means = [sum(draw[novel] for draw in of_n[n]) / 2 for n in ("1", "2")]
                assert re.findall(r"(\d+\.\d) ±", line) == [f"{100 * mean:.1f}" for mean in means]
    assert "chosen on group 1 by top1" in printed.out


def test_every_setting_has_a_door(images):
    others = ("--background", images / "others", "--size", "40", "--n-per-class", "1", "--draws", "1")
    for options in (("--setting", "none"), ("--setting", "out-of-domain", *others), ("--setting", "transductive", *others)):
        record = json.loads(evaluate(images, *options, "--json").out)
        assert record["setting"] == options[1]
        assert record["background"] == (None if options[1] == "none" else 40)


FREQUENCIES = {int(c): 1 + int(c) % 4 for group in SPLIT.groups for c in group.classes}


@pytest.mark.parametrize(
    ("options", "variant", "told"),
    [
        (
            ["--weighting", "gaussian", "--sigma", "0.4", "--mutual"],
            {"weights": {"weighting": "gaussian", "sigma": 0.4, "mutual": True}},
            "weighting gaussian, sigma 0.4, mutual yes",
        ),
        (["--weighting", "meaningful", "--rate", "5"], {"weights": {"weighting": "meaningful", "rate": 5}}, None),
        (
            ["--normalization", "gamma", "--power", "1.3", "--reset"],
            {"eta": {"normalization": "gamma", "power": 1.3, "reset": True}},
            "normalization gamma, power 1.3, reset yes",
        ),
        (["--prior", "estimate", "--prior-power", "0.5"], {"prior_power": 0.5}, "prior estimate, prior power 0.5"),
        (["--alpha", "0.8", "--prior", "FILE"], {"eta": {"alpha": 0.8}, "prior_power": 1, "frequencies": FREQUENCIES}, None),
        (
            ["--alpha", "0.9", "--solver", "conjugate-gradient", "--tolerance", "1e-4", "--max-steps", "99"],
            {"eta": {"alpha": 0.9, "solver": "conjugate-gradient", "tolerance": 1e-4, "max_steps": 99}},
            "alpha 0.9, solver conjugate-gradient, tolerance 0.0001, max steps 99",
        ),
    ],
)
def test_a_variant_is_what_it_is_without_the_command(images, tmp_path, options, variant, told):
    (tmp_path / "prior.csv").write_text("class,frequency\n" + "".join(f"{c},{f}\n" for c, f in FREQUENCIES.items()))
    words = [tmp_path / "prior.csv" if word == "FILE" else word for word in options]
    if "--solver" not in options:
        words += ["--max-iter", "2"]
    paper = ("--protocol", "paper", "--split", images / "split.json", "--k", "3", "--n-per-class", "1,2", "--draws", "2")
    command = ("evaluate", "--store", images / "s", "--setting", "in-domain", *paper, *BUDGET, *words)
    record = json.loads(done(*command, "--json"))
    store = import_clusters(tmp_path / "again")[0]
    what = Variant("in-domain", k=3, **{"max_iter": 15 if "--solver" in options else 2, **variant})
    name, direct = low_shot(store, protocol(), what, settings=QUICK)
    curves, fusion = store.arrays(f"{name}/curves", f"{name}/fusion")
    for place, n in enumerate(("1", "2")):
        chosen = direct["chosen"][n]
        assert {key: record["chosen"][n][key] for key in chosen} == chosen
        for group in range(2):
            runs = slice(4 * group + place, 4 * group + 4, 2)
            found = record["accuracy"][f"group {group + 1}"]
            assert found["diffusion"][n] == curves[runs, chosen["n_iter"] or 0].tolist()
            assert found["fusion"][n] == fusion[runs, int(abs(COEFFICIENTS - chosen["coefficient"]).argmin())].tolist()
            assert len(found["diffusion"][n][0]) == len(MEASURES)
    if told is not None:
        printed = done(*command)
        assert f"variant: {told}\n" in printed
        assert ("limit" in printed) == ("--solver" in options)


def test_draws_are_written_for_diffuse(images, tmp_path):
    printed = evaluate(images, "--draws-to", tmp_path / "draws").out
    assert f"labelled images: {tmp_path / 'draws'}\n" in printed
    assert len(list((tmp_path / "draws").iterdir())) == 8
    again = evaluate(images, "--draws-to", tmp_path / "draws")
    assert (again.code, again.err) == (0, "")
    assert f"labelled images: {tmp_path / 'draws'}\n" in again.out
    others = ("--draws-to", tmp_path / "draws", "--seed", "1")
    before = files_below(tmp_path / "draws")
    for dry in ((), ("--dry-run",)):
        ran = evaluate(images, *others, *dry)
        told = f"error: {tmp_path}/draws is not empty; give another --draws-to, or --overwrite to replace the draws in it"
        assert (ran.code, ran.error) == (3, f"{told} (group-1-draw-1-n-1.csv is not of this run)")
    assert files_below(tmp_path / "draws") == before
    assert evaluate(images, *others, "--overwrite").code == 0
    assert files_below(tmp_path / "draws") != before


def test_a_dry_run_plans_and_writes_nothing(images):
    before = (images / "s" / "manifest.json").read_bytes()
    ran = evaluate(images, "--seed", "5", "--dry-run", "--json")
    assert [plan["stage"] for plan in json.loads(ran.out)["plans"]] == ["low-shot-logistic", "low-shot", "low-shot-knn"]
    assert (images / "s" / "manifest.json").read_bytes() == before


def test_the_progress_of_the_protocol_says_which_run_of_all_in_words(images):
    """And dry runs before and after say how many there are, and how long they take once that is known."""
    command = ("--seed", "6", "--setting", "in-domain")
    untold = evaluate(images, *command, "--dry-run").out.splitlines()[-1]
    assert untold.endswith("; 3 runs; the time left is shown once some are done")

    def told(*command):
        ran = evaluate(images, *command, quiet=False)
        assert ran.code == 0
        return re.sub(r", about [^:]+ left:", ", with time:", ran.err).splitlines()

    drawn = "(2 groups, 2 draws, n = 1, 2)"
    assert told(*command) == [
        f"run 1 of 3: logistic regression {drawn}: 40 trainings",
        f"run 2 of 3, with time: diffusion and fusion, in-domain, k = 3 {drawn}: 8 diffusions",
        f"run 3 of 3, with time: kNN classifier {drawn}: 8 searches",
    ]
    assert told(*command) == []
    assert evaluate(images, *command, "--dry-run").out.splitlines()[-1].endswith("; 3 runs, 3 of them done before")
    other = ("--seed", "6", "--setting", "out-of-domain", "--background", images / "others", "--mutual", "--size", "30")
    some = evaluate(images, *other, "--dry-run").out.splitlines()[-1]
    assert re.search(r"; 3 runs, 2 of them done before, about .* for the other at their pace$", some)
    assert told(*other) == [
        f"run 3 of 3, with time: diffusion and fusion, 30 other images, k = 3, mutual {drawn}: 8 diffusions",
        "run 3 of 3, with time: neighbors among 30 other images: 30 searches",
    ]


def test_a_budget_that_is_too_small_for_any_run_is_refused_before_the_first(images):
    command = ("--seed", "8", "--setting", "in-domain")
    plans = json.loads(evaluate(images, *command, "--dry-run", "--json").out)["plans"]
    *_, second, least = sorted(plan["least_bytes"] for plan in plans)
    assert least - second > 2**26
    before = (images / "s" / "manifest.json").read_bytes()
    ran = evaluate(images, *command, "--memory-budget", f"{(second + least) // 2**21}MiB")
    assert (ran.code, "needs a memory budget of" in ran.error) == (7, True)
    assert (images / "s" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (2, ("--protocol", "paper"), "protocol paper needs --split FILE"),
        (2, ("--k", "5"), "--k is for --protocol paper"),
        (2, ("--protocol", "paper", "--split", "SPLIT", "--precision", "bfloat16"), "--precision is not for --protocol paper"),
        (3, ("--protocol", "paper", "--split", "none.json"), "none.json cannot be read"),
        (
            3,
            ("--protocol", "paper", "--split", "SPLIT", "--size", "4"),
            "--size is a number of images of a --background; give that as well",
        ),
        (
            3,
            ("--protocol", "paper", "--split", "SPLIT", "--setting", "out-of-domain"),
            "--setting out-of-domain goes with a --background",
        ),
        (2, ("--prior-power", "2"), "--prior-power is for --protocol paper; give both, or neither"),
        (2, ("--draws-to", "x"), "--draws-to is for --protocol paper; give both, or neither"),
        (2, ("--protocol", "paper", "--split", "SPLIT", "--sigma", "1"), "--sigma belongs to --weighting gaussian"),
        (2, ("--protocol", "paper", "--split", "SPLIT", "--prior-power", "1"), "--prior-power belongs to --prior"),
        (
            2,
            ("--protocol", "paper", "--split", "SPLIT", "--alpha", "0.5", "--solver", "conjugate-gradient", "--max-iter", "3"),
            "--max-iter belongs to --solver iterate",
        ),
        (
            3,
            ("--protocol", "paper", "--split", "SPLIT", "--alpha", "0.5", "--reset"),
            "--alpha is for --normalization columns or none, without --reset",
        ),
        (
            3,
            ("--protocol", "paper", "--split", "SPLIT", "--prior", "estimate", "--normalization", "rows"),
            "--prior is for --normalization columns or sinkhorn, not rows",
        ),
        (3, ("--protocol", "paper", "--split", "SPLIT", "--prior", "no.csv"), "no.csv cannot be read"),
    ],
)
def test_options_that_do_not_go_together(images, code, options, message):
    words = [images / "split.json" if word == "SPLIT" else word for word in options]
    ran = run("evaluate", "--store", images / "s", "--n-per-class", "1", *words, *BUDGET)
    assert ran.code == code
    assert message in ran.error


def test_a_study_prints_its_tables_and_writes_its_page(images, tmp_path):
    command = ["study", "knn", "table2", "--data", images / "s", "--output", tmp_path / "out", "--k", "3"]
    options = ["--split", images / "split.json", "--n-per-class", "1,2", "--draws", "1", "--max-iter", "2", *BUDGET]
    printed = done(*command, *options)
    assert "The kNN classifier" in printed
    assert "Table 2: in-domain diffusion" in printed
    assert f"report: {tmp_path / 'out' / 'study.html'}" in printed
    record = json.loads(done(*command, *options, "--json"))
    assert record["tables"][0] in printed
    assert record["rule"] == RULE
    assert f"\n{RULE}\n" in printed
    assert {claim["verdict"] for claim in record["claims"]} <= {"holds here", "does not hold here", "cannot be tested here"}


def test_a_dry_run_of_a_study_shows_each_kind_of_run_even_where_it_does_not_fit(images, tmp_path):
    command = ["study", "table1", "knn", "--data", images / "s", "--output", tmp_path / "out", "--k", "3", "--dry-run"]
    fits = done(*command, "--split", images / "split.json", *BUDGET).splitlines()
    ran = run(*command, "--split", images / "split.json", "--memory-budget", "100MiB", "--device", "cpu")
    shown = [[line.split("  ")[0] for line in lines[:-1] if "run" in line] for lines in (fits, ran.out.splitlines())]
    assert shown[0] == shown[1]
    assert re.search(r"; \d+ runs; the time left is shown once some are done$", fits[-1])
    assert {"η over all columns", "Zhou et al., limit", "kNN classifier", "logistic regression"} < set(shown[0])
    assert re.fullmatch(r"error: this does not fit the budget of 100 MiB; give --memory-budget \d+MiB or more", ran.error)
    assert ran.code == 7
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_all_with_a_data_set_as_background(tmp_path):
    """Also of priors, which read descriptors that are not there yet."""
    command = ["study", "all", "--data", "digits", "--background", "digits", "--size", "300", "--output", tmp_path / "out"]
    shown = done(*command, "--k", "5", "--draws", "2", "--dry-run", *BUDGET)
    assert {"η with a prior", "tests in the graph"} < {line.split("  ")[0] for line in shown.splitlines()}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--setting", "out-of-domain"], "none holds no store; give that of another collection as --background"),
        (
            ["--setting", "in-domain"],
            "a --background goes with --setting out-of-domain or transductive, not with in-domain; leave out",
        ),
    ],
)
def test_a_background_that_is_none(images, more, message):
    ran = evaluate(images, "--background", images / "none", *more)
    assert message in ran.error


def test_sizes_are_those_of_a_background(tmp_path):
    ran = run("study", "table3", "--data", "digits", "--size", "40", "--output", tmp_path / "out")
    assert ran.error.startswith("error: --size is a number of images of a --background; give that as well")
    assert not (tmp_path / "out").exists()


def test_sizes_of_growing_backgrounds_are_a_list(images, tmp_path):
    command = ["study", "table3", "--data", images / "s", "--background", images / "others", "--output", tmp_path / "out"]
    options = ["--split", images / "split.json", "--k", "3", "--n-per-class", "1", "--draws", "1", "--max-iter", "2", *BUDGET]
    printed = done(*command, *options, "--size", "40,20")
    assert re.findall(r"^other (\d+)  ", printed, re.MULTILINE) == ["20", "40"]
    ran = run(*command, *options, "--size", "20,many")
    assert (ran.code, ran.error) == (2, "error: --size '20,many' is no list of numbers such as 1,2,5")
    ran = run(*command, *options, "--size", "2,20")
    assert (ran.code, ran.error) == (3, "error: --size 2 is not above --k = 3; leave it out, or lower --k")


def test_a_store_without_tests_is_measured_once_a_study_has_halved_it(images, tmp_path):
    done("import", images / "x.npy", "--truth", images / "x_truth.npy", "--store", tmp_path / "alone", *BUDGET)
    done("reduce", "--store", tmp_path / "alone", "--dim", "0", *BUDGET)
    options = ("--protocol", "paper", "--k", "3", "--n-per-class", "1", "--draws", "1", "--max-iter", "2", *BUDGET)
    ran = run("evaluate", "--store", tmp_path / "alone", "--split", images / "split.json", *options)
    halved = f"ooc-diffusion study knn --data {tmp_path}/alone --output DIR"
    assert (ran.code, ran.error) == (
        3,
        f"error: {tmp_path}/alone has no tests with vectors; extract (or import) them with --role tests, then reduce; or "
        f"`{halved}` halves them, into DIR/images.store",
    )
    study = shlex.split(halved.replace("DIR", str(tmp_path / "out")))[1:]
    done(*study, "--k", "3", "--n-per-class", "1", "--draws", "1", "--max-iter", "2", *BUDGET)
    made = ("--store", tmp_path / "out" / "images.store", "--split", tmp_path / "out" / "split-0.json")
    record = json.loads(done("evaluate", *made, *options, "--json"))
    assert list(record["accuracy"]) == ["group 1", "group 2"]


def test_a_folder_without_folders_cannot_be_split(tmp_path):
    write_images(tmp_path / "images", digit_images(2)[0], [b"a.png", b"b.png"])
    ran = run("split", tmp_path / "images", "--output", tmp_path / "split.json")
    assert ran.code == 3
    told = "has no folders with images; give a folder with a folder for each class, four at least"
    assert ran.error == f"error: {tmp_path}/images {told}"
    assert not (tmp_path / "split.json").exists()


def test_a_study_that_there_is_not(tmp_path):
    words = ["--data", "digits", "--output", tmp_path / "out"]
    ran = run("study", "tabel2", *words)
    assert ran.code == 2
    assert ran.error.startswith("error: there is no study 'tabel2'; did you mean table2")
    ran = run("study", "xyz", *words)
    assert (ran.code, "there is no study 'xyz'; give some of table1, table2" in ran.error) == (2, True)
    assert not (tmp_path / "out").exists()


def test_data_of_a_study_that_are_none(tmp_path):
    words = ["study", "table2", "--output", tmp_path / "out"]
    for options, told in (
        (["--data", tmp_path / "omniglot.stor"], f"there is no file or folder {tmp_path}/omniglot.stor; check the path"),
        (["--data", "omniglot.stor"], "there is no file or folder omniglot.stor; check the path"),
        (["--data", tmp_path], f"{tmp_path} holds no store; extract its images into one, and give that as --data"),
        (["--data", "digits", "--background", "./others"], "there is no file or folder ./others; check the path"),
    ):
        for more in ([], ["--dry-run"]):
            ran = run(*words, *options, *more)
            assert (ran.code, ran.error) == (3, f"error: {told}")
    assert not (tmp_path / "out").exists()
