"""``python -m tests.cli.trapped``: commands, each in a process of its own that is killed, or finds the disk full, at an array.

Reads lines of JSON, {"words": the command, "trap": null or [kind, array, number], "filler": a file}, and answers each with one:
{"signal", "code", "error": the error stream}. Processes are forked from this one, which has imported everything and done nothing:
they start at once. Traps: ``kill``, with -9, after so many appends to an array in this process; ``full``, the disk is filled
before an array is begun; ``full at``, it is filled before so many appends. ``manifest`` as the array is before a stage is
published, ``check`` before the finished graph is checked.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from ooc_diffusion.cli.main import _run
from ooc_diffusion.graph import build
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.store import Store
from ooc_diffusion.store.writer import ArrayWriter

# Many blocks in every step, the same in each process; a checkpoint is journaled after each.
SIZES = {
    "store.job._SECONDS_BETWEEN_CHECKPOINTS": 0,
    "stages.neighbors.BLOCK_ROWS": 1024,
    "stages.ordered_search.BLOCK_ROWS": 1024,
    "stages.buckets.BLOCK_ROWS": 1024,
    "stages.completion.BLOCK_ROWS": 1024,
    "stages.completion.FEW_SEEDS": 100,
    "stages.graph.BLOCK_ROWS": 1024,
    "stages.addition.BLOCK_ROWS": 1024,
    "stages.import_descriptors.BLOCK_ROWS": 512,
    "stages.reduce.BLOCK_ROWS": 512,
    "neighbors.search.QUERY_ROWS": 1024,
    "neighbors.exact.QUERY_ROWS": 1024,
    "neighbors.list_major.FEWEST_QUERIES": 512,
    "neighbors.permute.BLOCK_ROWS": 700,
    "graph.build._TABLE_ROWS": 512,
}
# Bytes of memory for rows that are put in order: so little that the larger arrays go through buckets on disk.
ROOM = 20_000


def use_small_blocks() -> None:
    for place, size in SIZES.items():
        module, _, name = place.rpartition(".")
        importlib.import_module(f"ooc_diffusion.{module}")
        found = sys.modules[f"ooc_diffusion.{module}"]
        assert hasattr(found, name), place
        setattr(found, name, size)
    units = MemoryBudget.units

    def few(budget: MemoryBudget, unit_bytes: int, *, what: str, **options: Any) -> int:
        return ROOM // unit_bytes if what == "putting rows in order" else units(budget, unit_bytes, what=what, **options)

    MemoryBudget.units = few  # type: ignore[method-assign]


def name_of(writer: ArrayWriter) -> str:
    """Return the name of an array, dots for slashes."""
    return writer.path.name.rsplit(".", 2)[0]


def fill(filler: Path) -> None:
    """Leave no byte on the disk."""
    with filler.open("wb", buffering=0) as file:
        for size in (2**16, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def arm(kind: str, name: str, number: int, filler: Path) -> None:
    """Lay the trap."""
    append, create, commit, appended = ArrayWriter.append, ArrayWriter.create, Store.commit, 0

    def spring() -> None:
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        fill(filler)

    def trapped_append(writer: ArrayWriter, block: Any) -> None:
        nonlocal appended
        mine = name_of(writer) == name
        appended += mine
        if mine and kind == "full at" and appended == number:
            spring()
        append(writer, block)
        if mine and kind == "kill" and appended == number:
            spring()

    def trapped_create(writer: ArrayWriter) -> None:
        if kind == "full" and name_of(writer) == name:
            spring()
        create(writer)

    def trapped_commit(store: Store, manifest: Any) -> None:
        if name == "manifest":
            spring()
        commit(store, manifest)

    if name == "check":
        build.check_graph = lambda *arguments, **options: spring()  # type: ignore[assignment]
    Store.commit = trapped_commit  # type: ignore[method-assign]
    ArrayWriter.append, ArrayWriter.create = trapped_append, trapped_create  # type: ignore[method-assign]


def run_child(task: dict[str, Any], said: Path) -> None:
    """Run the command and end the process with its exit code."""
    code = 70
    try:
        with said.open("w") as errors, contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            if task["trap"]:
                arm(*task["trap"], Path(task["filler"]))
            code = _run(task["words"])
    finally:
        os._exit(code)


def serve() -> None:
    use_small_blocks()
    for module in ("faiss", "numba", "threadpoolctl"):
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "errors"
        for line in sys.stdin:
            said.write_text("")
            child = os.fork()
            if child == 0:
                run_child(json.loads(line), said)
            status = os.waitpid(child, 0)[1]
            killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            sys.stdout.write(json.dumps({"signal": killed, "code": code, "error": said.read_text()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    serve()
