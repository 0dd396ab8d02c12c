"""What the figures of graphs and neighbors say of the paper, from accuracies that are given."""

from types import SimpleNamespace

import numpy as np
import pytest

from ooc_diffusion.report import FAILS, HOLDS, UNTESTED
from ooc_diffusion.stages.study import graphs
from ooc_diffusion.stages.study.accuracies import knn
from ooc_diffusion.stages.study.graphs import figure2, figure3, figure6, table4

LEFT_OUT = "n = 2 leaves no image of the novel classes without label, so all draws are the same"


def runs(found, *, labelled=100, max_iter=3):
    """Stand-in for `Runs`: ``found`` takes the setting and k."""
    problem = SimpleNamespace(labelled=lambda draw: [SimpleNamespace(rows=np.arange(labelled))], train_rows=np.arange(400))
    settings = [("none", "none", None), ("other 200", "out-of-domain", 200), ("in-domain", "in-domain", None)]
    return SimpleNamespace(
        n_parameters=2,
        n_tables=(2,),
        n_drawn={1: [2], 2: [2]},
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
        ([0.8, 0.9, 0.9], [0.7, 0.8, 0.9], UNTESTED),  # 10 is as good as 5 in the one, which need not have the same best
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
    assert ("none: the best is k = 5, 10," in claim.figures) == (none[1] == none[2])


@pytest.mark.parametrize(
    ("filled", "best", "verdict"),
    [
        ([0.1, 0.6, 0.99, 1.0], 1, HOLDS),
        ([0.1, 0.99, 1.0, 1.0], 3, FAILS),
        ([0.1, 0.2, 0.4, 0.67], 2, UNTESTED),  # it may fill up long after the last iteration
        ([0.1, 0.6, 0.99, 1.0], 3, UNTESTED),  # a later one than the last may be the best
    ],
)
def test_what_the_last_iteration_cuts_off_says_nothing_of_that_at_which_the_matrix_is_full(filled, best, verdict):
    values = {"reached": np.array([filled] * 3), "curves": np.zeros((3, 4, 4))}
    found = SimpleNamespace(
        values=lambda name, n, *, group: values[name],
        chosen=lambda n: {"n_iter": best},
        best_of_draws=lambda n, name, measure: [best] * 3,
    )
    claim, *_ = figure3(runs(lambda setting, k: found)).claims
    assert claim.verdict == verdict
    assert ("raise --max-iter" in claim.figures) == (verdict == UNTESTED)


@pytest.mark.parametrize(
    ("best", "full", "last", "verdict"),
    [
        ([2] * 9 + [3], 2, 3, UNTESTED),  # as near as it is, the last may stand for a much later one
        ([2] * 9 + [3], 2, 8, HOLDS),
        ([7, 7, 8], 2, 8, FAILS),  # and later ones would be farther still
        ([0, 0, 0], 2, 8, FAILS),
        ([0] * 9 + [8], 7, 8, UNTESTED),  # early on average, were it not for what the one may be
        ([0] * 9 + [8], 7, 9, FAILS),
    ],
)
def test_the_best_iteration_of_one_draw_may_be_later_than_the_last(best, full, last, verdict):
    values = {
        "reached": np.array([[0.1] * full + [1.0] * (last + 1 - full)] * len(best)),
        "curves": np.zeros((len(best), last + 1, 4)),
    }
    found = SimpleNamespace(
        values=lambda name, n, *, group: values[name],
        chosen=lambda n: {"n_iter": 1},
        best_of_draws=lambda n, name, measure: best,
    )
    claim, *_ = figure3(runs(lambda setting, k: found, max_iter=last)).claims
    assert claim.verdict == verdict
    told = f"more than {last} iterations may be best (none, other 200, in-domain); raise --max-iter"
    assert (claim.figures == told) == (verdict == UNTESTED)


@pytest.mark.parametrize(
    ("none", "other", "verdict"),
    [
        ([1, 1, 1], [2, 2, 2], HOLDS),
        ([2, 2, 2], [1, 1, 1], FAILS),
        ([1, 2, 2], [2, 2, 1], UNTESTED),
        ([1, 1, 1], [2, 2, 3], UNTESTED),  # it may be full later still
    ],
)
def test_a_larger_background_is_full_later(none, other, verdict):
    def found(setting, k):
        full = other if setting == "out-of-domain" else none
        share = np.array([[0.1] * t + [1.0] * (4 - t) for t in full])
        return SimpleNamespace(
            values=lambda name, n, *, group: share if name == "reached" else np.zeros((3, 4, 4)),
            chosen=lambda n: {"n_iter": 1},
            best_of_draws=lambda n, name, measure: full,
        )

    _, claim, _ = figure3(runs(found)).claims
    assert (claim.text, claim.verdict) == ("The larger the background, the later L becomes full.", verdict)
    assert ("L is not full after 3 iterations (other 200); raise --max-iter" in claim.figures) == (3 in other)
    assert ("in-domain" in claim.figures) is False
    without = runs(found)
    without.sizes = []
    assert figure3(without).claims[1].verdict == UNTESTED


@pytest.mark.parametrize(
    ("best", "max_iter", "verdict"),
    [
        ([2, 3, 4], 15, HOLDS),
        ([7, 7, 7], 15, HOLDS),
        ([8, 8, 8], 15, FAILS),
        ([15, 15, 15], 15, FAILS),  # whatever comes after the last
        ([2, 2, 15], 15, UNTESTED),
        ([3, 3, 3], 3, UNTESTED),
        ([7, 7, 7], 7, UNTESTED),
    ],
)
def test_at_most_seven_iterations_are_few(best, max_iter, verdict):
    record = {"block_seconds": {"W_LL": 1.0}, "diffusion_seconds": {"2": 0.1}}
    found = SimpleNamespace(record=record, chosen=lambda n: {"n_iter": 1}, best_of_draws=lambda n, array, measure: best)
    stand_in = runs(lambda setting, k: found, max_iter=max_iter)
    stand_in.logistic = lambda: SimpleNamespace(record={"training_seconds": {"2": 1.0}})
    _, claim, _ = table4(stand_in).claims
    assert (claim.text, claim.verdict) == ("Few iterations are best, at most 7.", verdict)
    assert ("raise --max-iter" in claim.figures) == (verdict == UNTESTED)


def test_what_the_paper_took_on_gpus_and_the_iterations_of_its_code_stand_beside():
    record = {"block_seconds": {"W_LL": 1.0}, "diffusion_seconds": {"2": 0.1}}
    found = SimpleNamespace(record=record, chosen=lambda n: {"n_iter": 1}, best_of_draws=lambda n, array, measure: [1, 1, 1])
    stand_in = runs(lambda setting, k: found)
    stand_in.logistic = lambda: SimpleNamespace(record={"training_seconds": {"2": 1.0}})
    times, iterations = table4(stand_in).paper
    assert {len(cells) for _, cells in times.rows} == {len(times.columns) - 1} == {5}
    on_gpus = {name.split(":")[0]: cells[times.columns.index("F100M, 8 GPUs") - 1] for name, cells in times.rows}
    assert [on_gpus[name] for name in ("W_BB", "W_LL", "W_LB", "W_BL", "completion", "diffusion")] == [
        "25,929 s",
        "1.0 s",
        "796 s",
        "533 s",
        "1,380 s",
        None,
    ]
    assert (iterations.columns, iterations.rows[0], iterations.rows[-1]) == (
        ["", "none", "F100k", "F1M", "F10M", "F100M"],
        ("n = 1", ["3", "0", "3", "4", "7"]),
        ("n = 20", ["1", "0", "2", "3", "4"]),
    )


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ([0.6, 0.6, 0.6], HOLDS),
        ([0.6, 0.6, 0.9], UNTESTED),  # within the noise
        ([0.9, 0.9, 0.9], FAILS),
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
    *_, claim = chapter.claims
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
    stand_in.n_drawn = {1: stand_in.n_tables}
    places = {n: int(np.argmin(np.abs(graphs.COEFFICIENTS - weight))) for n, weight in zip((2, 5), weights, strict=False)}
    stand_in.diffusion = lambda setting, size: SimpleNamespace(
        values=lambda name, n, *, group: np.zeros((3, len(graphs.COEFFICIENTS), 4)),
        chosen=lambda n: {"coefficient": weights[stand_in.n_tables.index(n)]},
        best_of_draws=lambda n, name, measure: [places[n]] * 3,
    )
    (claim,) = figure6(stand_in).claims
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("none", "other", "verdict"),
    [
        ([1, 1, 1], [2, 2, 2], HOLDS),
        ([2, 2, 2], [1, 1, 1], FAILS),
        ([2, 2, 2], [2, 2, 2], UNTESTED),
        ([1, 1, 1], [2, 2, 3], UNTESTED),
    ],
)
def test_the_last_iteration_may_stand_for_any_later_one(none, other, verdict):
    def found(setting, k):
        best = other if setting == "out-of-domain" else none
        record = {"block_seconds": {"W_LL": 1.0}, "diffusion_seconds": {"2": 0.1}}
        return SimpleNamespace(record=record, chosen=lambda n: {"n_iter": 1}, best_of_draws=lambda n, array, measure: best)

    stand_in = runs(found)
    stand_in.logistic = lambda: SimpleNamespace(record={"training_seconds": {"2": 1.0}})
    claim, _, times = table4(stand_in).claims
    assert (claim.verdict, times.verdict) == (verdict, HOLDS)
    assert ("more than 3 iterations may be best (other 200); raise --max-iter" in claim.figures) == (3 in other)
    stand_in.n_drawn = {1: [], 2: []}
    *iterations, times = table4(stand_in).claims
    assert times.verdict == HOLDS  # seconds are no draws
    assert [(claim.verdict, claim.figures) for claim in iterations] == [(UNTESTED, LEFT_OUT)] * 2


def test_where_nothing_is_drawn_nothing_is_told(monkeypatch):
    monkeypatch.setattr(graphs, "_NEIGHBORS", (2, 3))
    values = {"reached": np.ones((3, 4)), "curves": np.zeros((3, 4, 4)), "fusion": np.zeros((3, len(graphs.COEFFICIENTS), 4))}

    def found(setting, k):
        return SimpleNamespace(
            values=lambda name, n, *, group=1: values[name],
            chosen=lambda n: {"n_iter": 1, "coefficient": 0.5},
            best_of_draws=lambda n, name, measure: [1] * 3,
            diffusion=lambda n, measure: [0.5] * 3,
        )

    stand_in = runs(found)
    stand_in.n_drawn = {1: [], 2: []}
    for chapter in (figure2, figure3, figure6):
        for claim in chapter(stand_in).claims:
            assert (claim.verdict, claim.figures.removeprefix("left out: ")) == (UNTESTED, LEFT_OUT)
