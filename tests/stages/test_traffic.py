"""What `neighbors` and `graph` plan to read and write is what is counted where rows are read and written."""

import re
import shutil
import sys
import threading
from collections import Counter
from functools import partial

import numpy as np
import pytest

from ooc_diffusion.graph import build
from ooc_diffusion.memory import MemoryBudget, format_size
from ooc_diffusion.neighbors import completion as entering
from ooc_diffusion.neighbors import exact, list_major, recall
from ooc_diffusion.neighbors import search as search_function
from ooc_diffusion.stages import addition, completion, neighbors, ordered_search, own_table, plans, traffic
from ooc_diffusion.stages.addition import add_images
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors as find_neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from ooc_diffusion.store.writer import ArrayWriter
from tests.stages.chain import import_roles
from tests.stages.test_same_bytes import mixture

N, Q, M, DIM, K, WIDTH, LISTS = 4200, 1100, 1030, 16, 7, 9, 256
ROOM = 60_000  # bytes for rows in order, and for keys of W


class Counts:
    """Bytes read by step, as the wrappers below see it."""

    def __init__(self):
        self.step, self.read, self.lock = "", Counter(), threading.Lock()

    def add(self, name, size):
        step = self.step
        if name.endswith(("centroids", "list_starts")) or (name, step) == ("seeds.vectors", "entering"):
            return
        if step in ("searching seeds", "entering") and name.rpartition(".")[2] in ("neighbor_ids", "spans"):
            step = "merging"
        if step in ("searching seeds", "entering") and name.endswith(".similarities") and not self.ordering:
            step = "merging"
        with self.lock:
            self.read[step] += size

    ordering = False


COUNTS = Counts()


class Counted(np.ndarray):
    """An array on disk that counts the rows that are taken from it; open slices of it are no reading yet."""

    def __array_finalize__(self, base):
        self.about = getattr(base, "about", None)

    def __getitem__(self, key):
        first = key[0] if isinstance(key, tuple) else key
        found = super().__getitem__(key)
        name, row_bytes, total = self.about
        if isinstance(first, slice) and (first.start is None or first.stop is None):
            return found
        if isinstance(first, slice):
            COUNTS.add(name, len(range(*first.indices(len(self)))) * row_bytes)
        else:
            COUNTS.add(name, traffic.alone(np.size(first), row_bytes, total))
        return np.asarray(found)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.concatenate:
            for part in args[0]:
                COUNTS.add(part.about[0], part.about[2])
        args = [[np.asarray(a) for a in arg] if isinstance(arg, list) else plain(arg) for arg in args]
        return function(*args, **kwargs)


def plain(value):
    if isinstance(value, build.GraphArrays):
        return build.GraphArrays(*map(plain, value))
    return np.asarray(value) if isinstance(value, Counted) else value


def counted(name, array):
    found = array.view(Counted)
    found.about = (name, array.nbytes // max(1, len(array)), array.nbytes)
    return found


def mark_step(monkeypatch, module, name, step, after=None, whole=None):
    """Say that a function begins a step (and, after it, another); count arguments that it reads whole."""
    original = getattr(module, name)

    def marked(*args, **kwargs):
        COUNTS.step = step or COUNTS.step
        for size, array in whole(*args) if whole else []:
            if isinstance(array, Counted):
                COUNTS.add(array.about[0], size)
        found = original(*(map(plain, args) if whole else args), **kwargs)
        COUNTS.step = after or COUNTS.step
        return found

    monkeypatch.setattr(module, name, marked)


@pytest.fixture
def counting(monkeypatch):
    """Count what is read from the arrays of a store, by step; small blocks and ranges everywhere."""
    arrays, view = Store.arrays, ArrayWriter.view
    monkeypatch.setattr(
        Store,
        "arrays",
        lambda store, *names: [counted(n.replace("/", "."), a) for n, a in zip(names, arrays(store, *names), strict=True)],
    )
    monkeypatch.setattr(ArrayWriter, "view", lambda writer: counted(writer.path.name.rsplit(".", 2)[0], view(writer)))
    COUNTS.read.clear()

    mark = partial(mark_step, monkeypatch)
    mark(neighbors, "_assign", "assigning")
    mark(neighbors, "train_centroids", "training", after="assigning")
    for name, step in (
        ("_probes", "samples"),
        ("draw_sample", "samples"),
        ("recall_of_table", "samples"),
        ("_search_blocks", "searching"),
        ("share_of_short", "checking"),
    ):
        mark(neighbors, name, step)
    mark(neighbors, "search_among_itself", "ordering")
    mark(ordered_search, "search_lists", "searching")
    for module in (ordered_search, completion, sys.modules[graph.__module__]):
        mark(module, "locality_order", None, whole=lambda lists, count: [(2 * lists.nbytes, lists)])
    mark(completion, "_searched", "searching seeds")
    mark(completion, "entered", "entering")
    mark(completion, "reach_of_seeds", "samples", after="entering")
    mark(completion, "_recall_of_seeds", "samples")
    mark(completion, "_recall_of_background", "samples")
    mark(sys.modules[graph.__module__], "_check_tables", "comparing", after="building")
    mark(sys.modules[graph.__module__], "complete", None, after="building")
    mark(build, "_invert", "building", whole=lambda order: [(order.nbytes, order)])
    mark(build, "_range_end", None, whole=lambda counts, begin, order, *rest: [(0 if begin else order.nbytes, order)])
    mark(build, "check_graph", "checking", after="building", whole=lambda arrays, *rest: [(a.nbytes, a) for a in arrays])
    steps = {"background/ordered": "ordering", "entering/ordered_seeds": "searching seeds"}
    for module in (ordered_search, completion):
        original = module.put_permuted

        def put(worker, name, *args, original=original, **kwargs):
            COUNTS.step = steps.get(name, "putting back" if name.startswith("background") else "entering")
            COUNTS.ordering = True
            try:
                return original(worker, name, *args, **kwargs)
            finally:
                COUNTS.ordering = False

        monkeypatch.setattr(module, "put_permuted", put)

    units = MemoryBudget.units

    def few(budget, unit_bytes, *, what, **kwargs):
        return ROOM // unit_bytes if what == "putting rows in order" else units(budget, unit_bytes, what=what, **kwargs)

    monkeypatch.setattr(MemoryBudget, "units", few)
    monkeypatch.setattr(plans, "_room", lambda budget, least: ROOM)
    monkeypatch.setattr(build, "_room", lambda n, k, key_bytes, budget: ROOM)
    monkeypatch.setattr(build, "_TABLE_ROWS", 512)
    monkeypatch.setattr(list_major, "FEWEST_QUERIES", 512)
    for module in (traffic, completion):
        monkeypatch.setattr(module, "FEW_SEEDS", 500)
    monkeypatch.setattr(recall, "MOST_SAMPLES", recall.SAMPLES)  # as is usual
    # rows that are read alone count as all of an array so small: once, not for each part
    monkeypatch.setattr(entering, "_LISTS", LISTS)
    return COUNTS.read


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traffic") / "store"
    import_roles(folder, mixture())
    reduce(folder, dim=DIM)
    return folder


@pytest.fixture
def folder(reduced, tmp_path):
    return shutil.copytree(reduced, tmp_path / "store")


def compare(counts, record):
    """Return steps where what was counted is not what was planned, and check what was written."""
    plan = record["plan"]
    assert record["written_bytes"] <= plan["write_bytes"] + 4096
    found = {step: size for step, size in counts.items() if size}
    counts.clear()
    if "samples" in found:  # how many neighbors stand in place of true ones is known afterwards
        planned, most = plan["reads"]["samples"], traffic.in_place_of(N, DIM, k=K)
        assert planned - most <= found["samples"] <= planned
        found["samples"] = planned
    return {s: (found.get(s), plan["reads"].get(s)) for s in {*found, *plan["reads"]} if found.get(s) != plan["reads"].get(s)}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_list_major(folder, counting, monkeypatch, precision):
    one = search_by_role(monkeypatch, folder, index="list-major", probes=LISTS, precision=precision)
    for role, (counts, record) in one.items():
        assert compare(counts, record) == {}, role
        assert record["written_bytes"] == pytest.approx(record["plan"]["write_bytes"], abs=4096)
    reads = one["background"][1]["plan"]["reads"]
    size = 2 if precision == "float16" else 4
    buckets = N * (size * DIM + 4)  # less than 5 passes over the source, or 3 for half precision
    assert reads["ordering"] == 12 * N + N * (4 * DIM + 4) + buckets  # written out once more
    tables = 4 * N + 8 * N * WIDTH
    assert one["background"][1]["plan"]["scratch_bytes"] == tables
    assert one["background"][1]["plan"]["write_bytes"] == one["background"][1]["plan"]["disk_bytes"] + tables + buckets
    assert reads["searching"] == N * DIM * size + 9 * N * (DIM * size + 4)
    assert reads["putting back"] == 2 * 3 * N * 4 * (WIDTH + 1)


def search_by_role(monkeypatch, folder, **options):
    """Search all roles; return what was counted and the record of each."""
    found, counts = {}, COUNTS.read
    original = neighbors._search_role

    def one_role(store, role, *rest):
        counts.clear()
        record = original(store, role, *rest)
        found[role] = Counter(counts), record
        return record

    monkeypatch.setattr(neighbors, "_search_role", one_role)
    find_neighbors(folder, k=K, settings=Settings(threads=1), **options)
    return found


@pytest.mark.parametrize("index", ["Flat", "IVFFlat"])
def test_faiss_in_blocks(folder, counting, monkeypatch, index):
    monkeypatch.setattr(sys.modules[search_function.__module__], "QUERY_ROWS", 1000)
    monkeypatch.setattr(exact, "QUERY_ROWS", 1000)
    monkeypatch.setattr(traffic, "QUERY_ROWS", 1000)
    found = search_by_role(monkeypatch, folder, index=index)
    for role, (counts, record) in found.items():
        # exact search looks for the origin among the rows first
        assert compare(counts, record) == {}, role
    searching = found["tests"][1]["plan"]["reads"]["searching"]
    assert searching == 4 * DIM * Q + (2 * 4 * DIM * N if index == "Flat" else 4 * (DIM + 1) * N)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("weighting", ["constant", "gaussian"])
def test_graph_with_seeds(folder, counting, exact, weighting):
    find_neighbors(folder, k=K, index="list-major", probes=LISTS, settings=Settings(threads=1))
    counting.clear()
    record = graph(folder, exact=exact, weighting=weighting, settings=Settings(threads=1))
    reads, found = record["plan"]["reads"], dict(counting)
    pairs = traffic.ENTERED * M * K * 8  # read at random, and only about known beforehand
    assert found.pop("merging") == reads["merging"] - pairs
    assert found.pop("entering") == reads["entering"] - 4 * M * DIM  # the seeds, which are needed all the time
    assert found.pop("comparing") == reads["comparing"] == 2 * 4 * WIDTH * (N + M + Q)
    samples = reads.get("samples", 0)
    assert 0.8 * samples <= found.pop("samples", 0) <= samples
    assert found.pop("searching seeds") == reads["searching seeds"]
    building_as_planned(folder, found, record, N + M, K)


def building_as_planned(folder, found, record, n, width):
    """Compare the steps that each graph has; a block of the table is taken twice to count, but read once."""
    reads, store, k = record["plan"]["reads"], Store(folder), record["k"]
    weighted = "graph/weights" in store
    assert found.pop("building") - 4 * n * width == reads["building"]
    arrays = ("order", "position", "indptr", "indices", "row_scale", *(["weights"] if weighted else []))
    written = sum(store.array(f"graph/{name}").nbytes for name in arrays)
    assert found.pop("checking") == written
    most = build.graph_bytes(n, k, weighted=weighted)
    assert most >= written
    # the rows that are compared with the table are read alone: of so small a graph everything
    assert reads["checking"] == most + 4 * n * width + 2 * n * k * (8 if weighted else 4)
    assert found == {}
    assert 0.6 * record["plan"]["write_bytes"] < record["written_bytes"] <= record["plan"]["write_bytes"] + 4096


@pytest.mark.parametrize("given", [False, True])
def test_a_table_of_ones_own(folder, counting, monkeypatch, tmp_path, given):
    vectors = np.asarray(Store(folder).array("background/vectors"))
    similarities = vectors @ vectors.T
    ids = np.argsort(-similarities, axis=1)[:, :WIDTH]
    np.save(tmp_path / "ids.npy", ids.astype(np.int32))
    np.save(tmp_path / "similarities.npy", np.take_along_axis(similarities, ids, axis=1))

    def pointed_at(rows, ids, *rest):
        return [(traffic.alone(ids.size, 4 * DIM, rest[-1].nbytes), rest[-1])]

    mark_step(monkeypatch, neighbors, "copy_table", "comparing")
    for name in ("best_first", "require_products"):
        mark_step(monkeypatch, own_table, name, "comparing", whole=pointed_at)
    monkeypatch.setattr(own_table, "BLOCK_ROWS", 1000)
    files = {"table": tmp_path / "ids.npy"} | ({"similarities": tmp_path / "similarities.npy"} if given else {})
    counts, record = search_by_role(monkeypatch, folder, **files)["background"]
    counts["table"] = N * WIDTH * (8 if given else 4)
    assert record["plan"]["reads"]["comparing"] == (2 * 4 * N * (DIM + WIDTH) if given else 6 * 4 * N * DIM)
    assert compare(counts, record) == {}


def pairs_written(monkeypatch):
    """Return a list that is told the bytes of the seeds that enter rows."""
    written, entries = [], completion._entries

    def kept(*args):
        found = entries(*args)
        written.append(found.nbytes)
        return found

    monkeypatch.setattr(completion, "_entries", kept)
    return written


@pytest.mark.parametrize("few", [500, 4000])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_adding(tmp_path, counting, monkeypatch, few, precision):
    folder, sample, m = tmp_path / "store", mixture(), 900
    np.save(tmp_path / "more.npy", sample.tests[:m])
    np.save(tmp_path / "truth.npy", sample.tests_truth[:m])
    sample.seeds = sample.tests = None
    import_roles(folder, sample)
    reduce(folder, dim=DIM)
    find_neighbors(folder, k=K, index="list-major", probes=LISTS, precision=precision, settings=Settings(threads=1))
    import_descriptors(tmp_path / "more.npy", store=folder, role="added", truth=tmp_path / "truth.npy")
    reduce(folder, dim=DIM)
    for module in (traffic, completion):
        monkeypatch.setattr(module, "FEW_SEEDS", few)
    for name, step in (
        ("_copy", "copying"),
        ("_assign", "assigning"),
        ("_search", "comparing"),
        ("_rounded", "entering"),
        ("entered", "entering"),
        ("rewrite_in_order", "ordering"),
        ("search_lists", "searching"),
        ("recall_of_table", "samples"),
        ("share_of_short", "checking"),
    ):
        mark_step(monkeypatch, addition, name, step)
    written = pairs_written(monkeypatch)
    counting.clear()
    record = add_images(folder, settings=Settings(threads=1))
    reads, found = record["plan"]["reads"], dict(counting)
    found["assigning"] -= 4 * N  # the lists that are copied
    found["copying"] += 4 * N
    usual = traffic.pairs(N, m, k=WIDTH)
    found["merging"] += usual - 4 * N * WIDTH  # rows that are taken twice, but read once
    found["entering"] += 2 * 4 * m * DIM  # what is added, in order and then all the time
    samples = found.pop("samples")
    assert found == {name: reads[name] for name in found}
    # what is in place of true neighbors, and what is added, is not all read
    assert reads["samples"] - traffic.in_place_of(N + m, DIM, k=WIDTH) - 4 * m * DIM <= samples <= reads["samples"]
    assert record["written_bytes"] == pytest.approx(record["plan"]["write_bytes"] - usual + sum(written), abs=4096)


@pytest.fixture
def as_many_samples_as_it_takes(counting, monkeypatch):
    monkeypatch.setattr(recall, "MOST_SAMPLES", 10_000)
    monkeypatch.setattr(completion, "_COMPARED", 2**20)  # what a sample enters is read together
    return counting


@pytest.mark.parametrize(("index", "precision"), [("IVFFlat", "float32"), ("list-major", "float32"), ("list-major", "float16")])
def test_a_poor_recall_reads_more_than_is_usual(folder, as_many_samples_as_it_takes, monkeypatch, index, precision):
    counts, record = search_by_role(monkeypatch, folder, index=index, probes=1, precision=precision)["background"]
    drawn, plan = -(-record["recall"]["samples"] // recall.SAMPLES), record["plan"]
    assert drawn > 1
    sample, most = plan["reads"]["samples"], traffic.in_place_of(N, DIM, k=K)
    assert plan["recall_bytes"] == (-(-N // recall.SAMPLES) - 1) * sample
    assert sample < drawn * (sample - most) <= counts["samples"] <= drawn * sample <= sample + plan["recall_bytes"]


def test_a_poor_recall_of_seeds_reads_more_than_is_usual(tmp_path, as_many_samples_as_it_takes):
    folder, seeds = tmp_path / "store", 3500
    import_roles(folder, mixture(m=seeds))
    reduce(folder, dim=DIM)
    find_neighbors(folder, k=K, index="list-major", probes=2, settings=Settings(threads=1))
    as_many_samples_as_it_takes.clear()
    record = graph(folder, target_recall=0.3, settings=Settings(threads=1))
    drawn = [-(-found["samples"] // recall.SAMPLES) for found in record["recall_of_seeds"].values()]
    assert max(drawn) > 1
    found, plan = as_many_samples_as_it_takes["samples"], record["plan"]
    assert 1.5 * plan["reads"]["samples"] < found <= plan["reads"]["samples"] + plan["recall_bytes"]
    assert plan["recall_bytes"] <= 3 * plan["reads"]["samples"]


def of_identical(folder, seeds=40, same=3000):
    """A store in which so many images of the background are those of half of the seeds."""
    sample = mixture()
    sample.seeds, sample.seeds_truth = sample.seeds[:seeds], sample.seeds_truth[:seeds]
    sample.background[:same] = sample.seeds[: seeds // 2] = sample.background[0]
    import_roles(folder, sample)
    reduce(folder, dim=DIM)
    find_neighbors(folder, k=K, index="list-major", probes=9, settings=Settings(threads=1))


def test_identical_images_write_and_read_more_than_is_usual(tmp_path, as_many_samples_as_it_takes, monkeypatch):
    folder, seeds = tmp_path / "store", 40
    of_identical(folder, seeds)
    written = pairs_written(monkeypatch)
    as_many_samples_as_it_takes.clear()
    record = graph(folder, settings=Settings(threads=1))
    store, plan = Store(folder), record["plan"]
    # all that are as near as the last neighbor, k at most
    similarities = np.asarray(store.array("background/vectors")) @ np.asarray(store.array("seeds/vectors")).T
    near = similarities >= np.asarray(store.array("background/similarities"))[:, K - 1 : K] - 1e-6
    naive = 8 * np.minimum(near.sum(axis=1), K).sum()
    assert sum(written) == pytest.approx(naive, rel=0.01)
    usual = traffic.pairs(N, seeds, k=K)
    assert 10 * usual < sum(written) <= usual + plan["identical_bytes"] == 8 * N * K
    assert plan["write_bytes"] < record["written_bytes"] <= plan["write_bytes"] + plan["identical_bytes"]
    assert record["written_bytes"] - sum(written) <= plan["write_bytes"] - usual
    assert as_many_samples_as_it_takes["samples"] <= plan["reads"]["samples"] + plan["recall_bytes"]


def test_graph_without_seeds(reduced, tmp_path, counting):
    sample = mixture()
    sample.seeds = sample.seeds_truth = None
    folder = tmp_path / "store"
    import_roles(folder, sample)
    reduce(folder, dim=DIM)
    find_neighbors(folder, k=K, settings=Settings(threads=1))
    counting.clear()
    COUNTS.step = "building"
    record = graph(folder, k=K - 1, settings=Settings(threads=1))
    found = dict(counting)
    assert found.pop("comparing") == record["plan"]["reads"]["comparing"] == 4 * WIDTH * N
    building_as_planned(folder, found, record, N, WIDTH)
    passes = -(-N * (8 * (K - 1) + 8) // ROOM)
    assert passes > 3
    assert record["plan"]["reads"]["building"] == (passes + 2) * 4 * N * WIDTH + 5 * 4 * N


def test_the_room_that_is_planned_is_the_room_that_is_taken():
    for total in (2**31, 8 * 2**30):
        budget = MemoryBudget(total)
        assert budget.units(8, what="", fixed_bytes=plans.SLACK) == plans._room(budget, 0) // 8


def test_rows_that_are_read_alone():
    assert traffic.alone(1000, 1024, 10**12) == 1000 * (1024 + 128 * 1024)
    assert traffic.alone(1000, 1024, 10**7) == 10**7
    # 100 million vectors of 256 values under 16 GiB, 15.7 of them for rows in order: 7 passes, or buckets
    plan = plans.plan_neighbors(10**8, 10**8, 256, k=30, index="auto", train=True, budget=MemoryBudget(2**34))
    assert plan.reads["ordering"] == 2 * 10**8 * 1028 + 12 * 10**8
    assert plan.scratch_bytes == 10**8 * 1032


def test_a_recall_that_is_asked_for_takes_one_more_exact_search():
    about = {"k": 30, "index": "auto", "train": True, "budget": MemoryBudget(2**33)}
    given, asked = (plans.plan_neighbors(10**7, 10**7, 64, target_recall=recall, **about).reads for recall in (None, 0.9))
    assert asked["samples"] - given["samples"] == 256 * 10**7 + 2 * 1000 * (256 + 2**17) + 4 * 10**7
    assert {**asked, "samples": 0} == {**given, "samples": 0}


def test_plans_and_records_say_it(folder, capsys):
    from tests.cli.helpers import run

    shown = run("neighbors", "--store", folder, "--k", K, "--dry-run").out
    assert re.search(r"^neighbors reads at most: training \S+ \S+, assigning \S+ \S+, searching", shown, re.MULTILINE)
    done = run("neighbors", "--store", folder, "--k", K)
    assert done.code == 0
    assert re.search(r"read from disk \(planned at most \S+ MiB\), \S+ KiB written \(planned at most", done.out), done.out
    assert "besides" not in shown


def test_plans_and_records_say_what_sizes_do_not_tell(folder):
    from tests.cli.helpers import run

    def line(stage, plan):
        recall, identical = (format_size(plan[name]) for name in ("recall_bytes", "identical_bytes"))
        said = f"{stage} may besides read up to {recall} to measure a recall that is poor\n"
        if plan["identical_bytes"]:
            said += (
                f"{stage} may besides write and read up to {identical} of scratch disk where thousands of images are identical\n"
            )
        return said

    words = ["neighbors", "--store", folder, "--k", K, "--index", "list-major"]
    planned = find_neighbors(folder, k=K, index="list-major", settings=Settings(dry_run=True))["background"]["plan"]
    assert 0 < planned["recall_bytes"] == 4 * planned["reads"]["samples"]
    assert planned["identical_bytes"] == 0
    assert line("neighbors", planned) in run(*words, "--dry-run").out
    done = run(*words).out
    reads = sum(planned["reads"].values())
    assert f"(planned {format_size(reads)}, at most {format_size(reads + planned['recall_bytes'])})" in done
    assert f"written (planned at most {format_size(planned['write_bytes'])})" in done
    planned = graph(folder, settings=Settings(dry_run=True))["plan"]
    assert planned["identical_bytes"] == 8 * (N * K - 4 * M * K)
    assert line("graph", planned) in run("graph", "--store", folder, "--dry-run").out
    most = format_size(planned["write_bytes"] + planned["identical_bytes"])
    assert f"written (planned {format_size(planned['write_bytes'])}, at most {most})" in run("graph", "--store", folder).out


@pytest.mark.parametrize(("passes", "row", "source", "fewer"), [(3, 64, 64, False), (4, 64, 64, True), (3, 32, 64, True)])
def test_buckets_where_they_are_less_traffic(passes, row, source, fewer):
    assert traffic.by_buckets(passes, row, source) == fewer == (passes * (source + 4) > source + 4 + 2 * (row + 4))
    assert not traffic.by_buckets(129, row, source)  # files that would be open
