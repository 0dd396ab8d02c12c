"""Inner products of which few need to be computed: bounds by the first values of both vectors tell that the others are too small.

x·s ≤ x₁·s₁ + |x₂| |s₂|, where x₁ are the first p values and x₂ the rest. That is the product of vectors of p + 1 values, so all
bounds come from one matrix product. Vectors that a PCA made have most of their length in their first values. Only where the bound
reaches what a query asks for, the inner product is computed, and each by itself: its bytes depend neither on p nor on tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .kernels import CHUNK, offer, offer_products, sort_best, tail_norms

# Rows of the database that are multiplied at once, bounds, and queries: they stay in a core's cache until looked through.
_LIST_ROWS = 2**10
_PRODUCTS, _TILE_ROWS = 2**18, 2**12
# What an inner product by itself takes, in values of a matrix product (measured): for each of its values, and in all.
_VALUE, _SINGLE = 4, 1300
# Of neighboring p one has so many times as few products left, as long as nothing is known.
_STEEP = 4
# So much of the squared length may lie behind the first p to begin with.
_TAIL = 0.15
# Vectors that tell it.
_SOME = 1000


class Best:
    """The k best that each query was offered, where these are at least as good as ``least`` (queries,)."""

    def __init__(self, queries: int, k: int, *, least: np.ndarray | None = None) -> None:
        self.k = k
        self._least = np.full(queries, -np.inf, np.float32) if least is None else np.array(least)
        self._counts = np.zeros(queries, np.int32)
        self._keys = np.empty((queries, key_bytes(k) // 8), np.uint64)
        self._keys[:, k - 1] = 0  # less than any

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What kernels change: the least that could be among the best, how many are kept, and which."""
        return self._least, self._counts, self._keys

    def offer(self, similarities: np.ndarray, queries: np.ndarray, positions: np.ndarray) -> None:
        """Offer similarities (m, n) of some queries (m,) to the vectors at some positions (n,)."""
        offer(similarities, queries, positions, self.k, *self.state)

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions int32 and similarities float32 (queries, k), best first; -1 and -1e30 where there are fewer."""
        positions = np.empty((len(self._keys), self.k), np.int32)
        similarities = np.empty(positions.shape, np.float32)
        sort_best(self._counts, self._keys, positions, similarities)
        return positions, similarities


def key_bytes(k: int) -> int:
    """Return the bytes that the best of one query take while there are more to come."""
    return 8 * (2 * k + CHUNK)


def prefixes(d: int) -> np.ndarray:
    """Return the p to choose from, int64 ascending: with the norm of the rest 16, 32 ... values, at most half of d; and d."""
    return np.array([2**j - 1 for j in range(4, int(d).bit_length() - 1)] + [d], np.int64)


@dataclass(frozen=True)
class Tailed:
    """Vectors with what bounds take.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        May be a memmap.
    tails : numpy.ndarray of shape (n, number of `prefixes`), float32
        The norms of what lies behind each of them, and more for rounding.
    """

    vectors: np.ndarray
    tails: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Tailed:
        """Compute the norms."""
        d = vectors.shape[1]
        tails = np.empty((len(vectors), len(prefixes(d))), np.float32)
        # twice what n products of float32 and their sum may lose of |x| |s|, as the product of two norms
        tail_norms(vectors, prefixes(d), np.float32(np.sqrt(d * 2.0**-22)), tails)
        return cls(vectors, tails)

    @staticmethod
    def bytes(d: int) -> int:
        """Return the bytes of the norms of one vector."""
        return 4 * len(prefixes(d))


class Bounded:
    """Offers inner products, and learns how many first values are worth multiplying: what is found does not depend on it."""

    def __init__(self, d: int) -> None:
        self._prefixes = prefixes(d)
        self._level: int | None = None
        self._work = (
            np.empty((_TILE_ROWS, d + 1), np.float32),
            np.empty((_LIST_ROWS, d + 1), np.float32),
            np.empty(max(_PRODUCTS, _LIST_ROWS), np.float32),
        )
        self._rates, self._seen = np.zeros(len(self._prefixes)), np.zeros(len(self._prefixes), bool)

    @staticmethod
    def bytes(d: int) -> int:
        """Return the bytes that are held."""
        return 4 * (_PRODUCTS + (_TILE_ROWS + _LIST_ROWS) * (d + 1))

    def offer(self, best: Best, asking: Tailed, database: Tailed, rows: np.ndarray, names: np.ndarray) -> None:
        """Offer to all that ask their inner products with some vectors of a database.

        Parameters
        ----------
        best : Best
            What those that ask have.
        asking, database : Tailed
            Vectors.
        rows, names : numpy.ndarray of shape (n,), int32
            Rows of the database, and the positions that are kept.
        """
        if not len(rows) or not len(asking.vectors):
            return
        if self._level is None:
            tails = asking.tails[:_SOME]
            self._level = int(np.argmin((tails**2).mean(axis=0) > _TAIL * (asking.vectors[:_SOME] ** 2).sum(axis=1).mean()))
        vectors, those = (asking.vectors, asking.tails), (database.vectors, database.tails, rows, names)
        computed = offer_products(vectors, those, self._prefixes, self._level, best.k, self._work, best.state)
        self._learn(computed / (len(asking.vectors) * len(rows)))

    def _learn(self, rate: float) -> None:
        assert self._level is not None
        self._rates[self._level], self._seen[self._level] = rate, True
        for level in range(self._level - 1, -1, -1):
            if not self._seen[level]:
                self._rates[level] = min(1.0, _STEEP * self._rates[level + 1])
        for level in range(self._level + 1, len(self._rates)):
            if not self._seen[level]:
                self._rates[level] = self._rates[level - 1] / _STEEP
        self._level = int(np.argmin(self._prefixes + self._rates * (_VALUE * self._prefixes[-1] + _SINGLE)))
