"""How fast a disk is, from a short measurement that leaves no file."""

from __future__ import annotations

import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_BYTES = 2**25


@dataclass(frozen=True)
class DiskRates:
    """Bytes per second.

    Parameters
    ----------
    read, write : float
        From front to end, past the system's cache (infinite where that was not measured); written until it is synced.
    """

    read: float
    write: float


def measure_disk(folder: Path, *, reading: bool) -> DiskRates | None:
    """Write a file without a name, sync it, and read it if that matters; None where the folder takes none."""
    data = os.urandom(2**20)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            started = time.perf_counter()
            for _ in range(_BYTES // len(data)):
                file.write(data)
            os.fsync(file.fileno())
            written = time.perf_counter()
            writing = _BYTES / (written - started)
            if not reading:
                return DiskRates(math.inf, writing)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            while file.read(2**20):
                pass
            return DiskRates(_BYTES / (time.perf_counter() - written), writing)
    except OSError:
        return None
