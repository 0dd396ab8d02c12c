"""The k-nearest-neighbor classifier: zero iterations of diffusion, no graph."""

from __future__ import annotations

import numpy as np

from ooc_diffusion.errors import BadInput

__all__ = ["DEFAULT_VOTERS", "knn_scores"]

DEFAULT_VOTERS = 5

# Queries per search, padded: faiss takes another path for a few queries than for many, with other last bits.
_SUB_BLOCK = 1024
# The most that similarity adds to a count of votes. Far below 1, so that it never outvotes and hardly moves the confidence.
_TIE_BREAK = 2.0**-7
# The same as a part of a score that is a fraction.
_RELATIVE_TIE_BREAK = 2.0**-20


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
        Votes per class. Among classes with equal votes, the larger sum of similarities is ahead by a fraction below 1/128 (of
        a part of a million of the score, where votes are divided); exactly equal sums leave equal scores. Classes without votes
        have 0.

    Raises
    ------
    BadInput
        Shapes do not agree, there is no seed, or ``n_neighbors`` is below 1.

    Notes
    -----
    The baseline without background at the end of section 4.3 (k = 1000 there): 0 iterations of diffusion, so that the score of a
    query is the sum over its k nearest seeds of the rows of L_0, whose columns are one-hot divided by their sums, the numbers of
    seeds: with ``by_class_size``, s_c = (seeds of class c among the k nearest) / (seeds of class c). Without the division the
    classes with most seeds win wherever k is large. The fraction is the rank of the class among those of equal votes rather than
    the similarity itself: it has no unit, is never negative, and survives float32.
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
        result[start : start + rows] = _count(labels[ids[:rows]], sims[:rows], n_classes, sizes)
    return result


def _count(voters: np.ndarray, sims: np.ndarray, n_classes: int, sizes: np.ndarray | None = None) -> np.ndarray:
    """Votes float64 (b, C) plus the tie break, from the classes and similarities of the neighbors, both (b, k).

    With ``sizes`` (C,) votes are divided by them; fractions that differ do so by about as much as the tie break, or more, for up
    to 1000 voters and 1000 seeds per class.
    """
    cells = voters + n_classes * np.arange(len(voters))[:, None]
    size = len(voters) * n_classes
    votes = np.bincount(cells.ravel(), minlength=size).reshape(-1, n_classes)
    summed = np.bincount(cells.ravel(), weights=sims.ravel(), minlength=size).reshape(-1, n_classes)
    if sizes is None:
        return votes + _TIE_BREAK * _rank_share(votes, summed)
    shares = votes / np.maximum(sizes, 1)
    return shares * (1.0 + _RELATIVE_TIE_BREAK * _rank_share(shares, summed))


def _rank_share(votes: np.ndarray, summed: np.ndarray) -> np.ndarray:
    """Rank of each class among those of its row with the same votes, by summed similarity, as a share below 1 of them.

    At most k / v classes have v votes, so a step is never below v / k: float32 tells the steps apart for any k below 60 000.
    """
    order = np.lexsort((summed, votes), axis=1)
    v = np.take_along_axis(votes, order, axis=1)
    s = np.take_along_axis(summed, order, axis=1)
    place = np.broadcast_to(np.arange(votes.shape[1]), v.shape)
    starts = np.ones(v.shape, dtype=bool)
    starts[:, 1:] = v[:, 1:] != v[:, :-1]
    # The last class with a smaller sum in the same group of equal votes decides the rank: equal sums share one.
    steps = starts.copy()
    steps[:, 1:] |= s[:, 1:] != s[:, :-1]
    group_first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    rank = np.maximum.accumulate(np.where(steps, place, 0), axis=1) - group_first
    ends = np.ones(v.shape, dtype=bool)
    ends[:, :-1] = starts[:, 1:]
    group_end = np.minimum.accumulate(np.where(ends, place, v.shape[1])[:, ::-1], axis=1)[:, ::-1]
    share = np.where(v > 0, rank / (group_end - group_first + 1), 0.0)
    result = np.empty(votes.shape)
    np.put_along_axis(result, order, share, axis=1)
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
