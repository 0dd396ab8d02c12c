"""One writer: an advisory lock on the store that ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import StorageFailure, StoreLocked
from .files import read_regular

logger = logging.getLogger(__name__)


class WriterLock:
    """The right to write to a store; may be taken again by its holder.

    The lock is the kernel's (flock) and lies on the folder itself: it cannot outlive its process, and nobody can remove it by
    removing a file. What stands in the file is for the message only.

    Parameters
    ----------
    path : Path
        The file that says who writes; its folder is what is locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._depth = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._depth > 0

    def __enter__(self) -> WriterLock:
        return self._enter(wait=False)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[WriterLock]:
        """Hold the lock as soon as another process that holds it has ended or is done, instead of refusing."""
        self._enter(wait=True)
        try:
            yield self
        finally:
            self.__exit__()

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            os.close(self._fd)
            self._fd = -1

    def _enter(self, *, wait: bool) -> WriterLock:
        if self._depth == 0:
            self._acquire(wait)
        self._depth += 1
        return self

    def _acquire(self, wait: bool) -> None:
        folder, fd = self.path.parent, -1
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock(fd, wait)
        except (OSError, KeyboardInterrupt) as error:
            if fd >= 0:
                os.close(fd)
            if isinstance(error, BlockingIOError):
                raise StoreLocked(
                    f"{folder} is being written by another process ({self._holder()}); wait for it or end it"
                ) from None
            if isinstance(error, KeyboardInterrupt):
                raise
            raise StorageFailure(f"{folder} cannot be locked: {error.strerror}; check the disk and permissions") from error
        self._fd = fd
        self._sign()

    def _lock(self, fd: int, wait: bool) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            logger.warning("%s is being written by another process (%s); waiting for it", self.path.parent, self._holder())
            fcntl.flock(fd, fcntl.LOCK_EX)

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            return read_regular(self.path, limit=4096).decode(errors="replace").strip() or "unknown"
        return "unknown"

    def _sign(self) -> None:
        """Say who writes; that the disk is full or the file a link must keep nobody from cleaning up."""
        owner = {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(sys.argv)[:500],
        }
        with contextlib.suppress(OSError):
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            try:
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(owner).encode(), 0)
            finally:
                os.close(fd)
