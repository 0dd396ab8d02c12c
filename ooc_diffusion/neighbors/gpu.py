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
# faiss lets a list of up to 4 MiB grow to the next power of two, a longer one by less: lists take up to twice their vectors.
_LIST_SLACK = 2
# The part of a GPU's memory that is left to the system, a screen and other programs.
_LEFT = 0.1
# What takes none of their memory, for messages.
NOT_ON_GPUS = "`index` list-major, or --device cpu"


def index_on_gpus(
    vectors: np.ndarray, *, inverted: Inverted | None, probes: int | None, metric: int, precision: str = "float32"
) -> Any:
    """Return an index of vectors (n, d), float32, a part of them on each GPU; ``metric`` as faiss numbers it."""
    import faiss

    d = vectors.shape[1]
    gpus = faiss.get_num_gpus()
    require_free(vectors.shape, inverted=inverted is not None, precision=precision)
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


def usable_gpu_bytes() -> int | None:
    """Return what is counted on of the GPU that has least memory, whatever lies there now; None where torch finds none to ask."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return int((1 - _LEFT) * min(gpu.total_memory for gpu in properties))


def missing_room(shape: tuple[int, ...], *, inverted: bool, precision: str = "float32") -> str:
    """Say in what way vectors of a shape (n, d) never fit the GPUs; empty where they do, but for what else lies there."""
    return _shortage(shape, inverted, precision, usable_gpu_bytes(), "can be had")


def require_free(shape: tuple[int, ...], *, inverted: bool, precision: str = "float32") -> None:
    """Raise `DoesNotFit` unless vectors of a shape (n, d) fit the free memory of the GPUs, as far as that is known."""
    if missing := _shortage(shape, inverted, precision, free_gpu_bytes(), "are free"):
        raise DoesNotFit(f"{missing}; end what else runs there, or give {NOT_ON_GPUS}")


def _shortage(shape: tuple[int, ...], inverted: bool, precision: str, room: int | None, what: str) -> str:
    """Say that vectors take more than the room on each GPU; empty where they do not, or it is not known."""
    import faiss

    if room is None:
        return ""
    n, d = shape
    itemsize = 2 if inverted and precision == "float16" else 4
    vectors = n * (itemsize * d + 8) // faiss.get_num_gpus()
    needed = _WORKSPACE_BYTES + (_LIST_SLACK * vectors + 4 * n_lists(n) * d if inverted else vectors)
    if needed <= room:
        return ""
    return f"searching {n} vectors takes {format_size(needed)} of the memory of each GPU, but {format_size(room)} {what}"
