"""What this machine has."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil

from ..memory import machine_memory
from ..parallel import resolve_threads

_LIBRARIES = ("numpy", "scipy", "numba", "faiss-gpu", "faiss-cpu", "torch", "torchvision", "scikit-learn", "pyarrow")


def doctor() -> dict[str, Any]:
    """Collect memory, cores, disks, GPUs and versions, and what is amiss.

    Returns
    -------
    dict
        ``facts`` (name, value) and ``warnings``.
    """
    facts: dict[str, Any] = {
        "Python": platform.python_version(),
        "system": platform.platform(),
        "cores": resolve_threads(None),
        "memory_bytes": machine_memory(),
        "memory_available_bytes": psutil.virtual_memory().available,
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "temporary_folder": tempfile.gettempdir(),
    }
    for name in _LIBRARIES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts["faiss_gpus"], facts["torch_gpus"] = _gpus()
    return {"stage": "doctor", "facts": facts, "warnings": _warnings(facts)}


def _gpus() -> tuple[int, int]:
    import faiss
    import torch

    return faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0, torch.cuda.device_count()


def _warnings(facts: dict[str, Any]) -> list[str]:
    warnings = []
    folder = facts["temporary_folder"]
    if any(part.mountpoint == folder and part.fstype == "tmpfs" for part in psutil.disk_partitions(all=True)):
        warnings.append(f"{folder} is in memory: temporary files there count against the budget; set TMPDIR to a disk")
    if facts["memory_bytes"] < 2 * 2**30:
        warnings.append("less than 2 GiB of memory: budgets below that are not tested")
    if facts["torch_gpus"] and not facts["faiss_gpus"]:
        warnings.append("torch sees a GPU but faiss does not: neighbors are searched on the CPU")
    if not os.access(Path.cwd(), os.W_OK):
        warnings.append("the current folder cannot be written to")
    return warnings
