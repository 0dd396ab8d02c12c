"""Principal components and unit length: what neighbors are searched in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadInput
from .checks import check_descriptors

# Not taken from the memory budget: the components must not depend on it.
_SAMPLE_BYTES = 256 * 2**20
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class PCA:
    """A centered, not whitened projection onto the directions of largest variance; or another linear transform.

    Parameters
    ----------
    mean : float32 array (d,)
        Subtracted first.
    components : float32 array (dim, d)
        Orthonormal rows, largest variance first; the value of largest size in each row is positive.
    explained_variance_ratio : float32 array (dim,)
        Share of the variance along each row; 0 where it is unknown.
    bias : float32 array (dim,), optional
        Added last. A PCA has none; a linear transform that somebody else trained may.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance_ratio: np.ndarray
    bias: np.ndarray | None = None


def sample_rows(n: int, *, d: int, seed: int) -> np.ndarray:
    """Choose the rows to fit a PCA on: all, or one at random out of each of equally long stretches.

    Parameters
    ----------
    n : int
        Rows of the collection.
    d : int
        Values per row. The sample has at most 256 MiB of float32, whatever the memory budget.
    seed : int
        Of the random draw.

    Returns
    -------
    int64 array (m,)
        Row numbers, strictly ascending.
    """
    m = min(n, max(1, _SAMPLE_BYTES // (4 * d)))
    edges = np.arange(m + 1, dtype=np.int64) * n // m if m else np.zeros(1, np.int64)
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def fit_pca(sample: np.ndarray, *, dim: int) -> PCA:
    """Fit principal components with faiss.

    Parameters
    ----------
    sample : float32 array (m, d)
        Descriptors. A centered copy of them is held while this runs.
    dim : int
        Components to keep, at most min(m, d).

    Returns
    -------
    PCA
        The same bytes for the same sample, whatever the number of threads.

    Raises
    ------
    BadInput
        Where ``dim`` is out of range, or the sample has values that are not finite.
    """
    check_descriptors(sample, 0, "sample for the PCA")
    m, d = sample.shape
    if not 1 <= dim <= min(m, d):
        raise BadInput(f"{dim} components cannot be had from {m} descriptors of {d} values; give 1 to {min(m, d)}")
    import faiss

    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Centered beforehand: faiss subtracts the mean from the covariance in float32, which cancels digits where it is large.
    centered = np.ascontiguousarray(sample - mean, dtype=np.float32)
    pca = faiss.PCAMatrix(d, dim, 0, False)
    pca.max_points_per_d = m  # no further sampling inside faiss
    with _one_blas_thread():  # another number of threads adds up in another order
        pca.train(centered)
    components = faiss.vector_to_array(pca.A).reshape(dim, d)
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(dim), largest])
    variances = np.maximum(faiss.vector_to_array(pca.eigenvalues).astype(np.float64), 0)
    total = variances.sum()
    ratio = variances[:dim] / total if total > 0 else np.zeros(dim)
    return PCA(mean, components * signs[:, None], ratio.astype(np.float32))


def project(pca: PCA, block: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Project descriptors onto the components, then scale each to unit length.

    Products are accumulated in float64, one thread of BLAS for each `BLOCK_ROWS` rows: BLAS libraries add up in another order
    for another number of threads, and for another position of a row in its block. Blocks that start at multiples of
    `BLOCK_ROWS` therefore give the same bytes whatever their length and the number of threads; others differ by a rounding in
    rare values.

    Parameters
    ----------
    pca : PCA
        The components.
    block : float array (b, d)
        Descriptors.
    threads : int
        Blocks at work at a time, each with ``8 * BLOCK_ROWS * (d + dim)`` bytes. Default 1.

    Returns
    -------
    float32 array (b, dim)
        Rows of length 1; a row that projects to zero stays zero.

    Raises
    ------
    BadInput
        Where the descriptors have another width than the components.
    """
    dim, d = pca.components.shape
    if block.ndim != 2 or block.shape[1] != d:
        raise BadInput(f"descriptors of shape {block.shape} do not fit components of {d} values; reduce what was fitted")
    projected = np.empty((len(block), dim), np.float32)
    directions = pca.components.T.astype(np.float64)

    def project_rows(rows: slice) -> None:
        centered = np.zeros((BLOCK_ROWS, d))  # always whole: the order of additions depends on the height too
        count = rows.stop - rows.start
        np.subtract(block[rows], pca.mean, out=centered[:count])
        moved = (centered @ directions)[:count]
        projected[rows] = _unit_rows(moved if pca.bias is None else moved + pca.bias)

    with _one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(project_rows, _row_blocks(len(block))):
            pass
    return projected


def normalize_rows(block: np.ndarray) -> np.ndarray:
    """Scale rows to unit length.

    Parameters
    ----------
    block : float array (b, d)
        Rows.

    Returns
    -------
    float32 array (b, d)
        Rows of length 1; zero rows stay zero. Lengths are computed in float64. The bytes of a row depend on that row alone.
    """
    normalized = np.empty(block.shape, np.float32)
    for rows in _row_blocks(len(block)):
        normalized[rows] = _unit_rows(block[rows].astype(np.float64))
    return normalized


def _unit_rows(values: np.ndarray) -> np.ndarray:
    # Divided by the largest value first: squares of very small or large float64 would vanish or overflow.
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    scaled = values / np.where(largest > 0, largest, 1)
    lengths = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    return scaled / np.where(lengths > 0, lengths, 1)


def _row_blocks(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK_ROWS, n)) for first in range(0, n, BLOCK_ROWS))


def _one_blas_thread() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)
