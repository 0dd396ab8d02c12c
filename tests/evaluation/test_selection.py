import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import choose_iterations, fallback_iterations, quadratic_score, seed_folds
from tests.reference import naive_diffuse, naive_neighbors, naive_query_scores, naive_w


def test_quadratic_score_by_hand():
    scores = np.array([[3.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    expected = -np.mean([0.25**2 + 0.25**2, 1.0, 2.0])
    assert quadratic_score(scores, np.array([0, 1, 0])) == pytest.approx(expected)
    assert scores[0, 0] == 3.0, "the caller's array is left alone"


def stack(*share_of_truth):
    """One row of two classes per iteration and seed; class 0 is true."""
    return np.array([[[p, 1 - p] for p in iteration] for iteration in share_of_truth])


def test_criteria_and_ties():
    held_out = np.zeros(3, dtype=int)
    scores = stack([0.4, 0.4, 0.4], [0.6, 0.6, 0.4], [0.99, 0.7, 0.01], [0.8, 0.7, 0.45], [0.8, 0.7, 0.45])
    assert choose_iterations(scores, held_out) == 3
    assert choose_iterations(scores, held_out, criterion="accuracy") == 3
    assert choose_iterations(iter(list(scores[:2])), held_out) == 1
    better_sorted = stack([0.51, 0.51, 0.51], [0.95, 0.95, 0.49])
    assert choose_iterations(better_sorted, held_out) == 1
    assert choose_iterations(better_sorted, held_out, criterion="accuracy") == 0


def test_unreached_seeds_are_wrong_but_not_hopeless():
    held_out = np.zeros(2, dtype=int)
    unreached, confident_mistake = np.zeros((1, 2, 2)), stack([0.0, 0.0])
    assert choose_iterations(np.concatenate([confident_mistake, unreached]), held_out) == 1
    assert choose_iterations(np.concatenate([unreached, stack([0.6, 0.1])]), held_out, criterion="accuracy") == 1


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="held out"):
        choose_iterations(np.ones((3, 0, 2)), np.empty(0, dtype=int))
    with pytest.raises(BadInput, match="no scores"):
        choose_iterations(np.ones((0, 1, 2)), np.zeros(1, dtype=int))
    with pytest.raises(BadInput, match="quadratic, accuracy"):
        choose_iterations(np.ones((1, 1, 2)), np.zeros(1, dtype=int), criterion="likelihood")
    with pytest.raises(BadInput, match="no iterations"):
        fallback_iterations(np.empty(0))


def test_fallback_is_twice_the_first_full_iteration():
    assert fallback_iterations(np.array([0.1, 0.5, 1.0, 1, 1, 1, 1])) == 4
    assert fallback_iterations(np.array([0.1, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6])) == 4, "several components"
    assert fallback_iterations(np.array([0.1, 0.5, 0.8, 1.0])) == 3
    assert fallback_iterations(np.zeros(4)) == 0


def test_on_digits_the_choice_is_close_to_the_best_in_hindsight():
    from sklearn.datasets import load_digits

    from ooc_diffusion.evaluation import Accuracy, draw_seeds

    X, truth = load_digits(return_X_y=True)
    X = X[:600] / np.linalg.norm(X[:600], axis=1, keepdims=True)
    truth = truth[:600]
    ids, _ = naive_neighbors(X[:300], 10)
    queries, _ = naive_neighbors(X[:300], 10, X[300:])
    W = naive_w(ids)
    seeds, classes = draw_seeds(truth[:300], n_per_class=5, seed=0)
    folds = seed_folds(classes, seed=0)
    held_out = np.zeros((13, len(seeds), 10))
    for fold in range(folds.max() + 1):
        train, test = folds != fold, folds == fold
        for t, L in enumerate(naive_diffuse(W, seeds[train], classes[train], 10, 12)):
            held_out[t, test] = naive_query_scores(L, ids[seeds[test]])
    reached = []
    for L in naive_diffuse(W, seeds, classes, 10, 12):
        accuracy = Accuracy((1,))
        accuracy.update(naive_query_scores(L, queries), truth[300:])
        reached.append(accuracy.result()["top1"])
    chosen = choose_iterations(held_out, classes)
    assert reached[chosen] > max(reached) - 0.04
    assert reached[chosen] > reached[0] + 0.1
