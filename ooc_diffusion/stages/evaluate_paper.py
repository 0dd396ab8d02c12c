"""`evaluate --protocol paper`: all methods in one setting, with hyper-parameters of the first group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..evaluation import MEASURES
from ..store import Store
from .class_names import class_names
from .course import Asked, Course, done_run
from .draw_files import check_draw_folder, write_draws
from .low_shot import N_PER_CLASS, Protocol, make_protocol
from .low_shot_background import open_background
from .low_shot_diffusion import low_shot
from .low_shot_knn import low_shot_knn
from .low_shot_logistic import low_shot_logistic
from .low_shot_variant import COEFFICIENTS, MAX_ITER, SETTINGS, Variant
from .low_shot_work import diffusion_work, knn_work, logistic_work
from .neighbors import DEFAULT_K
from .prior import ESTIMATE, read_prior
from .seen_classes import seen_novel_classes
from .settings import Record, Settings, done_before, stage_ids, store_at

TRANSDUCTIVE = "transductive"
METHODS = ("kNN", "diffusion", "logistic regression", "fusion")
# What a run is weighed by, and a function of the settings that returns its name and record.
_Run = tuple[float, Callable[..., tuple[str, Record]]]


def evaluate_paper(
    store: str | Path,
    *,
    split: str | Path,
    setting: str = "none",
    background: str | Path | None = None,
    size: int | None = None,
    k: int = DEFAULT_K,
    n_per_class: Sequence[int] = N_PER_CLASS,
    draws: int = 5,
    max_iter: int = MAX_ITER,
    weights: Mapping[str, Any] | None = None,
    eta: Mapping[str, Any] | None = None,
    prior: str | Path | None = None,
    prior_power: float = 1.0,
    draws_to: str | Path | None = None,
    settings: Settings | None = None,
) -> Record:
    """Measure kNN, diffusion, logistic regression and fusion as in section 4.1 of the paper.

    Parameters
    ----------
    store : str or Path
        A store with training images as background, and tests; both reduced, with true classes.
    split : str or Path
        Which classes are base and which novel, in two groups; see `read_split`.
    setting : {"none", "in-domain", "out-of-domain", "transductive"}
        The background: no images but the labelled ones; the unlabelled training images of novel classes; those of another store.
        Transductive: the tests join the graph, over the images of another store where one is given. Default ``"none"``.
    background : str or Path, optional
        The other store.
    size : int, optional
        Take its first images only. Default: all.
    k : int
        Neighbors per node, fewer than the smallest graph has nodes: in the setting none these are the labelled images of the
        least number per class. Default 30.
    n_per_class : sequence of int
        Labelled images per novel class, default 1, 2, 5, 10, 20.
    draws : int
        Draws of the labelled images, nested in n and the same for all methods. Default 5.
    max_iter : int
        Largest number of iterations, default 15.
    weights : dict, optional
        How edges are weighted: the arguments ``weighting``, ``sigma``, ``rate`` and ``mutual`` of `graph`. Default: constant.
    eta : dict, optional
        What is iterated: the arguments ``normalization``, ``reset``, ``power``, ``alpha``, ``solver``, ``tolerance`` and
        ``max_steps`` of `diffuse`. Default: columns.
    prior : str or Path, optional
        How frequent the classes are, as for `diffuse`: a CSV with the columns ``class,frequency`` for the classes of both groups,
        or ``"estimate"``: by logistic regression on the labelled images of each draw. Default: all are equally frequent.
    prior_power : float
        Power that these frequencies are raised to. Default 1.
    draws_to : str or Path, optional
        Folder to write the labelled images of each draw to; see `write_draws`. One that holds other files needs ``overwrite``.
        Default: they are not written.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        ``chosen``: what group 1 chose for each n; ``accuracy``: for each group, method and n the accuracies of each draw,
        those of ``measures``. ``variant``: what differs from the default of weights, η and prior. ``neighbors``: which the images
        of the background have, see `told_neighbors`. ``draws``: the folder that was written. ``done_before``: the stages whose
        records are of an earlier run.

    Notes
    -----
    All training images of base classes are labelled, and n of each novel class. Tests are those of all classes of a group, and
    predictions compete among these. Numbers of iterations and of neighbors, settings of logistic regression and fusion weights
    are chosen on group 1, by the mean top-5 accuracy over the draws (top-1 with fewer than 20 classes), and frozen for group 2.
    """
    settings = settings or Settings()
    if setting not in (*SETTINGS, TRANSDUCTIVE):
        raise BadInput(f"setting {setting!r} is not one of {', '.join((*SETTINGS, TRANSDUCTIVE))}")
    if background is not None and setting not in ("out-of-domain", TRANSDUCTIVE):
        raise BadInput(f"a `background` goes with `setting` out-of-domain or transductive, not with {setting}; leave out either")
    if background is not None and not store_at(background):
        raise BadInput(f"{background} holds no store; give that of another collection as `background`")
    target = Store(store)
    sizes = tuple(sorted(set(n_per_class)))
    protocol = make_protocol(target, split, seed=settings.seed, n_per_class=sizes, draws=draws)
    seen_novel_classes(target, protocol.split)
    other = None if background is None else open_background(target, background, size=size)
    if other is not None:
        other.warn_of_outdated()
    if size is not None and other is None:
        raise BadInput("`size` is a number of images of a `background`; give that as well")
    over = ("out-of-domain" if other else "none") if setting == TRANSDUCTIVE else setting
    power = None if prior is None else prior_power
    known = _frequencies(prior, protocol, class_names(target))
    variant = Variant(over, setting == TRANSDUCTIVE, k, weights or {}, eta or {}, power, max_iter, known)
    if draws_to is not None:
        check_draw_folder(target, protocol, draws_to, overwrite=settings.overwrite)
    runs: dict[str, _Run] = {
        "logistic": (logistic_work(target, protocol), partial(low_shot_logistic, target, protocol)),
        "diffusion": (
            diffusion_work(target, protocol, variant, other, fusion=True),
            partial(low_shot, target, protocol, variant, background=other),
        ),
        "knn": (knn_work(target, protocol), partial(low_shot_knn, target, protocol)),
    }
    # what is refused, or does not fit, is so before any of it is run
    planned = {name: run(settings=replace(settings, dry_run=True)) for name, (_, run) in runs.items()}
    course = Course([Asked(work, done_run(target, planned[name][0])) for name, (work, _) in runs.items()])
    if settings.dry_run:
        return {**course.record, "stage": "evaluate", "plans": [record["plan"] for _, record in planned.values()]}
    started = time.monotonic()
    before = stage_ids(target)
    records = {}
    for name, (work, run) in runs.items():
        records[name] = run(settings=course.telling(settings))
        course.end(records[name][1], work)
    chosen = {
        str(n): {
            **records["diffusion"][1]["chosen"][str(n)],
            "neighbors": records["knn"][1]["chosen"][str(n)],
            "logistic": records["logistic"][1]["chosen"][str(n)],
        }
        for n in sizes
    }
    return {
        "stage": "evaluate-paper",
        "setting": setting,
        "background": None if other is None else other.n,
        "variant": {
            **variant.weights,
            **variant.eta,
            **({} if prior is None else {"prior": str(prior), "prior_power": prior_power}),
        },
        "neighbors": records["diffusion"][1].get("background"),
        "n_per_class": list(sizes),
        "methods": list(METHODS),
        "measures": list(MEASURES),
        "by": records["diffusion"][1]["by"],
        "chosen": chosen,
        "accuracy": _accuracies(target, records, chosen, sizes, draws),
        "seconds": time.monotonic() - started,
        "peak_memory_bytes": max(record["peak_memory_bytes"] for _, record in records.values()),
        **({} if draws_to is None else {"draws": write_draws(target, protocol, draws_to)}),
        "done_before": [name for name in done_before(target, before) if name in {name for name, _ in records.values()}],
    }


def _frequencies(prior: str | Path | None, protocol: Protocol, names: list[str] | None) -> dict[int, float] | None:
    """Read the frequencies of the classes of all groups; None where they are not given."""
    if prior is None or prior == ESTIMATE:
        return None
    classes = [int(c) for number in protocol.groups for c in protocol.split.groups[number - 1].classes]
    found = read_prior(prior, [names[c] if names else str(c) for c in classes])
    return dict(zip(classes, found.tolist(), strict=True))


def _accuracies(
    store: Store, records: dict[str, tuple[str, Record]], chosen: dict[str, Any], sizes: tuple[int, ...], draws: int
) -> dict[str, Any]:
    """Return ``{group: {method: {n: [accuracies of a draw, ...]}}}``."""
    curves, fusion = (store.array(f"{records['diffusion'][0]}/{name}") for name in ("curves", "fusion"))
    logistic, knn = (store.array(f"{records[name][0]}/accuracy") for name in ("logistic", "knn"))
    neighbors = records["knn"][1]["neighbors"]
    result: dict[str, Any] = {}
    for number in range(len(curves) // (draws * len(sizes))):
        runs = slice(number * draws * len(sizes), (number + 1) * draws * len(sizes))
        found: dict[str, dict[str, list[list[float]]]] = {method: {} for method in METHODS}
        for place, n in enumerate(map(str, sizes)):
            mine = slice(runs.start + place, runs.stop, len(sizes))
            coefficient = int(np.argmin(np.abs(COEFFICIENTS - chosen[n]["coefficient"])))
            of_method = (
                knn[mine, neighbors.index(chosen[n]["neighbors"])],
                curves[mine, chosen[n]["n_iter"] or 0],  # of a limit there is no other
                logistic[mine],
                fusion[mine, coefficient],
            )
            for method, values in zip(METHODS, of_method, strict=True):
                found[method][n] = np.asarray(values).tolist()
        result[f"group {number + 1}"] = found
    return result
