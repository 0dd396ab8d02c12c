"""Rows of a neighbor table that somebody else made: checked, without repetitions, with similarities."""

from __future__ import annotations

import numpy as np

from ..errors import BadInput
from .kernels import NONE
from .table_kernels import row_products

# The median by which similarities may differ from inner products: codes of few bits differ by hundredths, other units by more.
_FAR = 0.2


def check_ids(block: np.ndarray, *, n: int, what: str, first: int) -> np.ndarray:
    """Return rows of ids (b, w), integers, as int32; `BadInput` unless each is of 0 .. n - 1, or -1 at the end of its row.

    ``what`` and the number of the ``first`` row are for the message.
    """
    wrong = (block < -1) | (block >= n)
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise BadInput(
            f"{what} row {first + row} names {block[row, place]} in column {place}; ids are the rows 0 to {n - 1} of the "
            "background, and -1 for none"
        )
    late = (block[:, :-1] == -1) & (block[:, 1:] != -1)
    if late.any():
        row, place = np.argwhere(late)[0]
        raise BadInput(f"{what} row {first + row} names an id behind the -1 in column {place}; write -1 at the end of a row only")
    return block.astype(np.int32)


def check_similarities(block: np.ndarray, ids: np.ndarray, *, what: str, first: int) -> np.ndarray:
    """Return similarities (b, w) as float32, -1e30 where there is no neighbor; `BadInput` unless finite and descending."""
    there = ids >= 0
    with np.errstate(over="ignore"):
        found = np.where(there, block.astype(np.float32), NONE)
    if not np.isfinite(found).all():
        row, place = np.argwhere(~np.isfinite(found))[0]
        raise BadInput(f"{what} row {first + row} is {block[row, place]} in column {place}; similarities are finite numbers")
    rising = there[:, 1:] & (found[:, 1:] > found[:, :-1])
    if rising.any():
        row, place = np.argwhere(rising)[0]
        raise BadInput(
            f"{what} row {first + row} rises from {found[row, place]:g} to {found[row, place + 1]:g} in column {place + 1}; "
            "similarities (inner products, not distances) fall along a row"
        )
    return found


def best_first(queries: np.ndarray, ids: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of ids (b, w) by falling inner product, ties as they stood, and these products, float32."""
    products = products_of(queries, ids, vectors)
    order = np.argsort(-products, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(products, order, axis=1)


def products_of(queries: np.ndarray, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the inner products of queries (b, d) with the vectors that their rows of ids (b, w) name; -1e30 for -1."""
    products = np.empty(ids.shape, np.float32)
    row_products(np.ascontiguousarray(queries), ids, vectors, products)
    return products


def distinct(ids: np.ndarray, similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (b, w) without the repetitions of an id behind its first place; what follows moves up, -1 fills the end."""
    ascending = np.sort(ids, axis=1)
    rows = np.flatnonzero(((ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0)).any(axis=1))
    if len(rows) == 0:
        return ids, similarities
    some, values = ids[rows], similarities[rows]
    by_id = np.argsort(some, axis=1, kind="stable")
    ascending = np.take_along_axis(some, by_id, axis=1)
    gone = np.zeros(some.shape, bool)
    np.put_along_axis(gone, by_id[:, 1:], ascending[:, 1:] == ascending[:, :-1], axis=1)
    some, values = np.where(gone, np.int32(-1), some), np.where(gone, NONE, values)
    order = np.argsort(some < 0, axis=1, kind="stable")
    ids, similarities = ids.copy(), similarities.copy()
    ids[rows], similarities[rows] = np.take_along_axis(some, order, axis=1), np.take_along_axis(values, order, axis=1)
    return ids, similarities


def require_products(queries: np.ndarray, ids: np.ndarray, similarities: np.ndarray, vectors: np.ndarray, *, what: str) -> None:
    """Raise `BadInput` where similarities of sampled rows are not about the inner products of the vectors."""
    there = ids >= 0
    far = np.abs(similarities - products_of(queries, ids, vectors))[there]
    if len(far) and not np.median(far) <= _FAR:
        raise BadInput(
            f"{what} differs from the inner products of the vectors in the store by {np.median(far):.2g} (median of "
            f"{len(ids)} rows): it is of other vectors, or no inner product of unit vectors"
        )
