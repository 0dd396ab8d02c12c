"""Seconds are counts times rates; what is planned stands beside what was taken."""

import json
import re
import shutil
import sys
from dataclasses import replace

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import DoesNotFit
from ooc_diffusion.features import measure_describing
from ooc_diffusion.graph import GraphRates
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.neighbors import Rates, gpu, part_visited, search
from ooc_diffusion.stages import forecast, graph_forecast, search_options
from ooc_diffusion.stages import graph as graph_module
from ooc_diffusion.stages import label as label_module
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.label import label
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.ordered_search import open_lists
from ooc_diffusion.stages.plans import plan_graph, plan_neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.seconds import to_seconds
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.stages.whole_plan import plan_all
from ooc_diffusion.store import DiskRates, Store, measure_disk
from tests.cli.helpers import digit_images, done, run, write_csv, write_images
from tests.stages.chain import import_roles
from tests.stages.test_same_bytes import mixture

DIM, K, PROBES = 16, 7, 20
RATES = Rates(assign=2.0, split=3.0, flat=0.5, listed=5.0, moved=7.0)
STEPS = {
    "Flat": ["training", "assigning", "searching"],
    "IVFFlat": ["training", "assigning", "samples", "searching"],
    "list-major": ["training", "assigning", "samples", "ordering", "searching", "putting back"],
}


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast") / "store"
    import_roles(folder, mixture())
    reduce(folder, dim=DIM)
    return folder


@pytest.fixture
def folder(reduced, tmp_path):
    return shutil.copytree(reduced, tmp_path / "store")


@pytest.fixture
def always(monkeypatch):
    """Foretell short runs, too."""
    monkeypatch.setattr(forecast, "WORTH_A_FORECAST", 0)
    monkeypatch.setattr(graph_module, "WORTH_A_FORECAST", 0, raising=False)


def test_seconds_are_counts_times_rates():
    rates = Rates(assign=2.0, split=3.0, listed=5.0)
    counts = {"training": {"assign": 10, "split": 4}, "searching": {"listed": 6}, "ordering": {"assign": 1}}
    about = {"reads": {"training": 100, "searching": 500, "other": 7}, "writes": {"searching": 30, "ordering": 90}}
    assert to_seconds(counts, rates, disk=None, **about) == {"training": 32, "searching": 30, "ordering": 2}
    # what is searched next is read meanwhile
    found = to_seconds(counts, rates, disk=DiskRates(read=10, write=3), **about)
    assert found == {"training": 32 + 10, "searching": 50 + 10, "ordering": 2 + 30}


@pytest.mark.parametrize("index", list(STEPS))
def test_a_dry_run_says_all_steps_and_writes_nothing(folder, index):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    planned = neighbors(folder, k=K, index=index, settings=Settings(dry_run=True, threads=2))
    assert list(planned["background"]["planned_seconds"]) == STEPS[index]
    for role in ("seeds", "tests"):
        assert list(planned[role]["planned_seconds"]) == ["assigning", "searching"]
    assert all(seconds > 0 for role in planned.values() for seconds in role["planned_seconds"].values())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("index", list(STEPS))
def test_a_run_says_them_and_what_it_took(folder, always, index):
    record = neighbors(folder, k=K, index=index, settings=Settings(threads=2))["background"]
    assert list(record["planned_seconds"]) == STEPS[index]
    assert set(STEPS[index]) <= set(record["step_seconds"]) <= {*STEPS[index], "checking"}
    assert sum(record["step_seconds"].values()) <= record["seconds"]
    built = graph(folder, settings=Settings(threads=2))
    steps = {"comparing", "searching seeds", "merging", "building", "checking"}
    steps |= {"entering", "samples"} if index == "list-major" else set()
    assert set(built["step_seconds"]) == steps
    assert set(built["planned_seconds"]) == steps - {"comparing"}
    assert all(seconds > 0 for seconds in built["planned_seconds"].values())


def test_a_short_run_is_not_foretold(folder):
    record = neighbors(folder, k=K, settings=Settings(threads=2))["background"]
    assert "planned_seconds" not in record
    assert record["step_seconds"].keys() == {"training", "assigning", "searching", "checking"}


def test_probes_that_nobody_knows_are_assumed_until_a_run_has_shown_them(folder, always, caplog):
    caplog.set_level("INFO", "ooc_diffusion")
    how = {"k": K, "index": "list-major", "target_recall": 0.9}
    planned = neighbors(folder, settings=Settings(dry_run=True, threads=2), **how)["background"]
    assumed = planned["probes_assumed"]
    assert 1 <= assumed <= 256
    assert "expected_reads" not in planned
    record = neighbors(folder, settings=Settings(threads=2), **how)["background"]
    assert f"({assumed} lists probed, as is assumed)" in caplog.text
    assert f"({record['probes']} lists probed)" in caplog.text
    again = neighbors(folder, settings=Settings(dry_run=True, threads=2, overwrite=True), **how)
    assert "probes_assumed" not in again["background"]
    part = part_visited(open_lists(Store(folder)), probes=record["probes"])
    reads = record["expected_reads"]
    n, blocks = 4200, 2
    vectors = n * DIM * 4
    assert reads["searching"] == vectors + blocks * round(part * n) * (DIM * 4 + 4) <= record["plan"]["reads"]["searching"]
    assert {**reads, "searching": 0} == {**record["plan"]["reads"], "searching": 0}
    for planned in again.values():
        assert planned["expected_reads"]["searching"] <= planned["plan"]["reads"]["searching"]


def test_graph_seconds_count_passes(folder, monkeypatch):
    monkeypatch.setattr(graph_forecast, "measure_building", lambda table, n, threads: GraphRates(1.0, 10.0, 100.0, 1000.0))
    monkeypatch.setattr(graph_forecast, "table_passes", lambda *args, **options: 3)
    budget = MemoryBudget(2**31)
    plan = plan_graph(1000, 5, budget=budget)
    found = graph_forecast.building_seconds(
        np.zeros((10, 9), int), 1000, 5, plan, disk=DiskRates(1.0, 100.0), budget=budget, threads=1
    )
    written = 20 * 1000 + 4 * 1.75 * 5000
    assert found == {"building": 5000 * 131 + written / 100, "checking": 5000 * 1000}


def test_more_of_everything_takes_longer(folder):
    """The rates are measured once: only counts differ."""
    vectors = Store(folder).array("background/vectors")
    how = {"k": K, "width": K + 2, "index": "list-major", "target_recall": None, "threads": 2}
    search = forecast.SearchForecast(vectors, 4200, probes=PROBES, **how)
    plan = plan_neighbors(4200, 4200, DIM, k=K, index="list-major", train=True, budget=MemoryBudget(2**31))
    one, two = (search.seconds(q, plan, train=True) for q in (4200, 8400))
    assert two["searching"] == pytest.approx(2 * one["searching"])
    assert two["training"] == one["training"]
    more = search.seconds(4200, plan, train=True, probes=10 * PROBES)
    assert more["searching"] > one["searching"]


def test_tables_say_planned_beside_taken(folder, always):
    shown = done("neighbors", "--store", folder, "--k", K, "--index", "list-major", "--target-recall", 0.9, "--dry-run")
    assert "neighbors.background about" in shown
    assert re.search(r", if \d+ lists are probed", shown)
    lines = [line.split() for line in shown.splitlines()]
    assert ["step", "planned", "seconds", "seconds"] in lines
    assert any(line[:2] == ["putting", "back"] and line[-1] == "-" for line in lines)
    shown = done("neighbors", "--store", folder, "--k", K, "--index", "list-major", "--target-recall", 0.9)
    assert " were expected" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert any(line[:2] == ["putting", "back"] and "-" not in line for line in lines)


def test_plan_says_seconds_without_vectors():
    for n in (2, 5000, 200_000):
        found = json.loads(done("plan", n, "--d", 40, "--dim", 8, "--memory-budget", "4GiB", "--json"))
        assert found["seconds_by_stage"].keys() == {"neighbors", "graph"}
        assert (
            list(found["seconds_by_stage"]["neighbors"])
            == {
                2: ["searching"],
                5000: STEPS["Flat"],
                200_000: STEPS["list-major"],
            }[n]
        )
    shown = done("plan", 5000, "--d", 40, "--dim", 8, "--memory-budget", "4GiB")
    assert "neighbors about" in shown
    assert "graph building" in shown


@pytest.fixture
def label_plan(tmp_path, monkeypatch):
    """`label --dry-run` of 40 images of 8 x 8 gray pixels, with rates that are not measured: products take what they are long."""
    monkeypatch.setattr(forecast, "measure_rates", lambda some, **how: replace(RATES, flat=some.shape[1] / how["threads"]))
    monkeypatch.setattr(graph_forecast, "measure_building", lambda table, n, threads: GraphRates(1.0, 10.0, 100.0, 1000.0))
    images, _ = digit_images(40)
    write_images(tmp_path / "images", images, [b"%02d.png" % i for i in range(40)])
    write_csv(tmp_path / "few.csv", [("00.png", "a"), ("01.png", "b")])
    monkeypatch.chdir(tmp_path)

    def plan(**options):
        how = {"labels": "few.csv", "output": "out.csv", "k": K, "model": "pixels", "image_size": 8}
        about = {"device": options.pop("device", "cpu"), "memory_budget": options.pop("budget", "4GiB")}
        return label("images", settings=Settings(dry_run=True, threads=2, **about), **how | options)

    return plan


def test_a_dry_run_of_label_says_the_seconds_of_plan(label_plan):
    budget = MemoryBudget.parse("4GiB")
    for dim, kept in ((256, 40), (DIM, DIM), (0, 64)):
        found = label_plan(dim=dim)["seconds_by_stage"]
        plans = plan_all(40, d=64, dim=kept, k=K, n_classes=2, n_iter=5, budget=budget)
        assert found == forecast.plan_seconds(plans, 40, dim=kept, k=K, index="auto", budget=budget, threads=2)
        assert found["neighbors"] == {"searching": 40 * 40 * kept / 2}
        assert found["graph"]["checking"] == 40 * K * 1000


def test_a_dry_run_of_label_says_the_steps_of_each_index(label_plan, monkeypatch):
    more = label_module.preview
    monkeypatch.setattr(label_module, "preview", lambda *args, **how: (more(*args, **how)[0], 5000))
    for index, steps in STEPS.items():
        assert list(label_plan(index=index)["seconds_by_stage"]["neighbors"]) == steps


def test_a_dry_run_of_label_foretells_describing_by_a_network(label_plan, monkeypatch):
    monkeypatch.setattr(label_module, "measure_describing", lambda extractor: extractor.dim / 1024)
    found = label_plan(model="resnet10-small", weights="none")
    assert list(found["seconds_by_stage"]) == ["extract", "neighbors", "graph"]
    d = int(found["plans"][1]["work"].split()[3])
    assert found["seconds_by_stage"]["extract"] == {"describing what is decoded": 40 * d / 1024}


def test_a_dry_run_of_label_foretells_no_search_on_a_gpu_and_nothing_that_does_not_fit(label_plan, monkeypatch):
    monkeypatch.setattr(search_options, "resolve_device", lambda *args, **how: "cuda")
    assert list(label_plan()["seconds_by_stage"]) == ["graph"]
    monkeypatch.setattr(label_module, "measure_describing", lambda extractor: 1 / 0)
    assert label_plan(budget="130MiB", model="resnet10-small", weights="none")["seconds_by_stage"] == {}


@pytest.fixture
def small_gpu(monkeypatch):
    """Have there be a GPU, and little be much."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(sys.modules[search.__module__], "_LARGEST_FLAT", 4500)
    return lambda usable: monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: usable)


def test_plans_of_all_are_of_what_the_gpus_have_the_memory_for(label_plan, small_gpu, monkeypatch):
    more = label_module.preview
    monkeypatch.setattr(label_module, "preview", lambda *args, **how: (more(*args, **how)[0], 5000))

    def of_label(**options):
        found = label_plan(**options)
        (plan,) = (plan for plan in found["plans"] if plan["stage"] == "neighbors")
        return plan, found["seconds_by_stage"].get("neighbors", {})

    def of_plan():
        found = json.loads(done("plan", 5000, "--d", 40, "--dim", 8, "--memory-budget", "4GiB", "--json"))
        return found["plans"][3], found["seconds_by_stage"].get("neighbors", {})

    small_gpu(2**32)
    for plan, seconds in (of_label(device="auto"), of_label(device="cuda"), of_plan()):
        assert plan["work"].startswith("IVFFlat, ")
        assert plan["least_bytes"] > 768 * 2**20  # torch tells how much memory there is
        assert seconds == {}
    small_gpu(2**31)
    for plan, seconds in (of_label(device="auto"), of_label(), of_plan()):
        assert plan["work"].startswith("list-major, ")
        assert plan["least_bytes"] < 768 * 2**20
        assert list(seconds) == STEPS["list-major"]
    plan, seconds = of_label(device="cuda")
    assert plan["work"].startswith("list-major, ")
    assert plan["least_bytes"] > 768 * 2**20
    assert seconds == {}
    with pytest.raises(DoesNotFit, match="searching 5000 vectors takes .* give `index` list-major, or --device cpu"):
        label_plan(device="auto", index="IVFFlat")
    refused = run("plan", 5000, "--d", 40, "--dim", 8, "--index", "IVFFlat", "--memory-budget", "4GiB")
    assert refused.code == DoesNotFit.exit_code
    assert "give --index list-major, or --device cpu" in refused.error


def test_describing_is_measured_in_larger_batches_until_one_takes_long(monkeypatch):
    class Slow:
        """Takes 1/32 s for each image and 1/16 s for each batch, by a clock of its own."""

        batch_images, now, seen = 64, 0.0, []

        def prepare(self, image):
            return np.asarray(image.convert("L").resize((2, 2)))

        def describe(self, batch):
            assert (batch == 255).all()
            self.seen.append(len(batch))
            self.now += len(batch) / 32 + 1 / 16
            return np.zeros((len(batch), 3), np.float32)

    slow = Slow()
    monkeypatch.setattr("ooc_diffusion.features.extractor.time.perf_counter", lambda: slow.now)
    assert measure_describing(slow) == (8 / 32 + 1 / 16) / 8
    assert slow.seen == [1, 1, 1, 2, 2, 4, 4, 8, 8]
    slow.batch_images = 3
    assert measure_describing(slow) == (3 / 32 + 1 / 16) / 3


def test_the_disk_is_measured_without_leaving_anything(tmp_path):
    for reading in (True, False):
        found = measure_disk(tmp_path, reading=reading)
        assert found is not None
        assert found.read > 0
        assert found.write > 0
    assert list(tmp_path.iterdir()) == []
    assert measure_disk(tmp_path / "nowhere", reading=True) is None
