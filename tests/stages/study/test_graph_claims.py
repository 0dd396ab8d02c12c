"""What the figures of graphs and neighbors say of the paper, from accuracies that are given."""

from types import SimpleNamespace

import numpy as np
import pytest

from ooc_diffusion.report import FAILS, HOLDS, UNTESTED
from ooc_diffusion.stages.study import graphs
from ooc_diffusion.stages.study.accuracies import knn
from ooc_diffusion.stages.study.graphs import figure2, figure3


def runs(found, *, labelled=100, max_iter=3):
    """Stand-in for `Runs`: ``found`` takes the setting and k."""
    problem = SimpleNamespace(labelled=lambda draw: [SimpleNamespace(rows=np.arange(labelled))], train_rows=np.arange(400))
    settings = [("none", "none", None), ("other 200", "out-of-domain", 200), ("in-domain", "in-domain", None)]
    return SimpleNamespace(
        n_parameters=2,
        n_tables=(2,),
        measure="top5",
        label="top-5",
        k=10,
        max_iter=max_iter,
        sizes=[200],
        store=None,
        protocol=SimpleNamespace(problems=lambda store: [problem], draws=3),
        settings_of=lambda: settings,
        parameter=lambda setting, size, *, k=None: found(setting, k),
        diffusion=lambda setting, size=None: found(setting, None),
        knn=lambda: found("knn", None),
    )


@pytest.mark.parametrize(
    ("none", "other", "verdict"),
    [
        ([0.7, 0.8, 0.9], [0.7, 0.8, 0.9], HOLDS),
        ([0.8, 0.9, 0.9], [0.7, 0.8, 0.9], HOLDS),  # 10 is as good as 5 in the one, and alone the best in the other
        ([0.7, 0.8, 0.9], [0.9, 0.8, 0.8], FAILS),
        ([0.8, 0.9, 0.9], [0.8, 0.9, 0.9], UNTESTED),  # it may be either
    ],
)
def test_equally_good_numbers_of_neighbors_may_each_be_the_best(monkeypatch, none, other, verdict):
    monkeypatch.setattr(graphs, "_NEIGHBORS", (3, 5, 10))
    monkeypatch.setattr(graphs, "claims_by_neighbors", lambda runs, tried: [])
    means = {"none": none, "out-of-domain": other, "in-domain": [1.0, 0.0, 0.0]}

    def found(setting, k):
        mean = means[setting][(3, 5, 10).index(k)]
        return SimpleNamespace(diffusion=lambda n, measure: [mean - 0.1, mean, mean + 0.1])

    (claim,) = figure2(runs(found)).claims
    assert claim.verdict == verdict
    assert ("none: k = 5 or 10" in claim.figures) == (none[1] == none[2])


@pytest.mark.parametrize(
    ("filled", "best", "verdict"),
    [
        ([0.1, 0.6, 0.99, 1.0], 1, HOLDS),
        ([0.1, 0.99, 1.0, 1.0], 3, FAILS),
        ([0.1, 0.2, 0.4, 0.67], 2, UNTESTED),  # it may fill up long after the last iteration
    ],
)
def test_an_unfilled_matrix_says_nothing_of_the_iteration_at_which_it_is_full(filled, best, verdict):
    values = {"reached": np.array([filled] * 3), "curves": np.zeros((3, 4, 4))}
    found = SimpleNamespace(
        values=lambda name, n, *, group: values[name],
        chosen=lambda n: {"n_iter": best},
        best_of_draws=lambda n, name, measure: [best] * 3,
    )
    claim, _ = figure3(runs(lambda setting, k: found)).claims
    assert claim.verdict == verdict
    assert ("raise --max-iter" in claim.figures) == (verdict == UNTESTED)


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ([0.6, 0.6, 0.6], HOLDS),
        ([0.6, 0.6, 0.9], UNTESTED),  # within the noise
        ([0.8, 0.9, 0.9], FAILS),
    ],
)
def test_many_iterations_are_worse_where_stopping_early_matters(last, verdict):
    """Judged on group 2: on group 1, where it was chosen, the number is the best by choice."""
    curves = {1: np.zeros((3, 4, 4)), 2: np.zeros((3, 4, 4))}
    curves[1][:, :, 1] = [0.5, 0.9, 0.7, 0.1]
    curves[2][:, :, 1] = [[0.5, 0.8, 0.7, value] for value in last]
    found = SimpleNamespace(
        values=lambda name, n, *, group: curves[group] if name == "curves" else np.ones((3, 4)),
        chosen=lambda n: {"n_iter": 1},
        best_of_draws=lambda n, name, measure: [1] * 3,
    )
    chapter = figure3(runs(lambda setting, k: found))
    _, claim = chapter.claims
    assert claim.verdict == verdict
    assert "none: 80.0 ± 0.0 against" in claim.figures
    assert "the accuracy on group 2 after 3 iterations is below that after the number chosen on group 1" in claim.rule
    means = [cell[0] for cell in chapter.grids[1].rows[0][1]]
    assert means == pytest.approx([0.5, 0.9, 0.7, 0.1])  # the curves stay those of group 1


@pytest.mark.parametrize(("labelled", "verdict", "rival"), [(900, FAILS, "60.0"), (1001, HOLDS, "20.0")])
def test_as_many_neighbors_as_labelled_images_are_no_rival(labelled, verdict, rival):
    """All classes have the same votes then, so the paper's k = 1000 would be beaten by anything."""
    neighbors, of_k = [1, 100, 1000], np.zeros((3, 3, 4))
    of_k[:, :, 1] = [0.3, 0.6, 0.2]
    found = SimpleNamespace(
        record={"neighbors": neighbors, "chosen": {"2": 100}},
        values=lambda name, n: of_k,
        diffusion=lambda n, measure: [0.5, 0.5, 0.5],
    )
    chapter = knn(runs(lambda setting, k: found, labelled=labelled))
    (claim,) = chapter.claims
    assert (claim.verdict, f"50.0 ± 0.0 against {rival}" in claim.figures) == (verdict, True)
    assert ("1000 neighbors" in [name for name, _ in chapter.grids[0].rows]) == (labelled > 1000)
    assert ("would be all 900 labelled images" in claim.rule) == (labelled == 900)


@pytest.mark.parametrize(("weights", "verdict"), [([0.1, 0.4], HOLDS), ([0.4, 0.1], FAILS), ([0.1], UNTESTED)])
def test_one_number_of_labels_does_not_tell_whether_the_weight_grows_with_it(weights, verdict):
    stand_in = runs(lambda setting, k: None)
    stand_in.n_tables = (2, 5)[: len(weights)]
    places = {n: int(np.argmin(np.abs(graphs.COEFFICIENTS - weight))) for n, weight in zip((2, 5), weights, strict=False)}
    stand_in.diffusion = lambda setting, size: SimpleNamespace(
        values=lambda name, n, *, group: np.zeros((3, len(graphs.COEFFICIENTS), 4)),
        chosen=lambda n: {"coefficient": weights[stand_in.n_tables.index(n)]},
        best_of_draws=lambda n, name, measure: [places[n]] * 3,
    )
    (claim,) = graphs.figure6(stand_in).claims
    assert claim.verdict == verdict
