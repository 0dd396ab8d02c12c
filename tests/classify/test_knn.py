from fractions import Fraction

import numpy as np
import pytest

from ooc_diffusion.classify import count_votes, knn_scores, predict
from ooc_diffusion.errors import BadInput
from tests.reference import naive_knn_scores, naive_neighbors, naive_query_scores


def unit(rng, n, d):
    X = rng.normal(size=(n, d))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("n_neighbors", [1, 2, 5, 40, 1000])
def test_votes_and_predictions_are_those_of_the_oracle(rng, n_neighbors):
    seeds, queries, classes = unit(rng, 40, 8), unit(rng, 97, 8), rng.integers(0, 7, size=40)
    scores = knn_scores(seeds, classes, queries, n_classes=9, n_neighbors=n_neighbors)
    votes, summed = naive_knn_scores(seeds, classes, queries, 9, n_neighbors)
    np.testing.assert_array_equal(np.floor(scores), votes)
    assert scores.dtype == np.float32
    for row, label in enumerate(predict(scores)[0]):
        assert label == max(range(9), key=lambda c: (votes[row, c], summed[row, c], -c))


def test_blocks_of_any_size_give_the_same_bytes(rng):
    seeds, queries, classes = unit(rng, 300, 16), unit(rng, 130, 16), rng.integers(0, 5, size=300)
    whole = knn_scores(seeds, classes, queries, n_classes=5)
    for size in (1, 19, 21, 129, 130, 131):
        parts = [knn_scores(seeds, classes, queries[i : i + size], n_classes=5) for i in range(0, 130, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert knn_scores(seeds, classes, queries[:0], n_classes=5).shape == (0, 5)


def test_similarity_breaks_ties_but_never_outvotes():
    voters = np.array([[0, 0, 1, 1], [2, 2, 1, 0], [0, 1, 2, 2], [1, 2, 1, 2]])
    sims = np.array([[0.1, 0.1, 0.9, 0.9], [-5, -5, 9, 9], [0.5, 0.4, -1e9, -1e9], [0.5, 0.5, 0.5, 0.5]], dtype=np.float32)
    scores = count_votes(voters, sims, 3)
    labels, _ = predict(scores)
    np.testing.assert_array_equal(labels, [1, 2, 2, 1])
    assert scores[3, 1] == scores[3, 2], "equal sums stay equal"
    assert scores[2, 0] > scores[2, 1] >= 1
    assert (scores >= 0).all()
    assert (scores[voters.max(axis=1) < 2][:, 2] == 0).all(), "no vote, no score"


def test_the_best_of_many_ties_does_not_outvote():
    voters = np.append(np.arange(1, 300), [0, 0])[None, :]
    sims = np.append(np.linspace(0, 1e6, 299), [-1e6, -1e6])[None, :].astype(np.float32)
    scores = count_votes(voters, sims, 300)
    assert predict(scores)[0][0] == 0
    assert scores[0, 1:].max() < 1 + 2**-7


def test_many_voters_keep_their_order_in_float32(rng):
    voters = np.arange(2000)[None, :] // 2
    sims = rng.random((1, 2000)).astype(np.float32)
    scores = count_votes(voters, sims, 1000)
    summed = sims.reshape(1000, 2).sum(axis=1, dtype=np.float64)
    np.testing.assert_array_equal(np.argsort(scores[0], kind="stable"), np.argsort(summed, kind="stable"))


def test_negative_similarities_and_all_neighbors(rng):
    seeds = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    scores = knn_scores(seeds, np.array([1, 0]), np.array([[1, 0], [-1, 0]], dtype=np.float32), n_classes=2)
    np.testing.assert_array_equal(predict(scores)[0], [1, 0])


def test_bad_input_is_refused(rng):
    seeds, queries = unit(rng, 4, 3), unit(rng, 2, 3)
    classes = np.zeros(4, dtype=int)
    for args, options, message in [
        ((seeds[:0], classes[:0], queries), {}, "no seeds"),
        ((seeds, classes[:2], queries), {}, "one class per seed"),
        ((seeds, classes, queries[:, :2]), {}, "must agree"),
        ((seeds, classes, queries), {"n_neighbors": 0}, "at least 1"),
    ]:
        with pytest.raises(BadInput, match=message):
            knn_scores(*args, n_classes=1, **options)


@pytest.mark.parametrize("n_neighbors", [1, 5, 40, 1000])
def test_divided_votes_are_zero_iterations_of_diffusion(rng, n_neighbors):
    """Rows of L_0, whose columns sum to 1, are added over the nearest seeds."""
    seeds, queries, classes = unit(rng, 60, 8), unit(rng, 97, 8), np.repeat([0, 1, 2, 4], [40, 10, 8, 2])
    scores = knn_scores(seeds, classes, queries, n_classes=5, n_neighbors=n_neighbors, by_class_size=True)
    L = np.zeros((60, 5))
    L[np.arange(60), classes] = 1
    L /= np.maximum(L.sum(axis=0), 1)
    expected = naive_query_scores(L, naive_neighbors(seeds, min(n_neighbors, 60), queries)[0])
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    summed = naive_knn_scores(seeds, classes, queries, 5, n_neighbors)[1]
    for row, label in enumerate(predict(scores)[0]):
        assert label == max(range(5), key=lambda c: (expected[row, c].round(9), summed[row, c], -c))
    plain = knn_scores(seeds, classes, queries, n_classes=5, n_neighbors=n_neighbors)
    if n_neighbors == 40:
        assert (predict(plain)[0] != predict(scores)[0]).mean() > 0.2


def test_fractions_that_differ_little_are_told_apart():
    voters = np.repeat([0, 1], [999, 998])[None, :]
    sims = np.repeat([0.1, 0.9], [999, 998])[None, :].astype(np.float32)
    scores = count_votes(voters, sims, 2, np.array([1000, 999]))
    assert scores[0, 0] > scores[0, 1]
    tied = count_votes(np.array([[0, 1, 1]]), np.float32([[0.5, 0.4, 0.4]]), 3, np.array([3, 6, 1]))
    assert tied[0, 1] > tied[0, 0] > 0 == tied[0, 2]


@pytest.mark.parametrize("divided", [False, True])
def test_scores_stand_in_the_order_of_a_naive_loop(rng, divided):
    """Of 300 classes most have equal votes; similarities are few, so that sums are equal, too."""
    n_classes, k = 300, 400
    sizes = rng.choice([1, 2, 3, 1000], size=n_classes)
    voters = rng.integers(0, n_classes - 5, size=(8, k))
    sims = (rng.integers(-8, 9, size=(8, k)) / 8).astype(np.float32)
    scores = count_votes(voters, sims, n_classes, sizes if divided else None)
    for row in range(8):
        votes, summed = [Fraction(0)] * n_classes, [Fraction(0)] * n_classes
        for c, similarity in zip(voters[row], sims[row], strict=True):
            votes[c] += Fraction(1, int(sizes[c])) if divided else 1
            summed[c] += Fraction(float(similarity))
        keys = list(zip(votes, summed, strict=True))
        assert len(set(votes)) < len(set(keys)) < n_classes / 2
        ranked = sorted(set(keys))
        assert (np.unique(scores[row], return_inverse=True)[1] == [ranked.index(key) for key in keys]).all()
        assert np.abs(scores[row] - np.array(votes, np.float64)).max() < 1e-4
        assert scores[row].min() == 0


def test_one_labelled_image_of_each_of_many_classes_is_its_nearest(rng):
    """All of them vote, each class once: float32 has no room for a share of so many steps."""
    seeds, queries = unit(rng, 500, 16), unit(rng, 200, 16)
    scores = knn_scores(seeds, np.arange(500), queries, n_classes=500, n_neighbors=1000, by_class_size=True)
    np.testing.assert_array_equal(np.argsort(-scores, axis=1, kind="stable"), naive_neighbors(seeds, 500, queries)[0])
