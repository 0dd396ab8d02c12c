"""What a study would cost is planned from the runs that it would make, and is no less than what these say of themselves."""

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.stages.low_shot_variant import Variant
from ooc_diffusion.stages.study import graphs, study
from ooc_diffusion.stages.study.planning import _kind
from ooc_diffusion.store import Store

from .conftest import OPTIONS, QUICK

DRY = replace(QUICK, dry_run=True)
_OTHERS = {
    "low-shot-logistic": "logistic regression",
    "low-shot-smooth": "logistic regression, smooth",
    "low-shot-knn": "kNN classifier",
}


def planned(**options):
    """The plans of a study, by kind."""
    record = study(options.pop("names", ["all"]), **{**OPTIONS, "output": "nowhere", "settings": DRY, **options})
    return {plan["stage"]: plan for plan in record["plans"]}


def kind_of(name, made):
    """Which plan a stage of the study belongs to."""
    for start, kind in _OTHERS.items():
        if name.startswith(start):
            return kind
    if not name.startswith("low-shot"):
        return made["record"]["plan"]["stage"]
    what = made["parameters"]
    variant = Variant(**{field.name: what[field.name] for field in fields(Variant) if field.name in what})
    return _kind(variant, fusion=what["fusion"])


def assert_covered(plans, stores, ran):
    """All stages that ``ran`` takes were planned, each no less than it was, and all of their arrays."""
    counts, written = Counter(), 0
    for store in stores:
        for name, made in store.manifest.stages.items():
            if not ran(name, made):
                continue
            written += sum(store.entry(array).bytes for array in made["arrays"])
            if store.path.parent.name == "searched":
                continue
            kind = kind_of(name, made)
            counts[kind] += 1
            plan, own = plans[kind], made["record"]["plan"]
            assert plan["least_bytes"] >= own["least_bytes"], name
            assert plan["memory_bytes"] >= max(own["memory_bytes"], made["record"]["peak_memory_bytes"]), name
            assert plan["scratch_bytes"] >= own["scratch_bytes"], name
    assert sum(plan["disk_bytes"] for plan in plans.values()) >= written
    # exactly those that ran, and no run besides
    runs = {kind: int(plan["work"].split(" run")[0]) for kind, plan in plans.items() if "; the largest: " in plan["work"]}
    assert runs == {kind: counts[kind] for kind in runs}
    assert set(counts) <= set(plans)
    return counts


def test_the_plan_of_all_chapters_covers_each_stage_of_a_run(whole):
    def ran(name, made):
        return name.startswith("low-shot") and name in whole.ran

    plans = planned(data=str(whole.store.path), background=str(whole.others.path))
    searched = [Store(path) for path in (whole.others.path / "searched").iterdir()]
    counts = assert_covered(plans, [whole.store], ran)
    assert len(counts) == 11
    # torch stays once it is loaded, whichever stage comes next
    torch = QUICK.budget.overhead(torch=True)
    assert all(plan["least_bytes"] >= torch for kind, plan in plans.items() if kind not in ("graphs", "manifests"))
    kept = sum(store.entry(name).bytes for store in searched for name in store.manifest.arrays)
    assert plans["graphs"]["disk_bytes"] >= kept > 0
    # what runs share is there at once: of both groups and of the first, over nothing and two backgrounds
    assert plans["graphs"]["work"].startswith("6 sets of graphs")
    most = max(plan["scratch_bytes"] for kind, plan in plans.items() if kind != "graphs")
    assert most < plans["graphs"]["scratch_bytes"] <= 6 * most


def test_the_plan_says_what_a_variant_costs(whole):
    plans = planned(data=str(whole.store.path), names=["table1", "figure5"])
    assert "every column in every iteration, no skipping, at most 3 passes over W" in plans["η over all columns"]["work"]
    assert plans["η over all columns"]["work"].startswith("8 runs for table1, figure5; the largest: ")
    assert plans["weighted edges"]["scratch_bytes"] > plans["diffusion"]["scratch_bytes"]
    assert "no skipping" in plans["Zhou et al."]["work"]
    assert "no skipping" not in plans["diffusion"]["work"]
    passes = {kind: int(plans[kind]["work"].split("at most ")[1].split()[0]) for kind in ("Zhou et al.", "Zhou et al., limit")}
    assert passes["Zhou et al."] == 3 < passes["Zhou et al., limit"]  # it goes on until it has the limit


@pytest.mark.parametrize(
    ("more", "less"),
    [({"max_iter": 30}, {"max_iter": 3}), ({}, {"size": 20}), ({"draws": 3}, {"draws": 1}), ({"k": 5}, {"k": 3})],
)
def test_each_option_that_costs_something_is_planned(whole, more, less):
    what = {"data": str(whole.store.path), "background": str(whole.others.path), "names": ["table1", "table3"]}
    large, small = planned(**what, **more), planned(**what, **less)
    assert list(large) == list(small)
    disk = [sum(plan["disk_bytes"] + plan["scratch_bytes"] for plan in plans.values()) for plans in (large, small)]
    work = [sum(plan["operations"] for plan in plans.values()) for plans in (large, small)]
    assert disk[0] > disk[1]
    assert work[0] > work[1]


def test_the_plan_is_for_the_most_neighbors_of_any_chapter(whole, monkeypatch):
    monkeypatch.setattr(graphs, "_NEIGHBORS", (2, 20))
    what = {"data": str(whole.store.path), "background": str(whole.others.path)}
    narrow, wide = (planned(names=names, **what)["graphs"] for names in (["table1"], ["table1", "figure2"]))
    # ids and similarities of 60 images of the other collection at least, 20 neighbors in place of 3
    assert wide["disk_bytes"] - narrow["disk_bytes"] >= 8 * 60 * 17


def test_a_budget_that_is_too_small_is_told_from_all_stages(whole):
    what = {"data": str(whole.store.path), "names": ["table1"], "output": "nowhere"}
    small, large = (study(**{**OPTIONS, **what, "settings": replace(DRY, memory_budget=budget)}) for budget in ("100MiB", "8GiB"))
    assert small["memory_budget_bytes"] == 100 * 2**20
    assert [plan["stage"] for plan in small["plans"]] == [plan["stage"] for plan in large["plans"]]
    for below, above in zip(small["plans"], large["plans"], strict=True):
        assert below["least_bytes"] == above["least_bytes"]
        assert below["memory_bytes"] <= max(plan["least_bytes"] for plan in large["plans"])


def test_a_budget_that_is_too_small_is_refused_before_any_work(whole, tmp_path):
    """Also where all stages but one would fit: that is told, and the budget that the plan says is enough."""
    plans = planned(data="digits", names=["knn"], n_per_class=(1,)).values()
    *_, second, least = sorted(plan["least_bytes"] for plan in plans)
    assert least - second > 2**27
    what = {**OPTIONS, "data": "digits", "n_per_class": (1,), "output": tmp_path / "out"}
    with pytest.raises(DoesNotFit, match="stage kNN classifier needs a memory budget of"):
        study(["knn"], **{**what, "settings": replace(QUICK, memory_budget=(second + least) // 2)})
    assert not (tmp_path / "out").exists()
    assert study(["knn"], **{**what, "settings": replace(QUICK, memory_budget=least + 2**26)})["stage"] == "study"


def test_a_plan_knows_the_runs_that_were_done_before(whole):
    def counted(**options):
        what = {**OPTIONS, "data": str(whole.store.path), "background": str(whole.others.path), "output": "nowhere"}
        record = study(["all"], **{**what, "settings": DRY, **options})
        return [record[name] for name in ("runs", "runs_done_before", "seconds_left")]

    ran = [name for name in whole.ran if name.startswith("low-shot")]
    assert counted() == [len(ran), len(ran), 0]
    assert counted(settings=replace(DRY, seed=1)) == [len(ran), 0, None]
    # with another k those are done that have none, and those of figure 2: their pace is taken for the others
    runs, before, left = counted(k=4)
    made = [whole.store.parameters(name) for name in ran]
    plain = {"weights": {}, "eta": {}, "prior_power": None, "fusion": False}
    assert before == sum("k" not in each or plain.items() <= each.items() for each in made)
    assert 0 < before < runs
    assert left > 0


def test_a_plan_writes_nothing(whole, tmp_path):
    before = (whole.store.path / "manifest.json").read_bytes()
    alone = Store(tmp_path / "alone", create=True)
    with alone.job("import.background", parameters={}) as job:
        for name in ("descriptors", "truth"):
            job.put(f"background/{name}", np.array(whole.store.array(f"background/{name}")))
        job.publish({})
    there = sorted(tmp_path.rglob("*"))
    for data, background, making in (
        (str(whole.store.path), str(whole.others.path), []),
        (str(alone.path), None, ["import", "reduce"]),  # it is to be halved
        ("digits", None, ["list", "extract", "reduce"]),
    ):
        plans = planned(data=data, background=background, output=tmp_path / "out", names=["table2"], n_per_class=(1,))
        assert list(plans) == [*making, "logistic regression", "diffusion and fusion", "graphs", "manifests"]
    assert sorted(tmp_path.rglob("*")) == there
    assert (whole.store.path / "manifest.json").read_bytes() == before


def test_a_plan_refuses_what_a_run_refuses(whole, tmp_path):
    for options, message in (
        ({"n_per_class": (50,)}, "a novel class has 9 training images, less than each of"),
        ({"background": "digits"}, "digits is a data set, but the images are not described by pixels"),
        ({"background": str(whole.others.path), "size": 61}, "`size` is 61, but .* has 60 images"),
        ({"data": "omniglot:evaluatoin", "root": str(tmp_path)}, "no split 'evaluatoin'; give background or evaluation"),
        ({"data": "omniglut"}, "did you mean Omniglot"),
    ):
        for settings in (DRY, QUICK):
            with pytest.raises(BadInput, match=message):
                study(
                    ["table3"],
                    **{**OPTIONS, "data": str(whole.store.path), "output": tmp_path / "out", **options, "settings": settings},
                )


@pytest.fixture
def omniglot(tmp_path, monkeypatch):
    """Characters of gray squares in the layout of torchvision, and their values: part, character, drawing."""
    from torchvision.datasets import omniglot

    monkeypatch.setattr(omniglot, "check_integrity", lambda *_: True)
    values, rng = {}, np.random.default_rng(0)
    for part, alphabet, characters, drawings in (("background", "Greek", 3, 7), ("evaluation", "Tengwar", 9, 6)):
        for character in range(characters):
            name = f"{alphabet}/character{character:02d}"
            center = rng.integers(30, 220, (8, 8))
            folder = tmp_path / "data" / "omniglot-py" / f"images_{part}" / name
            folder.mkdir(parents=True)
            for i in range(drawings):
                values[part, name, i] = (center + rng.integers(-20, 20, (8, 8))).astype(np.uint8)
                Image.fromarray(values[part, name, i]).save(folder / f"{i:04d}.png")
    return str(tmp_path / "data"), values


def test_omniglot_is_halved_class_by_class_and_its_other_part_is_a_background(omniglot, tmp_path):
    root, values = omniglot
    what = {**OPTIONS, "n_per_class": (1,), "root": root, "output": tmp_path / "out"}
    what |= {"data": "omniglot:evaluation", "background": "Omniglot:background"}
    plans = planned(**{**what, "settings": DRY, "names": ["transductive"]})
    assert not (tmp_path / "out").exists()
    study(["transductive"], **what)
    images, others = (Store(tmp_path / "out" / name) for name in ("images.store", "background.store"))
    names = sorted({name for part, name, _ in values if part == "evaluation"})
    assert len(names) == 9
    for role, drawings in (("background", (0, 1, 2)), ("tests", (3, 4, 5))):
        expected = [values["evaluation", name, i].ravel() / np.float32(255) for name in names for i in drawings]
        np.testing.assert_allclose(images.array(f"{role}/descriptors"), expected, rtol=1e-6)
        np.testing.assert_array_equal(images.array(f"{role}/truth"), np.arange(9).repeat(3))
        assert images.record(f"list.{role}")["class_names"] == names
    expected = [value.ravel() / np.float32(255) for (part, _, _), value in sorted(values.items()) if part == "background"]
    np.testing.assert_allclose(others.array("background/descriptors"), expected, rtol=1e-6)
    stores = [images, others, *(Store(path) for path in (others.path / "searched").iterdir())]
    counts = assert_covered(plans, [*stores, Store(tmp_path / "out" / "whole.store")], lambda name, made: True)
    assert counts["tests in the graph"] == counts["diffusion and fusion"] == 3
    manifests = [images.path / "manifest.json", *(images.path / "generations").iterdir()]
    assert 0 < sum(path.stat().st_size for path in manifests) <= plans["manifests"]["disk_bytes"]
    assert (counts["list"], counts["extract"], counts["import"], counts["reduce"]) == (2, 2, 2, 2)
    # the stores that were made are planned on, unless they are of something else
    for more, before in (({}, 7), ({"dim": 3}, 0)):
        record = study(["transductive"], **{**what, **more, "settings": DRY})
        assert (record["runs"], record["runs_done_before"]) == (7, before)


def test_without_a_part_all_classes_of_a_data_set_are_halved(omniglot, tmp_path):
    root, values = omniglot
    what = {**OPTIONS, "n_per_class": (1,), "root": root, "output": tmp_path / "out", "settings": DRY}
    assert study(["knn"], data="Omniglot", **what)["images"] == len(values)
    with pytest.raises(BadInput, match="3 classes cannot be split"):
        study(["knn"], data="omniglot:background", **what)
    assert study(["knn"], data="digits:test", **{**what, "root": None})["images"] == 500
    assert study(["knn"], data="digits", **what)["images"] == 1797  # the digits have no files, whatever the root of others


def test_a_background_that_is_a_data_set_is_planned(omniglot, tmp_path):
    root, _ = omniglot
    what = {"data": "digits", "names": ["table3"], "n_per_class": (1,), "root": root}
    alone, beside = planned(**what), planned(**what, background="omniglot")
    pixels = 64 * 4 * (3 * 7 + 9 * 6)
    assert beside["extract"]["disk_bytes"] - alone["extract"]["disk_bytes"] == pixels
    nodes = [int(plans["diffusion and fusion"]["work"].split("largest: ")[1].split(" nodes")[0]) for plans in (alone, beside)]
    assert nodes[1] - nodes[0] == 75
    assert Path("nowhere").exists() is False
