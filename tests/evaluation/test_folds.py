import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import seed_folds


@pytest.mark.parametrize("counts", [[2, 2, 2], [5, 5], [1, 2, 3, 17, 4], [1, 1, 40], [6] * 30])
def test_folds_are_stratified_and_leave_something_to_train_on(rng, counts):
    classes = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    folds = seed_folds(classes, n_folds=5, seed=0)
    assert folds.dtype == np.int8
    n_folds = min(5, max(counts))
    assert folds.max() == n_folds - 1
    for c, count in enumerate(counts):
        mine = folds[classes == c]
        if count == 1:
            assert mine[0] == -1
            continue
        sizes = np.bincount(mine, minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.max() < count, "a seed of the class remains in every training part"
    whole = np.bincount(folds[folds >= 0], minlength=n_folds)
    assert whole.max() - whole.min() <= 1


def test_nothing_to_hold_out():
    assert seed_folds(np.arange(10), seed=0) is None
    assert seed_folds(np.empty(0, dtype=int), seed=0) is None


def test_seed_decides():
    classes = np.repeat(np.arange(3), 20)
    np.testing.assert_array_equal(seed_folds(classes, seed=1), seed_folds(classes, seed=1))
    assert (seed_folds(classes, seed=1) != seed_folds(classes, seed=2)).any()


@pytest.mark.parametrize("n_folds", [1, 128])
def test_impossible_numbers_of_folds(n_folds):
    with pytest.raises(BadInput, match="folds"):
        seed_folds(np.zeros(5, dtype=int), n_folds=n_folds)
