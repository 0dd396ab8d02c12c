"""Linear transforms that faiss wrote (``faiss.write_VectorTransform``), read without faiss, which may crash on a bad file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..store import file_bytes
from .pca import PCA

# What stands before the matrix, by the letters that a file begins with: sizes of numbers, and of vectors of float32.
_LINEAR = {b"LTra": (0, 0), b"rrot": (0, 0), b"PCAm": (5, 3), b"PcAm": (9, 3), b"Pcam": (13, 3), b"Viqm": (8, 0)}
# A larger file holds more than a matrix between descriptors.
_MOST_BYTES = 2**28


class _Reader:
    """Goes through the bytes of a file and never beyond them."""

    def __init__(self, file: str | Path) -> None:
        self._file = file
        size = file_bytes(file)
        if size > _MOST_BYTES:
            raise BadInput(f"{file} has {size} bytes; a transform of descriptors has {_MOST_BYTES} at most")
        self._data = Path(file).read_bytes()
        self._place = 0

    def take(self, size: int, what: str) -> bytes:
        if size > len(self._data) - self._place:
            raise BadInput(
                f"{self._file} ends before {what}: {len(self._data) - self._place} of {size} bytes are there; write it anew with "
                "faiss.write_VectorTransform"
            )
        self._place += size
        return self._data[self._place - size : self._place]

    def vector(self, what: str) -> np.ndarray:
        (count,) = struct.unpack("<Q", self.take(8, f"the length of {what}"))
        return np.frombuffer(self.take(4 * count, what), "<f4")

    def end(self) -> None:
        if self._place != len(self._data):
            raise BadInput(
                f"{self._file} goes on for {len(self._data) - self._place} bytes behind its transform; it is no single one"
            )


def read_transform(file: str | Path) -> PCA:
    """Read a linear transform x -> A x + b from a file of faiss, such as a PCA with or without rotation.

    Parameters
    ----------
    file : str or Path
        What ``faiss.write_VectorTransform`` wrote.

    Returns
    -------
    PCA
        A as ``components`` (d_out, d_in), b as ``bias``; ``mean`` and variances are 0, since b includes the mean.

    Raises
    ------
    BadInput
        Where it is no such file, not linear, not trained, not whole, or holds a number that is not finite.
    """
    reader = _Reader(file)
    kind = reader.take(4, "its kind")
    if kind not in _LINEAR:
        raise BadInput(
            f"{file} begins with {kind!r}; give a linear transform (PCA, rotation) as faiss.write_VectorTransform writes it"
        )
    numbers, vectors = _LINEAR[kind]
    reader.take(numbers, "its options")
    for what in ("the mean", "the eigenvalues", "the directions")[:vectors]:
        reader.vector(what)
    (biased,) = struct.unpack("<?", reader.take(1, "its options"))
    matrix, bias = reader.vector("the matrix"), reader.vector("the bias")
    d_in, d_out, trained = struct.unpack("<ii?", reader.take(9, "its dimensions"))
    reader.end()
    if not trained:
        raise BadInput(f"{file} holds a transform that was not trained; train it before it is written")
    if d_in < 1 or d_out < 1 or matrix.size != d_in * d_out or (biased and bias.size != d_out):
        raise BadInput(
            f"{file} says that it takes {d_in} values to {d_out}, but has a matrix of {matrix.size} and a bias of {bias.size}; "
            "write it anew with faiss.write_VectorTransform"
        )
    if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
        raise BadInput(f"{file} holds numbers that are not finite; train it anew")
    zeros = np.zeros(d_out, np.float32)
    return PCA(np.zeros(d_in, np.float32), matrix.reshape(d_out, d_in), zeros, bias if biased else zeros)
