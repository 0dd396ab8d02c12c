"""W read past the system's cache is W, whatever of it is wanted, and its memory is counted."""

import ctypes
import gc
import mmap
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import needed, reading, room
from ooc_diffusion.diffusion.blocks import Block, row_blocks
from ooc_diffusion.errors import StorageFailure
from ooc_diffusion.store import Store
from ooc_diffusion.store.npy import DirectFile
from tests.reference import awkward_table

N, K = 5000, 6


@pytest.fixture(params=[False, True], ids=["constant", "weighted"])
def graph(request, tmp_path):
    rng = np.random.default_rng(5)
    ids, weights = awkward_table(rng, N, K)
    store = Store(tmp_path / "graph", create=True)
    made = build_graph(ids, weights=weights if request.param else None, store=store.path)
    try:
        DirectFile(made.indices).close()
    except OSError as error:
        pytest.skip(f"the file system of the tests does not read past the cache: {error}")
    return made


@pytest.fixture
def past_cache(monkeypatch):
    """Have every W read past the cache; return the spans that were."""
    taken, read = [], DirectFile.read

    def counted(self, begin, end, memory):
        taken.append((begin, end, threading.current_thread()))
        return read(self, begin, end, memory)

    monkeypatch.setattr(reading, "_CACHED_PART", 0.0)
    monkeypatch.setattr(DirectFile, "read", counted)
    return taken


def entries_in(block):
    return slice(block.indptr[0], block.indptr[-1])


@pytest.mark.parametrize("block_rows", [8, 1024, N - 1, N, N + 1])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_blocks_have_their_entries(graph, past_cache, monkeypatch, block_rows, share):
    monkeypatch.setattr(room, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(reading, "PIECE", 16)
    chosen = np.random.default_rng(0).random(N) < share
    for order in (1, -1):
        blocks = [Block(graph, b, e, np.flatnonzero(chosen[b:e]).astype(np.int32)) for b, e in row_blocks(graph.indptr)][::order]
        blocks = [block for block in blocks if len(block.rows)]
        seen = 0
        for block, (expected, (indices, weights)) in zip(blocks, reading.entries_of(blocks), strict=True):
            assert expected is block
            assert indices.tobytes() == graph.indices[entries_in(block)].tobytes()
            assert weights.tobytes() == (b"" if graph.weights is None else graph.weights[entries_in(block)].tobytes())
            seen += len(indices)
        assert seen > 0
    if share == 1.0 or block_rows > 8:  # of few rows in large blocks, only the pages with them are wanted
        assert (len(past_cache) > 0) == (share > 0.02)
    assert all(thread is not threading.main_thread() for _, _, thread in past_cache)


def test_a_block_longer_than_the_memory_for_one_is_mapped(graph, past_cache, monkeypatch):
    monkeypatch.setattr(room, "BLOCK_ENTRIES", 20)
    blocks = list(needed.blocks_of(graph, needed.all_rows(graph, 1), 1))
    longer = [len(graph.indices[entries_in(block)]) > 20 for block in blocks]
    for block, (indices, _) in reading.entries_of(blocks):
        assert indices.tobytes() == graph.indices[entries_in(block)].tobytes()
    assert any(longer)
    assert len(past_cache) == (1 if graph.weights is None else 2) * (len(blocks) - sum(longer))


def test_scores_do_not_depend_on_how_W_is_read(graph, past_cache, monkeypatch):
    rng = np.random.default_rng(1)
    seeds, classes, queries = rng.choice(N, 40, replace=False), np.arange(40) % 7, rng.integers(-1, N, (50, 3))
    found = diffuse(graph, seeds, classes, 7, queries=queries, n_iter=4)
    assert past_cache
    monkeypatch.setattr(reading, "_CACHED_PART", 1.0)
    past_cache.clear()
    assert diffuse(graph, seeds, classes, 7, queries=queries, n_iter=4).tobytes() == found.tobytes()
    assert not past_cache
    assert (found != 0).any()


def test_where_the_file_system_does_not_it_is_mapped(graph, past_cache, monkeypatch):
    def refuse(*args):
        raise OSError("not here")

    monkeypatch.setattr(DirectFile, "__init__", refuse)
    blocks = list(needed.blocks_of(graph, needed.all_rows(graph, 1), 1))
    read = np.concatenate([indices for _, (indices, _) in reading.entries_of(blocks)])
    assert read.tobytes() == graph.indices.tobytes()
    assert not past_cache


def test_a_file_that_has_become_shorter_is_an_error_with_its_name(graph, past_cache, monkeypatch):
    monkeypatch.setattr(room, "BLOCK_ROWS", 64)
    blocks = list(needed.blocks_of(graph, needed.all_rows(graph, 1), 1))
    read = reading.entries_of(blocks)
    next(read)
    path = next(graph.store.path.glob("data/graph.indices*"))
    os.truncate(path, 4096)
    with pytest.raises(StorageFailure, match=r"graph\.indices.*shorter"):
        list(read)


def test_nobody_reads_on_after_the_last_block_that_was_asked_for(graph, past_cache, monkeypatch):
    monkeypatch.setattr(room, "BLOCK_ROWS", 64)
    gc.collect()  # files of other tests that are closed meanwhile would count
    before, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    read = reading.entries_of(needed.blocks_of(graph, needed.all_rows(graph, 1), 1))
    next(read)
    read.close()
    assert threading.active_count() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert len(past_cache) <= (2 if graph.weights is None else 4)


def test_memory_for_reading_is_counted_only_where_it_is_taken(monkeypatch):
    monkeypatch.setattr(reading, "machine_memory", lambda: 1000)
    assert reading.reading_bytes(125, weighted=False) == 0
    assert reading.reading_bytes(126, weighted=False) == 2 * 4 * (room.BLOCK_ENTRIES + 2 * DirectFile.ALIGNMENT)
    assert reading.reading_bytes(126, weighted=True) == 2 * reading.reading_bytes(126, weighted=False)


def cached_pages(path):
    """Count the pages of a file that are in the system's cache."""
    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as held:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(held)))
        assert libc.mincore(address, ctypes.c_size_t(size), pages) == 0
        return sum(page & 1 for page in pages)


def test_pages_that_were_mapped_do_not_stay_in_the_cache(graph, past_cache, monkeypatch):
    path = next(graph.store.path.glob("data/graph.indices*"))
    monkeypatch.setattr(reading, "PIECE", 16)
    few = np.arange(0, N, 100, dtype=np.int32)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    read = [int(indices[0]) for _, (indices, _) in reading.entries_of([Block(graph, 0, N, few)])]
    assert read == [int(graph.indices[0])]
    assert not past_cache
    # the pages at both ends may be shared with others, and one was just read again
    assert cached_pages(path) < 4 + mmap.PAGESIZE // 1024 * 4
