"""Reading, writing and syncing files so that a failure is an error with a name, never a lost write."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import NoSpace, StorageFailure
from ..memory import format_size

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` on ``path`` into `NoSpace` or `StorageFailure`, in one line that says what to do."""
    try:
        yield
    except (NoSpace, StorageFailure):
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"no space left while {doing} {path}; free some space there and run the command again") from error
        raise StorageFailure(f"{doing} {path} failed: {error.strerror or error}; check the disk and permissions") from error


def read_regular(path: Path, *, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file; a link is not followed, a pipe not waited for, more than ``limit`` bytes refused."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if limit is not None and info.st_size > limit:
            raise OSError(errno.EFBIG, "it is too large")
        return file.read()


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """Write every byte at ``offset``; the system may take fewer at a time."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put ``data`` at ``path`` so that a reader finds the old content or the new, and never a part of either.

    So does a crash of the machine, where it is to be ``durable``.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with os_errors(path, "writing"):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                write_all(fd, memoryview(data), 0)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def require_writable(path: Path) -> None:
    """Raise `StorageFailure` unless files and folders can be made at ``path``, or in the folder that it would be made in."""
    with os_errors(path, "creating"):
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, f"{there} is not writable")


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise `NoSpace` unless the disk of ``folder`` has ``needed_bytes`` left."""
    info = os.statvfs(folder)
    free = info.f_bavail * info.f_frsize
    if needed_bytes > free:
        raise NoSpace(
            f"{folder} needs {format_size(needed_bytes)} of disk but has {format_size(free)} free; "
            "free some space, run `ooc-diffusion clean`, or choose another --store"
        )
