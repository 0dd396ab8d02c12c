"""The manifest: the one file that says which arrays a store holds, and which stage made them from what."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..errors import CorruptStore
from .checksums import CHUNK_BYTES
from .files import read_regular
from .npy import HEADER_BYTES

FORMAT = 1
_FILE_NAME = re.compile(r"data/[A-Za-z0-9._-]+\.npy", re.ASCII)
_DTYPE = re.compile(r"[<|][buif][1248]", re.ASCII)
_SIZE_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class ArrayEntry:
    """What the manifest says of one array.

    Parameters
    ----------
    file : str
        Path of the ``.npy`` file inside the store.
    dtype : str
        Little-endian NumPy type, such as ``<f4``.
    shape : tuple of int
        Shape of the array, C order.
    checksums : list of str
        xxh3 (64 bits) of each chunk of 16 MiB of the data.
    stage : str
        The stage that made it.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    checksums: list[str]
    stage: str

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return HEADER_BYTES + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def identity(self) -> str:
        """A checksum of the content: equal for equal arrays, wherever they are stored."""
        return checksum([self.dtype, list(self.shape), self.checksums])


@dataclass
class Manifest:
    """The arrays and stages of one generation of a store."""

    generation: int = 0
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[str, ArrayEntry] = field(default_factory=dict)
    source: bytes = field(default=b"", repr=False, compare=False)  # what it was loaded from

    def encode(self) -> bytes:
        """Return the manifest as JSON that carries its own checksum."""
        body = {
            "format": FORMAT,
            "generation": self.generation,
            "stages": self.stages,
            "arrays": {name: vars(entry) for name, entry in self.arrays.items()},
        }
        return text_of({"checksum": checksum(body), **body})

    def edited(self) -> Manifest:
        """Return a copy whose stages and arrays can be replaced, and the entries of a stage."""
        return Manifest(self.generation, {name: dict(made) for name, made in self.stages.items()}, dict(self.arrays))

    @classmethod
    def load(cls, path: Path, *, known: Manifest | None = None) -> Manifest:
        """Read and check a manifest; where its bytes are those of the ``known`` one, return that.

        Raises
        ------
        CorruptStore
            If it is missing, damaged, or of a format this version does not know.
        """
        try:
            data = read_regular(path, limit=_SIZE_LIMIT)
            if known is not None and data == known.source:
                return known
            body = json.loads(data)
            # neither repeated keys nor another spelling
            # the latter is how stores were written before
            as_written = data in (text_of(body), json.dumps(body, indent=1).encode())
            stated = body.pop("checksum")
            known = body["format"]
        except OSError as error:
            raise CorruptStore(_damaged(path, error.strerror or str(error))) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptStore(_damaged(path, f"{type(error).__name__}: {error}")) from None
        if known != FORMAT:
            raise CorruptStore(f"{path} is of format {known!r}, this version reads {FORMAT}; install the version that wrote it")
        if not as_written or stated != checksum(body):
            raise CorruptStore(_damaged(path, "its checksum differs"))
        try:
            arrays = {name: _entry(name, value) for name, value in body["arrays"].items()}
            return cls(int(body["generation"]), dict(body["stages"]), arrays, data)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise CorruptStore(_damaged(path, str(error))) from None


def checksum(value: Any) -> str:
    """Return the xxh3 (128 bits) of a value in canonical JSON."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def text_of(body: dict[str, Any]) -> bytes:
    """Return a manifest as JSON with a line for each stage and array: quick to make, and people can compare two."""
    parts = []
    for key, value in body.items():
        whole = json.dumps(value)
        if isinstance(value, dict) and value:
            whole = "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items()) + "\n }"
        parts.append(f" {json.dumps(key)}: {whole}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def check_names(name: str, file: str, dtype: str) -> None:
    """Raise `ValueError` unless an array lies in a file and has a type as a manifest may name them."""
    if _FILE_NAME.fullmatch(file) is None or _DTYPE.fullmatch(dtype) is None:
        raise ValueError(f"array {name!r} has a file name or a type that no stage writes")


def _entry(name: str, value: dict[str, Any]) -> ArrayEntry:
    shape = tuple(value["shape"])
    check_names(name, value["file"], value["dtype"])
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array {name!r} has the shape {shape}")
    entry = ArrayEntry(value["file"], value["dtype"], shape, list(value["checksums"]), str(value["stage"]))
    if len(entry.checksums) != -(-(entry.bytes - HEADER_BYTES) // CHUNK_BYTES):
        raise ValueError(f"array {name!r} has {len(entry.checksums)} checksums, which its shape {shape} does not need")
    return entry


def _damaged(path: Path, why: str) -> str:
    older = sorted((path.parent / "generations").glob("*.json"))
    remedy = f"copy {older[-1]} over it" if older else "restore it from a backup"
    return f"{path} is missing or damaged ({why}); {remedy}, then run `ooc-diffusion verify --data`"
