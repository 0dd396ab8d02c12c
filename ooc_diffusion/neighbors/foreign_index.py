"""A faiss index from a file that may hold anything, searched by a process that may crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np

from ..errors import BadInput
from .exact import QUERY_ROWS
from .lists import n_probes
from .own_table import check_ids, check_similarities, distinct, products_of, require_products

_PROGRAM = Path(__file__).with_name("index_child.py")
# Anonymous memory of a process with numpy and faiss alone (measured: 115 MiB).
_CHILD_BYTES = 192 * 2**20
_METRICS = ("inner product", "squared distance")  # as faiss numbers them
# The least speed of reading, in bytes, and of searching, in multiply-adds of a comparison with everything, per second.
_SECONDS = 60.0
_EXIT_SECONDS = 10.0
# What BLAS reserves for itself in each thread and hardly touches (measured: some 110 MiB): it counts for the limit alone.
_RESERVED = 128 * 2**20
_BYTES_PER_SECOND = 10e6
_PRODUCTS_PER_SECOND = 1e8
_SAMPLES = 256
# At least this part of sampled rows must find themselves, or vectors as near as this.
_FINDING = 0.5
_SAME = 0.999


def foreign_bytes(file_bytes: int, n: int, d: int, k: int, *, threads: int) -> int:
    """Return the bytes of memory that searching an index from a file takes in both processes, besides libraries in this one."""
    return _CHILD_BYTES + _data_bytes(file_bytes, n, d, k, threads) + QUERY_ROWS * (4 * d + 40 * k)


def _data_bytes(file_bytes: int, n: int, d: int, k: int, threads: int) -> int:
    # what was visited (graphs) and stacks, for each thread
    return file_bytes + file_bytes // 4 + threads * (n + 32 * 2**20) + 2 * QUERY_ROWS * (4 * d + 12 * k) + 64 * 2**20


class ForeignIndex:
    """A faiss index over some vectors, in the order of their ids, from a file; used in a ``with`` block.

    Parameters
    ----------
    path : str
        The file.
    vectors : numpy.ndarray of shape (n, d), float32
        The vectors of unit length that it should hold; may be a memmap.
    k : int
        Neighbors per query.
    probes : int, optional
        Lists that are visited, where it has lists. Default: those of `n_probes`.
    threads : int
        Threads that search.

    Attributes
    ----------
    kind : str
        What faiss calls it.
    probes : int
        Lists that are visited; 0 where it has none.

    Raises
    ------
    BadInput
        Where it cannot be read, crashes, takes too long, is of another size or metric, or does not find sampled vectors.
    """

    def __init__(self, path: str, vectors: np.ndarray, *, k: int, probes: int | None = None, threads: int = 1) -> None:
        self.path, self.vectors, self.k = path, vectors, k
        self._wanted, self._threads = probes, threads
        self._late = False

    def __enter__(self) -> ForeignIndex:
        size = Path(self.path).stat().st_size
        n, d = self.vectors.shape
        memory = _data_bytes(size, n, d, self.k, self._threads) + _RESERVED * self._threads
        command = [sys.executable, "-P", _PROGRAM, self.path, memory, self._threads]
        self._errors = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},  # whose rounding depends on it
        )
        try:
            self._meet(_SECONDS + size / _BYTES_PER_SECOND)
            self._require_ours()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            try:
                stream.close()  # type: ignore[union-attr]
            except BrokenPipeError:
                continue

    def blocks(self, queries: np.ndarray, *, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ids int32 and similarities float32 (b, k) of blocks of queries (q, d), best first; -1 and -1e30 = none."""
        for first in range(start, len(queries), QUERY_ROWS):
            yield self._search(np.ascontiguousarray(queries[first : first + QUERY_ROWS], np.float32), first, "row")

    def _meet(self, seconds: float) -> None:
        """Hear what the index is, compare that with the vectors, and say how many lists to visit."""
        n, d = self.vectors.shape
        try:
            about = json.loads(self._ask(b"", None, seconds))
        except ValueError:
            self._fail()
        self.kind, self._metric = about["kind"], about["metric"]
        for name, found, wanted in (("vectors", about["n"], n), ("values in each vector", about["d"], d)):
            if found != wanted:
                raise BadInput(f"{self.path} holds {found} {name}, but the background has {wanted}; give an index of its vectors")
        if self._metric not in range(len(_METRICS)):
            raise BadInput(f"{self.path} has metric {self._metric} of faiss; give an index by inner product or by L2")
        lists = about["lists"]
        if self._wanted is not None and not self._wanted <= lists:
            raise BadInput(
                f"`probes` is {self._wanted}, but {self.path} ({self.kind}) has {lists} lists; give at most that, or none"
            )
        self.probes = (self._wanted or n_probes(lists)) if lists else 0
        self._send(json.dumps(self.probes).encode() + b"\n")

    def _require_ours(self) -> None:
        rows = np.linspace(0, len(self.vectors) - 1, min(_SAMPLES, len(self.vectors)), dtype=np.int64)
        queries = self.vectors[rows]
        ids, similarities = self._search(queries, 0, "sampled row")
        products = products_of(queries, ids, self.vectors)
        found = ((ids == rows[:, None]) | (products >= _SAME)).any(axis=1).mean()
        if found < _FINDING:
            raise BadInput(
                f"{self.path} finds only {100 * found:.0f} % of {len(rows)} sampled vectors of the background: it is of others, "
                "in another order, or visits too few of its lists"
            )
        require_products(queries, ids, similarities, self.vectors, what=self.path)

    @property
    def by_distance(self) -> bool:
        """Whether it searches by L2."""
        return self._metric != 0

    def _search(self, queries: np.ndarray, first: int, row: str) -> tuple[np.ndarray, np.ndarray]:
        n, d = self.vectors.shape
        entries = len(queries) * self.k
        question = np.array([len(queries), self.k], np.int64).tobytes() + queries.tobytes()
        answer = self._ask(question, 12 * entries, _SECONDS + len(queries) * n * d / _PRODUCTS_PER_SECOND)
        ids = np.frombuffer(answer, np.int64, entries).reshape(-1, self.k)
        distances = np.frombuffer(answer, np.float32, entries, 8 * entries).reshape(-1, self.k)
        what = f"{self.path}: what it finds for {row}s,"
        checked = check_ids(ids, n=n, what=what, first=first)
        with np.errstate(invalid="ignore", over="ignore"):  # of what stands where there is no neighbor, or of nonsense
            similarities = np.float32(1) - np.float32(0.5) * distances if self.by_distance else distances
        return distinct(checked, check_similarities(similarities, checked, what=what, first=first))

    def _send(self, question: bytes) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(question)
            self._child.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _ask(self, question: bytes, size: int | None, seconds: float) -> bytes:
        """Send a question and return the answer, of so many bytes, or a line."""
        assert self._child.stdout is not None
        timer = threading.Timer(seconds, self._stop)
        timer.start()
        try:
            self._send(question)
            answer = self._child.stdout.readline(2**16) if size is None else self._child.stdout.read(size)
        finally:
            timer.cancel()
        if len(answer) < (size or 1):
            self._fail()
        return answer

    def _stop(self) -> None:
        self._late = True
        self._child.kill()

    def _fail(self) -> NoReturn:
        """Raise what became of the other process."""
        try:
            code = self._child.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        if self._late:
            reason = "faiss takes too long over it"
        elif code < 0:
            reason = f"faiss crashed over it, {signal.Signals(-code).name}"
        else:
            reason = "".join(letter for letter in words[-1][:200] if letter.isprintable()) if words else f"exit code {code}"
        raise BadInput(f"{self.path} cannot be searched as a faiss index ({reason}); write it anew with faiss.write_index")
