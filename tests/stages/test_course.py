"""How far a call is: counts and times follow from what the runs that are done say of themselves."""

from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion.stages.course import Asked, Course, done_run
from ooc_diffusion.stages.low_shot_background import open_background
from ooc_diffusion.stages.low_shot_variant import Variant
from ooc_diffusion.stages.low_shot_work import diffusion_work, knn_work, logistic_work, smooth_work
from ooc_diffusion.stages.reduce import reduce

from .low_shot_chain import PER_CLASS, QUICK, import_clusters, protocol


def ran(seconds, **more):
    return {"seconds": seconds, "resumed": False, **more}


def test_what_is_left_takes_as_long_for_its_work_as_what_is_done():
    course = Course([Asked(1.0), Asked(3.0), Asked(6.0)])
    assert (course.text, course.seconds_left) == ("run 1 of 3", None)
    course.end(ran(20.0), 1.0)
    assert (course.text, course.seconds_left) == ("run 2 of 3, about 3 min 00 s left", 180.0)
    course.end(ran(30.0), 3.0)
    assert (course.text, course.seconds_left) == ("run 3 of 3, about 1 min 15 s left", 75.0)
    course.end(ran(70.0), 6.0)
    assert (course.ended, course.seconds_left) == (3, 0.0)


def test_runs_of_before_are_done_and_tell_the_pace_until_one_of_this_call_does():
    course = Course([Asked(1.0, ran(5.0)), Asked(2.0), Asked(3.0, ran(15.0)), Asked(4.0)])
    assert (course.text, course.seconds_left) == ("run 3 of 4, about 30 s left", 30.0)
    assert course.record == {"runs": 4, "runs_done_before": 2, "seconds_left": 30.0}
    course.end(ran(5.0, skipped=True), 1.0)
    assert (course.text, course.seconds_left) == ("run 3 of 4, about 30 s left", 30.0)
    course.end(ran(4.0), 2.0)
    assert (course.text, course.seconds_left) == ("run 4 of 4, about 8 s left", 8.0)


def test_a_hundredth_of_the_work_tells_the_pace():
    """What begins a call is loaded and compiled in its first run."""
    course = Course([Asked(0.5, ran(50.0)), Asked(0.5), Asked(0.6), Asked(98.4)])
    course.end(ran(40.0), 0.5)
    assert (course.text, course.seconds_left) == ("run 3 of 4", None)
    course.end(ran(15.0), 0.6)
    assert course.seconds_left == pytest.approx(98.4 * 50)
    course = Course([Asked(2.0, ran(8.0)), Asked(0.5), Asked(97.5)])
    course.end(ran(40.0), 0.5)
    assert course.seconds_left == pytest.approx(97.5 * 4)


def test_a_run_that_was_interrupted_tells_no_pace():
    course = Course([Asked(1.0, {"seconds": 0.1, "resumed": True}), Asked(1.0), Asked(1.0), Asked(1.0)])
    assert (course.text, course.seconds_left) == ("run 2 of 4", None)
    course.end({"seconds": 0.1, "resumed": True}, 1.0)
    assert (course.text, course.seconds_left) == ("run 3 of 4", None)
    course.end(ran(7.0), 1.0)
    assert (course.text, course.seconds_left) == ("run 4 of 4, about 7 s left", 7.0)


def test_progress_begins_with_the_run():
    shown = []
    course = Course([Asked(1.0), Asked(1.0)])
    settings = course.telling(replace(QUICK, progress=lambda *bar: shown.append(bar)), lambda: "table1")
    settings.progress("diffusion", 5, "diffusions")
    course.end(ran(9.0), 1.0)
    settings.progress("kNN", 2, "searches")
    assert shown == [
        ("run 1 of 2: table1: diffusion", 5, "diffusions"),
        ("run 2 of 2, about 9 s left: table1: kNN", 2, "searches"),
    ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return import_clusters(tmp_path_factory.mktemp("course"))


def test_a_stage_that_has_to_be_run_again_is_not_done(tmp_path):
    store, _ = import_clusters(tmp_path)
    assert done_run(store, "reduce.background")["seconds"] > 0
    assert done_run(store, "neighbors.background") is None
    with store.job("made", parameters={}, inputs=["background/vectors"]) as job:
        job.publish({"seconds": 1.0})
    assert done_run(store, "made") == {"seconds": 1.0}
    reduce(store, dim=4, settings=replace(QUICK, overwrite=True))
    assert done_run(store, "made") is None


def test_work_is_that_of_all_labelled_sets(stores):
    """Twice the draws are twice the work, but for the graph of in-domain images, which is built once for each group."""
    store, others = stores
    once, twice, narrow = protocol(draws=1), protocol(draws=2), protocol(draws=1, groups=(1,), n_per_class=(2,))
    for work in (logistic_work, smooth_work, knn_work):
        assert work(store, twice) == pytest.approx(2 * work(store, once))
        assert work(store, narrow) < work(store, once)

    def weigh(what, **variant):
        background = open_background(store, others.path) if variant.get("setting") == "out-of-domain" else None
        return diffusion_work(store, what, Variant(k=3, **variant), background, fusion=False)

    assert weigh(twice) == pytest.approx(2 * weigh(once))
    assert weigh(once, setting="in-domain") < weigh(twice, setting="in-domain") < 2 * weigh(once, setting="in-domain")
    assert weigh(once, setting="out-of-domain") > weigh(once)
    assert weigh(once, transductive=True) > weigh(once)
    assert weigh(once, max_iter=30) > weigh(once)
    limit = {"alpha": 0.9, "solver": "conjugate-gradient"}
    assert weigh(once, eta=limit) > weigh(once, eta={"alpha": 0.9})
    assert weigh(once, eta=limit, max_iter=30) == weigh(once, eta=limit)  # which has no number of iterations
    fused = diffusion_work(store, once, Variant(k=3), None, fusion=True)
    assert fused > weigh(once)


def test_labelled_images_are_counted_as_they_are_drawn(stores):
    what = protocol(n_per_class=(1, 2, PER_CLASS))
    for problem in what.problems(stores[0]):
        assert [problem.n_labelled(n) for n in what.n_per_class] == [len(each.rows) for each in problem.labelled(0)]


def test_problems_are_made_again_for_other_images(stores, tmp_path):
    what = protocol()
    first = what.problems(stores[0])
    assert what.problems(stores[0]) is first
    store, _ = import_clusters(tmp_path, seed=1)
    second = what.problems(store)
    assert any(not np.array_equal(a.train_rows, b.train_rows) for a, b in zip(first, second, strict=True))
    assert (what.runs, protocol(draws=5, groups=(1,)).runs) == (8, 10)
    assert what.told == "2 groups, 2 draws, n = 1, 2"
    assert protocol(draws=1, groups=(1,), n_per_class=(5,)).told == "group 1, 1 draw, n = 5"
