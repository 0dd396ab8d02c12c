"""The last two steps together give the bytes of the steps one by one."""

import numpy as np
import pytest

from ooc_diffusion.diffusion import (
    Diffusion,
    diffuse,
    engine,
    forward,
    iterate,
    joined,
    needed,
    parts,
    room,
    scores,
    sparse,
    write_scores,
)
from ooc_diffusion.diffusion.sparse import SparseColumns
from ooc_diffusion.diffusion.steps import Steps
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.store import Store

from .test_steps import C, N, case  # noqa: F401

T = 4


def sparse_columns(dtype, columns, density, rng):
    """Return the same columns sparse and as an array (N, C')."""
    L = np.where(rng.random((N, columns)) < density, rng.random((N, columns)), 0).astype(np.float32)
    if dtype != np.float32:
        L = (L.view(np.uint32) & 0xFFFF0000).view(np.float32)
    c, p = np.nonzero(L.T)
    starts = np.searchsorted(c, np.arange(columns + 1))
    found = SparseColumns(starts, p.astype(np.uint32), L.T[c, p], dtype)
    return found, found.dense(room.make_rows(N, columns, dtype))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("columns", [1, 13, 300])
@pytest.mark.parametrize(("tile", "span"), [(1, N), (7, 3), (N, 2 * N)])
@pytest.mark.parametrize("copied", [False, True])
def test_two_steps_at_once_are_two_steps(case, monkeypatch, precision, columns, tile, span, copied):  # noqa: F811
    graph, *_, queries = case
    rng = np.random.default_rng(columns)
    dtype = Diffusion(queries[0], queries[0], 1, 1, precision=precision).dtype
    sparse, dense = sparse_columns(dtype, columns, 0.3, rng)
    wanted = needed.needed_rows(graph, queries[:1, :2], T, every_iteration=False)
    assert wanted.few
    monkeypatch.setattr(joined, "_tile_rows", lambda columns, itemsize: tile)
    monkeypatch.setattr(joined, "_TILE_SPAN", span)
    with Store.temporary().job("diffuse", parameters={}) as job:
        if copied:
            monkeypatch.setattr(parts, "MOST_COPIED", 2.0)
            parts.copy_parts(job, graph, wanted)
            assert T in wanted.parts
        for threads in (1, 2):
            positions, found = joined.last_two(graph, sparse.by_rows(N), wanted, T, threads=threads)
            assert positions.tolist() == wanted.rows(T, 0, N).tolist()
            for first in range(0, columns, 64):
                L = room.make_rows(N, min(64, columns - first), dtype)
                L[:] = dense[:, first : first + 64]
                target = iterate.InMemory(L.copy())
                for t in (T - 1, T):
                    L = iterate.step(graph, L, target, wanted, t, threads=threads)
                assert found[:, first : first + 64].tobytes() == L[positions].tobytes()
                places, beside = joined.last_two(graph, dense[:, first : first + 64].copy(), wanted, T, threads=threads)
                assert places.tolist() == positions.tolist()
                assert beside.tobytes() == L[positions].tobytes()
            assert (found != 0).any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kept", [3000, 2**20])
def test_scores_do_not_depend_on_joining(case, monkeypatch, precision, kept):  # noqa: F811
    graph, _, seeds, classes, queries = case
    what = Diffusion(seeds, classes, C, T, queries[:1, :2], precision=precision)
    small = room.Room(columns=2, in_memory=False, sparse_bytes=2**24, kept_bytes=kept)
    monkeypatch.setattr(scores, "make_room", lambda *args, **options: small)
    monkeypatch.setattr(forward, "worth", lambda *args: True)
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 0.65)

    def run():
        with Store.temporary().job("diffuse", parameters={}) as job:
            record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
            return np.array(job.array("scores", "<f4", (len(queries[:1]), C)).view()), record

    joint, record = run()
    assert record["steps"]["joined"] >= 2
    assert record["column_batches"] < C // 2
    monkeypatch.setattr(scores, "possible", lambda *args, **options: False)
    apart, record = run()
    assert "joined" not in record["steps"]
    assert joint.tobytes() == apart.tobytes()
    assert (joint != 0).any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("segments", "n_iter"), [(False, 1), (False, 2), (False, 3), (False, 4), (True, 4)])
def test_a_dense_batch_needs_no_file_for_the_iterate_before_the_last(case, monkeypatch, precision, segments, n_iter):  # noqa: F811
    graph, _, seeds, classes, _ = case
    queries = np.arange(40)[None]  # so many that labels reach some in one step
    what = Diffusion(seeds, classes, C, n_iter, queries, precision=precision)
    monkeypatch.setattr(scores, "make_room", lambda *args, **options: room.Room(4, False, 2**24, 0))
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 0)
    if segments:
        monkeypatch.setattr(iterate, "NEAR_BYTES", 0)
        monkeypatch.setattr(iterate, "SEGMENT_BYTES", 200)
    expected = np.array(diffuse(graph, seeds, classes, C, queries=queries, n_iter=n_iter, precision=precision))
    for better in (True, False):
        monkeypatch.setattr(scores, "better_than_a_file", lambda *args, better=better, **options: better)
        with Store.temporary().job("diffuse", parameters={}) as job:
            record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
            found = np.array(job.array("scores", "<f4", (len(queries[:1]), C)).view())
        assert found.tobytes() == expected.tobytes()
        assert record["steps"].get("joined", 0) == (2 * record["column_batches"] if better and n_iter > 1 else 0)
    assert (found != 0).any()


class Crash(Exception):
    pass


def test_a_run_cut_off_in_joined_steps_goes_on_from_the_iterate_before(case, tmp_path, monkeypatch):  # noqa: F811
    graph, _, seeds, classes, queries = case
    what = Diffusion(seeds, classes, C, T, queries[:1, :2])
    monkeypatch.setattr(scores, "make_room", lambda *args, **options: room.Room(4, False, 2**24, 0))
    monkeypatch.setattr(scores, "better_than_a_file", lambda *args, **options: True)
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 0)
    monkeypatch.setattr(iterate, "_SECONDS_BETWEEN_SAVES", 0)
    expected = np.array(diffuse(graph, seeds, classes, C, queries=queries[:1, :2], n_iter=T))
    last_two, step, done = engine.last_two, engine.step, []

    def crashing(*args, **options):
        done.append("joined")
        if done.count("joined") == 2:
            raise Crash
        return last_two(*args, **options)

    monkeypatch.setattr(engine, "last_two", crashing)
    monkeypatch.setattr(engine, "step", lambda *args, **options: done.append("step") or step(*args, **options))
    store = Store(tmp_path / "store", create=True)

    def run():
        with store.job("diffuse", parameters={}) as job:
            job.publish(write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2))

    with pytest.raises(Crash):
        run()
    first = len(done)
    run()
    # the second of three batches goes on with its joined steps, the third does all of its own
    assert done[first + 1 :] == ["step"] * (T - 2) + ["joined"]
    assert done[first] == "joined"
    assert store.array("scores").tobytes() == expected.tobytes()
    assert not list(store.path.glob("data/iterate*"))


def test_what_is_not_worth_joining_goes_on_column_by_column(case, monkeypatch):  # noqa: F811
    graph, _, seeds, classes, queries = case
    what = Diffusion(seeds, classes, C, T, queries[:1, :2])
    small = room.Room(columns=2, in_memory=False, sparse_bytes=2**24, kept_bytes=2**20)
    monkeypatch.setattr(scores, "make_room", lambda *args, **options: small)
    monkeypatch.setattr(forward, "worth", lambda *args: False)
    monkeypatch.setattr(scores, "better_than_a_file", lambda *args, **options: False)
    with Store.temporary().job("diffuse", parameters={}) as job:
        record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
    assert "joined" not in record["steps"]
    assert record["column_batches"] > 1


@pytest.mark.parametrize("taken", [False, True])
def test_memory_that_a_batch_has_taken_is_not_for_joining(case, monkeypatch, taken):  # noqa: F811
    graph, _, seeds, classes, queries = case
    what = Diffusion(seeds, classes, C, T, queries[:1, :2])
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 0.65)
    small = room.Room(columns=2, in_memory=False, sparse_bytes=2**24, kept_bytes=2**20)
    monkeypatch.setattr(forward, "worth", lambda *args: True)
    with Store.temporary().job("diffuse", parameters={}) as job:
        panels = scores._HostPanels(job, graph, what, scores.rows_needed(graph, what), small, 2, Steps())
        if taken:
            panels._memory(2)
        t, columns = panels._start(0, "iterate/0", [], Steps())
    assert (columns.n_columns > small.columns) == (not taken)
    assert taken or t == T - 2
