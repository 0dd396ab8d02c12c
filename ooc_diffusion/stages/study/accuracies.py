"""Tables 2, 3 and 5: accuracy by number of labelled images, for all methods and backgrounds; and two lines beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...evaluation import FEWEST_FOR_TOP5, MEASURES, mean_std, paper
from ...report import Chapter, Chart, Claim, Grid, Line
from .claims import (
    AT_MOST,
    OPEN,
    Values,
    against,
    better,
    decide,
    every,
    grows,
    left_out,
    not_worse,
    same_draws,
    shown,
    unknown,
)
from .fusion import fusion_claims, little_gained
from .runs import Found, Runs

NO_BACKGROUND = "there is no other collection; give --background"
ABOUT = (
    "All training images of the base classes are labelled, and n of each novel class. Hyper-parameters are chosen on group 1, "
    "the figures are those of group 2."
)
# What is tried for logistic regression, in words.
_SETTINGS = {"learning_rate": "learning rate", "weight_decay": "weight decay", "batch_size": "batch size", "n_steps": "steps"}
_N_COLUMNS = [f"n = {n}" for n in paper.N_PER_CLASS]
# What the paper has beside its own, in words.
_OTHER_METHOD = "Hariharan & Girshick, another method"
# Neighbors of the paper's kNN classifier.
_PAPER_K = 1000
# By name of the column: a function of the number of labelled images.
Columns = Mapping[str, Callable[[int], Values]]


def table2(runs: Runs) -> Chapter:
    """No background and the images of the domain, against logistic regression and fused with it."""
    measure = runs.measure
    none, inside, logistic = runs.diffusion("none"), runs.diffusion("in-domain"), runs.logistic()
    columns: Columns = {
        "none": lambda n: none.diffusion(n, measure),
        "in-domain": lambda n: inside.diffusion(n, measure),
        "logistic": lambda n: logistic.accuracy(n, measure),
        "in-domain + logistic": lambda n: inside.fusion(n, measure),
    }
    few, many = [n for n in runs.n_tables if n <= 2], [n for n in runs.n_tables if n >= 10]
    claims = [
        _everywhere(
            runs,
            runs.n_tables,
            columns["in-domain"],
            columns["none"],
            "Table 2",
            "In-domain images help diffusion at every n.",
        ),
        _everywhere(
            runs,
            few,
            columns["in-domain"],
            columns["logistic"],
            "Table 2, 4.4",
            "Diffusion over in-domain images beats logistic regression for one and two labelled images.",
        ),
        _everywhere(
            runs,
            many,
            columns["logistic"],
            columns["in-domain"],
            "Table 2",
            "From ten labelled images on logistic regression alone beats diffusion over in-domain images.",
        ),
        *fusion_claims(runs, inside, logistic, "Table 2, 4.4", "in-domain images"),
        little_gained(runs, inside, logistic),
    ]
    reported = {**paper.TABLE_2, _OTHER_METHOD: paper.HARIHARAN_GIRSHICK["all"]}
    chapter = _chapter(runs, "table2", "Table 2: in-domain diffusion", columns, reported, claims, measure)
    grids = logistic_settings(runs, logistic)
    return replace(chapter, grids=[*chapter.grids, grids[0]], paper=[*chapter.paper, grids[1]])


def table3(runs: Runs) -> Chapter:
    """Backgrounds of growing size from another collection, against logistic regression and fused with it."""
    measure = runs.measure
    none, logistic = runs.diffusion("none"), runs.logistic()
    others = {size: runs.diffusion("out-of-domain", size) for size in runs.sizes}
    columns: dict[str, Callable[[int], Values]] = {"none": lambda n: none.diffusion(n, measure)}
    for size, found in others.items():
        columns[f"other {size:,}"] = lambda n, found=found: found.diffusion(n, measure)  # type: ignore[misc]
    columns["logistic"] = lambda n: logistic.accuracy(n, measure)
    for size, found in others.items():
        columns[f"other {size:,} + logistic"] = lambda n, found=found: found.fusion(n, measure)  # type: ignore[misc]
    claims = [_growing(runs, columns)]
    largest = columns[f"other {runs.sizes[-1]:,}"] if runs.sizes else None
    claims.append(
        _everywhere(
            runs,
            [n for n in runs.n_tables if n <= 2],
            largest,
            columns["logistic"],
            "Table 3",
            "Diffusion over the largest background beats logistic regression for one and two labelled images.",
        )
    )
    if runs.sizes:
        largest_run = others[runs.sizes[-1]]
        claims += fusion_claims(runs, largest_run, logistic, "Table 3, 4.4", "the largest background")
    reported = {**paper.TABLE_3, _OTHER_METHOD: paper.HARIHARAN_GIRSHICK["all"]}
    return _chapter(runs, "table3", "Table 3: backgrounds of growing size", columns, reported, claims, measure)


def table5(runs: Runs) -> Chapter:
    """The tests of novel classes alone."""
    measure = f"novel {runs.measure}"
    logistic = runs.logistic()
    found = {name: runs.diffusion(setting, size) for name, setting, size in runs.settings_of()}
    columns: dict[str, Callable[[int], Values]] = {
        name: lambda n, one=one: one.diffusion(n, measure)  # type: ignore[misc]
        for name, one in found.items()
    }
    columns["logistic"] = lambda n: logistic.accuracy(n, measure)
    for name, one in found.items():
        if name != "none":
            columns[f"{name} + logistic"] = lambda n, one=one: one.fusion(n, measure)  # type: ignore[misc]
    n = runs.n_parameters
    on_all, on_novel = (
        np.subtract(found["in-domain"].diffusion(n, which), found["none"].diffusion(n, which)).tolist()
        for which in (runs.measure, measure)
    )
    claims = [
        decide(
            "Tables 2 and 5",
            "In-domain images gain more on the novel classes than on all classes.",
            f"the gain, in-domain less none, at n = {n} is surely larger on the tests of novel classes than on all tests",
            better(on_novel, on_all),
            [against("points on novel classes and on all", on_novel, on_all)],
            draws=len(on_all),
            missing="no test is of a novel class" if np.isnan(on_novel).any() else unknown(runs, 2),
        )
    ]
    reported = {**paper.TABLE_5, _OTHER_METHOD: paper.HARIHARAN_GIRSHICK["novel"]}
    return _chapter(runs, "table5", "Table 5: novel classes alone", columns, reported, claims, measure)


def transductive(runs: Runs) -> Chapter:
    """The tests as nodes of the graph."""
    measure, n = runs.measure, runs.n_parameters
    ends = sorted({*runs.sizes[:1], *runs.sizes[-1:]})
    settings: list[tuple[str, str, int | None]] = [
        ("none", "none", None),
        *((f"other {size:,}", "out-of-domain", size) for size in ends),
    ]
    columns: dict[str, Callable[[int], Values]] = {}
    pairs: list[tuple[Values, Values]] = []
    claims = []
    for name, setting, size in settings:
        outside, inside = runs.diffusion(setting, size), runs.diffusion(setting, size, transductive=True)
        columns[name] = lambda n, one=outside: one.diffusion(n, measure)  # type: ignore[misc]
        columns[f"{name}, tests in the graph"] = lambda n, one=inside: one.diffusion(n, measure)  # type: ignore[misc]
        a, b = inside.diffusion(n, measure), outside.diffusion(n, measure)
        pairs.append((a, b))
        claims.append(
            decide(
                "4.4",
                f"Test images in the graph help (over the background {name}).",
                f"the accuracy at n = {n} is surely higher with the tests in the graph than without",
                better(a, b),
                [against(f"n = {n}", a, b)],
                draws=len(a),
                missing=unknown(runs, 2),
            )
        )
    claims.append(_as_many_more(runs, pairs[-len(ends) :] if ends else []))
    at_two = {name: paper.TABLE_3[name][1] for name in ("F1M", "F100M")}
    reported = {name: _at_two(value) for name, value in {"F1M, tests in the graph": paper.TRANSDUCTIVE, **at_two}.items()}
    return _chapter(runs, "transductive", "Transductive diffusion", columns, reported, claims, measure)


def _as_many_more(runs: Runs, pairs: Sequence[tuple[Values, Values]]) -> Claim:
    """Tests in the graph are worth a larger background: of accuracies with and without them, from the smallest to the largest."""
    n, known = runs.n_parameters, len(pairs) > 1
    few = "" if known else "there is one size of the background alone; give more of --size" if pairs else NO_BACKGROUND
    a, b = (pairs[0][0], pairs[-1][1]) if known else ([], [])
    return decide(
        "4.4",
        "Tests in the graph over the smallest background do as well as the largest without them (F1M and F100M in the paper).",
        f"at n = {n} the accuracy over the smallest with the tests is surely {AT_MOST} below that over the largest without them",
        not_worse(a, b) if known else OPEN,
        [against(f"n = {n}", a, b)] if known else [],
        draws=len(a),
        missing=unknown(runs, 2) or few,
    )


def knn(runs: Runs) -> Chapter:
    """The kNN classifier: no iteration, but more neighbors."""
    measure, n = runs.measure, runs.n_parameters
    found, none = runs.knn(), runs.diffusion("none")
    neighbors = found.record["neighbors"]
    place = MEASURES.index(measure)
    labelled = runs.protocol.problems(runs.store)[-1].labelled(0)
    # more neighbors than labelled images are all of them: then all classes have the same votes, and nothing is told apart
    shown_ks = [k for k in neighbors if k < len(labelled[0].rows)]
    most = len(labelled[runs.n_tables.index(n)].rows)
    as_paper = most > _PAPER_K

    def of(k: int) -> Callable[[int], Values]:
        return lambda n: found.values("accuracy", n)[:, neighbors.index(k), place].tolist()

    columns: dict[str, Callable[[int], Values]] = {f"{k} neighbor{'s' * (k != 1)}": of(k) for k in shown_ks}
    columns["chosen"] = lambda n: of(found.record["chosen"][str(n)])(n)
    columns["diffusion, none"] = lambda n: none.diffusion(n, measure)
    rival = columns[f"{_PAPER_K} neighbors" if as_paper else "chosen"](n)
    chosen = f"the k chosen on group 1 ({_PAPER_K} neighbors would be all {most:,} labelled images)"
    claims = [
        decide(
            "4.3",
            f"Diffusion over the labelled images alone beats the kNN classifier (k = {_PAPER_K} in the paper).",
            f"the accuracy at n = {n} is surely higher than that of the kNN classifier with "
            f"{f'{_PAPER_K} neighbors' if as_paper else chosen}",
            better(columns["diffusion, none"](n), rival),
            [against(f"n = {n}", columns["diffusion, none"](n), rival)],
            draws=runs.protocol.draws,
            missing=unknown(runs, 2),
        )
    ]
    reported = {f"{_PAPER_K} neighbors": _at_two(paper.KNN), "diffusion, none": _at_two(paper.TABLE_2["none"][1])}
    return _chapter(runs, "knn", "The kNN classifier", columns, reported, claims, measure)


def other_measure(runs: Runs) -> str:
    """Say that accuracies are not of the kind that the paper's beside them are, and why; nothing where they are."""
    if runs.measure == "top5":
        return ""
    classes = runs.protocol.problems(runs.store)[0].n_classes
    return (
        f" Accuracy is {runs.label} here and top-5 in the paper: group 1 has {classes} classes here, and with fewer than "
        f"{FEWEST_FOR_TOP5} the five best hold the true one too often to tell methods apart."
    )


def logistic_settings(runs: Runs, logistic: Found) -> tuple[Grid, Grid]:
    """Return the settings of logistic regression that group 1 chose, and those of the paper."""
    tried = {key: ", ".join(f"{value:g}" for value in values) for key, values in logistic.record["tried"].items()}
    here = [
        (f"{name}, of {tried[key]}", [f"{logistic.chosen(n)[key]:g}" for n in runs.n_tables]) for key, name in _SETTINGS.items()
    ]
    there = [(name, [f"{value:g}" for value in paper.LOGISTIC_SETTINGS[key]]) for key, name in _SETTINGS.items()]
    return (
        Grid("Logistic regression: settings chosen on group 1", ["", *(f"n = {n}" for n in runs.n_tables)], here),
        Grid("In the paper, for descriptors as they are, not centered and scaled", ["", *_N_COLUMNS], there),
    )


def _at_two(reported: paper.Percent) -> list[paper.Percent | None]:
    """Return a row of the paper that has n = 2 alone."""
    return [reported if n == 2 else None for n in paper.N_PER_CLASS]


def _everywhere(
    runs: Runs,
    sizes: Sequence[int],
    a: Callable[[int], Values] | None,
    b: Callable[[int], Values],
    source: str,
    text: str,
) -> Claim:
    """A is better than b at each of some numbers of labelled images."""
    if a is None or not sizes:
        missing = "no such number of labelled images was run" if a is not None else NO_BACKGROUND
        return decide(source, text, "", OPEN, [], missing=missing)
    kept = [n for n in sizes if n in runs.n_drawn[2]]
    rule = f"the accuracy is surely higher, at {_each(kept)}" if kept else ""
    figures = [*(against(f"n = {n}", a(n), b(n)) for n in kept), *left_out(sizes, kept)]
    found = every(better(a(n), b(n)) for n in kept)
    return decide(source, text, rule, found, figures, draws=runs.protocol.draws, missing="" if kept else same_draws(sizes))


def _each(sizes: Sequence[int]) -> str:
    return f"each n of {', '.join(map(str, sizes))}" if len(sizes) > 1 else f"n = {sizes[0]}"


def _growing(runs: Runs, columns: Columns) -> Claim:
    text = "The larger the background, the better: the accuracy grows with it at every n."
    names, sizes = ["none", *(f"other {size:,}" for size in runs.sizes)], runs.n_drawn[2]
    rule = (
        "at each n the accuracy over the largest background is surely higher than without one, and no step to the next larger "
        "background surely lowers it"
    )
    if len(names) < 2:
        return decide("Table 3, 4.3", text, rule, OPEN, [], missing=NO_BACKGROUND)
    good = every(grows([columns[name](n) for name in names]) for n in sizes)
    figures = [
        f"{against(f'n = {n}, largest and none', columns[names[-1]](n), columns['none'](n))} "
        f"({', '.join(shown(columns[name](n)) for name in names)})"
        for n in sizes
    ]
    figures += left_out(runs.n_tables, sizes)
    missing = "" if sizes else same_draws(runs.n_tables)
    return decide("Table 3, 4.3", text, rule, good, figures, draws=runs.protocol.draws, missing=missing)


def _chapter(
    runs: Runs,
    name: str,
    title: str,
    columns: Columns,
    reported: Mapping[str, Sequence[paper.Percent | None]],
    claims: Sequence[Claim],
    measure: str,
) -> Chapter:
    label = runs.label if measure == runs.measure else f"{runs.label} novel"
    heads = ["", *(f"n = {n}" for n in runs.n_tables)]
    rows = [(method, [mean_std(of(n)) for n in runs.n_tables]) for method, of in columns.items()]
    lines = [Line(method, list(runs.n_tables), [mean_std(of(n)) for n in runs.n_tables]) for method, of in columns.items()]
    beside = [(method, [value if value is None else paper.fractions(value) for value in of]) for method, of in reported.items()]
    return Chapter(
        name,
        title,
        ABOUT + other_measure(runs),
        [Grid(f"{label} accuracy in %", heads, rows)],
        [Chart(title, "labelled images per novel class", f"{label} accuracy (%)", lines, log=2)],
        [Grid("In the paper: top-5 accuracy in %", ["", *_N_COLUMNS], beside)],
        claims,
    )
