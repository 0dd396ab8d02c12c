"""Push, dense and masked steps give the same bytes, whatever the plan, and those bytes are right."""

import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import Diffusion, engine, iterate, kernels, needed, room, scores, sparse, write_scores
from ooc_diffusion.diffusion.precision import ELEMENTS, widened
from ooc_diffusion.diffusion.room import Room
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.store import ArrayWriter, Store
from tests.reference import awkward_table, naive_bfloat16, naive_diffuse, naive_query_scores, naive_w

N, C = 203, 9
NEVER = ALWAYS = 10**12
TOLERANCE = {"float32": 1e-5, "bfloat16": 6 * 2**-8}
# two ways of running, each with each in float32; both of each once in bfloat16
WAYS = [(a, b, "float32") for a in (False, True) for b in (False, True)] + [(a, not a, "bfloat16") for a in (False, True)]


def ring_table(n, k, rng):
    """Neighbors on a ring, some of them far: labels spread slowly, so that all kinds of steps occur."""
    ids = (np.arange(n)[:, None] + rng.integers(-3, 4, (n, k))) % n
    ids[rng.random((n, k)) < 0.02] = -1
    return ids


@pytest.fixture(params=["constant", "weighted", "awkward"])
def case(request):
    rng = np.random.default_rng(3)
    ids, weights = (ring_table(N, 5, rng), rng.random((N, 5)) + 0.1) if request.param != "awkward" else awkward_table(rng, N, 5)
    weights = None if request.param == "constant" else weights.astype(np.float32)
    graph = build_graph(ids, weights=weights, order=rng.permutation(N).astype(np.uint32))
    seeds = rng.choice(N, 14, replace=False)
    classes = rng.integers(0, C - 1, 14)
    queries = rng.integers(-1, N, (4, 3))
    return graph, naive_w(ids, weights), seeds, classes, queries


def plan(monkeypatch, room, *, records=2, bits=17, margin=1.5, spare=65536):
    """Have push taken while it makes ``records`` per entry of the dense step, its sums in ranges of 2^``bits`` targets."""
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", records)
    monkeypatch.setattr(sparse, "RANGE_BITS", bits)
    monkeypatch.setattr(sparse, "_MARGIN", margin)
    monkeypatch.setattr(sparse, "_SPARE", spare)
    monkeypatch.setattr(scores, "make_room", lambda n, left, **kw: replace(room, columns=min(room.columns, left)))


@pytest.mark.parametrize(("every", "outside", "precision"), WAYS)
def test_any_plan_gives_the_same_bytes(case, monkeypatch, every, outside, precision):
    graph, W, seeds, classes, queries = case
    options = {"queries": queries if outside else None, "n_iter": 6, "every_iteration": every, "precision": precision}
    expected = naive_diffuse(W, seeds, classes, C, 6)
    expected = [naive_query_scores(L, queries) for L in expected] if outside else expected
    found = np.array(diffuse(graph, seeds, classes, C, **options))
    np.testing.assert_allclose(found, np.stack(expected) if every else expected[-1], rtol=TOLERANCE[precision], atol=1e-12)
    for records, sparse_bytes, kept_bytes in itertools.product((1, ALWAYS), (0, 4000, ALWAYS), (0, 2000)):
        plan(monkeypatch, Room(4, True, sparse_bytes, kept_bytes), records=records, bits=5)
        assert np.array(diffuse(graph, seeds, classes, C, **options)).tobytes() == found.tobytes()
    for columns, bits, spare in [(9, 1, 0), (1, 7, 20), (5, 8, 0), (2, 3, ALWAYS)]:
        plan(monkeypatch, Room(columns, False, ALWAYS, ALWAYS), records=ALWAYS, bits=bits, margin=0.5, spare=spare)
        for threads in (1, 2):
            assert np.array(diffuse(graph, seeds, classes, C, threads=threads, **options)).tobytes() == found.tobytes()


class Crash(Exception):
    pass


@pytest.mark.parametrize(("every", "precision"), [(False, "float32"), (True, "float32"), (True, "bfloat16")])
def test_an_interrupted_batch_goes_on_behind_its_last_step(case, tmp_path, monkeypatch, every, precision):
    graph, _, seeds, classes, _ = case
    expected = np.array(diffuse(graph, seeds, classes, C, n_iter=4, every_iteration=every, precision=precision)).tobytes()
    plan(monkeypatch, Room(4, False, 0, 0))
    monkeypatch.setattr(iterate, "_SECONDS_BETWEEN_SAVES", 0)
    what = Diffusion(seeds, classes, C, 4, every_iteration=every, precision=precision)
    step, taken = engine.step, []

    def run(store, crash_at):
        def counted(*args, **options):
            if len(taken) == crash_at:
                raise Crash
            taken.append(crash_at)
            return step(*args, **options)

        taken.clear()
        monkeypatch.setattr(engine, "step", counted)
        with store.job("diffuse", parameters={}) as job:
            record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
            job.publish(record)
        assert record["steps"] == {"dense": 12}
        assert not list(store.path.glob("data/iterate*"))
        return store.array("scores").tobytes()

    assert run(Store(tmp_path / "whole", create=True), NEVER) == expected
    for crash_at in range(12):
        store = Store(tmp_path / str(crash_at), create=True)
        with pytest.raises(Crash):
            run(store, crash_at)
        assert run(store, NEVER) == expected
        assert len(taken) == 12 - crash_at


def test_an_interrupted_batch_goes_on_under_any_other_budget(tmp_path, monkeypatch):
    n = 1000
    graph = build_graph((np.arange(n)[:, None] + np.array([1, 2, 3, -1, -2])) % n)
    rng = np.random.default_rng(0)
    what = Diffusion(rng.choice(n, 60, replace=False), np.arange(60) % 4, 4, 6, np.arange(0, n, 60)[:, None])
    monkeypatch.setattr(room, "BLOCK_ROWS", 64)
    monkeypatch.setattr(iterate, "_SECONDS_BETWEEN_SAVES", 0)
    step = engine.step

    def run(store, columns, in_memory, crash_at=None):
        def crashing(graph, L, target, needed, t, **options):
            if t == crash_at and L.shape[1] > 1:
                raise Crash
            return step(graph, L, target, needed, t, **options)

        plan(monkeypatch, Room(columns, in_memory, 0, 0))
        monkeypatch.setattr(engine, "step", crashing)
        with store.job("diffuse", parameters={}) as job:
            write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
            job.publish({})
        return store.array("scores").tobytes()

    expected = run(Store(tmp_path / "whole", create=True), 4, True)
    runs = [[(4, False), (4, True)], [(4, False), (4, False)], [(4, False), (2, False), (4, False)], [(4, False), (2, True)]]
    for number, ways in enumerate(runs):
        for crash_at in (4, 5):
            store = Store(tmp_path / f"{number}-{crash_at}", create=True)
            for columns, in_memory in ways[:-1]:
                with pytest.raises(Crash):
                    run(store, columns, in_memory, crash_at)
            assert run(store, *ways[-1]) == expected
            assert not list(store.path.glob("data/iterate*"))


def in_files(graph, L, job, name):
    return iterate.InFile(job, name, graph, L)


@pytest.mark.parametrize("block_rows", [8, 64, N])
def test_rows_that_are_written_late_are_those_that_were_computed(case, monkeypatch, block_rows):
    graph, *_ = case
    monkeypatch.setattr(room, "BLOCK_ROWS", block_rows)
    L = np.random.default_rng(0).random((N, 5)).astype(np.float32)
    expected = iterate.step(graph, L.copy(), iterate.InMemory(L.copy()), needed.all_rows(graph, 1), 1, threads=2)
    append = ArrayWriter.append

    def late(self, rows):
        time.sleep(0.002)
        append(self, rows)

    monkeypatch.setattr(ArrayWriter, "append", late)
    with Store.temporary().job("diffuse", parameters={}) as job:
        found = iterate.step(graph, L, in_files(graph, L, job, "iterate"), needed.all_rows(graph, 1), 1, threads=2)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("failing", [0, 1, -1])
def test_a_write_that_fails_is_an_error_and_leaves_no_thread(case, monkeypatch, failing):
    graph, *_ = case
    monkeypatch.setattr(room, "BLOCK_ROWS", 64)
    blocks = len(list(needed.blocks_of(graph, needed.all_rows(graph, 1), 1)))
    L, append, calls = room.make_rows(N, 5), ArrayWriter.append, []
    L[:] = 1

    def fail(self, rows):
        calls.append(len(rows))
        if len(calls) == failing % blocks + 1:
            raise Crash
        append(self, rows)

    threads = threading.active_count()
    with Store.temporary().job("diffuse", parameters={}) as job:
        target = in_files(graph, L, job, "iterate")
        monkeypatch.setattr(ArrayWriter, "append", fail)
        with pytest.raises(Crash):
            iterate.step(graph, L, target, needed.all_rows(graph, 1), 1, threads=2)
    assert threading.active_count() == threads
    assert len(calls) <= failing % blocks + 2


def test_a_graph_without_edges_gives_zeros():
    graph = build_graph(np.full((20, 2), -1))
    assert (diffuse(graph, [1, 2], [0, 1], 3, queries=np.array([[3], [-1]]), n_iter=2) == 0).all()


def test_column_sums_are_computed_once_also_by_a_run_that_was_interrupted(case, monkeypatch):
    graph, _, seeds, classes, queries = case
    what = Diffusion(seeds, classes, C, 4, queries[:1])
    adjoint, calls = scores.adjoint_weights, []
    monkeypatch.setattr(scores, "adjoint_weights", lambda *args, **options: calls.append(1) or adjoint(*args, **options))
    store = Store.temporary()

    def run():
        with store.job("diffuse", parameters={}) as job:
            write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
            job.publish({})

    def crash(*args, **options):
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(scores, "diffuse_batch", crash)
        with pytest.raises(Crash):
            run()
    run()
    assert calls == [1]
    expected = diffuse(graph, seeds, classes, C, queries=queries[:1], n_iter=4)
    assert store.array("scores").tobytes() == expected.tobytes()


def naive_rows(graph, L):
    """Sum the rows of L one neighbor after the other in float64, as the contract of the bytes has it."""
    out = np.empty((graph.n, L.shape[1]))
    for i in range(graph.n):
        total = np.zeros(L.shape[1])
        for e in range(graph.indptr[i], graph.indptr[i + 1]):
            times = 1.0 + (graph.indices[e] >> 31) if graph.weights is None else np.float64(graph.weights[e])
            total += times * L[graph.indices[e] & kernels.POSITION].astype(np.float64)
        out[i] = total * np.float64(graph.row_scale[i])
    return out


@pytest.mark.parametrize("columns", [*range(1, 26), 31, 32, 33, *range(55, 65)])
def test_the_product_of_any_width_is_that_of_the_loops(case, columns):
    graph, *_ = case
    L = np.random.default_rng(columns).normal(size=(N, columns)).astype(np.float32)
    done = iterate.step(graph, L.copy(), iterate.InMemory(room.make_rows(*L.shape)), needed.all_rows(graph, 1), 1, threads=2)
    assert done.tobytes() == naive_rows(graph, L).astype(np.float32).tobytes()
    dtype, bits = ELEMENTS["bfloat16"], (L.view(np.uint32) >> 16).astype(np.uint16)
    done = iterate.step(
        graph, bits.copy(), iterate.InMemory(room.make_rows(*L.shape, dtype)), needed.all_rows(graph, 1), 1, threads=2
    )
    assert widened(done).tobytes() == naive_bfloat16(naive_rows(graph, widened(bits))).astype(np.float32).tobytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("columns", [1, 3, 13, 64])
@pytest.mark.parametrize("segment_rows", [1, 5, N])
def test_going_through_L_by_segments_changes_no_byte(case, monkeypatch, precision, columns, segment_rows):
    graph, *_, queries = case
    dtype = Diffusion(queries[0], queries[0], 1, 1, precision=precision).dtype
    L, rng = room.make_rows(N, columns, dtype), np.random.default_rng(columns)
    L[:] = rng.integers(0x3C00, 0x4000, L.shape) if precision == "bfloat16" else rng.random(L.shape)
    few = needed.needed_rows(graph, queries[:2], 2, every_iteration=False)
    for wanted in (needed.all_rows(graph, 2), few):
        rows = wanted.rows(2, 0, N)
        for threads, entries in ((1, 2**22), (2, 2**22), (2, 100)):  # 100: some blocks are longer
            with monkeypatch.context() as patched:
                patched.setattr(room, "BLOCK_ENTRIES", entries)
                expected = iterate.step(graph, L.copy(), iterate.InMemory(L.copy()), wanted, 2, threads=threads)
                patched.setattr(iterate, "NEAR_BYTES", 0)
                patched.setattr(iterate, "SEGMENT_BYTES", segment_rows * columns * dtype.itemsize)
                found = iterate.step(graph, L.copy(), iterate.InMemory(L.copy()), wanted, 2, threads=threads)
            assert found[rows].tobytes() == expected[rows].tobytes()
            assert (found[rows] != 0).any()


@pytest.mark.parametrize(("every", "in_memory", "precision"), WAYS)
def test_rows_that_are_not_needed_may_hold_anything(case, monkeypatch, every, in_memory, precision):
    graph, _, seeds, classes, queries = case
    queries = queries[:2]
    options = {"queries": queries, "n_iter": 5, "every_iteration": every, "precision": precision}
    expected = diffuse(graph, seeds, classes, C, **options)
    assert np.isfinite(expected).all()
    plan(monkeypatch, Room(4, in_memory, 0, 0))
    masked = []
    step = engine.step

    def poisoned(graph, L, target, wanted, t, **options):
        done = step(graph, L, target, wanted, t, **options)
        if wanted.masks[t] is not None:
            kept = np.unpackbits(wanted.masks[t], count=graph.n).astype(bool)
            masked.append(kept.mean())
            done[~kept] = np.nan if done.dtype == np.float32 else 0x7FC0
        return done

    monkeypatch.setattr(engine, "step", poisoned)
    found = diffuse(graph, seeds, classes, C, **options)
    assert found.tobytes() == expected.tobytes()
    assert len(masked) >= 3
    assert min(masked) < 0.1


@pytest.mark.parametrize("every", [False, True])
def test_needed_rows_are_those_that_a_walk_from_the_queries_finds(case, every):
    graph, *_, queries = case
    n_iter = 4
    found = needed.needed_rows(graph, queries, n_iter, every_iteration=every)
    assert found.few
    read = {int(graph.position[j]) for j in queries.ravel() if j >= 0}
    rows = read
    for t in range(n_iter, 0, -1):
        if found.masks[t] is None:
            assert len(rows) > 0.75 * N
            break
        assert set(found.rows(t, 0, N).tolist()) == rows
        assert set((found.rows(t, 96, N) + 96).tolist()) == {row for row in rows if row >= 96}
        degrees = np.diff(graph.indptr)
        assert found.entries[t] == sum(int(degrees[row]) for row in rows)
        reached = {int(j & kernels.POSITION) for row in rows for j in graph.indices[graph.indptr[row] : graph.indptr[row + 1]]}
        rows = reached | read if every else reached


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("nodes", [np.arange(2), np.arange(N)], ids=["two", "all"])
def test_what_a_seed_adds_to_its_column(case, every, nodes):
    graph, W, *_ = case
    rows = needed.needed_rows(graph, nodes[:, None], 5, every_iteration=every)
    found = engine.adjoint_weights(graph, nodes, rows, target=iterate.InMemory(room.make_rows(N, 1)), threads=2)
    L = np.eye(N)
    for t in range(6):
        if t > 0 and rows.masks[t] is not None and not set(graph.position[nodes]) <= set(rows.rows(t, 0, N).tolist()):
            assert not every
            assert t < 5
            assert np.isnan(found[t]).all()
        else:
            np.testing.assert_allclose(found[t], L.sum(axis=0)[nodes], rtol=2e-6, atol=0)
        L = W @ L


def test_the_record_says_which_steps_were_taken(case, monkeypatch):
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 0.5)
    graph, _, seeds, classes, queries = case

    def steps(queries, n_iter):
        what = Diffusion(seeds, classes, C, n_iter, queries)
        with Store.temporary().job("diffuse", parameters={}) as job:
            return write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)["steps"]

    found = steps(queries[:1], 6)
    assert sum(found.values()) == 6
    assert found["push"] >= 1
    assert found["masked"] >= 1
    assert steps(None, 6).keys() <= {"push", "dense"}


@pytest.mark.parametrize("itemsize", [4, 2])
@pytest.mark.parametrize("n", [1, 1000, 10**6, 10**8])
def test_no_room_is_larger_than_the_budget(n, itemsize):
    overhead = MemoryBudget(1).overhead()
    least = room.FIXED_BYTES + room.masks_bytes(n) + room.column_bytes(n)
    seen = set()
    for size in (least, least + 2 * n, 2 * least, 8 * least, 30 * least, 100 * least, 1000 * least):
        for columns in (1, 20, 507):
            made = room.make_room(n, columns, budget=MemoryBudget(overhead + size + 2**24), itemsize=itemsize)
            assert 1 <= made.columns <= columns
            assert made.columns in {4: (columns, 1, 2, 4, 8, 16, 32, 48, 64), 2: (columns, 1, 2, 4, 8, 16, 32, 64)}[itemsize]
            held = room.FIXED_BYTES + room.masks_bytes(n) + room.room_bytes(n, made, itemsize)
            assert held <= size + 2**24 + 2**23
            seen.add((made.in_memory, made.sparse_bytes > 0, made.kept_bytes > 0))
    assert (True, True, False) in seen
    assert n < 10**6 or (False, True, True) in seen


def test_a_large_budget_does_not_make_a_small_graph_take_much():
    made = room.make_room(2000, 10, budget=MemoryBudget(2**35))
    assert room.room_bytes(2000, made) < 2**22


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 17, 35, 40, 66])
def test_bfloat16_has_room_for_twice_the_columns_or_for_keeping_them_in_memory(columns):
    n = 10**8
    size = room.FIXED_BYTES + room.masks_bytes(n) + columns * 11 * n // 2
    budget = MemoryBudget(MemoryBudget(1).overhead() + size)
    one, other = (room.make_room(n, 507, budget=budget, itemsize=itemsize) for itemsize in (4, 2))
    if one.in_memory == other.in_memory:
        assert other.columns == min(2 * one.columns, 32 if one.in_memory else 64)
    else:
        assert other.in_memory
        assert other.columns == one.columns == 32


def break_graph(graph, how):
    """Spoil one array of an opened graph, as a mistake of the engine or of the files would."""
    if how == "a wrong high bit":
        graph.indices = np.array(graph.indices)
        graph.indices[len(graph.indices) // 2] ^= np.uint32(1 << 31)
    elif how == "a dropped block":
        graph.row_scale = np.array(graph.row_scale)
        graph.row_scale[64:128] = 0
    else:
        graph.position = np.roll(graph.position, 1)


@pytest.mark.parametrize("how", ["a wrong high bit", "a dropped block", "a permuted order"])
def test_a_broken_graph_is_noticed(how):
    rng = np.random.default_rng(3)
    ids = ring_table(N, 5, rng)
    graph = build_graph(ids, order=rng.permutation(N).astype(np.uint32))
    seeds = rng.choice(N, 40, replace=False)
    classes = rng.integers(0, C, 40)
    expected = naive_diffuse(naive_w(ids), seeds, classes, C, 3)[-1]
    np.testing.assert_allclose(diffuse(graph, seeds, classes, C, n_iter=3), expected, rtol=1e-5, atol=1e-12)
    break_graph(graph, how)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(diffuse(graph, seeds, classes, C, n_iter=3), expected, rtol=1e-5, atol=1e-12)
