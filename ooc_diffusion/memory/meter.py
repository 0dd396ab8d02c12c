"""The one meter: anonymous plus shared memory of the process tree.

Resident size (RSS) counts mapped files, which the system takes back whenever it likes; on a memory-mapped engine it says nothing
about the budget. RssAnon + RssShmem is what must fit.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_FIELDS = (b"RssAnon:", b"RssShmem:")


def _process_bytes(pid: int) -> int:
    kib = 0
    try:
        with Path(f"/proc/{pid}/status").open("rb") as status:
            for line in status:
                if line.startswith(_FIELDS):
                    kib += int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return kib * 1024


def _children(pid: int) -> list[int]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _image(pid: int) -> list[bytes]:
    """Return where code, stack, arguments and environment of a process lie: exec puts them elsewhere, fork leaves them there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [fields[number - 3] for number in (26, 28, 48, 51)]


def anonymous_bytes(pid: int | None = None) -> int:
    """Return RssAnon + RssShmem in bytes, summed over a process and all its descendants (this process by default).

    A child that is not yet another program shares the memory of its parent: of such a one only what it has more than its parent
    counts.
    """
    pending, total = [(os.getpid() if pid is None else pid, 0)], 0
    while pending:
        current, shared = pending.pop()
        held = _process_bytes(current)
        total += max(0, held - shared)
        # a child is looked at before its memory, or it could become another program in between and count as one with all of this
        children = [(child, _image(child)) for child in _children(current)]
        image = _image(current) if children else []
        pending += [(child, held if image and its == image else 0) for child, its in children]
    return total


def disk_bytes_read() -> int:
    """Return the bytes that this process has had read from disk; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes")), 0)


class MemoryMeter:
    """Sample the memory of the process tree in the background.

    Parameters
    ----------
    interval_seconds : float
        Time between two samples, default 0.02.

    Attributes
    ----------
    peak : int
        Largest RssAnon + RssShmem seen so far, in bytes.

    Examples
    --------
    >>> with MemoryMeter() as meter:
    ...     block = bytearray(1000)
    >>> meter.peak > 0
    True
    """

    def __init__(self, *, interval_seconds: float = 0.02) -> None:
        self.interval_seconds = interval_seconds
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-meter", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            self.sample()

    def sample(self) -> int:
        """Measure now, raise the peak if needed, and return the bytes measured."""
        now = anonymous_bytes()
        self.peak = max(self.peak, now)
        return now

    def __enter__(self) -> MemoryMeter:
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()
