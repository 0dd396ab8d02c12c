"""The baseline of the protocol: logistic regression on descriptors, its settings chosen on the first group."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..classify import LogisticModel, train_logistic, train_logistic_until
from ..evaluation import MEASURES, choose_place, count_hits, shares
from ..memory import StagePlan
from ..store import Store
from ..store.npy import HEADER_BYTES
from .classify import torch_device
from .low_shot import INPUTS, Labelled, LowShot, Protocol
from .plans import BLOCK_ROWS, SLACK
from .settings import Record, Settings, Worker, run_stage
from .stage_names import stage_name

# Tried on the first group; the unit of rate and decay is that of `train_logistic`, not of the paper.
GRID = tuple(
    {"learning_rate": rate, "weight_decay": decay, "batch_size": rows}
    for rows in (128, 16)
    for decay in (0.0, 1e-2)
    for rate in (1.0, 0.1)
)
# Each training is looked at after so many steps.
STEPS = (50, 250, 1000, 5000)


def low_shot_logistic(store: Store, protocol: Protocol, *, settings: Settings) -> tuple[str, Record]:
    """Train logistic regression for each group, draw and number of labelled images.

    Parameters
    ----------
    store : Store
        With descriptors and classes of background and tests.
    protocol : Protocol
        What is drawn.
    settings : Settings
        Options of the run.

    Returns
    -------
    name : str
        Of the stage, and of the folder of its arrays: ``grid`` (draws * sizes, settings tried, numbers of steps, 4), ``accuracy``
        (groups * draws * sizes, 4), and ``models_<group>`` (draws * sizes, d + 1, C), the weights and the bias of the chosen
        models.
    record : dict
        ``tried``: values of each setting. ``chosen``: the settings for each number of labelled images. ``training_seconds``:
        median seconds of a training with them.
    """
    parameters = {**protocol.parameters, "grid": list(GRID), "steps": list(STEPS)}
    name = stage_name("low-shot-logistic", parameters)
    problems = protocol.problems(store)
    record = run_stage(
        store,
        name,
        settings,
        plan=plan_logistic(store, protocol, problems, settings),
        parameters=parameters,
        inputs=INPUTS,
        title=f"logistic regression ({protocol.told})",
        total=protocol.draws * len(protocol.n_per_class) * (len(GRID) + len(problems)),
        unit="trainings",
        work=lambda worker: _train(worker, store, protocol, problems, name, settings),
    )
    return name, record


def plan_logistic(store: Store, protocol: Protocol, problems: list[LowShot], settings: Settings) -> StagePlan:
    """Plan the trainings."""
    d = store.entry("background/descriptors").shape[1]
    most = max(problem.n_classes for problem in problems)
    runs = protocol.draws * len(protocol.n_per_class)
    rows = sum(store.entry(f"{role}/truth").shape[0] for role in ("background", "tests"))
    arrays = BLOCK_ROWS * (12 * d + 48 * most) + (12 + 4 * len(STEPS)) * (d + 1) * most + 64 * rows
    least = settings.budget.overhead(torch=True) + arrays + SLACK
    work = f"{runs * (len(GRID) + len(problems)):,} trainings of {most:,} classes"
    models = 4 * runs * (d + 1) * sum(p.n_classes for p in problems)
    accuracies = 8 * runs * (len(GRID) * len(STEPS) + len(problems)) * len(MEASURES)
    headers = (2 + len(problems)) * HEADER_BYTES
    return StagePlan("low-shot-logistic", work, least, least, headers + models + accuracies)


def _train(
    worker: Worker,
    store: Store,
    protocol: Protocol,
    problems: list[LowShot],
    name: str,
    settings: Settings,
) -> dict[str, Any]:
    job, sizes = worker.job, protocol.n_per_class
    runs = protocol.draws * len(sizes)
    options = training_options(worker, settings)
    grid = job.array(f"{name}/grid", "<f8", (runs, len(GRID), len(STEPS), len(MEASURES)))
    worker.advance(grid.rows * len(GRID))
    for run in range(grid.rows, runs):
        labelled = problems[0].labelled(run // len(sizes))[run % len(sizes)]
        grid.append(np.stack([_by_steps(store, labelled, problems[0], {**tried, **options}) for tried in GRID])[None])
        job.checkpoint()
        worker.advance(len(GRID))
    tried = [{**setting, "n_steps": steps} for setting in GRID for steps in STEPS]
    found = grid.view().reshape(protocol.draws, len(sizes), len(tried), len(MEASURES))
    chosen = [tried[choose_place(found[:, place], problems[0].by)] for place in range(len(sizes))]
    seconds: dict[str, list[float]] = job.state.get("seconds", {str(n): [] for n in sizes})
    accuracy = job.array(f"{name}/accuracy", "<f8", (len(problems) * runs, len(MEASURES)))
    d = store.entry("background/descriptors").shape[1]
    for number, problem in enumerate(problems):
        kept = job.array(f"{name}/models_{number + 1}", "<f4", (runs, d + 1, problem.n_classes))
        worker.advance(kept.rows)
        for run in range(kept.rows, runs):
            labelled = problem.labelled(run // len(sizes))[run % len(sizes)]
            started = time.perf_counter()
            model = train(store, labelled, problem, {**chosen[run % len(sizes)], **options})
            seconds[str(sizes[run % len(sizes)])].append(time.perf_counter() - started)
            kept.append(np.concatenate([model.weights, model.bias[None]])[None])
            accuracy.append(accuracy_of(store, model, problem)[None])
            job.checkpoint(seconds=seconds)
            worker.advance(1)
    return {
        "sizes": list(sizes),
        "tried": {key: sorted({setting[key] for setting in tried}) for key in tried[0]},
        "chosen": dict(zip(map(str, sizes), chosen, strict=True)),
        "by": problems[0].by,
        "training_seconds": {n: float(np.median(of)) for n, of in seconds.items()},
    }


def training_options(worker: Worker, settings: Settings) -> dict[str, Any]:
    """Return what all trainings of a run are given."""
    return {"seed": settings.seed, "threads": worker.threads, "device": torch_device(settings.device)}


class _Rows:
    """Some rows of an array on disk, read when they are asked for."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self._array, self._rows = array, rows
        self.ndim, self.shape = 2, (len(rows), array.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: Any) -> np.ndarray:
        return np.asarray(self._array[self._rows[which]])


def train(store: Store, labelled: Labelled, problem: LowShot, options: dict[str, Any]) -> LogisticModel:
    """Train on what is labelled in one draw."""
    X: Any = _Rows(store.array("background/descriptors"), labelled.rows)
    return train_logistic(X, labelled.columns, n_classes=problem.n_classes, **options)


def _by_steps(store: Store, labelled: Labelled, problem: LowShot, options: dict[str, Any]) -> np.ndarray:
    """Return the accuracies after each of `STEPS`, (numbers of steps, 4)."""
    X: Any = _Rows(store.array("background/descriptors"), labelled.rows)
    models = train_logistic_until(X, labelled.columns, n_classes=problem.n_classes, n_steps=STEPS, **options)
    return np.stack([accuracy_of(store, model, problem) for model in models])


def accuracy_of(store: Store, model: LogisticModel, problem: LowShot) -> np.ndarray:
    """Return the accuracies of a model, (4,)."""
    descriptors, counts = store.array("tests/descriptors"), np.zeros(len(MEASURES), np.int64)
    for first in range(0, len(problem.test_rows), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        scores = model.log_probabilities(descriptors[problem.test_rows[block]])
        counts += count_hits(scores, problem.test_columns[block], problem.n_base, logarithms=True)
    return shares(counts, problem.test_columns, problem.n_base)


def stored_model(models: np.ndarray, run: int) -> LogisticModel:
    """Return a model from the array ``models_<group>``."""
    both = np.array(models[run])
    return LogisticModel(both[:-1], both[-1])
