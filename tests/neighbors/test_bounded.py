"""Inner products that bounds leave out, against all of them."""

import numpy as np
import pytest

from ooc_diffusion.neighbors import bounded
from ooc_diffusion.neighbors.bounded import Best, Bounded, Tailed, prefixes
from ooc_diffusion.neighbors.kernels import offer_products

N, Q, D, K = 700, 90, 80, 6


def vectors(kind, n, seed):
    """Vectors whose first values hold most, equal parts or little of their length; many identical; and some of other lengths."""
    rng = np.random.default_rng([seed, n])
    X = rng.normal(size=(n, D))
    if kind != "isotropic":
        X *= np.arange(1, D + 1) ** -0.75
    if kind == "turned":  # all that matters comes last
        X = X[:, ::-1].copy()
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X[:: 7 if kind == "identical" else 70] = np.ones(D) / np.sqrt(D)
    X[3] = 0
    if kind == "scaled":
        X *= 10.0 ** rng.integers(-3, 4, (n, 1))
    return X.astype(np.float32)


KINDS = ["decaying", "isotropic", "turned", "identical", "scaled"]


def offered(queries, database, level, parts, *, least=None):
    """What is kept after offering the database in some parts, its rows in any order."""
    best, products = Best(len(queries), K, least=least), Bounded(D)
    if level is not None:
        products._level, products._learn = level, lambda rate: None
    for rows in np.array_split(np.random.default_rng(1).permutation(len(database)).astype(np.int32), parts):
        products.offer(best, Tailed.of(queries), Tailed.of(database), rows, rows)
    return best.sorted()


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_of_all_products(kind):
    queries, database = vectors(kind, Q, 1), vectors(kind, N, 2)
    products = queries.astype(np.float64) @ database.T.astype(np.float64)
    scale = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(database, axis=1).max()
    positions, similarities = offered(queries, database, None, 3)
    expected = -np.sort(-products, axis=1)[:, :K]
    assert (np.abs(similarities - expected) <= 1e-6 * scale).all()
    assert (np.abs(np.take_along_axis(products, positions, axis=1) - similarities) <= 1e-6 * scale).all()
    assert all(len(set(row)) == K for row in positions)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bound_and_no_tile_changes_a_byte(kind, monkeypatch):
    queries, database = vectors(kind, Q, 1), vectors(kind, N, 2)
    least = np.where(np.arange(Q) % 2, -1e30, 0.1).astype(np.float32)
    for bound in (None, least):
        expected = [part.tobytes() for part in offered(queries, database, len(prefixes(D)) - 1, 1, least=bound)]
        for list_rows, products in ((1024, 2**18), (1, 1), (50, 999)):
            monkeypatch.setattr(bounded, "_LIST_ROWS", list_rows)
            monkeypatch.setattr(bounded, "_PRODUCTS", products)
            for level in (None, *range(len(prefixes(D)))):
                for parts in (1, 20):
                    again = offered(queries, database, level, parts, least=bound)
                    assert [part.tobytes() for part in again] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold(kind):
    queries, database = vectors(kind, Q, 1), vectors(kind, N, 2)
    a, b = Tailed.of(queries), Tailed.of(database)
    products = queries.astype(np.float64) @ database.T.astype(np.float64)
    single = queries @ database.T
    for level, p in enumerate(prefixes(D)):
        bounds = queries[:, :p] @ database[:, :p].T + a.tails[:, level : level + 1] * b.tails[:, level]
        assert (bounds >= products).all()
        assert (bounds >= single).all()
        tails = np.linalg.norm(database[:, p:].astype(np.float64), axis=1)
        np.testing.assert_allclose(b.tails[:, level], tails + np.sqrt(D * 2.0**-22) * np.linalg.norm(database, axis=1), rtol=1e-4)


def test_few_products_are_computed_where_first_values_tell(monkeypatch):
    queries, database = vectors("decaying", Q, 1), vectors("decaying", N, 2)
    products = queries @ database.T
    least = np.sort(products, axis=1)[:, -K].copy()
    rates = []

    def counted(*args):
        rates.append(offer_products(*args) / products.size)
        return 0

    monkeypatch.setattr(bounded, "offer_products", counted)
    for level in range(len(prefixes(D))):
        offered(queries, database, level, 1, least=least)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 3 * K / N
    assert rates[1] < 0.5


def test_what_is_learned(monkeypatch):
    costs = {15: 1.0, 31: 0.05, 80: 0.01}
    monkeypatch.setattr(bounded, "offer_products", lambda *args: costs[int(args[2][args[3]])] * Q * N)
    asking, database = Tailed.of(vectors("isotropic", Q, 1)), Tailed.of(vectors("isotropic", N, 1))
    rows = np.arange(N, dtype=np.int32)
    for rate, values in ((0.05, 80), (0.002, 31)):
        costs[31], products = rate, Bounded(D)
        for _ in range(5):
            products.offer(Best(Q, K), asking, database, rows, rows)
        assert products._prefixes[products._level] == values
