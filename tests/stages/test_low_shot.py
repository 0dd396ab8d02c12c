"""The protocol of the paper on a tiny problem, against the same thing by dense NumPy."""

from dataclasses import replace
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from ooc_diffusion.classify import fuse, log_scores
from ooc_diffusion.diffusion import Diffusion, most_passes, seed_bytes
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import StagePlan
from ooc_diffusion.neighbors import gpu
from ooc_diffusion.stages import low_shot_diffusion, low_shot_logistic, low_shot_plan
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.low_shot_background import open_background
from ooc_diffusion.stages.low_shot_diffusion import low_shot
from ooc_diffusion.stages.low_shot_logistic import stored_model
from ooc_diffusion.stages.low_shot_variant import COEFFICIENTS, Variant
from ooc_diffusion.stages.neighbors import search_parameters
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.stages.temporary_graphs import GraphKeeper
from ooc_diffusion.store import Store

from .low_shot_chain import (
    MAX_ITER,
    QUICK,
    SPLIT,
    K,
    clusters,
    import_clusters,
    naive_accuracies,
    naive_bounds,
    naive_choice,
    naive_draws,
    naive_scores,
    protocol,
)

VARIANTS = {
    "none": {},
    "in-domain": {"setting": "in-domain"},
    "out-of-domain": {"setting": "out-of-domain", "others": 40},
    "transductive": {"transductive": True},
    "transductive over others": {"setting": "out-of-domain", "transductive": True, "others": 60},
    "rows": {"normalization": "rows"},
    "gamma": {"setting": "in-domain", "normalization": "gamma", "power": 1.3},
    "no normalization": {"setting": "out-of-domain", "others": 40, "normalization": "none"},
    "sinkhorn": {"setting": "in-domain", "normalization": "sinkhorn"},
    "reset": {"setting": "in-domain", "normalization": "columns", "reset": True},
    "gaussian": {"setting": "out-of-domain", "others": 40, "weights": {"weighting": "gaussian", "sigma": 0.4}},
    "gaussian, mutual": {"setting": "in-domain", "weights": {"weighting": "gaussian", "sigma": 0.4, "mutual": True}},
}


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_shot_logistic, "STEPS", (20, 50))
        yield


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return import_clusters(tmp_path_factory.mktemp("low-shot"))


def variant(setting="none", transductive=False, others=0, weights=None, **eta):
    return Variant(setting, transductive, k=K, weights=weights or {}, eta=eta, max_iter=MAX_ITER)


def run(stores, options, *, fusion=False, what=None, settings=QUICK):
    store, others = stores
    background = open_background(store, others.path, size=options["others"]) if "others" in options else None
    return low_shot(store, what or protocol(), variant(**options), background=background, fusion=fusion, settings=settings)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_setting_is_what_dense_numpy_says(stores, name):
    stage, record = run(stores, VARIANTS[name])
    curves, reached = stores[0].arrays(f"{stage}/curves", f"{stage}/reached")
    expected, full = [], []
    for group in SPLIT.groups:
        for draw in range(2):
            for labelled in naive_draws(clusters()[1], group, (1, 2), draw):
                scores, columns, nonzero = naive_scores(clusters(), group, labelled, **VARIANTS[name])
                expected.append([naive_bounds(each, columns, len(group.base)) for each in scores])
                full.append(nonzero)
    least, most = np.moveaxis(np.array(expected), 2, 0)
    assert (curves >= least - 1e-12).all()
    assert (curves <= most + 1e-12).all()
    assert (least == most).mean() > 0.7  # ties are few
    np.testing.assert_allclose(reached, full, atol=1e-12)
    # each number of labelled images has the best iterations of the first group
    first = curves[:4].reshape(2, 2, MAX_ITER + 1, 4)
    assert [record["chosen"][n]["n_iter"] for n in ("1", "2")] == [naive_choice(first[:, place]) for place in range(2)]
    assert np.ptp(curves[..., 0]) > 0
    assert record["peak_memory_bytes"] <= record["plan"]["memory_bytes"]


def test_a_limit_is_what_the_inverse_says(stores):
    """One result in place of a curve, for each draw and n."""
    options = {"setting": "in-domain", "alpha": 0.9, "solver": "conjugate-gradient", "tolerance": 1e-6}
    stage, record = run(stores, options, fusion=True)
    curves, reached, fusion = stores[0].arrays(*(f"{stage}/{name}" for name in ("curves", "reached", "fusion")))
    expected, full = [], []
    for group in SPLIT.groups:
        for draw in range(2):
            for labelled in naive_draws(clusters()[1], group, (1, 2), draw):
                (scores,), columns, nonzero = naive_scores(clusters(), group, labelled, **options)
                expected.append(naive_bounds(scores, columns, len(group.base), error=1e-3))
                full.append(nonzero)
    assert (curves.shape, reached.shape) == ((8, 1, 4), (8, 1))
    least, most = np.moveaxis(np.array(expected), 1, 0)
    assert (curves[:, 0] >= least - 1e-12).all()
    assert (curves[:, 0] <= most + 1e-12).all()
    assert (least == most).mean() > 0.9
    np.testing.assert_allclose(reached, full, atol=1e-12)
    assert {chosen["n_iter"] for chosen in record["chosen"].values()} == {None}
    np.testing.assert_array_equal(fusion[:, 0], curves[:, 0])
    iterated = stores[0].array(f"{run(stores, {'setting': 'in-domain', 'alpha': 0.9})[0]}/curves")
    assert iterated.shape == (8, MAX_ITER + 1, 4)
    assert (iterated[:, -1] != curves[:, 0]).any()


def test_the_fusion_is_of_the_chosen_iteration_and_its_coefficient_that_of_the_first_group(stores):
    store = stores[0]
    stage, record = run(stores, VARIANTS["in-domain"], fusion=True)
    fusion, curves = store.arrays(f"{stage}/fusion", f"{stage}/curves")
    accuracy = store.array(f"{record['logistic']}/accuracy")
    expected = []
    for number, group in enumerate(SPLIT.groups):
        models = store.array(f"{record['logistic']}/models_{number + 1}")
        for draw in range(2):
            for place, labelled in enumerate(naive_draws(clusters()[1], group, (1, 2), draw)):
                scores, columns, _ = naive_scores(clusters(), group, labelled, **VARIANTS["in-domain"])
                chosen = scores[record["chosen"][str((1, 2)[place])]["n_iter"]].astype(np.float32)
                tests = clusters()[2][[i for i, c in enumerate(clusters()[3]) if c in group.classes]]
                logistic = stored_model(models, 2 * draw + place).log_probabilities(tests)
                fused = [fuse(logistic, log_scores(chosen), float(a)) for a in COEFFICIENTS]
                expected.append([naive_accuracies(each, columns, len(group.base), positive_only=False) for each in fused])
    np.testing.assert_allclose(fusion[:, 1:], np.array(expected)[:, 1:], atol=1e-12)
    np.testing.assert_array_equal(fusion[:, -1], accuracy)
    for place, n in enumerate(("1", "2")):
        np.testing.assert_array_equal(fusion[place::2, 0], curves[place::2, record["chosen"][n]["n_iter"]])
        best = naive_choice(fusion[:4].reshape(2, 2, len(COEFFICIENTS), 4)[:, place])
        assert record["chosen"][n]["coefficient"] == round(float(COEFFICIENTS[best]), 2)


@pytest.mark.parametrize("name", ["in-domain", "transductive over others"])
def test_a_prior_is_what_logistic_regression_predicts_over_the_graph(stores, name):
    store, options = stores[0], VARIANTS[name]
    background = open_background(store, stores[1].path, size=options["others"]) if "others" in options else None
    what = replace(variant(**options), prior_power=3.0)
    stage, record = low_shot(store, protocol(), what, background=background, fusion=False, settings=QUICK)
    X, truth, T, test_truth, others = clusters()
    expected = []
    for number, group in enumerate(SPLIT.groups):
        models = store.array(f"{record['logistic']}/models_{number + 1}")
        for draw in range(2):
            for place, labelled in enumerate(naive_draws(truth, group, (1, 2), draw)):
                nodes = X[np.isin(truth, group.classes)] if name == "in-domain" else X[labelled]
                if what.transductive:
                    nodes = np.concatenate([nodes, T[np.isin(test_truth, group.classes)], others[: options["others"]]])
                log_shares = stored_model(models, 2 * draw + place).log_probabilities(nodes)
                prior = np.exp(log_shares.astype(np.float64)).mean(axis=0) ** 3.0
                scores, columns, _ = naive_scores(clusters(), group, labelled, **options)
                expected.append([naive_bounds(each * prior, columns, len(group.base)) for each in scores])
    least, most = np.moveaxis(np.array(expected), 2, 0)
    curves = store.array(f"{stage}/curves")
    assert (curves >= least - 1e-12).all()
    assert (curves <= most + 1e-12).all()
    plain, _ = run(stores, options)
    assert (curves != store.array(f"{plain}/curves")).any()


@pytest.mark.parametrize("normalization", ["columns", "sinkhorn"])
def test_a_known_prior_is_that_of_the_classes_of_each_group(stores, normalization):
    frequencies = {c: float(1 + c % 5) for group in SPLIT.groups for c in group.classes}
    what = replace(variant("in-domain", normalization=normalization), prior_power=2.0, frequencies=frequencies)
    stage, record = low_shot(stores[0], protocol(), what, fusion=False, settings=QUICK)
    assert record["logistic"] is None
    expected = []
    for group in SPLIT.groups:
        shares = np.array([frequencies[c] for c in group.classes]) ** 2
        how = {"normalization": normalization, **({"prior": shares / shares.sum()} if normalization == "sinkhorn" else {})}
        for draw in range(2):
            for labelled in naive_draws(clusters()[1], group, (1, 2), draw):
                scores, columns, _ = naive_scores(clusters(), group, labelled, setting="in-domain", **how)
                factor = 1 if normalization == "sinkhorn" else shares
                expected.append([naive_bounds(each * factor, columns, len(group.base)) for each in scores])
    least, most = np.moveaxis(np.array(expected), 2, 0)
    curves = stores[0].array(f"{stage}/curves")
    assert (curves >= least - 1e-12).all()
    assert (curves <= most + 1e-12).all()
    assert (curves != stores[0].array(f"{run(stores, {'setting': 'in-domain', 'normalization': normalization})[0]}/curves")).any()


def test_stages_from_before_there_were_known_priors_keep_their_names():
    told = {"setting": "none", "transductive": False, "k": 30, "weights": {}, "eta": {}, "prior_power": None, "max_iter": 15}
    assert Variant().parameters == told
    assert Variant(prior_power=2.0, frequencies={3: 0.5}).parameters == {**told, "prior_power": 2.0, "frequencies": {"3": 0.5}}


def test_what_is_chosen_does_not_depend_on_the_second_group(stores, tmp_path):
    truth = clusters()[3].copy()
    second = np.isin(truth, SPLIT.groups[1].classes)
    truth[second] = np.roll(truth[second], 3)
    other = import_clusters(tmp_path / "other", test_truth=truth)
    before, after = (run(each, VARIANTS["in-domain"], fusion=True) for each in (stores, other))
    assert before[1]["chosen"] == after[1]["chosen"]
    curves = [each[0].array(f"{name}/curves") for each, (name, _) in zip((stores, other), (before, after), strict=True)]
    np.testing.assert_array_equal(curves[0][:4], curves[1][:4])
    assert (curves[0][4:] != curves[1][4:]).any()


class _Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["out-of-domain", "in-domain"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(stores, tmp_path, monkeypatch, name):
    whole = run(stores, VARIANTS[name], fusion=True)[0]
    again = import_clusters(tmp_path / "again")
    real, left = low_shot_diffusion.diffuse_once, [5]

    def stopping(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise _Stop
        return real(*arguments, **options)

    monkeypatch.setattr(low_shot_diffusion, "diffuse_once", stopping)
    for stopped in (True, False):
        if stopped:
            with pytest.raises(_Stop):
                run(again, VARIANTS[name], fusion=True)
        left[0] = 100
    resumed, record = run(again, VARIANTS[name], fusion=True)
    assert record["resumed"]
    assert 100 - left[0] == 2 * 4  # the first group of two draws was done; in the second each run is timed as well
    assert resumed == whole
    for array in ("curves", "reached", "fusion"):
        assert again[0].array(f"{resumed}/{array}").tobytes() == stores[0].array(f"{whole}/{array}").tobytes()
    assert list((again[0].path / "jobs").iterdir()) == []


def test_the_in_domain_graph_is_built_once_for_each_group(stores):
    assert run(stores, VARIANTS["in-domain"])[1]["graphs"] == 2
    assert run(stores, VARIANTS["none"])[1]["graphs"] == 8


def test_a_diffusion_with_the_chosen_iterations_is_timed_on_the_second_group(stores, monkeypatch):
    real, asked = low_shot_diffusion.diffuse_once, []

    def noted(graph, what, **options):
        asked.append((what, np.array(real(graph, what, **options))))
        return asked[-1][1]

    monkeypatch.setattr(low_shot_diffusion, "diffuse_once", noted)
    monkeypatch.setattr(low_shot_diffusion, "time", SimpleNamespace(perf_counter=lambda: float(2 ** len(asked))))
    _, record = run(stores, VARIANTS["in-domain"], what=protocol(seed=5, draws=3))
    timed = [place for place, (what, _) in enumerate(asked) if not what.every_iteration]
    assert timed == [7, 9, 11, 13, 15, 17]  # after 3 draws of 2 sizes in the first group, each second one
    for place in timed:
        (_, of_all), (what, scores) = asked[place - 1], asked[place]
        n_iter = record["chosen"][("1", "2")[timed.index(place) % 2]]["n_iter"]
        assert what.n_iter == n_iter
        np.testing.assert_array_equal(scores[0], of_all[n_iter][: len(what.queries)])
    # the clock says 2^calls: the median of 3 draws is that of the second
    assert record["diffusion_seconds"] == {"1": 2.0**12 - 2.0**11, "2": 2.0**14 - 2.0**13}
    assert run(stores, {}, what=protocol(groups=(1,)))[1]["diffusion_seconds"] == {}


@pytest.mark.parametrize("name", ["out-of-domain", "none"])
def test_seconds_of_blocks_are_those_of_the_stages_that_found_them(stores, name):
    """Whoever built a graph: a second run that shares all its graphs says the same seconds."""
    searched = {"W_BB", "W_LL", "W_LB", "W_BL", "tests", "merge"} if name == "out-of-domain" else {"W_LL", "tests"}
    one_graph = {"n_per_class": (1,), "draws": 1, "groups": (1,), "seed": 6}
    store, others = stores
    background = open_background(store, others.path, size=40) if name == "out-of-domain" else None
    options = {"background": background, "fusion": False, "settings": QUICK}
    with GraphKeeper() as keeper:
        first = low_shot(store, protocol(**one_graph), Variant(name, k=K), keeper=keeper, **options)[1]
        second = low_shot(store, protocol(**one_graph), Variant(name, k=K, max_iter=2), keeper=keeper, **options)[1]
        (graphs,) = keeper._kept.values()
        seconds = {stage: made["record"].get("seconds") for stage, made in graphs.store.manifest.stages.items()}
    assert (first["graphs"], second["graphs"]) == (1, 0)
    blocks = first["block_seconds"]
    assert second["block_seconds"] == blocks
    assert set(blocks) == searched | {"building W", "the rest"}
    assert min(blocks.values()) > 0
    stages = [role for role in ("background", "seeds", "tests") if role != "seeds" or background]
    assert sum(blocks.values()) == pytest.approx(sum(seconds[f"neighbors.{role}"] for role in stages) + seconds["graph"])
    whole = {"W_BB": "background", "W_LB": "seeds"} if background else {"W_LL": "background", "tests": "tests"}
    for block, role in whole.items():
        assert blocks[block] == seconds[f"neighbors.{role}"]


def test_done_before_is_not_done_again(stores):
    assert "skipped" not in run(stores, {}, what=protocol(seed=9))[1]
    assert run(stores, {}, what=protocol(seed=9))[1]["skipped"]


def test_what_cannot_be_run_is_refused(stores, tmp_path):
    store, others = stores
    background = open_background(store, others.path)
    refused = [
        ({"variant": Variant("nowhere", k=K)}, "setting 'nowhere' is not one of none, in-domain, out-of-domain"),
        ({"variant": Variant("out-of-domain", k=K)}, "`setting` out-of-domain goes with a `background`"),
        ({"variant": Variant("none", k=K), "background": background}, "`setting` out-of-domain goes with a `background`"),
        ({"variant": Variant("none", k=0)}, "`k` must be at least 1"),
        ({"variant": Variant("none", k=30)}, "`k` is 30, but with few labels there are 21 images in the graph"),
        ({"variant": Variant("none", k=K, eta={"normalization": "no"})}, "normalization 'no' is not one of"),
        ({"variant": Variant("none", k=K, weights={"weighting": "no"})}, "weighting 'no' is not one of"),
        ({"variant": Variant("none", k=K, weights={"weighting": "gaussian", "sigma": 0})}, "`sigma` is 0; give a distance above"),
        ({"variant": Variant("none", k=K, eta={"alpha": 0.5, "reset": True})}, "`alpha` is for `normalization` columns or none"),
        ({"variant": Variant("none", k=K, eta={"solver": "conjugate-gradient"})}, "`solver` conjugate-gradient is for `alpha`"),
        (
            {"variant": Variant("none", k=K, eta={"normalization": "rows"}, prior_power=1)},
            "`prior` is for `normalization` columns",
        ),
        ({"variant": Variant("none", k=K, prior_power=-1)}, "`prior_power` is -1; give a number of 0 or more"),
        (
            {"variant": Variant("none", k=K), "protocol": protocol(n_per_class=(1, 10))},
            "class 7 has 9 training images, 10 are to be",
        ),
    ]
    for options, message in refused:
        with pytest.raises(BadInput, match=message):
            low_shot(store, **{"protocol": protocol(), "fusion": False, "settings": QUICK, **options})
    with pytest.raises(BadInput, match="`size` is 61, but .* has 60 images; give from 1 to 60"):
        open_background(store, others.path, size=61)
    with pytest.raises(BadInput, match="groups are"):
        protocol(groups=(2,))
    with pytest.raises(DoesNotFit):
        low_shot(store, protocol(seed=3), Variant(k=K), fusion=False, settings=Settings(memory_budget="64MiB"))


def test_neighboring_seeds_label_other_images(stores):
    problems = [protocol(seed=seed, draws=5).problems(stores[0])[0] for seed in (0, 1, 2)]
    labelled = [problem.labelled(draw) for problem in problems for draw in range(5)]
    assert len({tuple(more.rows) for _, more in labelled}) == 15
    for few, more in labelled:
        assert set(few.rows) < set(more.rows)


def test_seeds_whose_draws_were_others_are_told_from_what_was_run_before():
    """Seed 0 draws as ever; of others, the draws of an earlier version must not pass for these."""
    assert "drawn" not in protocol().parameters
    assert protocol(seed=1).parameters["drawn"] == "by draw and seed"


def test_a_prior_that_cannot_be_estimated_is_refused_before_any_work(stores, tmp_path):
    """The other collection has vectors alone that are alike."""
    store = stores[0]
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).normal(size=(30, 11)).astype(np.float32))
    import_descriptors(tmp_path / "wide.npy", store=tmp_path / "wide", settings=QUICK)
    reduce(tmp_path / "wide", dim=8, settings=QUICK)
    stages, background = set(store.manifest.stages), open_background(store, tmp_path / "wide")
    for options, told in (({}, "has no descriptors like those of"), ({"setting": "none"}, "`setting` out-of-domain goes with")):
        what = replace(variant(**{"setting": "out-of-domain", **options}), prior_power=1.0)
        with pytest.raises(BadInput, match=told):
            low_shot(store, protocol(seed=31), what, background=background, settings=QUICK)
    assert set(store.manifest.stages) == stages
    known = replace(variant("out-of-domain"), prior_power=1.0, frequencies=dict.fromkeys(range(12), 1.0))
    low_shot(store, protocol(groups=(1,), draws=1), known, background=background, fusion=False, settings=QUICK)


def test_a_dry_run_only_plans(stores):
    store = stores[0]
    stages = set(store.manifest.stages)
    _, record = run(stores, {}, fusion=True, what=protocol(seed=77), settings=Settings(memory_budget="2GiB", dry_run=True))
    assert record["plan"]["memory_bytes"] > 0
    assert set(Store(store.path).manifest.stages) == stages


@pytest.mark.parametrize(("usable", "expected"), [(2**36, ("IVFFlat", "cuda")), (2**31, ("list-major", "cpu"))])
def test_the_plan_searches_what_the_gpus_have_the_memory_for(stores, monkeypatch, usable, expected):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: usable)
    store, planned, plan_neighbors = stores[0], [], low_shot_plan.plan_neighbors
    settings = replace(QUICK, device="auto")
    dim = store.entry("background/vectors").shape[1]

    def plan(*args, **options):
        planned.append((options["index"], options["device"]))
        return plan_neighbors(*args, **options)

    monkeypatch.setattr(low_shot_plan, "plan_neighbors", plan)
    what = variant("out-of-domain")
    low_shot_plan.plan_low_shot(store, what, protocol().problems(store), 200_000, draws=2, fusion=False, settings=settings)
    assert planned == [expected]
    sought = search_parameters(200_000, dim, k=what.k, settings=settings)
    assert (sought["index"], sought["device"]) == expected


@pytest.mark.parametrize(
    ("eta", "more"), [({"alpha": 0.9}, 4 * 147), ({"alpha": 0.9, "solver": "conjugate-gradient"}, 3 * 4 * 147)]
)
def test_the_plan_knows_the_iterates_of_alpha(stores, monkeypatch, eta, more):
    """What they take is lost in what diffusing nodes by the hundred takes otherwise, so the others are left out."""
    store, least = stores[0], []
    monkeypatch.setattr(low_shot_plan, "plan_neighbors", lambda *args, **options: StagePlan("", "", 0, 0, 0))
    monkeypatch.setattr(low_shot_plan, "plan_graph", lambda *args, **options: StagePlan("", "", 0, 0, 0))
    problems = protocol().problems(store)
    for options in ({}, eta):
        plan = low_shot_plan.plan_low_shot(store, variant(**options), problems, 102, draws=2, fusion=False, settings=QUICK)
        least.append(plan.least_bytes)
    labelled, none = max(len(problem.train_rows) for problem in problems), np.empty(0, np.int64)
    passes = most_passes(Diffusion(none, none, 5, MAX_ITER, **eta))  # of a limit they are more than its iterations
    assert (passes > MAX_ITER) == ("solver" in eta)
    assert least[1] - least[0] == more + seed_bytes(labelled, passes) - seed_bytes(labelled, MAX_ITER)
