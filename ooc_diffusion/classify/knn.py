"""The k-nearest-neighbor classifier: zero iterations of diffusion, no graph."""

from __future__ import annotations

import numpy as np

from ooc_diffusion.errors import BadInput

__all__ = ["DEFAULT_VOTERS", "count_votes", "knn_scores", "votes_bytes"]

DEFAULT_VOTERS = 5

# Queries per search, padded: faiss takes another path for a few queries than for many, with other last bits.
_SUB_BLOCK = 1024
# Of 8 bytes, for each class of a row: votes, their shares and sums, the order, all of it sorted, and the bits of the scores.
_ARRAYS_PER_CLASS = 14


def knn_scores(
    seed_vectors: np.ndarray,
    seed_classes: np.ndarray,
    query_block: np.ndarray,
    *,
    n_classes: int,
    n_neighbors: int = DEFAULT_VOTERS,
    by_class_size: bool = False,
) -> np.ndarray:
    """Votes of the nearest labelled images, by exact inner product.

    Parameters
    ----------
    seed_vectors : ndarray of float32, shape (m, d)
        Descriptors of the seeds, of norm 1 where the inner product is to be the cosine.
    seed_classes : ndarray of int, shape (m,)
        Their classes.
    query_block : ndarray of float32, shape (b, d)
        Descriptors of the images to classify, in a block of any size.
    n_classes : int
        Number of classes C.
    n_neighbors : int
        Voters per query, default 5; all seeds where that is more than there are.
    by_class_size : bool
        Divide the votes of each class by its number of seeds, as η = columns does with L_0. Default False.

    Returns
    -------
    ndarray of float32, shape (b, C)
        Those of `count_votes`.

    Raises
    ------
    BadInput
        Shapes do not agree, there is no seed, or ``n_neighbors`` is below 1.

    Notes
    -----
    The baseline without background at the end of section 4.3 (k = 1000 there): 0 iterations of diffusion, so that the score of a
    query is the sum over its k nearest seeds of the rows of L_0, whose columns are one-hot divided by their sums, the numbers of
    seeds: with ``by_class_size``, s_c = (seeds of class c among the k nearest) / (seeds of class c). Without the division the
    classes with most seeds win wherever k is large.
    """
    import faiss

    _check(seed_vectors, seed_classes, query_block, n_neighbors)
    seeds = np.ascontiguousarray(seed_vectors, dtype=np.float32)
    labels = np.asarray(seed_classes, dtype=np.int64)
    k = min(n_neighbors, len(seeds))
    sizes = np.bincount(labels, minlength=n_classes) if by_class_size else None
    result = np.empty((len(query_block), n_classes), dtype=np.float32)
    padded = np.zeros((_SUB_BLOCK, seeds.shape[1]), dtype=np.float32)
    for start in range(0, len(query_block), _SUB_BLOCK):
        rows = min(_SUB_BLOCK, len(query_block) - start)
        padded[:rows] = query_block[start : start + rows]
        sims, ids = faiss.knn(padded, seeds, k, metric=faiss.METRIC_INNER_PRODUCT)
        result[start : start + rows] = count_votes(labels[ids[:rows]], sims[:rows], n_classes, sizes)
    return result


def count_votes(voters: np.ndarray, sims: np.ndarray, n_classes: int, sizes: np.ndarray | None = None) -> np.ndarray:
    """Votes for each class, those of equal ones told apart by similarity.

    Parameters
    ----------
    voters : ndarray of int, shape (b, k)
        Classes of the neighbors of each query.
    sims : ndarray of float32, shape (b, k)
        Their similarities.
    n_classes : int
        Number of classes C.
    sizes : ndarray of int, shape (C,), optional
        Divide the votes of each class by this. Default: they stay as they are.

    Returns
    -------
    ndarray of float32, shape (b, C)
        A score is that number in float32, raised by the last bits that it takes so that the scores of a row are ordered by votes
        (divided), and among classes with equal ones by the sum of their similarities. Exactly equal sums leave equal scores;
        classes without votes have 0.

    Notes
    -----
    With few seeds per class equal votes are the rule, and all of several hundred classes may have them: a part of the score that
    grows with the similarity would either not be told apart in float32, or outvote. The numbers of seeds are below 2**26, so that
    different fractions are different in float64.
    """
    result = np.empty((len(voters), n_classes), np.float32)
    for first in range(0, len(voters), _SUB_BLOCK):
        rows = slice(first, first + _SUB_BLOCK)
        result[rows] = _count(voters[rows], sims[rows], n_classes, sizes)
    return result


def votes_bytes(k: int, n_classes: int) -> int:
    """Return what `count_votes` takes besides its arguments and its result."""
    return _SUB_BLOCK * (24 * k + 8 * _ARRAYS_PER_CLASS * n_classes)


def _count(voters: np.ndarray, sims: np.ndarray, n_classes: int, sizes: np.ndarray | None) -> np.ndarray:
    cells = (voters + n_classes * np.arange(len(voters))[:, None]).ravel()
    size = len(voters) * n_classes
    votes = np.bincount(cells, minlength=size).reshape(-1, n_classes)
    summed = np.bincount(cells, weights=sims.ravel(), minlength=size).reshape(-1, n_classes)
    return _in_order(votes.astype(np.float64) if sizes is None else votes / np.maximum(sizes, 1), summed)


def _in_order(shares: np.ndarray, summed: np.ndarray) -> np.ndarray:
    """Return shares (b, C), 0 or more, as float32 that are ordered by share, then sum: each raised as little as that takes."""
    order = np.lexsort((summed, shares), axis=1)
    ordered, sums = (np.take_along_axis(values, order, axis=1) for values in (shares, summed))
    place = np.zeros(order.shape, np.int64)  # among the different pairs of the row
    place[:, 1:] = np.cumsum((ordered[:, 1:] != ordered[:, :-1]) | (sums[:, 1:] != sums[:, :-1]), axis=1)
    # as integers, float32 above zero stand in their own order, and the next one is the next number
    bits = ordered.astype(np.float32).view(np.int32) - place
    bits = np.maximum.accumulate(bits, axis=1) + place
    result = np.empty(order.shape, np.float32)
    np.put_along_axis(result, order, bits.astype(np.int32).view(np.float32), axis=1)
    return result


def _check(seed_vectors: np.ndarray, seed_classes: np.ndarray, query_block: np.ndarray, n_neighbors: int) -> None:
    if len(seed_vectors) == 0:
        raise BadInput("the kNN classifier has no seeds: give at least one labelled image")
    if seed_classes.shape != (len(seed_vectors),):
        raise BadInput(f"{len(seed_vectors)} seeds and classes of shape {seed_classes.shape}: give one class per seed")
    if query_block.ndim != 2 or query_block.shape[1] != seed_vectors.shape[1]:
        raise BadInput(f"queries of shape {query_block.shape}, seeds of {seed_vectors.shape[1]} dimensions: they must agree")
    if n_neighbors < 1:
        raise BadInput(f"{n_neighbors} neighbors: give at least 1")
