"""Seeds among the neighbors of the background, against all products."""

import numpy as np
import pytest

from ooc_diffusion.neighbors import completion, entering, list_major
from tests.neighbors.test_list_major import LISTS, N, awkward_vectors, ordered


@pytest.fixture(scope="module", params=[50, 3], ids=["50 seeds", "3 seeds"])
def case(request):
    X = awkward_vectors()
    centroids = X[np.random.default_rng(1).choice(N, LISTS, replace=False)]
    centroids[3], centroids[LISTS - 1] = 40, 50  # lists without vectors
    database, lists = ordered(X, centroids)
    seeds = awkward_vectors(request.param + 8, seed=5)[8:]
    seeds[0] = X[0]  # of which there are 60 in the background
    return database, lists[database.order], seeds


def least_of(database, k):
    """The k-th similarity among the background, none at some positions, and far above all at others."""
    similarities = np.sort(database.vectors @ database.vectors.T, axis=1)[:, ::-1]
    least = similarities[:, k - 1].copy()
    least[::17], least[5::17] = -1e30, 2
    return least


def naive_entering(database, numbers, seeds, least, k, probes):
    """The k best seeds of each position that probe its list and are at least as similar as it asks."""
    rows = []
    distances = ((seeds[:, None].astype(np.float64) - database.centroids) ** 2).sum(axis=2)
    near = np.argsort(distances, axis=1, kind="stable")[:, :probes]
    for vector, number, bound in zip(database.vectors.astype(np.float64), numbers, least, strict=True):
        similarities = seeds.astype(np.float64) @ vector
        allowed = (near == number).any(axis=1) & (similarities >= bound - 1e-6)
        rows.append([(similarities[s], s, similarities[s] < bound + 1e-6) for s in np.flatnonzero(allowed)])
        rows[-1] = sorted(rows[-1], key=lambda entry: (-entry[0], entry[1]))[:k]
    return rows


def found(*args, **options):
    parts = list(entering(*args, **options))
    return [np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "seeds", "similarities")]


@pytest.mark.parametrize("probes", [1, 6, LISTS, None])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_seeds_that_enter(case, k, probes):
    database, numbers, seeds = case
    least = least_of(database, k)
    counts, ids, similarities = found(database, seeds, least, k=k, probes=probes, threads=2)
    expected = naive_entering(database, numbers, seeds, least, k, LISTS if probes is None else probes)
    assert len(counts) == N
    assert counts.sum() == len(ids) == len(similarities)
    ends = np.cumsum(counts)
    entered = 0
    for row, (begin, end) in enumerate(zip(ends - counts, ends, strict=True)):
        sure = [(value, seed) for value, seed, close in expected[row] if not close]
        assert len(sure) <= end - begin <= len(expected[row])
        np.testing.assert_allclose(similarities[begin:end], [value for value, _, _ in expected[row]][: end - begin], atol=1e-6)
        np.testing.assert_allclose(seeds[ids[begin:end]] @ database.vectors[row], similarities[begin:end], atol=1e-6)
        assert len(set(ids[begin:end])) == end - begin
        entered += len(sure)
    assert entered > 5
    assert counts[least == 2].sum() == 0


def test_equal_similarities_enter(case):
    database, _, seeds = case
    same = np.flatnonzero((database.vectors == seeds[0]).all(axis=1))
    products = np.float32(database.vectors[same[0]] @ seeds[0])
    for bound, entered in ((products - 1e-6, 1), (np.nextafter(np.float32(products + 1e-6), np.float32(2)), 0)):
        counts, ids, _ = found(database, seeds[:1], np.full(N, bound, np.float32), k=4, probes=None, threads=1)
        assert (counts[same] == entered).all()
        assert not ids.any()


@pytest.mark.parametrize("list_rows", [1, 7, 5000])
@pytest.mark.parametrize("lists_at_once", [1, LISTS - 1, LISTS, LISTS + 1])
def test_no_block_changes_what_enters(case, monkeypatch, list_rows, lists_at_once):
    database, _, seeds = case
    least = least_of(database, 5)
    expected = found(database, seeds, least, k=5, probes=6, threads=1)
    monkeypatch.setattr(list_major, "_LIST_ROWS", list_rows)
    monkeypatch.setattr(completion, "_LISTS", lists_at_once)
    again = found(database, seeds, least, k=5, probes=6, threads=3)
    np.testing.assert_array_equal(again[0], expected[0])
    np.testing.assert_allclose(again[2], expected[2], atol=1e-6)
    assert (again[1] == expected[1]).mean() > 0.95


def test_resuming_behind_any_list(case):
    database, _, seeds = case
    least = least_of(database, 5)
    counts, ids, similarities = found(database, seeds, least, k=5, probes=6, threads=2)
    for start in np.unique(database.starts):
        again = found(database, seeds, least, k=5, probes=6, threads=2, start=int(start)) if start < N else None
        if again is not None:
            before = counts[:start].sum()
            for part, whole in zip(again, (counts[start:], ids[before:], similarities[before:]), strict=True):
                assert part.tobytes() == whole.tobytes()
    assert sum(len(part.counts) for part in entering(database, seeds, least, k=5, probes=6, threads=2, start=N)) == 0


def test_bounds_leave_out_lists_that_are_too_far(case):
    database, _, seeds = case
    everyone = completion._Everyone(database, seeds)
    asked = 0
    for number in range(LISTS):
        vectors = database.vectors[database.starts[number] : database.starts[number + 1]]
        if len(vectors):
            least = np.full(len(vectors), 0.9, np.float32)
            some = everyone(number, vectors, least)
            assert set(np.flatnonzero((vectors @ seeds.T >= least[:, None]).any(axis=0))) <= set(some)
            asked += len(some)
    assert 0 < asked < 0.9 * len(seeds) * LISTS
