"""The study end to end, on clusters and on digits."""

import contextlib
import csv
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import MEASURES, Split
from ooc_diffusion.report import HOLDS, UNTESTED, chapter_csv, chapter_of
from ooc_diffusion.report.plots import chart_svg, standalone
from ooc_diffusion.stages import low_shot_background
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.low_shot_background import open_background
from ooc_diffusion.stages.low_shot_variant import Variant
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.study import CHAPTERS, api, runs, study
from ooc_diffusion.stages.study.claims import RULE
from ooc_diffusion.stages.study.data import description
from ooc_diffusion.stages.study.runs import Place, Runs
from ooc_diffusion.stages.temporary_graphs import GraphKeeper
from ooc_diffusion.store import Store

from ...report.samples import parse
from ..low_shot_chain import import_clusters, protocol
from .conftest import OPTIONS, QUICK


def test_each_chapter_has_its_files_and_its_part_of_the_page(whole):
    root, record = whole.root, whole.record
    names = {path.name for path in (root / "out").iterdir()}
    page = parse((root / "out" / "study.html").read_text(encoding="utf-8"))
    for name in CHAPTERS:
        assert {f"{name}.json", f"{name}.csv"} <= names
        chapter = json.loads((root / "out" / f"{name}.json").read_text())
        assert chapter["grids"]
        assert sum(file.startswith(f"{name}-") and file.endswith(".svg") for file in names) == len(chapter["charts"])
        section = page.one("section", id=name)
        assert len(section.find("svg")) == len(chapter["charts"])
        assert len(section.find("table", cls="grid")) == len(chapter["grids"]) + len(chapter["paper"])
        assert [row.children[0].text.split(" ", 1)[1] for row in _claim_rows(section)] == [
            c["verdict"] for c in chapter["claims"]
        ]
    assert len(record["claims"]) > 20
    summary = page.one("section", id="summary").text
    assert all(" ".join(claim["text"].split()) in summary for claim in record["claims"])
    assert RULE in " ".join(summary.split())
    told = [claim["text"] for claim in record["claims"] if claim["verdict"] != UNTESTED]
    assert set(told) <= {"Diffusion takes less time than completing the graph."}  # one draw tells nothing else
    assert page.find("script") == []
    assert "http://" not in (root / "out" / "study.html").read_text(encoding="utf-8")


def test_claims_are_in_text_and_csv_with_their_rules(whole):
    with (whole.out / "table5.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["source"] == "claim"]
    (claim,) = [claim for claim in whole.record["claims"] if claim["text"] == row["row"]]
    assert (row["column"], row["text"]) == (claim["verdict"], f"{claim['figures']}; holds where {claim['rule']}")
    printed = [text for text in whole.record["tables"] if claim["text"] in text]
    assert len(printed) == 1
    assert claim["figures"] in printed[0]
    assert claim["rule"] in printed[0]


def test_where_accuracies_beside_each_other_are_of_two_kinds_it_says_so_and_why(whole):
    """The groups have 2 + 4 classes."""
    told = (
        "Accuracy is top-1 here and top-5 in the paper: group 1 has 6 classes here, and with fewer than 20 the five best hold "
        "the true one too often to tell methods apart."
    )
    split = json.loads(whole.split.read_text())
    assert len(split["base_classes_1"]) + len(split["novel_classes_1"]) == 6
    page = parse((whole.out / "study.html").read_text(encoding="utf-8"))
    texts = dict(zip(CHAPTERS, whole.record["tables"], strict=True))
    for name, text in texts.items():
        beside = "In the paper: top-5 accuracy in %" in text
        assert beside == (name in ("table1", "table2", "table3", "table5", "knn", "transductive"))
        for shown in (text, page.one("section", id=name).text):
            assert (told in " ".join(shown.split())) == beside


def _claim_rows(section):
    return [row for table in section.find("table", cls="claims") for row in table.one("tbody").find("tr")]


def test_cells_are_the_accuracies_of_the_runs(whole):
    root, store = whole.root, whole.store
    with (root / "out" / "table2.csv").open() as file:
        cells = {(row["row"], row["column"]): row for row in csv.DictReader(file) if row["source"] == "here"}
    stages = {name: made for name, made in store.manifest.stages.items() if name.startswith("low-shot-in-domain")}
    (name,) = [
        name
        for name, made in stages.items()
        if made["parameters"]["fusion"] and made["parameters"]["groups"] == [1, 2] and not made["parameters"]["transductive"]
    ]
    curves, chosen = store.array(f"{name}/curves"), stages[name]["record"]["chosen"]
    for place, n in enumerate((1, 2)):
        value = curves[2 + place, chosen[str(n)]["n_iter"], MEASURES.index("top1")]
        assert float(cells["in-domain", f"n = {n}"]["mean"]) == value
    assert ("in-domain", "n = 50") not in cells


def test_the_same_seed_gives_the_same_figures_but_for_the_times(whole, tmp_path):
    root = whole.root
    store, others = import_clusters(tmp_path / "images")
    names = ["table3", "table4", "knn"]
    study(names, data=str(store.path), background=str(others.path), output=tmp_path / "out", **OPTIONS)
    for name in names:
        same = (tmp_path / "out" / f"{name}.csv").read_text() == (root / "out" / f"{name}.csv").read_text()
        assert same == (name != "table4")


def test_what_was_run_is_not_run_again(whole, monkeypatch):
    root, store, first = whole.root, whole.store, whole.record
    generation = Store(store.path).manifest.generation
    others = root / "images" / "others"
    again = study(["table5"], data=str(store.path), background=str(others), output=root / "out", **OPTIONS)
    assert Store(store.path).manifest.generation == generation
    assert again["tables"][0] in first["tables"]


def rows_of(folder, name, table=0, part="grids"):
    """A table of a chapter: cells by row and column."""
    grid = json.loads((folder / f"{name}.json").read_text())[part][table]
    return {row: dict(zip(grid["columns"][1:], cells, strict=True)) for row, cells in grid["rows"]}


def seconds(cell):
    number, unit = cell.split()
    assert unit == "s"
    return float(number.replace(",", ""))


def test_table4_has_the_seconds_of_each_block_and_says_whose_they_are(whole, tmp_path):
    rows, store = rows_of(whole.out, "table4"), whole.store
    found = {}
    for made in store.manifest.stages.values():
        what = made["parameters"]
        if what.get("fusion") and what["groups"] == [1, 2] and not what["transductive"]:
            background = what["background"]
            found[f"other {background['n']}" if background else what["setting"]] = made["record"]
    assert set(found) == {"none", "other 15", "other 60", "in-domain"} == set(rows["measured"])
    for name, record in found.items():
        blocks = record["block_seconds"]
        expected = {row: blocks.get(row) for row in ("W_BB", "W_LL", "W_LB", "W_BL", "tests", "merge", "building W", "the rest")}
        expected["completion: W_LL + W_LB + W_BL"] = sum(blocks.get(block, 0) for block in ("W_LL", "W_LB", "W_BL"))
        for n in (1, 2):
            assert rows[f"best iteration, n = {n}"][name] == str(record["chosen"][str(n)]["n_iter"])
            expected[f"diffusion with the best iteration, n = {n}"] = record["diffusion_seconds"][str(n)]
        for row, value in expected.items():
            cell = rows[row][name]
            assert (cell is None) if value is None else (seconds(cell) == pytest.approx(value, abs=0.0006, rel=0.05))
        assert (rows["W_BL"][name] is None) == (name in ("none", "in-domain"))
    assert set(rows["measured"].values()) == {"by this run"}
    trained = [made["record"] for name, made in store.manifest.stages.items() if name.startswith("low-shot-logistic")]
    (trained,) = [record["training_seconds"] for record in trained if record["sizes"] == [1, 2]]
    assert seconds(rows["logistic regression, n = 2"]["none"]) == pytest.approx(trained["2"], abs=0.0006, rel=0.05)
    again = tmp_path / "out"
    study(["table4"], data=str(store.path), background=str(whole.others.path), split=str(whole.split), output=again, **OPTIONS)
    assert rows_of(again, "table4") == {**rows, "measured": dict.fromkeys(found, "by an earlier run")}
    page = parse((again / "study.html").read_text(encoding="utf-8")).text
    assert "by an earlier run" in page
    assert "nan" not in page
    beside = rows_of(whole.out, "table4", part="paper")
    assert [beside[row]["F100M"] for row in ("W_LL", "W_LB", "W_BL")] == ["32.0 s", "2,848 s", "12,003 s"]
    assert beside["completion: W_LL + W_LB + W_BL"]["none"] == "177 s"
    assert beside["diffusion"]["F1M"] == "19.0 s"


def test_table2_has_the_settings_of_logistic_regression(whole):
    (record,) = [
        made["record"]
        for name, made in whole.store.manifest.stages.items()
        if name.startswith("low-shot-logistic") and made["record"]["sizes"] == [1, 2]
    ]
    rows = rows_of(whole.out, "table2", 1)
    for row, key in (
        ("learning rate, of 0.1, 1", "learning_rate"),
        ("weight decay, of 0, 0.01", "weight_decay"),
        ("batch size, of 16, 128", "batch_size"),
        ("steps, of 10, 30", "n_steps"),
    ):
        assert {column: float(cell) for column, cell in rows.pop(row).items()} == {
            f"n = {n}": record["chosen"][str(n)][key] for n in (1, 2)
        }
    assert rows == {}
    assert rows_of(whole.out, "table2", 1, "paper")["steps"]["n = 5"] == "70500"
    assert rows_of(whole.out, "table2", 0, "paper")["logistic"]["n = 10"] == [0.834, 0.0016]


def test_digits_from_their_pixels(tmp_path):
    record = study(
        ["table2", "knn"], data="digits", output=tmp_path / "out", **{**OPTIONS, "n_per_class": (2,), "k": 10, "draws": 4}
    )
    assert record["measure"] == "top1"
    claims = {claim["text"]: claim["verdict"] for claim in record["claims"]}
    assert claims["In-domain images help diffusion at every n."] == HOLDS
    assert UNTESTED in claims.values()
    assert "none" in record["tables"][0]


def test_the_page_has_the_chapters_of_earlier_calls_with_the_same_parameters(whole, tmp_path, caplog):
    options = {"data": str(whole.store.path), "background": str(whole.others.path), **OPTIONS}
    apart, page = tmp_path / "apart", tmp_path / "apart" / "study.html"
    for name in ("knn", "table2"):
        made = study([name], output=apart, command=f"study {name}", **options)
        assert (made["report"], len(made["tables"])) == (str(page), 1)
    assert caplog.messages == []
    sections = [section.attributes["id"] for section in parse(page.read_text(encoding="utf-8")).find("section")]
    assert sections == ["summary", "table2", "knn", "about"]
    study(["knn", "table2"], output=tmp_path / "together", command="study table2\nstudy knn", **options)
    assert page.read_bytes() == (tmp_path / "together" / "study.html").read_bytes()
    kept = (apart / "table2.json").read_bytes()
    (apart / "smooth.json").write_text("[1, ")
    study(["knn"], output=apart, **{**options, "max_iter": 2})  # no run depends on it, but the figures of others would
    sections = [section.attributes["id"] for section in parse(page.read_text(encoding="utf-8")).find("section")]
    assert sections == ["summary", "knn", "about"]
    (told,) = [message for message in caplog.messages if "not on the page" in message]
    assert told.startswith(f"table2, smooth in {apart}: made with other options or from other images")
    assert (apart / "table2.json").read_bytes() == kept
    runs = [json.loads((apart / f"{name}.json").read_text())["run"] for name in ("table2", "knn")]
    assert {key for key in runs[0] if runs[0][key] != runs[1][key]} == {"max_iter"}


@pytest.mark.parametrize(
    "other", ["images", "collection", "size", "sizes", "seed", "draws", "n_per_class", "k", "split", "rules"]
)
def test_figures_of_other_images_or_parameters_are_told_apart(whole, tmp_path, monkeypatch, other):
    def parameters(**options):
        given = {"k": 3, "max_iter": 3, "wanted": (), "background": whole.others, "store": whole.store, **options}
        return Runs(**given, settings=QUICK, keeper=GraphKeeper()).parameters

    what = protocol()
    plain = parameters(protocol=what)
    assert plain == json.loads(json.dumps(parameters(protocol=protocol())))
    changed = {
        "seed": lambda: {"protocol": replace(what, seed=1)},
        "draws": lambda: {"protocol": replace(what, draws=3)},
        "n_per_class": lambda: {"protocol": replace(what, n_per_class=(1,))},
        "split": lambda: {"protocol": replace(what, split=Split(what.split.groups[::-1]))},
        "k": lambda: {"k": 4},
        "size": lambda: {"wanted": (40,)},
        "sizes": lambda: {"wanted": (40, 60)},
        "collection": lambda: {"background": None},
        "images": lambda: {"store": import_clusters(tmp_path / "images", seed=1)[0]},
        "rules": lambda: monkeypatch.setattr(runs, "rules", lambda: "others") or {},
    }[other]()
    assert parameters(**{"protocol": what, **changed}) != plain


def test_chapters_come_back_from_their_files_as_they_were(whole):
    beside = ("run", "neighbors", "command")
    for name in CHAPTERS:
        values = json.loads((whole.out / f"{name}.json").read_text(encoding="utf-8"))
        chapter = chapter_of(values)
        assert json.loads(json.dumps(asdict(chapter))) == {key: values[key] for key in values if key not in beside}
        assert chapter_csv(chapter) == (whole.out / f"{name}.csv").read_text(encoding="utf-8")
        for number, chart in enumerate(chapter.charts, start=1):
            svg = standalone(chart_svg(chart, prefix=f"{name}-{number}-"))
            assert svg == (whole.out / f"{name}-{number}.svg").read_text(encoding="utf-8")


def test_the_progress_says_which_run_of_all_for_which_chapter_and_what_is_run(tmp_path, monkeypatch):
    store, others = import_clusters(tmp_path / "images")
    bars, done, timed, places = [], [], [], []

    @contextlib.contextmanager
    def progress(stage, total, unit):
        told = [0]
        yield told.append
        timed.append(" left: " in stage)
        bars.append((re.sub(r", about [^:]+ left:", ":", stage), total, unit))
        done.append(sum(told))

    def run(*names):
        bars.clear()
        monkeypatch.setattr(api, "Place", lambda **given: places.append(Place(**given)) or places[-1])
        what = {**OPTIONS, "n_per_class": (1, 2), "settings": replace(QUICK, progress=progress)}
        study(names, data=str(store.path), background=str(others.path), output=tmp_path / "out", **what)
        assert done[-len(bars) :] == [total for _, total, _ in bars]
        return places[-1].course

    course = run("knn", "figure2")
    assert timed[0] is False
    assert all(timed[2:])  # the first is but a small part
    both, first = "(2 groups, 1 draw, n = 1, 2)", "(group 1, 1 draw, n = 2)"
    expected = [
        ("run 1 of 11: knn: kNN classifier", both, 4, "searches"),
        ("run 2 of 11: knn: logistic regression", both, 20, "trainings"),
        ("run 3 of 11: knn: diffusion and fusion, no background, k = 3", both, 4, "diffusions"),
    ]
    over = ("no background", "15 other images", "60 other images", "in-domain")
    swept = [f"figure2: diffusion, {name}, k = {k}" for name in over for k in (2, 3)]
    expected += [(f"run {i} of 11: {what}", first, 1, "diffusions") for i, what in enumerate(swept, start=4)]
    within = [("run 6 of 11: figure2: neighbors among 15 other images", 15, "searches")]
    within += [("run 8 of 11: figure2: neighbors among 60 other images", 60, "searches")]
    assert [bar for bar in bars if bar not in within] == [(f"{what} {drawn}", *more) for what, drawn, *more in expected]
    assert sorted(bar for bar in bars if bar in within) == sorted(within)
    assert (course.runs, course.before, course.ended) == (11, 0, 11)
    assert course.seconds_left == pytest.approx(0, abs=1e-9)
    # what was done before counts as done, wherever it is asked for
    course = run("smooth", "knn")
    assert bars == [
        (f"run 4 of 5: smooth: logistic regression {first}", 9, "trainings"),
        (f"run 5 of 5: smooth: logistic regression, smooth over the graph {first}", 4, "trainings"),
    ]
    assert (course.runs, course.before, course.ended) == (5, 3, 5)


def test_runs_are_told_in_words(whole):
    other = open_background(whole.store, whole.others.path, size=20)
    for variant, background, told in (
        (Variant("in-domain", k=5), None, "in-domain, k = 5"),
        (Variant("out-of-domain", True, k=30), other, "20 other images, k = 30, tests in the graph"),
        (Variant(weights={"weighting": "gaussian", "sigma": 0.35}), None, "no background, k = 30, gaussian, sigma 0.35"),
        (
            Variant(weights={"mutual": True}, eta={"normalization": "gamma", "power": 2.0}),
            None,
            "no background, k = 30, mutual, η gamma, power 2",
        ),
        (Variant(prior_power=0.0), None, "no background, k = 30, prior power 0"),
    ):
        assert variant.told(background) == told


def test_without_another_collection_its_claims_cannot_be_tested(whole, tmp_path):
    store = whole.store
    record = study(["table3"], data=str(store.path), output=tmp_path / "out", **OPTIONS)
    assert [claim["verdict"] for claim in record["claims"]] == [UNTESTED, UNTESTED]


def test_a_background_without_descriptors_leaves_out_the_prior_alone(whole, tmp_path):
    """As the collection of the paper, which is published as reduced vectors; nothing estimates a prior from these."""
    store, others = import_clusters(tmp_path / "images")
    reduce(store.path, dim=5, settings=replace(QUICK, overwrite=True))
    bare = np.ascontiguousarray(np.array(others.array("background/descriptors"))[:, :5])
    np.save(tmp_path / "bare.npy", bare)
    import_descriptors(tmp_path / "bare.npy", store=tmp_path / "bare", settings=QUICK)
    reduce(tmp_path / "bare", dim=0, settings=QUICK)
    made = study(
        ["table1", "figure5"], data=str(store.path), background=str(tmp_path / "bare"), output=tmp_path / "out", **OPTIONS
    )
    with (tmp_path / "out" / "table1.csv").open() as file:
        cells = [row for row in csv.DictReader(file) if row["source"] == "here" and row["table"] != "Best parameters"]
    assert {(row["row"], row["column"]) for row in cells if row["text"] == "–"} == {("η columns, prior", "other 60")}
    (claim,) = [claim for claim in made["claims"] if claim["text"].startswith("A prior estimated")]
    # judged by the others alone
    assert re.findall(r"(none|in-domain|other 60): \d", claim["figures"]) == ["none", "in-domain"]
    assert "other 60: not run, its images have no descriptors" in claim["figures"]
    lines = {
        chart["title"]: [line["name"] for line in chart["lines"]]
        for chart in json.loads((tmp_path / "out" / "figure5.json").read_text())["charts"]
    }
    assert lines.pop("power of η columns, prior") == ["none", "in-domain"]
    assert {"α of Zhou et al.", "α of Zhou et al., limit (CG)"} < set(lines)
    assert {tuple(names) for names in lines.values()} == {("none", "other 60", "in-domain")}


def bare_collection(others, folder):
    """The other collection as the paper's is published: vectors alone."""
    np.save(folder / "bare.npy", np.array(others.array("background/descriptors")))
    import_descriptors(folder / "bare.npy", store=folder / "bare", settings=QUICK)
    reduce(folder / "bare", dim=0, settings=QUICK)
    return Store(folder / "bare")


def test_backgrounds_have_the_sizes_that_are_asked_for_and_the_largest_its_own_neighbors(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(low_shot_background, "_ALIKE", ("background/vectors",))
    bare = bare_collection(whole.others, tmp_path)
    neighbors(bare, k=OPTIONS["k"], settings=QUICK)
    options = {"data": str(whole.store.path), "background": str(bare.path), "output": tmp_path / "out", **OPTIONS}
    options["n_per_class"] = (1,)
    made = study(["table3"], size=[60, 20, 10], **options)
    with (tmp_path / "out" / "table3.csv").open() as file:
        columns = [row["row"] for row in csv.DictReader(file) if row["source"] == "here"]
    assert list(dict.fromkeys(columns))[1:4] == ["other 10", "other 20", "other 60"]
    assert made["neighbors"] == [
        "other 10: 3 neighbors, searched here by default, exact",
        "other 20: 3 neighbors, searched here by default, exact",
        "other 60: 3 neighbors, those it has, exact",
    ]
    study(["knn"], size=[10, 20, 60], **options)  # a call that needs no background tells those of the other chapters
    assert "; ".join(made["neighbors"]) in " ".join(parse((tmp_path / "out" / "study.html").read_text()).text.split())
    for size, message in (
        ([3, 60], "`size` 3 is not above `k` = 3; leave it out, or lower `k`"),
        ([20, 61], "`size` is 61, but .* has 60 images; give from 1 to 60"),
    ):
        with pytest.raises(BadInput, match=message):
            study(["knn"], size=size, **options)
    options["settings"] = replace(QUICK, dry_run=True)
    given, shares = (
        {plan["stage"]: plan for plan in study(["table3"], size=size, **options)["plans"]} for size in ([10, 20], 20)
    )
    assert given["diffusion and fusion"]["work"] == shares["diffusion and fusion"]["work"]  # that of the largest
    assert given["diffusion and fusion"]["work"].startswith("3 runs")
    for kind in ("disk_bytes", "scratch_bytes"):
        assert given["graphs"][kind] > shares["graphs"][kind] > 0  # 10 images in place of 5


def test_a_store_without_tests_is_halved_class_by_class(tmp_path, caplog):
    store, _ = import_clusters(tmp_path / "images")
    alone = Store(tmp_path / "alone", create=True)
    X, truth = store.array("background/descriptors"), store.array("background/truth")
    described = {"model": "pixels", "image_size": 8, "color": "gray"}
    with alone.job("extract.background", parameters=described) as job:
        job.put("background/descriptors", np.array(X))
        job.put("background/truth", np.array(truth))
        job.publish({"trained_on": ["0", "7"]})
    study(["knn"], data=str(alone.path), output=tmp_path / "out", **{**OPTIONS, "n_per_class": (1,), "draws": 1})
    made = Store(tmp_path / "out" / "images.store")
    for c in range(12):
        rows = np.flatnonzero(truth == c)
        for role, expected in (("background", rows[:4]), ("tests", rows[4:])):
            found = made.array(f"{role}/descriptors")[made.array(f"{role}/truth") == c]
            np.testing.assert_array_equal(found, X[expected])
    novel = json.loads((tmp_path / "out" / "split-0.json").read_text())
    novel = {*novel["novel_classes_1"], *novel["novel_classes_2"]}
    seen = len(novel & {0, 7})
    assert seen
    assert [f"{seen} of {len(novel)} novel classes" in message for message in caplog.messages].count(True) == 1
    summary = parse((tmp_path / "out" / "study.html").read_text(encoding="utf-8")).text
    assert f"trained on {seen}: these are no low-shot" in " ".join(summary.split())
    assert "Tests of base classes the network may have been trained on them" in " ".join(summary.split())
    assert ["extract these with --role tests" in message for message in caplog.messages].count(True) == 1
    assert description(made) == described  # so that a data set can be described alike, as its background


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["table9"]}, "there is no study 'table9'; did you mean table"),
        ({"n_per_class": (50,)}, "a novel class has 9 training images, less than each of"),
        ({"background": "digits"}, "digits is a data set, but the images are not described by pixels"),
    ],
)
def test_what_cannot_be_studied_is_refused(whole, tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        study(**{"names": ["table2"], "data": str(whole.store.path), "output": tmp_path / "out", **OPTIONS, **options})
