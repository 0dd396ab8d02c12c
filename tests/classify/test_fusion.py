import numpy as np
import pytest

from ooc_diffusion.classify import choose_coefficient, fuse, log_scores, softmax
from ooc_diffusion.errors import BadInput


def test_log_scores_are_logs_of_floored_shares():
    scores = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [1e-30, 1e-30, 2e-30]], dtype=np.float32)
    expected = np.log([[0.25, 0.75, 1e-10], [1 / 3] * 3, [0.25, 0.25, 0.5]])
    result = log_scores(scores)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(log_scores(scores, floor=0.3)[0], np.log([0.3, 0.75, 0.3]), rtol=1e-6)


def test_fuse_is_the_weighted_sum_and_its_ends_are_the_inputs(rng):
    a, b = rng.normal(size=(2, 20, 5)).astype(np.float32)
    np.testing.assert_array_equal(fuse(a, b, 0.0), b)
    np.testing.assert_array_equal(fuse(a, b, 1.0), a)
    np.testing.assert_allclose(fuse(a, b, 0.3), 0.3 * a + 0.7 * b, atol=1e-6)
    assert fuse(a, b, 0.3).dtype == np.float32
    for coefficient in (-0.1, 1.1, np.nan):
        with pytest.raises(BadInput, match="fusion coefficient"):
            fuse(a, b, coefficient)


def test_softmax_rows_sum_to_one_for_any_size_of_logarithms():
    result = softmax(np.array([[-1e5, -1e5, -2e5], [0.0, 700.0, 1.0]], dtype=np.float32))
    np.testing.assert_allclose(result, [[0.5, 0.5, 0], [0, 1, 0]], atol=1e-6)


def log_of(labels, sure=0.9):
    shares = np.full((len(labels), 2), 1 - sure)
    shares[np.arange(len(labels)), labels] = sure
    return np.log(shares).astype(np.float32)


def test_the_better_input_is_chosen_and_equals_go_to_the_smallest():
    y = np.array([0, 1, 0, 1, 0])
    right, wrong = log_of(y), log_of(1 - y)
    assert choose_coefficient(wrong, right, y) == 0.0
    assert choose_coefficient(right, wrong, y) == pytest.approx(0.5) or choose_coefficient(right, wrong, y) > 0.5
    assert choose_coefficient(right, right, y) == 0.0
    assert choose_coefficient(right, right, y, grid=np.array([0.9, 0.4, 0.7])) == 0.4


def test_a_mixture_wins_where_each_input_errs_unsurely():
    y = np.array([0, 0, 1, 1])
    first = np.log(np.array([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.55, 0.45]])).astype(np.float32)
    second = first[[1, 0, 3, 2]]
    chosen = choose_coefficient(first, second, y)
    assert 0 < chosen < 1
    assert (fuse(first, second, chosen).argmax(axis=1) == y).all()


def test_without_held_out_seeds_diffusion_decides():
    empty = np.empty((0, 3), dtype=np.float32)
    assert choose_coefficient(empty, empty, np.empty(0, dtype=np.int32)) == 0.0
