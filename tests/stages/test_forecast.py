"""Seconds are counts times rates; what is planned stands beside what was taken."""

import json
import re
import shutil

import numpy as np
import pytest

from ooc_diffusion.graph import GraphRates
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.neighbors import Rates, part_visited
from ooc_diffusion.stages import forecast, graph_forecast
from ooc_diffusion.stages import graph as graph_module
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.ordered_search import open_lists
from ooc_diffusion.stages.plans import plan_graph, plan_neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.seconds import to_seconds
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import DiskRates, Store, measure_disk
from tests.cli.helpers import done
from tests.stages.chain import import_roles
from tests.stages.test_same_bytes import mixture

DIM, K, PROBES = 16, 7, 20
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
    monkeypatch.setattr(graph_forecast, "measure_building", lambda table, threads: GraphRates(1.0, 10.0, 100.0, 1000.0))
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


def test_the_disk_is_measured_without_leaving_anything(tmp_path):
    for reading in (True, False):
        found = measure_disk(tmp_path, reading=reading)
        assert found is not None
        assert found.read > 0
        assert found.write > 0
    assert list(tmp_path.iterdir()) == []
    assert measure_disk(tmp_path / "nowhere", reading=True) is None
