"""Nearest neighbors, block of queries after block: exact (Flat), or by inverted lists of faiss (IVFFlat)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import BadInput
from ..parallel import one_blas_thread
from .exact import DATABASE_ROWS, QUERY_ROWS, database_bytes, query_bytes, search_exactly
from .gpu import MOST_GPU_QUERIES, free_gpu_bytes, gpu_query_rows, index_on_gpus
from .lists import FEWEST_FOR_LISTS, Inverted, n_lists, n_probes

logger = logging.getLogger(__name__)

_LARGEST_FLAT = 100_000
INDEXES = ("auto", "Flat", "IVFFlat", "list-major")


def choose_index(n: int, index: str, *, indexes: tuple[str, ...] = INDEXES) -> str:
    """Return the index to search with, one of ``indexes``.

    ``"auto"`` is exact search up to 100 000 vectors, the last of the others above.
    """
    if index not in indexes:
        raise BadInput(f"index {index!r} is not one of {', '.join(indexes)}")
    if index == "auto":
        return "Flat" if n <= _LARGEST_FLAT else indexes[-1]
    if index != "Flat" and n < FEWEST_FOR_LISTS:
        raise BadInput(f"{index} needs at least {FEWEST_FOR_LISTS} vectors, there are {n}; use Flat")
    return index


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``: with ``auto`` the GPU where faiss finds one."""
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    if device.startswith("cuda") and gpus == 0:
        raise BadInput("faiss finds no GPU; use --device cpu (see `ooc-diffusion doctor`)")
    return "cuda" if gpus and device != "cpu" else "cpu"


def search(
    vectors: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    inverted: Inverted | None = None,
    probes: int | None = None,
    metric: str = "inner product",
    device: str = "cpu",
    precision: str = "float32",
    start: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find the k most similar vectors of each query, block of queries after block.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        The database; may be a memmap.
    queries : numpy.ndarray of shape (q, d), float32
        May be a memmap, and the database itself.
    k : int
        Neighbors per query. A query that is in the database may find itself, or an identical vector in its place.
    inverted : Inverted, optional
        Search by inverted lists, approximately. Default: exact search.
    probes : int, optional
        Lists that are visited. Default: those of the paper, see `n_probes`.
    metric : {"inner product", "euclidean"}
        What is similar; ``"euclidean"`` gives minus the squared distance. Default ``"inner product"``.
    device : {"cpu", "cuda"}
        Where the index lives; on several GPUs a part of it on each. Default ``"cpu"``.
    precision : {"float32", "float16"}
        How inverted lists on a GPU hold the vectors. Default ``"float32"``.
    start : int
        First query, a multiple of 4096. Default 0.

    Yields
    ------
    ids : numpy.ndarray of shape (b, k), int32
        Best first; -1 = none.
    similarities : numpy.ndarray of shape (b, k), float32
        -1e30 where there is no neighbor.

    Notes
    -----
    The bytes do not depend on the number of threads: BLAS, which rounds otherwise for another number, is held to one.
    """
    import faiss

    sign = np.float32(-1 if metric == "euclidean" else 1)
    if device == "cuda":
        index = index_on_gpus(vectors, inverted=inverted, probes=probes, metric=_faiss_metric(metric), precision=precision)
        lists = 0 if inverted is None else len(inverted.centroids)
        rows = gpu_query_rows(queries.shape[1], k, lists, free=free_gpu_bytes(), least=QUERY_ROWS)
        found_blocks = _find_by_index(index, queries, k, start, rows)
    elif inverted is None:
        yield from search_exactly(vectors, queries, k=k, threads=faiss.omp_get_max_threads(), metric=metric, start=start)
        return
    else:
        found_blocks = _find_by_index(inverted_index(vectors, inverted, probes, metric), queries, k, start, QUERY_ROWS)
    for found, ids in found_blocks:
        yield ids.astype(np.int32), np.where(ids < 0, np.float32(-1e30), sign * found)


def index_bytes(n: int, d: int, *, inverted: bool, device: str = "cpu") -> int:
    """Return the bytes of memory that the database takes during a search, besides its files."""
    if device != "cpu":
        return 8 * n + 4 * n_lists(n) * d  # ids of the shards
    if not inverted:
        return database_bytes(d)
    return n * (4 * d + 8) + 4 * n_lists(n) * d


def search_bytes(d: int, k: int, *, threads: int, device: str = "cpu") -> int:
    """Return the bytes of memory that searching takes besides the database: a block of queries, its products, its results."""
    if device != "cpu":
        return MOST_GPU_QUERIES * (4 * d + 40 * k) + 16 * 2**20
    return threads * (query_bytes(d, k) + 24 * 2**20) + 16 * 2**20


def _faiss_metric(metric: str) -> int:
    import faiss

    return faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT


Found = Iterator[tuple[np.ndarray, np.ndarray]]


def _find_by_index(index: Any, queries: np.ndarray, k: int, start: int, rows: int) -> Found:
    for first in range(start, len(queries), rows):
        with one_blas_thread():
            found = index.search(np.ascontiguousarray(queries[first : first + rows], np.float32), k)
        yield found


def inverted_index(vectors: np.ndarray, inverted: Inverted, probes: int | None, metric: str) -> Any:
    """Return an index of faiss that holds all vectors in inverted lists."""
    import faiss

    d = vectors.shape[1]
    quantizer = faiss.IndexFlatL2(d)
    quantizer.add(np.ascontiguousarray(inverted.centroids))
    index = faiss.IndexIVFFlat(quantizer, d, len(inverted.centroids), _faiss_metric(metric))
    index.nprobe = probes or n_probes(len(inverted.centroids))
    index.is_trained = True
    for first in range(0, len(vectors), DATABASE_ROWS):
        part = np.ascontiguousarray(vectors[first : first + DATABASE_ROWS], np.float32)
        lists = np.ascontiguousarray(inverted.lists[first : first + len(part)], np.int64)
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(lists))
    return index
