"""Graphs of fewer neighbors than were searched for: those of a search for so many, bit by bit."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion.stages import low_shot_background, temporary_graphs
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.low_shot_background import open_background
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.temporary_graphs import GraphKeeper
from ooc_diffusion.store import Store

from .low_shot_chain import QUICK

DIM, WIDEST = 6, 9
# Of lists, twice as many as the fewest that have any.
SIZES = {"Flat": (120, 150), "list-major": (4400, 4800)}


@pytest.fixture(params=SIZES)
def stores(request, tmp_path, monkeypatch):
    """Images and another collection, many of them identical, so that the order of equal similarities shows."""
    monkeypatch.setattr(sys.modules["ooc_diffusion.neighbors.search"], "_LARGEST_FLAT", 4000)
    rng = np.random.default_rng(0)
    made = []
    for name, n in zip(("images", "others"), SIZES[request.param], strict=True):
        X = rng.normal(size=(n, DIM)).astype(np.float32)
        X[n // 2 :] = X[rng.integers(0, n // 2, n - n // 2)]
        np.save(tmp_path / f"{name}.npy", X)
        import_descriptors(tmp_path / f"{name}.npy", store=tmp_path / name, settings=QUICK)
        reduce(tmp_path / name, dim=0, settings=QUICK)
        made.append(Store(tmp_path / name))
    return made


def graphs_of(stores, over, keeper, ks, index):
    """Bytes of all arrays of the graphs, and of the neighbors of the tests, by k and weights."""
    store, others = stores
    vectors = store.array("background/vectors")
    rows = np.arange(100 if over and index == "Flat" else len(vectors) - 40)
    if over:
        rows = rows[:300]
    found = {}
    for k in ks:
        background = open_background(store, others.path) if over else None
        tests = (vectors, np.arange(len(vectors) - 40, len(vectors)))
        graphs = keeper.graphs(store, tests=tests, background=background, k=k, settings=QUICK)
        for weights in ({}, {"weighting": "meaningful"}):
            _, queries = graphs.build([(vectors, rows)], weights, k=k)
            assert queries.shape == (40, k)
            arrays = [name for name in graphs.store.manifest.arrays if name.startswith("graph/")]
            assert "graph/indices" in arrays
            assert graphs.store.parameters("neighbors.background")["index"] == index
            found[k, str(weights)] = {name: np.array(graphs.store.array(name)).tobytes() for name in arrays}
            found[k, str(weights)]["queries"] = np.array(queries).tobytes()
    return found


@pytest.mark.parametrize("over", [False, True], ids=["alone", "over others"])
def test_the_first_columns_of_a_wide_table_are_the_narrow_one(stores, over, monkeypatch):
    searches = []

    def noted(store, **options):
        searches.append((store.path, options["k"]))
        return neighbors(store, **options)

    monkeypatch.setattr(low_shot_background, "neighbors", noted)
    monkeypatch.setattr(temporary_graphs, "neighbors", noted)
    index = "Flat" if len(stores[0].array("background/vectors")) < 4000 else "list-major"
    with GraphKeeper(WIDEST) as keeper:
        together = graphs_of(stores, over, keeper, (2, 5, WIDEST), index)
    assert [k for _, k in searches] == [WIDEST]
    for k in (2, 5, WIDEST):
        with GraphKeeper() as keeper:
            if over:
                for made in (stores[1].path / "searched").iterdir():
                    made.rename(made.with_name(f"{made.name}.{k}"))  # so that nothing is found
            apart = graphs_of(stores, over, keeper, (k,), index)
        assert searches[-1][1] == k
        for key, arrays in apart.items():
            assert arrays.keys() == together[key].keys()
            assert [name for name in arrays if arrays[name] != together[key][name]] == []


@pytest.mark.parametrize("stores", ["list-major"], indirect=True)
@pytest.mark.parametrize(
    "how",
    [
        {"target_recall": 0.5},
        {"probes": 3, "precision": "float16"},
        {"index": "IVFFlat", "probes": 5},
        {"table": "ids.npy", "probes": 4},
        {"table": "ids.npy", "index": "Flat"},
    ],
    ids=lambda how: " ".join(map(str, how.values())),
)
def test_a_background_is_completed_as_it_was_searched(stores, how, tmp_path, monkeypatch):
    """Its graph is that of a store with the same seeds and tests, by the commands of the chain."""
    store, others = stores
    few = np.tile(np.arange(40, dtype=np.int32), (SIZES["list-major"][1], 1))
    np.save(tmp_path / "ids.npy", np.random.default_rng(2).permuted(few, axis=1)[:, :7])
    how = {**how, **({"table": tmp_path / "ids.npy"} if "table" in how else {})}
    neighbors(others, k=5, **how, settings=QUICK)
    vectors, rows, tests = np.array(store.array("background/vectors")), np.arange(300), np.arange(4300, 4400)
    chain = Store(shutil.copytree(others.path, tmp_path / "chain"))
    for role, which in (("seeds", rows), ("tests", tests)):
        with chain.job(f"reduce.{role}", parameters={}) as job:
            job.put(f"{role}/vectors", vectors[which])
            job.publish({})
    neighbors(chain, k=5, **how, settings=QUICK)
    graph(chain, settings=QUICK)
    with GraphKeeper() as keeper, monkeypatch.context() as patch:
        patch.setattr(low_shot_background, "neighbors", None)  # nothing is searched among the others
        options = {"tests": (store.array("background/vectors"), tests), "k": 5, "settings": QUICK}
        background = replace(open_background(store, others.path), array="background/vectors")
        graphs = keeper.graphs(store, background=background, **options)
        for some in (rows[:200], rows):
            graphs.build([(store.array("background/vectors"), some)], {}, k=5)
        assert graphs.built == 2
        for name in (name for name in chain.manifest.arrays if name.startswith(("graph/", "seeds/", "tests/"))):
            assert graphs.store.array(name).tobytes() == chain.array(name).tobytes(), name


def test_few_images_have_as_many_neighbors_as_there_are(tmp_path):
    X = np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    import_descriptors(tmp_path / "x.npy", store=tmp_path / "s", settings=QUICK)
    reduce(tmp_path / "s", dim=0, settings=QUICK)
    store = Store(tmp_path / "s")
    vectors = store.array("background/vectors")
    with GraphKeeper(50) as keeper:
        graphs = keeper.graphs(store, tests=(vectors, np.arange(3)), background=None, k=4, settings=replace(QUICK, seed=1))
        for nodes, k in ((8, 4), (15, 7)):
            graph, queries = graphs.build([(vectors, np.arange(nodes))], {}, k=k)
            assert (graph.n, queries.shape) == (nodes, (3, k))
            assert graphs.store.parameters("neighbors.background")["k"] == nodes
