"""A zip or tar archive of images as a collection, and folders of zip archives as YFCC100M is kept."""

from __future__ import annotations

import functools
import os
import re
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ..errors import BadInput, DoesNotFit
from .decode import decode_image
from .members import OUTSIDE, Member, archive_members, read_member
from .scan import IMAGE_ENDINGS, printable
from .source import UnreadableImage, check_row

if TYPE_CHECKING:
    from PIL import Image

_ENDINGS = frozenset(ending.encode() for ending in IMAGE_ENDINGS)
# What each image takes in memory besides its name: six numbers, twice while they are put in order, and by what that is done.
_MEMBER_BYTES = 192
# Archives of YFCC whose directories are kept: 1000 images each.
_OPEN_ZIPS = 64
_YFCC_IMAGES = 10**8
_NOT_INSIDE, _NO_ARCHIVE = "missing in its archive", "its archive is missing"
# Why an image is not there at all.
MISSING = frozenset({_NOT_INSIDE, _NO_ARCHIVE})


class ArchiveSource:
    """Images in a zip or an uncompressed tar, by their paths and in the order that the unpacked folder would have.

    Nothing is unpacked on disk. A path that leads out of the archive, a link, an encrypted or broken file is a row like any
    other, and unreadable. Of files of the same path the last counts, as in unpacking.

    Parameters
    ----------
    path : path
        The archive.
    most_bytes : int, optional
        Memory that the index may take. Default: any.

    Raises
    ------
    BadInput
        Where it is no archive, is packed as a whole, is cut off, or holds no image.
    DoesNotFit
        Where its index takes more than ``most_bytes``.
    """

    truth: None = None
    class_names: None = None

    def __init__(self, path: str | os.PathLike[str], *, most_bytes: int | None = None) -> None:
        self.path = Path(os.fsdecode(path)).absolute()
        try:
            names, numbers, order = self._index(path, most_bytes)
        except OSError as error:
            raise BadInput(f"{printable(str(path))} cannot be read: {error.strerror or error}") from None
        self._names = names.taken(order)
        self._numbers = np.frombuffer(numbers, np.int64).reshape(-1, 6)[order]
        self.fingerprint = _fingerprint(self.path, self._numbers, *self._names)

    def _index(self, path: str | os.PathLike[str], most_bytes: int | None) -> tuple[_Packed, array[int], np.ndarray]:
        names, keys, numbers = _Packed(), _Packed(), array("q")
        others = 0
        for raw, member in archive_members(self.path):
            name, problem = _inside(raw), member.problem
            if name is None:
                name, problem = raw, OUTSIDE
            if name.rpartition(b".")[2].lower() not in _ENDINGS:
                others += 1
                continue
            names.add(name)
            keys.add(_sort_key(name))
            numbers.extend((member.start, member.stored, member.size, member.crc, member.deflated, problem))
            if most_bytes is not None and _MEMBER_BYTES * len(names) + 4 * names.size > most_bytes:
                raise DoesNotFit(
                    f"the index of the images in {printable(str(path))} takes more than the memory budget; give a larger "
                    "--memory-budget, or unpack it to a folder"
                )
        if not len(names):
            raise BadInput(f"{printable(str(path))} holds no image ({others} other files); looked for {', '.join(IMAGE_ENDINGS)}")
        return names, numbers, _last_of_each(keys)

    @property
    def description(self) -> dict[str, str]:
        """The archive as an argument of `open_source`."""
        return {"spec": str(self.path)}

    @property
    def held_bytes(self) -> int:
        """Memory that making the index took."""
        return _MEMBER_BYTES * len(self) + 4 * len(self._names[0])

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, i: int) -> str:
        """Return the path of row ``i`` in the archive."""
        characters, offsets = self._names
        start, end = offsets[check_row(i, len(self)) :][:2]
        return os.fsdecode(characters[start:end].tobytes())

    def read(self, i: int) -> Image.Image:
        """Decode the image of row ``i``; raise `UnreadableImage` where that fails. May be called from several threads."""
        start, stored, size, crc, deflated, problem = self._numbers[check_row(i, len(self))].tolist()
        return decode_image(read_member(self.path, Member(start, stored, size, crc, bool(deflated), problem)))


class YfccSource:
    """Folders ``00`` to ``99`` of archives ``000.zip`` to ``999.zip``, image 12345678 being ``678.jpg`` in ``12/345.zip``.

    Every number up to the last is a row, whether its image is there or not, so that numbers are rows.

    Parameters
    ----------
    root : path
        The folder of the folders.
    number : int, optional
        Images. Default: up to the last that is there.
    """

    truth: None = None
    class_names: None = None

    def __init__(self, root: str | os.PathLike[str], *, number: int | None = None) -> None:
        self.root = Path(root).absolute()
        self._stated = number
        if not self.root.is_dir():
            raise BadInput(f"{printable(str(root))} is no folder; give the one that holds 00/000.zip and so on")
        if number is not None and not 1 <= number <= _YFCC_IMAGES:
            raise BadInput(f"`number` is {number}; give from 1 to {_YFCC_IMAGES} images")
        zips = list(self._zips())
        self._members = functools.lru_cache(_OPEN_ZIPS)(self._read_directory)
        self._number = number if number is not None else self._count([zip_number for zip_number, *_ in zips])
        self.fingerprint = xxhash.xxh3_128(repr((self._number, zips)).encode()).hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """The arguments of `open_source` that open this again."""
        return {"spec": str(self.root), "layout": "yfcc", "number": self._stated}

    def __len__(self) -> int:
        return self._number

    def name(self, i: int) -> str:
        """Return where the image of row ``i`` is, such as ``12/345.zip/678.jpg``."""
        check_row(i, len(self))
        return f"{i // 10**6:02d}/{i // 1000 % 1000:03d}.zip/{i % 1000:03d}.jpg"

    def read(self, i: int) -> Image.Image:
        """Decode the image of row ``i``; raise `UnreadableImage` where it or its archive is missing or broken."""
        members = self._members(check_row(i, len(self)) // 1000)
        if isinstance(members, str):
            raise UnreadableImage(members)
        if i % 1000 not in members:
            raise UnreadableImage(_NOT_INSIDE)
        return decode_image(read_member(self._zip(i // 1000), members[i % 1000]))

    def _zip(self, zip_number: int) -> Path:
        return self.root / f"{zip_number // 1000:02d}" / f"{zip_number % 1000:03d}.zip"

    def _zips(self) -> list[tuple[int, int, int]]:
        """Return number, size and time of change of each archive that is there, ascending."""
        found = []
        for folder in self.root.iterdir():
            if not re.fullmatch(r"\d\d", folder.name, re.ASCII) or not folder.is_dir():
                continue
            for file in folder.iterdir():
                if re.fullmatch(r"\d{3}\.zip", file.name, re.ASCII) and file.is_file():
                    status = file.stat()
                    found.append((1000 * int(folder.name) + int(file.name[:3]), status.st_size, status.st_mtime_ns))
        if not found:
            raise BadInput(f"{printable(str(self.root))} holds no archives such as 00/000.zip; see --layout yfcc")
        return sorted(found)

    def _count(self, zip_numbers: list[int]) -> int:
        for zip_number in reversed(zip_numbers):
            members = self._members(zip_number)
            if members and not isinstance(members, str):
                return 1000 * zip_number + max(members) + 1
        raise BadInput(f"the archives in {printable(str(self.root))} hold no image such as 000.jpg; see --layout yfcc")

    def _read_directory(self, zip_number: int) -> dict[int, Member] | str:
        """Return the images of an archive by their numbers, or why there are none."""
        path = self._zip(zip_number)
        try:
            return {int(name[:3]): member for name, member in archive_members(path) if re.fullmatch(rb"\d{3}\.jpg", name)}
        except FileNotFoundError:
            return _NO_ARCHIVE
        except OSError as error:
            return f"its archive cannot be read: {error.strerror}"
        except BadInput:
            return "its archive is broken"


class _Packed:
    """Many byte strings as their bytes and offsets: no object for each."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._offsets = array("q", [0])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def size(self) -> int:
        """Bytes of all."""
        return len(self._bytes)

    def add(self, value: bytes) -> None:
        self._bytes += value
        self._offsets.append(len(self._bytes))

    def arrow(self) -> Any:
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(self._bytes)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)

    def taken(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes and offsets of some of them."""
        taken = self.arrow().take(order)
        offsets, characters = taken.buffers()[1:]
        return np.frombuffer(characters, np.uint8), np.frombuffer(offsets, np.int64)[: len(order) + 1]


def _last_of_each(keys: _Packed) -> np.ndarray:
    """Return the places of keys in ascending order, of equal ones the last."""
    from pyarrow import compute

    found = keys.arrow()
    order = compute.array_sort_indices(found).to_numpy()
    kept = np.ones(len(order), bool)
    ordered = found.take(order)
    kept[:-1] = compute.not_equal(ordered[:-1], ordered[1:]).to_numpy(zero_copy_only=False)
    return order[kept]


def _inside(name: bytes) -> bytes | None:
    """Return the path that unpacking gives a file below the folder it is unpacked to; None where it would leave that."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return None if name.startswith(b"/") or b".." in parts or b"\0" in name or not parts else b"/".join(parts)


def _sort_key(name: bytes) -> bytes:
    """Return bytes that sort as the scan of a folder does: the files of a folder before its folders, each by their bytes."""
    *folders, file = name.split(b"/")
    return b"".join(b"\1" + folder + b"\0" for folder in folders) + b"\0" + file


def _fingerprint(path: Path, *arrays: np.ndarray) -> str:
    status = path.stat()
    stream = xxhash.xxh3_128(f"{status.st_size} {status.st_mtime_ns}".encode())
    for values in arrays:
        stream.update(np.ascontiguousarray(values).data)
    return stream.hexdigest()
