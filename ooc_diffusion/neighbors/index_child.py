"""Search a faiss index from a file of unknown origin: a program of its own, because reading or searching such a file may crash.

`foreign_index.ForeignIndex` starts it and speaks with it. It writes what the index is, a line of JSON, and reads a line of JSON
with the number of probes. Then, as long as its input goes on, it reads the numbers of queries and of neighbors (two int64) and
the queries (float32), and writes ids (int64) and distances (float32). What is wrong goes to the error stream.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

_PR_SET_PDEATHSIG = 1
_MOST_WORDS = 2**20


def main(path: str, memory_bytes: int, threads: int) -> None:
    """Serve the index in the file ``path`` with so much memory for its data."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    try:
        _serve(path, memory_bytes, threads, answers)
    except MemoryError:
        raise SystemExit("it takes more memory than its size explains") from None
    except Exception as error:  # whatever faiss throws
        raise SystemExit(re.sub(r"^Error in .*? at \S+:\d+: ", "", " ".join(str(error).split()))) from None


def _serve(path: str, memory_bytes: int, threads: int, answers: BinaryIO) -> None:
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(threads)
    _limit(memory_bytes)
    size = Path(path).stat().st_size
    for limit in ("vector_byte", "loop"):
        if hasattr(faiss, f"set_deserialization_{limit}_limit"):
            getattr(faiss, f"set_deserialization_{limit}_limit")(size)
    index = faiss.read_index(path, faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
    lists = faiss.try_extract_index_ivf(index)
    about = {"n": index.ntotal, "d": index.d, "metric": index.metric_type, "kind": type(index).__name__}
    _answer(answers, json.dumps(about | {"lists": 0 if lists is None else lists.nlist}).encode() + b"\n")
    questions = sys.stdin.buffer
    probes = json.loads(questions.readline() or "0")
    if lists is not None:
        lists.nprobe = probes
    while head := questions.read(16):
        rows, k = np.frombuffer(head, np.int64)
        queries = np.frombuffer(questions.read(4 * int(rows) * index.d), np.float32).reshape(rows, index.d)
        distances, ids = index.search(queries, int(k))
        _answer(answers, ids.tobytes(), distances.tobytes())


def _answer(answers: BinaryIO, *parts: Any) -> None:
    for part in parts:
        answers.write(part)
    answers.flush()


def _limit(memory_bytes: int) -> None:
    """Hold this process to the memory for data that it has now and so many bytes more, and to a few words on the error stream."""
    status = Path("/proc/self/status").read_text()
    most = int(re.findall(r"VmData:\s+(\d+) kB", status)[0]) * 1024 + memory_bytes
    for what, limit in ((resource.RLIMIT_DATA, most), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _MOST_WORDS)):
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
