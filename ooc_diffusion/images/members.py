"""Images inside a zip or tar archive: where each lies, found once and without unpacking anything."""

from __future__ import annotations

import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput
from .source import UnreadableImage

# What can be said of a member without reading it; anything but the first makes its row unreadable.
FINE, ENCRYPTED, OUTSIDE, LINK, PACKED, LARGE = range(6)
PROBLEMS = (
    "",
    "encrypted",
    "its path leads out of the archive",
    "a link or special file in an archive",
    "packed otherwise than by deflate",
    "larger than 256 MiB",
)
_MOST_BYTES = 2**28
_STORED, _DEFLATED = 0, 8
# Records of the zip format: of a member in the directory, before a member, and of the end of the directory, plain and 64 bits.
_ENTRY, _LOCAL = struct.Struct("<4s4xHH4xLLLHHH8xL"), struct.Struct("<4s22xHH")
_END, _END64, _LOCATOR64 = struct.Struct("<4s6xHLLH"), struct.Struct("<4s20x8xQQQ"), struct.Struct("<4s4xQ4x")
_PACKINGS = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Parameters
    ----------
    start : int
        In a zip where its header begins, in a tar where its data does.
    stored, size : int
        Its bytes in the archive, and unpacked.
    crc : int
        Of the unpacked bytes; a tar has none: -1.
    deflated : bool
        Whether it is packed.
    problem : int
        Which of `PROBLEMS` it has.
    """

    start: int
    stored: int
    size: int
    crc: int
    deflated: bool
    problem: int


def archive_members(path: Path) -> Iterator[tuple[bytes, Member]]:
    """Yield name and place of each file in a zip or an uncompressed tar, in the order of the archive.

    Raises
    ------
    BadInput
        Where the file is neither, is compressed as a whole, or is cut off.
    """
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0, os.SEEK_END)
        size = file.tell()
        if head[:2] == b"PK" or path.suffix.lower() == ".zip":
            yield from _zip_members(file, size, path)
        elif head[257:262] == b"ustar" or path.suffix.lower() == ".tar":
            yield from _tar_members(path)
        elif head[:2] in _PACKINGS:
            raise BadInput(
                f"{path} is packed as a whole by {_PACKINGS[head[:2]]}, so its images cannot be read one by one; unpack it to a "
                ".tar or to a folder"
            )
        else:
            raise BadInput(f"{path} is a file, but no zip or tar archive; give a folder or archive of images")


def _zip_members(file: BinaryIO, size: int, path: Path) -> Iterator[tuple[bytes, Member]]:
    start, claimed, count = _directory(file, size, path)
    file.seek(start)
    for done in range(count):
        entry = file.read(_ENTRY.size)
        if len(entry) < _ENTRY.size or not entry.startswith(b"PK\x01\x02"):
            raise BadInput(f"{path}: its directory breaks off after {done} of {count} files; pack it anew")
        _, flags, method, crc, stored, unpacked, name_bytes, extra_bytes, comment_bytes, offset = _ENTRY.unpack(entry)
        name, extra = file.read(name_bytes), file.read(extra_bytes)
        file.read(comment_bytes)
        unpacked, stored, offset = _wide(extra, unpacked, stored, offset)
        problem = FINE
        if flags & 1:
            problem = ENCRYPTED
        elif method not in (_STORED, _DEFLATED):
            problem = PACKED
        elif max(stored, unpacked) > _MOST_BYTES:
            problem = LARGE
        if not flags & 0x800:
            try:
                name.decode()
            except UnicodeDecodeError:
                name = name.decode("cp437").encode()
        if not name.endswith(b"/"):
            yield name, Member(offset + start - claimed, stored, unpacked, crc, method == _DEFLATED, problem)


def _directory(file: BinaryIO, size: int, path: Path) -> tuple[int, int, int]:
    """Return where the directory of a zip is, where it says that it is, and how many files it has."""
    file.seek(max(0, size - 2**16 - _END.size))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise BadInput(f"{path} is no whole zip archive: its directory at the end is missing; pack or copy it anew")
    end = size - len(tail) + place
    _, count, length, offset, _ = _END.unpack_from(tail, place)
    file.seek(max(0, end - _LOCATOR64.size))
    if file.read(_LOCATOR64.size).startswith(b"PK\x06\x07"):
        at = end - _LOCATOR64.size - _END64.size
        file.seek(max(0, at))
        found = file.read(_END64.size)
        if not found.startswith(b"PK\x06\x06"):
            raise BadInput(f"{path}: its directory for large archives is missing; pack it anew")
        _, count, length, offset = _END64.unpack(found)
        end = at
    if length > end or count * _ENTRY.size > length:
        raise BadInput(f"{path} says that its directory has {count} files in {length} bytes, which cannot be; pack it anew")
    # what stands before an archive, such as a program that unpacks it, moves everything
    return end - length, offset, count


def _wide(extra: bytes, *numbers: int) -> list[int]:
    """Return sizes and offset of a member, those that do not fit in 32 bits from the field for large ones."""
    found = list(numbers)
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            places = [i for i, number in enumerate(numbers) if number == 2**32 - 1]
            for place, at in zip(places, range(4, 4 + length - 7, 8), strict=False):
                if at + 8 <= len(extra):
                    (found[place],) = struct.unpack_from("<Q", extra, at)
        extra = extra[4 + length :]
    return found


def _tar_members(path: Path) -> Iterator[tuple[bytes, Member]]:
    done = 0
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # which would keep them all
                done += 1
                if found.isdir():
                    continue
                problem = FINE if found.isreg() and not found.issparse() else LINK
                if problem == FINE and found.size > _MOST_BYTES:
                    problem = LARGE
                yield os.fsencode(found.name), Member(found.offset_data, found.size, found.size, -1, False, problem)
            with path.open("rb") as file:  # tarfile ends silently at what is no header
                file.seek(archive.offset)
                if any(file.read(512)):
                    raise tarfile.ReadError("what follows is no header")
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise BadInput(f"{path} is no whole tar archive: behind {done} files, {error}; pack or copy it anew") from None


def read_member(path: str | os.PathLike[str], member: Member) -> bytes:
    """Return the bytes of a file in an archive; raise `UnreadableImage` where they cannot be had."""
    if member.problem != FINE:
        raise UnreadableImage(PROBLEMS[member.problem])
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            start = member.start
            if member.crc >= 0:
                header = os.pread(descriptor, _LOCAL.size, start) if start >= 0 else b""
                if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
                    raise UnreadableImage("it is not where the directory of the archive says")
                start += _LOCAL.size + sum(_LOCAL.unpack(header)[1:])
            data = os.pread(descriptor, member.stored, start)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnreadableImage(f"the archive cannot be read: {error.strerror or error}") from error
    if member.deflated:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise UnreadableImage(f"broken in the archive ({error})") from error
    if len(data) != member.size or (member.crc >= 0 and zlib.crc32(data) != member.crc):
        raise UnreadableImage("broken in the archive (its size or checksum is another)")
    return data
