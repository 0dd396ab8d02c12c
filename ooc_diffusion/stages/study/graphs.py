"""Table 4 and figures 2, 3 and 6: iterations, sizes of graphs, how L fills up, and the weight of the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluation import MEASURES, mean_std, paper
from ...report import Cell, Chapter, Chart, Claim, Grid, Line
from ..low_shot_variant import COEFFICIENTS
from .accuracies import NO_BACKGROUND
from .claims import (
    NO,
    OPEN,
    YES,
    Evidence,
    Values,
    against,
    better,
    decide,
    every,
    grows,
    left_out,
    not_worse,
    some,
    spread,
    unknown,
)
from .filling import claims_by_iteration, claims_by_neighbors, first_full, may_be_later
from .runs import Runs

# Neighbors per node in figure 2.
_NEIGHBORS = (3, 5, 10, 20, 30, 50)
# Times that differ by less than this factor are called equal.
_TIMES = 1.25
# Rows of table 4: the blocks of a graph, and what the paper counts as completing it.
_COMPLETION = "completion: W_LL + W_LB + W_BL"
_BLOCKS = ("W_BB", "W_LL", "W_LB", "W_BL", _COMPLETION, "tests", "merge", "building W", "the rest")


def table4(runs: Runs) -> Chapter:
    """Best iteration, and how long the steps take."""
    settings, n = runs.settings_of(), runs.n_parameters
    found = {name: runs.diffusion(setting, size) for name, setting, size in settings}
    seconds = {name: _seconds(one.record) for name, one in found.items()}
    logistic = runs.logistic().record["training_seconds"]
    rows: list[tuple[str, list[Cell]]] = [
        (f"best iteration, n = {m}", [str(one.chosen(m)["n_iter"]) for one in found.values()]) for m in runs.n_tables
    ]
    rows += [(what, [_time(of.get(what)) for of in seconds.values()]) for what in _BLOCKS]
    for m in runs.n_tables:
        cells = [_time(one.record["diffusion_seconds"][str(m)]) for one in found.values()]
        rows.append((f"diffusion with the best iteration, n = {m}", cells))
    rows += [(f"logistic regression, n = {m}", [_time(logistic[str(m)]), *[""] * len(settings[1:])]) for m in runs.n_tables]
    rows.append(("measured", ["by an earlier run" if one.record.get("skipped") else "by this run" for one in found.values()]))
    best = {name: one.best_of_draws(n, "curves", runs.measure) for name, one in found.items()}
    outside = {name: values for name, values in best.items() if name != "in-domain"}
    times = {name: (of[_COMPLETION], found[name].record["diffusion_seconds"][str(n)]) for name, of in seconds.items()}
    claims = [
        decide(
            "Table 4, 4.5",
            "The larger the background, the more iterations are best.",
            f"at n = {n} the best number of iterations is surely larger over the largest background than without one, and no "
            "step to the next larger background surely lowers it",
            grows([*outside.values()]),
            [", ".join(spread(name, values) for name, values in outside.items())],
            draws=runs.protocol.draws,
            missing=(unknown(runs, 1) or may_be_later(runs, outside)) if runs.sizes else NO_BACKGROUND,
        ),
        _few_iterations(runs, best),
        decide(
            "Table 4, 4.5",
            "Diffusion takes less time than completing the graph.",
            f"for each background, completing the graph takes more than {_TIMES:g} times as long as a diffusion with the best "
            f"number of iterations at n = {n}. It does not hold where, for one, that diffusion takes more than {_TIMES:g} times "
            "as long as completing. In between nothing can be told",
            every(_faster(b, a) for a, b in times.values()),
            [f"{name}: {_time(b)} against {_time(a)}" for name, (a, b) in times.items()],
        ),
    ]
    return Chapter(
        "table4",
        "Table 4: iterations and times",
        "Iterations are chosen on group 1. Times are means over all graphs, by block as in appendix D: the background among "
        "itself (W_BB, done once), labelled images among themselves (W_LL) and in the background (W_LB), the background among "
        "them (W_BL), tests among both. In-domain is one search among all its images, which stands as W_LL. A diffusion is "
        "run once more with the best number of iterations, asked for the tests alone, on group 2: the median over the draws. "
        "Logistic regression is one training with the chosen settings. These are the only figures here that another run changes.",
        [Grid("Iterations and seconds", ["", *found], rows)],
        [],
        [
            Grid("In the paper, on 24 cores and on 8 GPUs", ["", *paper.TABLE_4_COLUMNS], _reported()),
            Grid("Best iteration in the published code", ["", *paper.CODE_ITERATIONS], _code_iterations()),
        ],
        claims,
    )


def _few_iterations(runs: Runs, best: Mapping[str, Values]) -> Claim:
    """Few iterations are best; where the last one that was run is no more than a few, it may stand for many."""
    draws, few = runs.protocol.draws, paper.MOST_ITERATIONS
    known = every(not_worse([float(few)] * draws, values, margin=0.0) for values in best.values())
    return decide(
        "3.3, 4.5",
        f"Few iterations are best, at most {few}.",
        f"for each background the best number of iterations at n = {runs.n_parameters} is surely at most {few}",
        known,
        [", ".join(spread(name, values) for name, values in best.items())],
        draws=draws,
        missing=unknown(runs, 1) or ("" if known.answer is False else may_be_later(runs, best)),
    )


def _seconds(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean seconds of the blocks of a graph, and what the paper calls its completion."""
    blocks: dict[str, float] = record["block_seconds"]
    return {**blocks, _COMPLETION: sum(blocks.get(name, 0.0) for name in ("W_LL", "W_LB", "W_BL"))}


def _reported() -> list[tuple[str, list[Cell]]]:
    """Return the rows of the paper's table."""
    fewest, most = paper.LOGISTIC_SECONDS
    return [
        ("best iteration", [None if value is None else str(value) for value in paper.ITERATIONS]),
        *((_COMPLETION if name == "completion" else name, [*map(_time, values)]) for name, values in paper.BLOCK_SECONDS.items()),
        ("diffusion", [_time(value) for value in paper.DIFFUSION_SECONDS]),
        ("logistic regression", [f"{_time(fewest)} to {_time(most)}", *[""] * len(paper.ITERATIONS[1:])]),
    ]


def _code_iterations() -> list[tuple[str, list[Cell]]]:
    """Return the rows of the table of the published code."""
    by_n = zip(*paper.CODE_ITERATIONS.values(), strict=True)
    return [(f"n = {n}", [str(value) for value in values]) for n, values in zip(paper.N_PER_CLASS, by_n, strict=True)]


def _time(seconds: float | None) -> Cell:
    """Return seconds as text."""
    if seconds is None:
        return None
    return f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


def _faster(a: float, b: float) -> Evidence:
    """Say whether seconds a are less than b, by more than times of one machine vary."""
    return YES if a * _TIMES < b else NO if a > b * _TIMES else OPEN


def widest_table(names: Sequence[str], k: int) -> int:
    """Return the most neighbors per node that any of some chapters asks for."""
    return max(k, *_NEIGHBORS) if "figure2" in names else k


def figure2(runs: Runs) -> Chapter:
    """Accuracy over the number of edges."""
    n, measure = runs.n_parameters, runs.measure
    lines: list[Line] = []
    found: dict[str, dict[int, Values]] = {}
    said = []
    problem = runs.protocol.problems(runs.store)[0]
    for name, setting, size in runs.settings_of():
        labelled = len(problem.labelled(0)[0].rows)
        nodes = {"none": labelled, "in-domain": len(problem.train_rows), "out-of-domain": labelled + (size or 0)}[setting]
        tried = [k for k in _NEIGHBORS if k < min(size or nodes, nodes)]
        values = [runs.parameter(setting, size, k=k).diffusion(n, measure) for k in tried]
        lines.append(Line(name, [float(k * nodes) for k in tried], [mean_std(each) for each in values]))
        found[name] = dict(zip(tried, values, strict=True))
        if name != "in-domain":
            best, possible = _best(found[name])
            said.append(f"{name}: the best is k = {_listed(best)}, the draws allow {_listed(possible)}")
    rows = [
        (line.name, [f"{x:,.0f}: {100 * y[0]:.1f}" for x, y in zip(line.x, line.y, strict=True)] + [""] * (6 - len(line.x)))
        for line in lines
    ]
    claims = [
        decide(
            "Figure 2, 4.3",
            "The best number of neighbors is the same for all sizes of the background (k = 30 in the paper).",
            f"at n = {n} one k is surely better than all others, and it is the same without a background and for each size of "
            "the other collection. It does not hold where surely no k is the best for all of them",
            _same_best([by_k for name, by_k in found.items() if name != "in-domain"]),
            said,
            draws=runs.protocol.draws,
            missing=unknown(runs, 1) if runs.sizes else NO_BACKGROUND,
        ),
        *claims_by_neighbors(runs, found),
    ]
    return Chapter(
        "figure2",
        "Figure 2: accuracy over the number of edges",
        f"{n} labelled images per novel class, group 1; edges are nodes times k, with k of {', '.join(map(str, _NEIGHBORS))}.",
        [Grid(f"edges: {runs.label} accuracy in %", ["", *(f"k = {k}" for k in _NEIGHBORS)], rows)],
        [Chart("Accuracy over the number of edges", "k × nodes", f"{runs.label} accuracy (%)", lines, log=10)],
        [],
        claims,
    )


def _best(values: Mapping[int, Values]) -> tuple[list[int], list[int]]:
    """Return the k with the largest mean, several if they are equal; and those that may be the best as far as the draws tell."""
    means = {k: round(float(np.mean(each)), 12) for k, each in values.items()}
    best = [k for k, average in means.items() if average == max(means.values())]
    return best, [k for k, each in values.items() if not better(values[best[0]], each).answer]


def _same_best(settings: Sequence[Mapping[int, Values]]) -> Evidence:
    """Say whether one k is better than all others in each setting."""
    common = set.intersection(*map(set, settings))
    return some(every(better(by_k[k], by_k[other]) for by_k in settings for other in by_k if other != k) for k in common)


def _listed(ks: Sequence[int]) -> str:
    return ", ".join(map(str, ks))


def figure3(runs: Runs) -> Chapter:
    """How L fills up, and accuracy, by iteration."""
    n, place = runs.n_parameters, MEASURES.index(runs.measure)
    full, curves = [], []
    filled: dict[str, Values] = {}
    best: dict[str, Values] = {}
    late: dict[str, tuple[Values, Values]] = {}
    for name, setting, size in runs.settings_of():
        found = runs.diffusion(setting, size)
        share, curve = found.values("reached", n, group=1), found.values("curves", n, group=1)[:, :, place]
        t = list(range(share.shape[1]))
        full.append(Line(name, t, [mean_std(share[:, i].tolist()) for i in t]))
        curves.append(Line(name, t, [mean_std(curve[:, i].tolist()) for i in t]))
        filled[name] = first_full(share)
        best[name] = found.best_of_draws(n, "curves", runs.measure)
        tested = found.values("curves", n, group=2)[:, :, place]  # the number is the best one on group 1
        late[name] = tested[:, found.chosen(n)["n_iter"]].tolist(), tested[:, -1].tolist()
    claims = [
        *claims_by_iteration(runs, best, filled),
        decide(
            "3.3, 4.6",
            "Stopping early matters: with many iterations the accuracy falls.",
            f"in each setting the accuracy on group 2 after {runs.max_iter} iterations is below that after the number chosen on "
            "group 1, and surely so",
            every(better(stopped, last) for stopped, last in late.values()),
            [against(name, stopped, last) for name, (stopped, last) in late.items()],
            draws=runs.protocol.draws,
            missing=unknown(runs, 2),
        ),
    ]
    heads = ["iteration", *(str(t) for t in range(len(full[0].x)))]
    return Chapter(
        "figure3",
        "Figure 3: how L fills up",
        f"{n} labelled images per novel class, group 1; the share of entries above zero is that of up to 1000 nodes.",
        [
            Grid("Entries of L above zero in %", heads, [(line.name, line.y) for line in full]),
            Grid(f"{runs.label} accuracy in %", heads, [(line.name, line.y) for line in curves]),
        ],
        [
            Chart("Entries of L above zero", "iteration", "entries above zero (%)", full),
            Chart("Accuracy by iteration", "iteration", f"{runs.label} accuracy (%)", curves),
        ],
        [],
        claims,
    )


def _too_few(sizes: Sequence[int], kept: Sequence[int]) -> str:
    """Say why there is nothing that could grow with the number of labelled images."""
    alone = [f"there is n = {kept[0]} alone; give more of --n-per-class"] if kept else []
    return "; ".join([*alone, *left_out(sizes, kept)])


def figure6(runs: Runs) -> Chapter:
    """Accuracy over the weight of logistic regression in the fusion."""
    place = MEASURES.index(runs.measure)
    settings, sizes = runs.settings_of(), runs.n_drawn[1]
    charts, grids, figures, growing = [], [], [], []
    for name, setting, size in [*settings[-2:-1][: len(runs.sizes)], settings[-1]]:
        found = runs.diffusion(setting, size)
        lines = [
            Line(
                f"n = {n}",
                COEFFICIENTS.tolist(),
                [mean_std(column.tolist()) for column in found.values("fusion", n, group=1)[:, :, place].T],
            )
            for n in runs.n_tables
        ]
        chosen = [found.chosen(n)["coefficient"] for n in runs.n_tables]
        weights = [COEFFICIENTS[found.best_of_draws(n, "fusion", runs.measure)].tolist() for n in sizes]
        growing.append(grows(weights))
        figures.append(f"{name}: {', '.join(spread(f'n = {n}', each) for n, each in zip(sizes, weights, strict=True))}")
        charts.append(Chart(f"Fusion, {name}", "weight of logistic regression", f"{runs.label} accuracy (%)", lines))
        tenths = range(0, len(COEFFICIENTS), 4)
        heads = ["weight", *(f"{COEFFICIENTS[i]:.1f}" for i in tenths), "chosen"]
        rows: list[tuple[str, list[Cell]]] = [
            (line.name, [*(line.y[i] for i in tenths), f"{a:g}"]) for line, a in zip(lines, chosen, strict=True)
        ]
        grids.append(Grid(f"{name}: {runs.label} accuracy in %", heads, rows))
    claims = [
        decide(
            "Figure 6, appendix C",
            "The weight of logistic regression in the fusion grows with the number of labelled images.",
            "in each setting the best weight is surely larger for the most labelled images than for the fewest, and no step to "
            "the next larger n surely lowers it",
            every(growing),
            [*figures, *left_out(runs.n_tables, sizes)],
            draws=runs.protocol.draws,
            missing="" if len(sizes) > 1 else _too_few(runs.n_tables, sizes),
        )
    ]
    return Chapter(
        "figure6",
        "Figure 6: the weight of the fusion",
        "Group 1, on which the weights are chosen; 0 is diffusion alone, 1 logistic regression alone.",
        grids,
        charts,
        [],
        claims,
    )
