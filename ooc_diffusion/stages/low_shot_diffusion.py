"""The protocol of the paper for one setting: diffusion, alone and fused with logistic regression."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..classify import LogisticModel, fuse, log_scores, softmax
from ..diffusion import Diffusion, diffuse_once
from ..evaluation import MEASURES, choose_place, count_hits, shares
from ..graph import Graph
from ..store import Store
from .low_shot import INPUTS, LowShot, Protocol
from .low_shot_background import Background, told_neighbors
from .low_shot_logistic import low_shot_logistic, stored_model
from .low_shot_plan import plan_low_shot
from .low_shot_variant import COEFFICIENTS, Variant
from .plans import BLOCK_ROWS
from .prior import powered
from .settings import Record, Settings, Worker, run_stage
from .stage_names import stage_name
from .temporary_graphs import GraphKeeper, Part, TemporaryGraphs

# Nodes whose rows are looked at for the share of entries that are not zero.
_REACHED_NODES = 1000


def low_shot(
    store: Store,
    protocol: Protocol,
    variant: Variant,
    *,
    background: Background | None = None,
    fusion: bool = True,
    keeper: GraphKeeper | None = None,
    settings: Settings,
) -> tuple[str, Record]:
    """Run the protocol of section 4.1 for one setting.

    Parameters
    ----------
    store : Store
        Training images (``background``) and tests: vectors, descriptors, true classes.
    protocol : Protocol
        Groups, draws, numbers of labelled images.
    variant : Variant
        What is diffused over.
    background : Background, optional
        Images of another collection, for the setting out-of-domain.
    fusion : bool
        Fuse with logistic regression, which is trained before where it has not been. Default True.
    keeper : GraphKeeper, optional
        Keeps graphs for later runs.
    settings : Settings
        Options of the run.

    Returns
    -------
    name : str
        Of the stage, and of the folder of its arrays, whose rows are the runs, group by group, draw by draw, from few to many
        labelled images: ``curves`` (runs, max_iter + 1, 4), accuracies after each iteration; ``reached`` (runs, max_iter + 1),
        share of the entries of L_t that are not zero (of up to 1000 nodes); ``fusion`` (runs, 21, 4), accuracies for each
        coefficient after the chosen number of iterations. A limit stands alone, in the place of iteration 0.
    record : dict
        ``chosen``: iterations, None for a limit, and coefficient for each number of labelled images, by the accuracy on group 1.
        ``background``: which neighbors its images have, see `told_neighbors`; None without one. ``block_seconds``: mean seconds
        of the blocks of the graphs, see `TemporaryGraphs`. ``diffusion_seconds``: for each number of labelled images the median
        seconds of a diffusion with the chosen number of iterations, on group 2.
    """
    problems = protocol.problems(store)
    variant.check(problems, background)
    if variant.estimated and background is not None:
        background.require_descriptors(store)  # before any work
    over = background.parameters(variant.k) if background else None
    parameters = {**protocol.parameters, **variant.parameters, "background": over}
    needed = fusion or variant.estimated
    logistic = low_shot_logistic(store, protocol, settings=settings)[0] if needed else None
    parameters |= {"logistic": logistic, "fusion": fusion}
    name = stage_name(f"low-shot-{variant.setting}", parameters)
    inputs = [*INPUTS]
    if logistic is not None and not settings.dry_run:
        inputs += [f"{logistic}/models_{number}" for number in protocol.groups]
    sizes = {"n_classes": max(problem.n_classes for problem in problems), "tests": max(len(p.test_rows) for p in problems)}

    def work(worker: Worker) -> Record:
        runs = _Runs(worker, store, protocol, problems, variant, name, logistic, fusion=fusion)
        with contextlib.nullcontext(keeper) if keeper else GraphKeeper() as kept:
            return runs.run(background, kept, settings)

    record = run_stage(
        store,
        name,
        settings,
        plan=plan_low_shot(
            store,
            variant,
            problems,
            background.n if background else 0,
            draws=protocol.draws,
            fusion=fusion,
            widest=keeper.widest if keeper else 0,
            searched=background.other if background and background.takes_own(variant.k) else None,
            settings=settings,
        ),
        parameters=parameters,
        inputs=inputs,
        title=f"diffusion{' and fusion' * fusion}, {variant.told(background)} ({protocol.told})",
        total=protocol.runs,
        unit="diffusions",
        work=work,
    )
    return name, {**record, **sizes}


class _Runs:
    """The runs of one setting, group by group, draw by draw, from few to many labelled images."""

    def __init__(
        self,
        worker: Worker,
        store: Store,
        protocol: Protocol,
        problems: list[LowShot],
        variant: Variant,
        name: str,
        logistic: str | None,
        *,
        fusion: bool,
    ) -> None:
        self.worker, self.store, self.protocol, self.problems, self.variant = worker, store, protocol, problems, variant
        self.name, self.logistic, self.fuses = name, logistic, fusion
        self.sizes = protocol.n_per_class
        self.group_runs = protocol.draws * len(self.sizes)
        job, runs, t = worker.job, len(problems) * self.group_runs, variant.kept
        shape = (len(COEFFICIENTS), len(MEASURES))
        self.curves = job.array(f"{name}/curves", "<f8", (runs, t, len(MEASURES)))
        self.reached = job.array(f"{name}/reached", "<f8", (runs, t))
        if fusion:
            self.fusion = job.array(f"{name}/fusion", "<f8", (runs, *shape))
            # before the iterations are chosen, all of them are fused
            self.surface = job.array("surface", "<f8", (self.group_runs, t, *shape), scratch=True)
        self.graphs = int(job.state.get("graphs", 0))
        # of each graph that was diffused over, and of diffusions for each number of labelled images
        self.blocks: list[dict[str, float]] = job.state.get("blocks", [])
        self.diffusions: dict[str, list[float]] = job.state.get("diffusions", {})
        self.timed = -1
        self.test_rows = np.unique(np.concatenate([problem.test_rows for problem in problems]))

    def run(self, background: Background | None, keeper: GraphKeeper, settings: Settings) -> dict[str, Any]:
        graphs = keeper.graphs(
            self.store,
            tests=(self.store.array("tests/vectors"), self.test_rows),
            background=background,
            k=self.variant.k,
            settings=settings,
        )
        self.worker.advance(self.curves.rows)
        for number, draw in self._left(self.curves.rows // len(self.sizes)):
            self._draw(graphs, number, draw, background)
            self.worker.job.checkpoint(now=True, graphs=self.graphs, blocks=self.blocks, diffusions=self.diffusions)
        self._fuse_first_group()
        told = background and told_neighbors(graphs.store, own=background.takes_own(self.variant.k))
        return {**self._summary(), "background": told}

    def _left(self, done: int) -> Iterator[tuple[int, int]]:
        for place in range(done, len(self.problems) * self.protocol.draws):
            yield divmod(place, self.protocol.draws)

    def _draw(self, graphs: TemporaryGraphs, number: int, draw: int, background: Background | None) -> None:
        """Run one draw of a group for all numbers of labelled images."""
        problem = self.problems[number]
        if number:
            self._fuse_first_group()
        for place, labelled in enumerate(problem.labelled(draw)):
            rows = problem.train_rows if self.variant.setting == "in-domain" else labelled.rows
            graph, queries = self._graph(graphs, rows, problem)
            model = self._model(number, draw * len(self.sizes) + place)
            prior = self._prior(model, rows, number, background)
            nodes = np.searchsorted(rows, labelled.rows)
            what = Diffusion(nodes, labelled.columns, problem.n_classes, 0, queries, prior=prior, **self.variant.eta)
            scores, reached = self._diffuse(graph, what)
            if number:
                self._time(graph, replace(what, n_iter=self._n_iter(place)), place)
            self.curves.append(_measure(scores, problem)[None])
            self.reached.append(reached[None])
            if self.fuses:
                assert model is not None
                self._fuse(scores, model, number, place)
            self.worker.advance(1)

    def _fuse(self, scores: np.ndarray, model: LogisticModel, number: int, place: int) -> None:
        """Keep the fusions of a run: with all iterations in the first group, with the number it chose in another."""
        if number == 0:
            self.surface.append(self._fused(scores, model, self.problems[0])[None])
        else:
            n_iter = self._n_iter(place)
            self.fusion.append(self._fused(scores[n_iter : n_iter + 1], model, self.problems[number]))

    def _graph(self, graphs: TemporaryGraphs, rows: np.ndarray, problem: LowShot) -> tuple[Graph, np.ndarray]:
        """Return the graph of some training images (first) and what each test of the group is read by."""
        parts = [(self.store.array("background/vectors"), rows)]
        if self.variant.transductive:
            parts.append((self.store.array("tests/vectors"), problem.test_rows))
        before = graphs.built
        graph, queries = graphs.build(parts, self.variant.weights, k=self.variant.k)
        self.graphs += graphs.built - before
        if graphs.built != self.timed:
            self.blocks.append(graphs.block_seconds)
            self.timed = graphs.built
        if self.variant.transductive:
            return graph, len(rows) + np.arange(len(problem.test_rows))[:, None]
        return graph, queries[np.searchsorted(self.test_rows, problem.test_rows)]

    def _diffuse(self, graph: Graph, what: Diffusion) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of the tests after each iteration, (T + 1, q, C), and the share of entries of L_t above zero.

        Of a limit, these of the limit alone.
        """
        assert what.queries is not None
        queries = what.queries
        nodes = np.unique(np.linspace(0, graph.n - 1, min(_REACHED_NODES, graph.n)).astype(np.int64))
        own = np.full((len(nodes), queries.shape[1]), -1, queries.dtype)
        own[:, 0] = nodes
        every = replace(what, n_iter=self.variant.max_iter, every_iteration=not self.variant.limit)
        every = replace(every, queries=np.concatenate([queries, own]))
        scores = diffuse_once(graph, every, budget=self.worker.budget, threads=self.worker.threads)
        reached = np.array([np.count_nonzero(block[len(queries) :]) for block in scores]) / (len(nodes) * what.n_classes)
        return scores[:, : len(queries)], reached

    def _time(self, graph: Graph, what: Diffusion, place: int) -> None:
        """Note the seconds of a diffusion, as one that asks for nothing else."""
        started = time.perf_counter()
        diffuse_once(graph, what, budget=self.worker.budget, threads=self.worker.threads, warn=False)
        self.diffusions.setdefault(str(self.sizes[place]), []).append(time.perf_counter() - started)

    def _model(self, number: int, run: int) -> LogisticModel | None:
        """Return the logistic regression of a run of a group; None where there is none."""
        if self.logistic is None:
            return None
        return stored_model(self.store.array(f"{self.logistic}/models_{self.protocol.groups[number]}"), run)

    def _prior(
        self, model: LogisticModel | None, rows: np.ndarray, number: int, background: Background | None
    ) -> np.ndarray | None:
        """Return the frequencies of the classes of a group, raised to the power of the variant; None without a prior."""
        power, known = self.variant.prior_power, self.variant.frequencies
        if power is None:
            return None
        if known is None:
            assert model is not None
            return powered(self._predicted(model, rows, self.problems[number], background), power)
        classes = self.protocol.split.groups[self.protocol.groups[number] - 1].classes
        return powered(np.array([known[int(c)] for c in classes]), power)

    def _predicted(self, model: LogisticModel, rows: np.ndarray, problem: LowShot, background: Background | None) -> np.ndarray:
        """Return the sums of the probabilities of the classes over the nodes of the graph."""
        parts: list[Part] = [(self.store.array("background/descriptors"), rows)]
        if self.variant.transductive:
            parts.append((self.store.array("tests/descriptors"), problem.test_rows))
        if background is not None:
            parts.append((background.descriptors(self.store), None))
        sums = np.zeros(problem.n_classes)
        for array, which in parts:
            for first in range(0, len(array if which is None else which), BLOCK_ROWS):
                block = slice(first, first + BLOCK_ROWS)
                descriptors = np.asarray(array[block if which is None else which[block]])
                sums += softmax(model.log_probabilities(descriptors)).sum(axis=0, dtype=np.float64)
        return sums

    def _fused(self, scores: np.ndarray, model: LogisticModel, problem: LowShot) -> np.ndarray:
        """Return the accuracies of the fusion, (iterations, coefficients, 4)."""
        descriptors = self.store.array("tests/descriptors")
        counts = np.zeros((len(scores), len(COEFFICIENTS), len(MEASURES)), np.int64)
        for first in range(0, len(problem.test_rows), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            columns, n_base = problem.test_columns[block], problem.n_base
            log_logistic = model.log_probabilities(descriptors[problem.test_rows[block]])
            for t, of_iteration in enumerate(scores):
                alone = np.asarray(of_iteration[block])
                log_diffusion = log_scores(alone)
                # with coefficient 0 it is diffusion itself, for which a class that nothing reached is never right
                counts[t, 0] += count_hits(alone, columns, n_base)
                for place, coefficient in enumerate(COEFFICIENTS[1:], start=1):
                    fused = fuse(log_logistic, log_diffusion, float(coefficient))
                    counts[t, place] += count_hits(fused, columns, n_base, logarithms=True)
        return shares(counts, problem.test_columns, problem.n_base)

    def _fuse_first_group(self) -> None:
        """Write the fusions of the first group, now that their iterations are chosen."""
        if not self.fuses or self.fusion.rows:
            return
        for run, of_run in enumerate(self.surface.view()):
            self.fusion.append(np.array(of_run[self._n_iter(run % len(self.sizes))])[None])

    def _n_iter(self, place: int) -> int:
        """Return the number of iterations that is best on the first group."""
        return choose_place(self._of_first_group(self.curves.view())[:, place], self.problems[0].by)

    def _of_first_group(self, values: np.ndarray) -> np.ndarray:
        """Return results of the first group as (draws, sizes, ...)."""
        return np.asarray(values[: self.group_runs]).reshape(self.protocol.draws, len(self.sizes), *values.shape[1:])

    def _summary(self) -> dict[str, Any]:
        chosen: dict[str, dict[str, Any]] = {
            str(n): {"n_iter": None if self.variant.limit else self._n_iter(place)} for place, n in enumerate(self.sizes)
        }
        if self.fuses:
            fusion = self._of_first_group(self.fusion.view())
            for place, n in enumerate(self.sizes):
                best = choose_place(fusion[:, place], self.problems[0].by)
                chosen[str(n)]["coefficient"] = round(float(COEFFICIENTS[best]), 2)
        return {
            "sizes": list(self.sizes),
            "chosen": chosen,
            "by": self.problems[0].by,
            "logistic": self.logistic,
            "graphs": self.graphs,
            "block_seconds": {name: float(np.mean([one[name] for one in self.blocks])) for name in self.blocks[0]},
            "diffusion_seconds": {n: float(np.median(seconds)) for n, seconds in self.diffusions.items()},
        }


def _measure(scores: np.ndarray, problem: LowShot) -> np.ndarray:
    """Return the accuracies after each iteration, (T + 1, 4)."""
    counts = np.zeros((len(scores), len(MEASURES)), np.int64)
    for t, of_iteration in enumerate(scores):
        for first in range(0, len(of_iteration), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            counts[t] += count_hits(np.asarray(of_iteration[block]), problem.test_columns[block], problem.n_base)
    return shares(counts, problem.test_columns, problem.n_base)
