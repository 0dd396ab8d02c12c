"""Seeds among the neighbors of the background, against all products."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from ooc_diffusion.neighbors import Entering, OrderedLists, bounded, completion, entered_lists, entering, reach_for
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


def naive_entering(database, numbers, seeds, least, k, reach):
    """The k best seeds of each position that are near enough to its list and at least as similar as it asks."""
    X, C, S = (array.astype(np.float64) for array in (database.vectors, database.centroids, seeds))
    rows = []
    for vector, number, bound in zip(X, numbers, least, strict=True):
        inside = numbers == number
        radius = np.sqrt(((X[inside] - C[number]) ** 2).sum(axis=1).mean())
        similarities = S @ vector
        near = S @ C[number] + (np.inf if reach is None else reach * radius) * np.linalg.norm(S, axis=1)
        close = np.abs(near - least[inside].mean(dtype=np.float64)) < 1e-3  # what rounding may bring is let in
        allowed = ((near >= least[inside].mean(dtype=np.float64)) | close) & (similarities >= bound - 1e-6)
        rows.append([(similarities[s], s, similarities[s] < bound + 1e-6 or close[s]) for s in np.flatnonzero(allowed)])
        rows[-1] = sorted(rows[-1], key=lambda entry: (-entry[0], entry[1]))[:k]
    return rows


def found(*args, **options):
    parts = list(entering(*args, **options))
    return [np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "seeds", "similarities")]


@pytest.mark.parametrize("reach", [0.0, 0.3, 10.0, None])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_seeds_that_enter(case, k, reach):
    database, numbers, seeds = case
    least = least_of(database, k)
    counts, ids, similarities = found(database, seeds, least, k=k, reach=reach, threads=2)
    expected = naive_entering(database, numbers, seeds, least, k, reach)
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
    free = np.full(N, -1e30, np.float32)
    counts, _, similarities = found(database, seeds[:1], free, k=1, reach=None, threads=1)
    assert (counts == 1).all()
    for bound, entered in ((similarities, 1), (np.nextafter(similarities, np.float32(2)), 0)):
        counts, ids, _ = found(database, seeds[:1], bound, k=1, reach=None, threads=1)
        assert (counts == entered).all()
        assert not ids.any()


@pytest.mark.parametrize(("list_rows", "rows"), [(1, 1), (7, 10), (5000, 10), (5000, 2**13)])
@pytest.mark.parametrize("lists_at_once", [1, LISTS - 1, LISTS, LISTS + 1])
def test_no_block_changes_what_enters(case, monkeypatch, list_rows, lists_at_once, rows):
    monkeypatch.setattr(completion, "_ROWS", rows)
    monkeypatch.setattr(completion, "_SEEDS", 7)
    database, _, seeds = case
    least = least_of(database, 5)
    expected = found(database, seeds, least, k=5, reach=0.3, threads=1)
    monkeypatch.setattr(bounded, "_LIST_ROWS", list_rows)
    monkeypatch.setattr(completion, "_LISTS", lists_at_once)
    again = found(database, seeds, least, k=5, reach=0.3, threads=3)
    np.testing.assert_array_equal(again[0], expected[0])
    np.testing.assert_allclose(again[2], expected[2], atol=1e-6)
    assert (again[1] == expected[1]).mean() > 0.95


@pytest.mark.parametrize("most", [1, 7, 40, 2**16])
def test_resuming_behind_any_part(case, monkeypatch, most):
    """Lists go together, or a long one is cut; what does not depend on it are the seeds that enter."""
    database, _, seeds = case
    least = least_of(database, 5)
    monkeypatch.setattr(completion, "_LISTS", 3)
    expected = found(database, seeds, least, k=5, reach=0.3, threads=1)
    monkeypatch.setattr(completion, "_MOST_ROWS", most)
    counts, ids, similarities = found(database, seeds, least, k=5, reach=0.3, threads=2)
    np.testing.assert_array_equal(counts, expected[0])
    np.testing.assert_allclose(similarities, expected[2], atol=1e-6)
    lengths = [len(part.counts) for part in entering(database, seeds, least, k=5, reach=0.3, threads=2)]
    assert max(lengths) <= max(most, np.diff(database.starts).max() if most > 40 else most)
    for start in np.unique(np.cumsum([0, *lengths])[:-1])[:: max(1, len(lengths) // 30)]:
        if start < N:
            again = found(database, seeds, least, k=5, reach=0.3, threads=2, start=int(start))
            before = counts[:start].sum()
            for part, whole in zip(again, (counts[start:], ids[before:], similarities[before:]), strict=True):
                assert part.tobytes() == whole.tobytes()
    assert list(entering(database, seeds, least, k=5, reach=0.3, threads=2, start=N)) == []


def test_bounds_leave_out_lists_that_are_too_far(case):
    database, _, seeds = case
    radii = np.zeros(LISTS)
    asked = 0
    for number in range(LISTS):
        vectors = database.vectors[database.starts[number] : database.starts[number + 1]]
        if len(vectors):
            radii[number] = np.linalg.norm(vectors - database.centroids[number], axis=1).max()
    norms = np.linalg.norm(seeds, axis=1)
    some = completion._asking(database.centroids, radii, np.full(LISTS, 0.9), seeds, norms)
    for number in range(LISTS):
        vectors = database.vectors[database.starts[number] : database.starts[number + 1]]
        assert set(np.flatnonzero((vectors @ seeds.T >= 0.9).any(axis=0))) <= set(some[number])
        asked += len(some[number])
    assert 0 < asked < 0.9 * len(seeds) * LISTS


@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_the_reach_that_a_recall_takes(case, target):
    database, _, seeds = case
    least = least_of(database, 5)
    least[least == 2] = 0.5
    counts, ids, _ = found(database, seeds, least, k=5, reach=None, threads=2)
    pairs = np.repeat(np.arange(N), counts), ids
    entered = entered_lists(database, entering(database, seeds, least, k=5, reach=None, threads=2), len(seeds))
    numbers = np.searchsorted(database.starts, pairs[0], side="right") - 1
    naive = Counter(zip(numbers.tolist(), ids.tolist(), strict=True))
    assert {(number, seed): times for number, seed, times in zip(*map(np.ndarray.tolist, entered), strict=True)} == naive
    reach = reach_for(database, seeds, least, entered, target_recall=target)
    some_counts, some_ids, _ = found(database, seeds, least, k=5, reach=reach, threads=2)
    again = set(zip(np.repeat(np.arange(N), some_counts), some_ids, strict=True))
    recall = len(again & set(zip(*pairs, strict=True))) / len(ids)
    assert target <= recall < target + 0.3


@pytest.mark.parametrize("piece", [1, 1000, None])
def test_seeds_that_enter_very_many_vectors_are_looked_through_in_pieces(monkeypatch, piece):
    rows, k, seeds, rng = 20_000 if piece is None else 50, 100, 300, np.random.default_rng(0)
    counts = np.full(rows, k, np.uint32)
    counts[::7], counts[3::11] = 0, 5
    entered = np.concatenate([rng.permutation(seeds)[:count].astype(np.int32) for count in counts])
    part = Entering(counts, entered, np.zeros(len(entered), np.float32))
    starts = np.array([0, 0, rows // 3, rows // 3, 2 * rows])
    lists = OrderedLists(np.zeros((4, 1), np.float32), starts, np.arange(2 * rows, dtype=np.uint32), np.zeros((2 * rows, 1)))
    if piece is not None:
        monkeypatch.setattr(completion, "_PIECE", piece)
    tracemalloc.start()
    numbers, some, times = entered_lists(lists, [part, part], seeds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    positions = np.concatenate([np.repeat(np.arange(rows), counts), np.repeat(rows + np.arange(rows), counts)])
    naive = Counter(zip((np.searchsorted(starts, positions, side="right") - 1).tolist(), [*entered.tolist()] * 2, strict=True))
    found = Counter()
    for number, seed, often in zip(numbers.tolist(), some.tolist(), times.tolist(), strict=True):
        found[number, seed] += often
    assert found == naive
    if piece is None:
        assert peak < 8 * len(entered) + 2**20  # not the place of each


@pytest.mark.parametrize(("zeros", "reached"), [(1, True), (8, False)])
def test_seeds_that_are_zero_have_no_reach(case, zeros, reached):
    """Where lists ask for more than nothing no reach lets them in: then search is exact, if the recall takes them."""
    database, _, seeds = case
    few = seeds.copy()
    few[-zeros:] = 0
    least = np.where(np.arange(N) % 3, np.float32(0.5), np.float32(-1))  # zeros enter a third of the rows
    entered = entered_lists(database, entering(database, few, least, k=50, reach=None, threads=2), len(few))
    assert (entered[1] >= len(few) - zeros).any()
    share = entered[2][entered[1] >= len(few) - zeros].sum() / entered[2].sum()
    with np.errstate(all="raise"):
        reach = reach_for(database, few, least, entered, target_recall=0.8)
    assert (reach is not None) == (share < 0.15)
    if reach is not None:
        counts, _, _ = found(database, few, least, k=50, reach=reach, threads=2)
        assert counts.sum() >= 0.8 * entered[2].sum()


def test_lists_of_zeros_are_reached_by_zeros():
    X = np.zeros((64, 4), np.float32)
    X[:32, 0] = 1
    database, _ = ordered(X, X[[0, 63]].copy())
    seeds = X[::8].copy()
    least = np.where(np.arange(64) < 32, np.float32(1), np.float32(0))
    assert (database.vectors[:32, 0] == 1).all()
    entered = entered_lists(database, entering(database, seeds, least, k=30, reach=None, threads=1), len(seeds))
    assert entered[2].sum() == 32 * 4 + 32 * 8
    with np.errstate(all="raise"):
        reach = reach_for(database, seeds, least, entered, target_recall=0.99)
    counts, _, _ = found(database, seeds, least, k=30, reach=reach, threads=1)
    np.testing.assert_array_equal(counts, [4] * 32 + [8] * 32)
