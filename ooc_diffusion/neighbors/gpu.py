"""Indexes of faiss on GPUs: one, or shards on several. Written and tested without a GPU; it has not run on one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DoesNotFit
from ..memory import format_size
from .lists import Inverted, n_lists, n_probes

# The most neighbors and probes that faiss selects on a GPU.
MOST_GPU_SELECTED = 2048
# The most queries at a time: they and their results lie on the host, too.
MOST_GPU_QUERIES = 65536
# What faiss takes for its work on each GPU (1.5 GiB unless told otherwise), and what libraries take.
_WORKSPACE_BYTES = 2 * 2**30


def index_on_gpus(
    vectors: np.ndarray, *, inverted: Inverted | None, probes: int | None, metric: int, precision: str = "float32"
) -> Any:
    """Return an index of vectors (n, d), float32, a part of them on each GPU; ``metric`` as faiss numbers it."""
    import faiss

    d = vectors.shape[1]
    gpus = faiss.get_num_gpus()
    free = free_gpu_bytes()
    _require_room(vectors.shape, inverted is not None, precision, gpus, free)
    index: Any = faiss.IndexFlat(d, metric)
    if inverted is not None:
        lists = len(inverted.centroids)
        quantizer = faiss.IndexFlatL2(d)
        quantizer.add(np.ascontiguousarray(inverted.centroids))
        if precision == "float16":
            # useFloat16 of the cloner does nothing for IndexIVFFlat
            half = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexIVFScalarQuantizer(quantizer, d, lists, half, metric, False)
        else:
            index = faiss.IndexIVFFlat(quantizer, d, lists, metric)
        index.nprobe = probes or n_probes(lists)
        index.is_trained = True
    index = faiss.index_cpu_to_all_gpus(index, co=cloner_options(gpus))
    index.add(np.ascontiguousarray(vectors, np.float32))  # at once: shards take no more later; a map is not copied
    return index


def cloner_options(gpus: int) -> Any:
    """Return how an index goes to the GPUs: several hold a part each, not all of it."""
    import faiss

    options = faiss.GpuMultipleClonerOptions()
    options.shard = gpus > 1
    return options


def gpu_query_rows(d: int, k: int, lists: int, *, free: int | None, least: int) -> int:
    """Return how many queries go to the GPU at a time, a multiple of ``least``: they take half of the free memory at most."""
    if free is None:
        return least
    fitting = free // 2 // (4 * d + 12 * k + 4 * lists)
    return max(least, min(MOST_GPU_QUERIES, fitting) // least * least)


def free_gpu_bytes() -> int | None:
    """Return the free memory of the GPU that has least; None where torch finds none to ask."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count()))


def _require_room(shape: tuple[int, ...], inverted: bool, precision: str, gpus: int, free: int | None) -> None:
    n, d = shape
    needed = n * (np.dtype(precision).itemsize * d + 8) // gpus + _WORKSPACE_BYTES + (4 * n_lists(n) * d if inverted else 0)
    if free is not None and needed > free:
        raise DoesNotFit(
            f"searching {n} vectors takes {format_size(needed)} of the memory of each GPU, but {format_size(free)} are free; "
            "give --index IVFFlat --precision float16, or --index list-major"
        )
