"""What the tests of the store share: small chunks, a stage to publish, a look at every byte."""

import contextlib
import importlib
import resource
from pathlib import Path

import numpy as np

from ooc_diffusion.errors import OocDiffusionError
from ooc_diffusion.store import Store, verify

CHUNK = 4096
ROWS = 1500  # of <i8: 12 000 bytes, which are two full chunks and a part of a third


def use_small_chunks(set_attribute=setattr, size=CHUNK):
    for name in ("checksums", "check", "manifest", "writer"):
        set_attribute(importlib.import_module(f"ooc_diffusion.store.{name}"), "CHUNK_BYTES", size)


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Interrupted(Exception):
    pass


@contextlib.contextmanager
def interrupted():
    """Expect that the block ends with `Interrupted`."""
    try:
        yield
    except Interrupted:
        return
    raise AssertionError("nothing interrupted this")


def limit_file_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def pair_of(generation):
    """The two arrays of a generation, which must agree."""
    return np.full(ROWS, generation, np.int64), np.full(ROWS, generation + 1, np.int64)


def publish_pair(store, generation, *, blocks=3):
    with store.job("pair", parameters={"generation": generation}, overwrite=True) as job:
        if job.published:
            return
        a, b = pair_of(generation)
        writers = job.array("a", "<i8", (ROWS,)), job.array("b", "<i8", (None,))
        step = -(-ROWS // blocks)
        for first in range(writers[0].rows, ROWS, step):
            writers[0].append(a[first : first + step])
            writers[1].append(b[first : first + step])
            job.checkpoint(now=True)
        job.publish({"generation": generation})


def pair_violations(path, *, at_least=0, at_most=None):
    """What is wrong with a store of pairs, as a fresh reader sees it; and its generation."""
    try:
        store = Store(path)
        problems, _ = verify(store, data=True)
        wrong = [f"{problem.array} {problem.file}: {problem.what}" for problem in problems]
        entries = store.manifest.arrays
        if not entries:
            return wrong + (["nothing published, but something was acknowledged"] if at_least else []), 0
        a, b = (np.load(Path(path) / entries[name].file, mmap_mode="r") for name in "ab")
        generation = store.record("pair")["generation"]
    except (OocDiffusionError, OSError, ValueError, KeyError) as error:
        return [f"{type(error).__name__}: {error}"], None
    for array, expected, name in zip((a, b), pair_of(generation), "ab", strict=True):
        if not np.array_equal(array, expected):
            wrong.append(f"{name} is not of generation {generation}: {np.unique(array)[:5]}")
    if generation < at_least:
        wrong.append(f"generation {generation}, but {at_least} was acknowledged")
    if at_most is not None and generation > at_most:
        wrong.append(f"generation {generation}, but {at_most} was the last begun")
    return wrong, generation


def published_bytes(store):
    """Bytes and checksums of every published array, by name."""
    return {
        name: ((store.path / entry.file).read_bytes(), tuple(entry.checksums), entry.shape, entry.dtype)
        for name, entry in store.manifest.arrays.items()
    }


LONG_ROWS = 3000


def long_stage(store, *, block=60, after_checkpoint=lambda row: None):
    """A stage of many checkpoints: a reserved array, a growing one, two scratch arrays, one of them dropped on the way."""
    with store.job("long", parameters={"rows": LONG_ROWS}) as job:
        if job.published:
            return job.resumed
        values = np.random.default_rng(3).standard_normal((LONG_ROWS, 3)).astype(np.float32)
        table = job.array("long/table", "<f4", (LONG_ROWS, 3))
        kept = job.array("long/kept", "<u4", (None,))
        notes = job.array("long/notes", "<i8", (None, 2), scratch=True)
        for first in range(table.rows, LONG_ROWS, block):
            rows = values[first : first + block]
            table.append(rows)
            chosen = np.flatnonzero(rows[:, 0] > 0).astype(np.uint32) + np.uint32(first)
            kept.append(chosen)
            notes.append(np.stack([chosen, chosen], axis=1).astype(np.int64))
            # the scratch array "half" is made anew for each third of the stage
            half = job.array("long/half", "<i8", (LONG_ROWS,), scratch=True)
            half.append(np.full(min(len(rows), LONG_ROWS - half.rows), first, np.int64))
            if first // 1000 != (first + block) // 1000:
                job.drop("long/half")
            job.checkpoint(now=True, next_row=first + block)
            after_checkpoint(first + block)
        assert (notes.view()[:, 0] == kept.view()).all()
        job.publish({"rows": LONG_ROWS})
        return job.resumed
