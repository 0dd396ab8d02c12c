"""Listing a tree of image files in a fixed order without holding one Python object per file."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import xxhash

from ..errors import BadInput, StorageFailure

IMAGE_ENDINGS = ("png", "jpg", "jpeg", "jpe", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm")

_ENDINGS = frozenset(ending.encode() for ending in IMAGE_ENDINGS)


@dataclass
class Skipped:
    """How many entries of a tree were passed over, and why.

    Parameters
    ----------
    other_endings : int
        Files whose ending is not in `IMAGE_ENDINGS`.
    linked_folders : int
        Symbolic links to folders: they are not followed, since they may lead in a circle.
    special_files : int
        FIFOs, sockets and devices named like an image: they are never opened.
    """

    other_endings: int = 0
    linked_folders: int = 0
    special_files: int = 0


@dataclass(frozen=True)
class PathBatch:
    """Some consecutive rows of a scan.

    Parameters
    ----------
    paths : uint8 array (total,)
        The paths relative to the root, ``/`` between their parts, as the bytes of the file system, one after the other.
    lengths : int64 array (b,)
        Bytes of each path.
    sizes : int64 array (b,)
        Bytes of each file; -1 where the file cannot be asked (a broken link, a file that has just gone).
    mtimes_ns : int64 array (b,)
        Time of the last change of each file, in nanoseconds; -1 where it cannot be asked.
    skipped : Skipped
        What was passed over from the start of the scan to the end of this batch.
    """

    paths: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    mtimes_ns: np.ndarray
    skipped: Skipped


class ScanFingerprint:
    """A hash of the names, sizes and times of change of all files, independent of how the scan was cut into batches."""

    def __init__(self) -> None:
        self._streams = [xxhash.xxh3_128() for _ in range(4)]

    def update(self, batch: PathBatch) -> None:
        """Take in the next batch."""
        for stream, values in zip(self._streams, (batch.paths, batch.lengths, batch.sizes, batch.mtimes_ns), strict=True):
            stream.update(values.data)

    def hexdigest(self) -> str:
        """Return the hash of all batches so far, 32 hexadecimal digits."""
        return xxhash.xxh3_128(b"".join(stream.digest() for stream in self._streams)).hexdigest()


def scan_folder(root: str | os.PathLike[str], *, batch_paths: int = 65536) -> Iterator[PathBatch]:
    """List the images below a folder: first its own files, then its folders one by one, each sorted by the bytes of the names.

    The names of one folder at a time are in memory, about 20 bytes per file besides the name itself. Links to files are
    followed; a broken link with the ending of an image is a row like any other, and unreadable.

    Parameters
    ----------
    root : path
        The folder.
    batch_paths : int
        Paths per batch at most. Default 65536.

    Yields
    ------
    PathBatch
        At least one, none of them empty.

    Raises
    ------
    BadInput
        Where the root does not exist, is not a folder or holds no image.
    StorageFailure
        Where a folder inside cannot be listed: leaving it out silently would lose images.
    """
    top = _checked_root(root)
    skipped = Skipped()
    pending = _Pending()
    for path in _walk(top, skipped):
        if len(pending.lengths) == batch_paths:
            yield pending.batch(skipped)
            pending = _Pending()
        pending.add(path, top)
    if not pending.lengths:
        raise BadInput(
            f"folder {printable(top)} holds no image ({skipped.other_endings} other files); "
            f"looked for the endings {', '.join(IMAGE_ENDINGS)}"
        )
    yield pending.batch(skipped)


def printable(name: str | bytes) -> str:
    r"""Return a path for people: bytes that are not UTF-8 and control characters are escaped (``\xff``, ``\n``)."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _checked_root(root: str | os.PathLike[str]) -> bytes:
    top = os.fsencode(root)
    try:
        mode = os.stat(top).st_mode  # noqa: PTH116
    except FileNotFoundError:
        raise BadInput(f"there is no file or folder {printable(top)}; check the path") from None
    except OSError as error:
        raise BadInput(f"image folder {printable(top)} cannot be opened: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise BadInput(f"{printable(top)} is a file, not a folder; give the folder that holds the images")
    return top


def _walk(top: bytes, skipped: Skipped) -> Iterator[bytes]:
    # A stack of iterators instead of recursion: trees may be deeper than Python's recursion limit.
    stack: list[Iterator[bytes]] = [iter([b""])]
    while stack:
        folder = next(stack[-1], None)
        if folder is None:
            stack.pop()
            continue
        files, folders = _list_folder(top, folder, skipped)
        yield from files.sorted(folder)
        del files  # the names of one folder are released before the next one is listed
        stack.append(name + b"/" for name in folders.sorted(folder))


def _list_folder(top: bytes, folder: bytes, skipped: Skipped) -> tuple[_Names, _Names]:
    files, folders = _Names(), _Names()
    where = os.path.join(top, folder)  # noqa: PTH118
    try:
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif _is_image(entry, skipped):
                    files.add(entry.name)
    except OSError as error:
        raise StorageFailure(
            f"folder {printable(where)} cannot be listed: {error.strerror}; make it readable or move it out of the tree"
        ) from error
    return files, folders


def _is_image(entry: os.DirEntry[bytes], skipped: Skipped) -> bool:
    kind = _link_target_kind(entry) if entry.is_symlink() else stat.S_IFREG * entry.is_file(follow_symlinks=False)
    if kind == stat.S_IFDIR:
        skipped.linked_folders += 1
    elif entry.name.rpartition(b".")[2].lower() not in _ENDINGS:
        skipped.other_endings += 1
    elif kind != stat.S_IFREG:
        skipped.special_files += 1
    else:
        return True
    return False


def _link_target_kind(entry: os.DirEntry[bytes]) -> int:
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:  # broken, or a link to itself: a file that happens to be unreadable
        return stat.S_IFREG


class _Names:
    """The names of one folder as bytes and offsets: no object per name."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._offsets = array("q", [0])

    def add(self, name: bytes) -> None:
        self._bytes += name
        self._offsets.append(len(self._bytes))

    def sorted(self, folder: bytes) -> Iterator[bytes]:
        import pyarrow as pa
        from pyarrow import compute

        n = len(self._offsets) - 1
        buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(self._bytes)]
        names = pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, buffers)
        for i in compute.array_sort_indices(names).to_numpy():
            yield folder + self._bytes[self._offsets[i] : self._offsets[i + 1]]


@dataclass
class _Pending:
    paths: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    mtimes_ns: array[int] = field(default_factory=lambda: array("q"))

    def add(self, path: bytes, top: bytes) -> None:
        try:
            status = os.stat(os.path.join(top, path))  # noqa: PTH116, PTH118
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            size, mtime_ns = -1, -1
        self.paths += path
        self.lengths.append(len(path))
        self.sizes.append(size)
        self.mtimes_ns.append(mtime_ns)

    def batch(self, skipped: Skipped) -> PathBatch:
        return PathBatch(
            paths=np.frombuffer(self.paths, np.uint8),
            lengths=np.frombuffer(self.lengths, np.int64),
            sizes=np.frombuffer(self.sizes, np.int64),
            mtimes_ns=np.frombuffer(self.mtimes_ns, np.int64),
            skipped=replace(skipped),
        )
