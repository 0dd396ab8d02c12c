"""The images of another collection, as background of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..features import PCA, normalize_rows, project
from ..store import Store
from .plans import BLOCK_ROWS
from .settings import Worker


@dataclass(frozen=True)
class Background:
    """The first images of another store.

    Parameters
    ----------
    other : Store
        Where they are.
    array : str
        Its array that is taken.
    n : int
        Number of images.
    """

    other: Store
    array: str
    n: int

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines results, as JSON values."""
        return {"images": self.other.entry(self.array).identity, "n": self.n}

    @property
    def described(self) -> bool:
        """Whether they have descriptors like those of the store, and not only vectors, as the paper's collection."""
        return self.array == "background/descriptors"

    def descriptors(self, store: Store) -> np.ndarray:
        """Return their descriptors (n, d); `BadInput` where they are not those of a store."""
        if not self.described:
            raise BadInput(f"{self.other.path} has no descriptors like those of {store.path}, which the prior is estimated from")
        return self.other.array(self.array)[: self.n]

    def vectors(self, worker: Worker, store: Store) -> np.ndarray:
        """Return unit vectors of (n, dim), brought to those of a store and written as scratch of a job."""
        source = self.other.array(self.array)
        pca = _pca(store, self.array, source.shape[1])
        vectors = worker.job.array("background", "<f4", (self.n, store.entry("background/vectors").shape[1]), scratch=True)
        for first in range(vectors.rows, self.n, BLOCK_ROWS):
            block = np.array(source[first : min(first + BLOCK_ROWS, self.n)])
            if self.described:
                block = normalize_rows(block) if pca is None else project(pca, block, threads=worker.threads)
            vectors.append(block)
            worker.job.checkpoint()
        return vectors.view()


def _pca(store: Store, array: str, d: int) -> PCA | None:
    """Return what brings an array of d values to the vectors of a store; None where only the length is changed."""
    if array != "background/descriptors" or "pca/mean" not in store or store.entry("pca/components").shape[1] != d:
        return None
    names = [f"pca/{name}" for name in ("mean", "components", "variance", "bias")]
    return PCA(*(store.array(name) for name in names if name in store))


def open_background(store: Store, folder: str | Path, *, size: int | None = None) -> Background:
    """Open the background of another store.

    Parameters
    ----------
    store : Store
        The images of the protocol.
    folder : str or Path
        The other store. Descriptors as long as those of ``store`` are brought to its vectors by its PCA; else vectors of the same
        length are taken as they are.
    size : int, optional
        Take the first images only. Default: all.

    Returns
    -------
    Background

    Raises
    ------
    BadInput
        If neither descriptors nor vectors are alike, or there are fewer images.
    """
    other = Store(folder)
    for name in ("background/descriptors", "background/vectors"):
        if name in other and name in store and other.entry(name).shape[1] == store.entry(name).shape[1]:
            n = other.entry(name).shape[0]
            if size is not None and not 1 <= size <= n:
                raise BadInput(f"`size` is {size}, but {folder} has {n} images; give from 1 to {n}")
            return Background(other, name, size or n)
    raise BadInput(f"the images of {folder} are described by other numbers than those of {store.path}; extract both alike")
