import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import MEASURES, choose_place, choosing_measure, count_hits, draw_novel, shares
from tests.reference import naive_top_k_accuracy


def test_accuracies_on_all_and_on_novel_classes_among_all_classes(rng):
    scores = rng.random((300, 9)) * (rng.random((300, 9)) > 0.4)
    columns = rng.integers(0, 9, 300)
    # block by block, as the stages count
    counts = sum(count_hits(scores[i : i + 70], columns[i : i + 70], 4) for i in range(0, 300, 70))
    found = shares(counts, columns, 4)
    for which, novel in ((slice(None), False), (columns >= 4, True)):
        for k in (1, 5):
            name = f"{'novel ' if novel else ''}top{k}"
            expected = naive_top_k_accuracy(scores[which], columns[which], k)
            assert found[MEASURES.index(name)] == pytest.approx(expected, abs=1e-12)
    assert found[0] < found[1]
    assert found[0] != found[2]


def test_predictions_of_novel_tests_compete_with_base_classes():
    scores, columns = np.array([[0.9, 0.5, 0.1]]), np.array([1])
    assert count_hits(scores, columns, 1)[MEASURES.index("novel top1")] == 0


def test_a_test_that_nothing_reached_is_wrong_however_few_classes_there_are():
    assert count_hits(np.zeros((2, 3)), np.array([0, 2]), 1).tolist() == [0, 0, 0, 0]
    assert count_hits(np.zeros((2, 3)), np.array([0, 2]), 1, logarithms=True).tolist() == [1, 2, 0, 1]


def test_without_novel_tests_there_is_no_accuracy_on_them():
    found = shares(np.array([1, 1, 0, 0]), np.array([0, 0]), 1)
    assert found[0] == 0.5
    assert np.isnan(found[2:]).all()


def test_the_best_mean_over_the_draws_is_chosen_then_by_the_other_measure_and_then_the_first():
    accuracies = np.zeros((2, 3, 4))
    accuracies[:, :, 1] = [[0.1, 0.3, 0.2], [0.3, 0.1, 0.2]]
    assert choose_place(accuracies, "top5") == 0
    accuracies[:, :, 0] = [[0.0, 0.9, 0.3], [0.0, 0.0, 0.6]]
    assert choose_place(accuracies, "top5") == 1
    accuracies[:, :, 1] = [[0.1, 0.3, 0.2], [0.5, 0.1, 0.3]]
    assert choose_place(accuracies, "top5") == 0
    assert choose_place(accuracies, "top1") == 2


def test_top5_tells_nothing_among_few_classes():
    assert choosing_measure(493) == choosing_measure(20) == "top5"
    assert choosing_measure(5) == "top1"


def test_draws_of_novel_classes_are_nested_and_of_their_class(rng):
    columns = rng.permutation(np.repeat(np.arange(-1, 6), 20))
    largest = draw_novel(columns, 2, n_per_class=10, seed=5)
    assert largest.shape == (4, 10)
    np.testing.assert_array_equal(columns[largest], np.arange(2, 6)[:, None].repeat(10, axis=1))
    assert len(np.unique(largest)) == largest.size
    for n in (1, 2, 5):
        np.testing.assert_array_equal(draw_novel(columns, 2, n_per_class=n, seed=5), largest[:, :n])
    assert (draw_novel(columns, 2, n_per_class=10, seed=6) != largest).any()
    with pytest.raises(BadInput, match="has 20 images, 21"):
        draw_novel(columns, 2, n_per_class=21, seed=0)
