"""Graphs of fewer neighbors than were searched for: those of a search for so many, bit by bit."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion.stages import low_shot_background, temporary_graphs
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
    assert [k for _, k in searches] == [WIDEST] * (1 + over)
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
