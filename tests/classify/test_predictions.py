import numpy as np
import pytest

from ooc_diffusion.classify import predict, top_k


def test_label_confidence_ties_and_unreached():
    scores = np.array([[1, 3, 0], [0, 0, 0], [2, 2, 1], [0, 1e-30, 0], [1e-45, 0, 0]], dtype=np.float32)
    scores.flags.writeable = False
    labels, confidences = predict(scores)
    assert labels.dtype == np.int32
    assert confidences.dtype == np.float32
    np.testing.assert_array_equal(labels, [1, -1, 0, 1, 0])
    np.testing.assert_allclose(confidences, [0.75, 0, 0.4, 1, 1])


def test_sums_beyond_float32_do_not_overflow():
    labels, confidences = predict(np.full((1, 4), 3e38, dtype=np.float32))
    assert labels[0] == 0
    assert confidences[0] == 0.25


@pytest.mark.parametrize("bad", [-1e-9, np.nan, np.inf])
def test_scores_that_cannot_be_are_refused(bad):
    for function in (predict, lambda s: top_k(s, 2)):
        with pytest.raises(ValueError, match="finite and not negative"):
            function(np.array([[0.5, bad]], dtype=np.float32))


def test_top_k_orders_ties_and_leaves_out_zeros():
    labels, confidences = top_k(np.array([[0, 2, 1, 1], [0, 0, 0, 0], [4, 0, 0, 0]], dtype=np.float32), 3)
    np.testing.assert_array_equal(labels, [[1, 2, 3], [-1, -1, -1], [0, -1, -1]])
    np.testing.assert_allclose(confidences, [[0.5, 0.25, 0.25], [0, 0, 0], [1, 0, 0]])
    assert top_k(np.ones((2, 3)), 5)[0].shape == (2, 3)


def test_top_1_is_the_prediction(rng):
    scores = rng.integers(0, 3, size=(200, 6)).astype(np.float32)
    labels, confidences = top_k(scores, 1)
    np.testing.assert_array_equal(labels[:, 0], predict(scores)[0])
    np.testing.assert_array_equal(confidences[:, 0], predict(scores)[1])


def test_no_rows():
    assert predict(np.empty((0, 3)))[0].shape == (0,)
