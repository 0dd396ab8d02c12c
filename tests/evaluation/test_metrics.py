import numpy as np
import pytest

from ooc_diffusion.evaluation import Accuracy, hits, mean_std
from tests.reference import naive_top_k_accuracy


def awkward_scores(rng, n=203, n_classes=8):
    """Few distinct values, so ties everywhere, and rows of zeros."""
    scores = rng.integers(0, 4, size=(n, n_classes)).astype(np.float32)
    scores[rng.random(n) < 0.2] = 0
    return scores, rng.integers(0, n_classes, size=n)


@pytest.mark.parametrize("logarithms", [False, True])
@pytest.mark.parametrize("n_classes", [1, 3, 8])
def test_equal_to_the_oracle_with_ties_and_unreached_rows(rng, logarithms, n_classes):
    scores, truth = awkward_scores(rng, n_classes=n_classes)
    scores -= 2 * logarithms
    accuracy = Accuracy(logarithms=logarithms)
    accuracy.update(scores, truth)
    for k in (1, 5):
        expected = naive_top_k_accuracy(scores, truth, k, positive_only=not logarithms)
        assert accuracy.result()[f"top{k}"] == expected


@pytest.mark.parametrize("size", [1, 7, 202, 203, 204])
def test_blocks_do_not_matter(rng, size):
    scores, truth = awkward_scores(rng)
    whole, parts = Accuracy(), Accuracy()
    whole.update(scores, truth)
    for start in range(0, len(truth), size):
        parts.update(scores[start : start + size], truth[start : start + size])
    assert parts.result() == whole.result()
    assert parts.count == len(truth)


def test_equal_to_scikit_learn_without_ties(rng):
    from sklearn.metrics import top_k_accuracy_score

    scores, truth = rng.random((300, 7)), rng.integers(0, 7, size=300)
    accuracy = Accuracy((1, 2, 5))
    accuracy.update(scores, truth)
    for k in (1, 2, 5):
        assert accuracy.result()[f"top{k}"] == pytest.approx(top_k_accuracy_score(truth, scores, k=k, labels=range(7)))


def test_unreached_rows_and_zero_scores_are_wrong_even_for_class_0():
    scores = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert not hits(scores, np.array([0, 0]), 5).any()
    assert hits(scores, np.array([0, 0]), 5, logarithms=True).all()


def test_truth_outside_the_classes_is_never_hit():
    assert not hits(np.ones((2, 3)), np.array([-1, 3]), 5).any()


def test_nan_is_refused_and_nothing_is_nan():
    with pytest.raises(ValueError, match="NaN"):
        hits(np.array([[np.nan, 1.0]]), np.array([1]), 1)
    assert np.isnan(Accuracy().result()["top1"])


def test_mean_and_deviation_of_draws():
    assert mean_std([0.5, 0.7, 0.9]) == pytest.approx((0.7, 0.2))  # the squares add up to 0.08, over 3 - 1
    assert mean_std([0.5]) == (0.5, None)
