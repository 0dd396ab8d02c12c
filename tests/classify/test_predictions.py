import numpy as np
import pytest

from ooc_diffusion.classify import predict


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
    with pytest.raises(ValueError, match="finite and not negative"):
        predict(np.array([[0.5, bad]], dtype=np.float32))


def test_no_rows():
    assert predict(np.empty((0, 3)))[0].shape == (0,)
