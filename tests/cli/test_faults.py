"""Each array of `neighbors` and `graph` is the moment of a kill and of a full disk: given again, they end with the same bytes."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ooc_diffusion.errors import NoSpace
from ooc_diffusion.store import Store, verify

from .helpers import done

pytestmark = pytest.mark.faults

REPOSITORY = Path(__file__).parents[2]
N, M, Q, DIM = 4200, 1100, 1200, 8


def moments(text):
    """Read arrays, and the append to each after which the process is killed: the last but one where there are several blocks."""
    return {name: int(number) for name, number in (word.split(":") for word in text.split())}


# In the order in which they are written, so that blocks before are journaled; "manifest" is before the stage is published.
LIST_MAJOR = moments(
    "background.centroids:1 background.lists:4 background.list_starts:1 background.order:1 background.places:1 "
    "background.ordered_bounds:1 background.ordered_bucket_2:3 background.ordered_bucket_places_4:2 background.ordered:4 "
    "background.found_ids:5 background.found_similarities:3 background.similarities_bucket_0:2 background.similarities:4 "
    "background.neighbor_ids_bucket_places_5:4 background.neighbor_ids:4 manifest:0 "
    "seeds.lists:2 seeds.neighbor_ids:2 seeds.similarities:2 tests.lists:1 tests.neighbor_ids:2 tests.similarities:1"
)
FAISS = moments(
    "background.centroids:1 background.lists:3 background.neighbor_ids:2 background.similarities:4 seeds.neighbor_ids:1 "
    "tests.similarities:1"
)
GRAPH = moments(
    "entering.ordered_seeds:1 graph.neighbor_ids:2 entering.places:1 entering.least:4 entering.counts:3 entering.found:1 "
    "entering.spans_by_position:3 entering.spans_bucket_1:2 entering.spans:3 graph.similarities:3 graph.query_ids:2 "
    "graph.order:1 graph.position:1 graph.indptr:4 graph.row_scale:3 graph.indices:5 check:0 manifest:0"
)
# An array that goes through buckets is begun before these.
FULL = sorted(LIST_MAJOR, key=lambda name: (list(LIST_MAJOR).index(name.partition("_b")[0]), len(name)))
# Those of `graph` in the order in which they are begun.
BEGUN = (
    *("graph.neighbor_ids", "graph.similarities", "entering.ordered_seeds", "entering.places", "entering.least"),
    *("entering.counts", "entering.found", "entering.spans_by_position", "entering.spans", "graph.query_ids"),
    *("graph.order", "graph.position", "graph.indptr", "graph.indices", "graph.row_scale"),
)


class Server:
    """Runs commands in processes of their own; see `tests.cli.trapped`."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.cli.trapped"]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words, trap=None, filler=""):
        task = {"words": [*map(str, words), "--threads", "2", "-q"], "trap": trap, "filler": str(filler)}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.communicate()


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """A store with vectors of three roles."""
    root = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, DIM))
    for role, n in (("background", N), ("seeds", M), ("tests", Q)):
        np.save(root / f"{role}.npy", (centers[rng.integers(0, 60, n)] + 0.5 * rng.normal(size=(n, DIM))).astype(np.float32))
        done("import", root / f"{role}.npy", "--store", root / "s", "--role", role)
    done("reduce", "--store", root / "s", "--dim", "0")
    return root / "s"


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; where there are no rights to make one, None."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def contents(store):
    """Return type, shape and checksums of each array."""
    return {name: entry.identity for name, entry in Store(store).manifest.arrays.items()}


def kill_at_each(server, command, store, arrays):
    """Kill the command once in each array; then let it end."""
    for name, number in arrays.items():
        ran = server(*command, "--store", store, trap=["kill", name, number])
        assert ran["signal"] == signal.SIGKILL, (name, ran)
        not_there(store, name)
    ran = server(*command, "--store", store)
    assert (ran["code"], ran["error"]) == (0, ""), ran
    ended(store)


def fill_at_each(server, command, store, traps):
    """Fill the disk at each of some moments; then let the command end."""
    filler = store.parent / "filler"
    for trap in traps:
        ran = server(*command, "--store", store, trap=trap, filler=filler)
        assert ran["code"] == NoSpace.exit_code, (trap, ran)
        assert re.fullmatch(rf"error: no space left while \w+.* {store}/\S+; free some .* again\n", ran["error"]), ran
        filler.unlink()
        not_there(store, trap[1])
    ran = server(*command, "--store", store)
    assert (ran["code"], ran["error"]) == (0, ""), ran
    ended(store)


def not_there(store, name):
    opened = Store(store)
    assert name.replace(".", "/", 1) not in opened
    assert verify(opened, data=True)[0] == []


def ended(store):
    """Check that nothing is left but what is published."""
    assert list((store / "jobs").iterdir()) == []
    assert {f"data/{file.name}" for file in (store / "data").iterdir()} == {
        entry.file for entry in Store(store).manifest.arrays.values()
    }


WAYS = {
    "list-major": ("list-major", LIST_MAJOR, GRAPH),
    "IVFFlat": ("IVFFlat", FAISS, {"graph.neighbor_ids": 3, "graph.query_ids": 1}),
    "Flat": ("Flat", FAISS, {"graph.similarities": 4}),
}


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_each_array(server, reduced, tmp_path, way):
    index, searching, building = WAYS[way]
    kill_at_each(server, ["neighbors", "--k", "5", "--index", index], shutil.copytree(reduced, tmp_path / "s"), searching)
    kill_at_each(server, ["graph"], tmp_path / "s", building)
    assert contents(tmp_path / "s") == undisturbed(server, reduced, tmp_path, index)


def test_a_disk_that_is_full_at_each_array(server, reduced, tmp_path, disk):
    store = shutil.copytree(reduced, disk / "s")
    fill_at_each(server, ["neighbors", "--k", "5", "--index", "list-major"], store, [["full", name, 0] for name in FULL])
    traps = [["full", name, 0] for name in BEGUN]
    # those of a length that only the end tells find the disk full later, too
    traps.insert(traps.index(["full", "entering.found", 0]) + 1, ["full at", "entering.found", 2])
    fill_at_each(server, ["graph"], store, [*traps, ["full at", "graph.indices", 5], ["full", "manifest", 0]])
    assert contents(store) == undisturbed(server, reduced, tmp_path, "list-major")


def undisturbed(server, reduced, tmp_path, index):
    """Return the contents of a store where the same was done without any trap."""
    store = shutil.copytree(reduced, tmp_path / "whole")
    for command in (["neighbors", "--k", "5", "--index", index], ["graph"]):
        assert server(*command, "--store", store)["code"] == 0
    return contents(store)


# Of `neighbors --add`, in the order in which they are written; the names are those of what is there until the end.
ADDED = moments(
    "background.descriptors:1 background.vectors:1 background.lists:1 entering.least:2 entering.counts:1 entering.found:1 "
    "entering.spans:2 background.neighbor_ids:3 background.similarities:2 background.ordered:3 manifest:0"
)
TABLE = ("background.neighbor_ids", "background.similarities")


@pytest.fixture(scope="module")
def growing(reduced, tmp_path_factory):
    """A store that was searched, with more images."""
    root = tmp_path_factory.mktemp("growing")
    store = shutil.copytree(reduced, root / "s")
    np.save(root / "more.npy", Store(store).array("seeds/vectors") + np.float32(0.25))
    done("neighbors", "--store", store, "--k", "5", "--index", "list-major")
    done("import", root / "more.npy", "--store", store, "--role", "added")
    done("reduce", "--store", store, "--dim", "0")
    return store


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_added_at_each_array(server, growing, tmp_path, disk, kind):
    """Until its end the addition changes nothing that is published."""
    store, command, filler = shutil.copytree(growing, disk / "s"), ["neighbors", "--add"], disk / "filler"
    before = contents(store)
    # the table is begun before what enters it is searched
    begun = sorted(
        ADDED, key=lambda name: list(ADDED).index("entering.least") - 0.5 if name in TABLE else list(ADDED).index(name)
    )
    for name in begun if kind == "full" else ADDED:
        number = ADDED[name]
        ran = server(*command, "--store", store, trap=[kind, name, number], filler=filler)
        assert (ran["signal"] == signal.SIGKILL) if kind == "kill" else (ran["code"] == NoSpace.exit_code), (name, ran)
        filler.unlink(missing_ok=True)
        assert contents(store) == before, name
        assert verify(Store(store), data=True)[0] == []
    whole = shutil.copytree(growing, tmp_path / "whole")
    for each in (store, whole):
        ran = server(*command, "--store", each)
        assert (ran["code"], ran["error"]) == (0, ""), ran
        assert list((each / "jobs").iterdir()) == []
    assert contents(store) == contents(whole) != before


@pytest.mark.parametrize("kind", ["kill", "full"])
@pytest.mark.parametrize("option", ["--table", "--index-file"])
def test_what_somebody_else_made_at_each_array(server, reduced, tmp_path, disk, option, kind):
    import faiss

    vectors = np.ascontiguousarray(Store(reduced).array("background/vectors"))
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "flat.index"))
    np.save(tmp_path / "table.npy", index.search(vectors, 7)[1].astype(np.int32))
    file = tmp_path / ("table.npy" if option == "--table" else "flat.index")
    store, filler = shutil.copytree(reduced, disk / "s"), disk / "filler"
    command = ["neighbors", "--k", "5", option, file]
    lists, table = ["background.centroids", "background.lists"], ["background.similarities"]
    for name in [*(table + lists if option == "--table" else lists + table), "seeds.similarities"]:
        ran = server(*command, "--store", store, trap=[kind, name, 1], filler=filler)
        assert (ran["signal"] == signal.SIGKILL) if kind == "kill" else (ran["code"] == NoSpace.exit_code), (name, ran)
        filler.unlink(missing_ok=True)
        not_there(store, name)
    whole = shutil.copytree(reduced, tmp_path / "whole")
    for each in (store, whole):
        ran = server(*command, "--store", each)
        assert (ran["code"], ran["error"]) == (0, ""), ran
        ended(each)
    assert contents(store) == contents(whole)
