"""The kNN classifier and logistic regression of the protocol, against naive ones."""

from fractions import Fraction

import numpy as np
import pytest

from ooc_diffusion.classify import train_logistic
from ooc_diffusion.stages import low_shot_knn as knn
from ooc_diffusion.stages import low_shot_logistic as logistic
from ooc_diffusion.stages.low_shot_knn import low_shot_knn
from ooc_diffusion.stages.low_shot_logistic import GRID, low_shot_logistic, stored_model
from ooc_diffusion.stages.low_shot_smooth import low_shot_smooth
from tests.reference import naive_knn_scores

from .low_shot_chain import (
    QUICK,
    SPLIT,
    K,
    clusters,
    import_clusters,
    naive_accuracies,
    naive_choice,
    naive_draws,
    protocol,
    unit,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return import_clusters(tmp_path_factory.mktemp("baselines"))[0]


def test_the_knn_classifier_is_diffusion_without_iterations(store, monkeypatch):
    """Votes are divided by the size of the class; of classes with equal ones the larger sum of similarities is ahead."""
    monkeypatch.setattr(knn, "NEIGHBORS", (1, 3, 1000))
    monkeypatch.setattr(knn, "BLOCK_ROWS", 5)
    name, record = low_shot_knn(store, protocol(), settings=QUICK)
    X, truth, T, test_truth, _ = clusters()
    expected, tied = [], 0
    for group in SPLIT.groups:
        classes = group.classes.tolist()
        tests = [i for i in range(len(T)) if test_truth[i] in classes]
        for draw in range(2):
            for labelled in naive_draws(truth, group, (1, 2), draw):
                columns = [classes.index(truth[i]) for i in labelled]
                for k in (1, 3, 1000):
                    votes, summed = naive_knn_scores(
                        unit(X[labelled]), columns, unit(T[tests]), len(classes), min(k, len(labelled))
                    )
                    ranks = np.zeros(votes.shape)
                    for row in range(len(tests)):
                        keys = [(Fraction(int(votes[row, c]), columns.count(c)), summed[row, c]) for c in range(len(classes))]
                        tied += len({share for share, _ in keys if share}) < sum(share > 0 for share, _ in keys)
                        for place, c in enumerate(sorted(range(len(classes)), key=lambda c: (keys[c], -c))):
                            ranks[row, c] = (place + 1) * (votes[row, c] > 0)
                    expected.append(naive_accuracies(ranks, [classes.index(test_truth[i]) for i in tests], len(group.base)))
    assert tied > 100
    np.testing.assert_allclose(store.array(f"{name}/accuracy").reshape(-1, 4), expected, atol=1e-12)
    of_size = store.array(f"{name}/accuracy")[:4].reshape(2, 2, 3, 4).swapaxes(0, 1)
    assert list(record["chosen"].values()) == [(1, 3, 1000)[naive_choice(each)] for each in of_size]


def test_without_weight_of_the_graph_smooth_regression_is_the_chosen_one(store, monkeypatch):
    monkeypatch.setattr(logistic, "STEPS", (10, 30))
    what = protocol(groups=(1,))
    plain = store.array(f"{low_shot_logistic(store, what, settings=QUICK)[0]}/accuracy")
    name, record = low_shot_smooth(store, what, k=K, settings=QUICK)
    found = store.array(f"{name}/accuracy")
    assert record["mus"][0] == 0
    np.testing.assert_array_equal(found[:, 0], plain)
    assert (found[:, -1] != plain).any()
    assert low_shot_smooth(store, what, k=K, settings=QUICK)[1]["skipped"]


def test_logistic_regression_takes_the_settings_that_are_best_on_the_first_group(store, monkeypatch):
    monkeypatch.setattr(logistic, "STEPS", (10, 30))
    name, record = low_shot_logistic(store, protocol(), settings=QUICK)
    grid, accuracy = store.arrays(f"{name}/grid", f"{name}/accuracy")
    assert grid.shape == (4, len(GRID), 2, 4)
    of_size = grid.reshape(2, 2, 2 * len(GRID), 4).swapaxes(0, 1)
    assert np.ptp(of_size[..., 0].mean(axis=1)) > 0
    places = [naive_choice(each) for each in of_size]
    tried = [{**setting, "n_steps": steps} for setting in GRID for steps in (10, 30)]
    assert [record["chosen"][n] for n in ("1", "2")] == [tried[place] for place in places]
    assert record["tried"]["n_steps"] == [10, 30]
    assert record["tried"]["batch_size"] == [16, 128]
    # on the first group the chosen models are those that were tried
    np.testing.assert_array_equal(accuracy[:4], [grid[run].reshape(-1, 4)[places[run % 2]] for run in range(4)])
    X, truth, T, test_truth, _ = clusters()
    # all that was tried, for one draw: a training of its own for each number of steps
    group = SPLIT.groups[0]
    labelled = naive_draws(truth, group, (1, 2), 1)[1]
    tests = [i for i in range(len(T)) if test_truth[i] in group.classes]
    classes = group.classes.tolist()
    targets, columns = (np.array([classes.index(c) for c in of]) for of in (truth[labelled], test_truth[tests]))
    for place, options in enumerate(tried):
        model = train_logistic(X[labelled], targets, n_classes=len(classes), seed=0, threads=2, device="cpu", **options)
        right = naive_accuracies(model.log_probabilities(T[tests]), columns, len(group.base), positive_only=False)
        np.testing.assert_allclose(grid[3].reshape(-1, 4)[place], right, atol=1e-12)
    expected = []
    for number, group in enumerate(SPLIT.groups):
        tests = [i for i in range(len(T)) if test_truth[i] in group.classes]
        columns = [group.classes.tolist().index(test_truth[i]) for i in tests]
        for run in range(4):
            model = stored_model(store.array(f"{name}/models_{number + 1}"), run)
            scores = T[tests].astype(np.float64) @ model.weights + model.bias
            expected.append(naive_accuracies(scores, columns, len(group.base), positive_only=False))
    np.testing.assert_allclose(accuracy, expected, atol=1e-12)
