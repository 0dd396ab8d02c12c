"""What a study costs at most: the largest of its graphs, diffusions and trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...evaluation import random_split
from ...features import make_extractor
from ...images import open_source
from ...store import Store
from ..class_names import class_names
from ..low_shot import Protocol, make_protocol
from ..low_shot_background import open_background
from ..low_shot_diffusion import Variant, low_shot
from ..low_shot_knn import low_shot_knn
from ..low_shot_logistic import low_shot_logistic
from ..settings import Record, Settings
from ..temporary_graphs import GraphKeeper
from ..whole_plan import plan_all
from .data import SPLITS
from .runs import store_at

_MOST_ITER = 30


def plan_study(
    data: str,
    background: str | None,
    split: str | None,
    *,
    size: int | None,
    n_per_class: Sequence[int],
    draws: int,
    k: int,
    widest: int,
    dim: int,
    settings: Settings,
) -> Record:
    """Plan a study without writing anything; of a data set, or a store that is to be halved, from numbers of images alone."""
    if not store_at(data) or "tests/vectors" not in Store(data):
        n, d, n_classes = _count(data)
        how: dict[str, Any] = {"n_iter": _MOST_ITER, "budget": settings.budget, "network": False}
        plans = plan_all(n, d=d, dim=dim or d, k=widest, n_classes=n_classes, **how)
        if store_at(data):
            plans = [plan for plan in plans if plan.stage not in ("list", "extract")]
        return {"stage": "study", "images": n, "plans": [asdict(plan) for plan in plans]}
    images = Store(data)
    known: dict[str, Any] = {"n_per_class": tuple(sorted(set(n_per_class)))[:1], "draws": draws}
    if split is None:
        truth = images.array("background/truth")
        protocol = Protocol(random_split(len(class_names(images) or range(int(truth.max()) + 1)), seed=settings.seed), **known)
    else:
        protocol = make_protocol(images, split, seed=settings.seed, **known)
    options: dict[str, Any] = {"settings": settings}
    graphs: dict[str, Any] = {"keeper": GraphKeeper(widest), **options}
    runs = [low_shot(images, protocol, Variant("in-domain", k=k), **graphs)]
    if background is not None and store_at(background):
        other = open_background(images, background, size=size)
        runs.append(low_shot(images, protocol, Variant("out-of-domain", True, k=k), background=other, **graphs))
    runs += [low_shot_logistic(images, protocol, **options), low_shot_knn(images, protocol, **options)]
    return {"stage": "study", "plans": [record["plan"] for _, record in runs]}


def _count(data: str) -> tuple[int, int, int]:
    """Return the number of images, of values of a descriptor, and of classes."""
    if store_at(data):
        store = Store(data)
        n, d = store.entry("background/descriptors").shape
        return int(n), int(d), int(store.array("background/truth").max(initial=0)) + 1
    sources = [open_source(data, split=part) for part in SPLITS.values()]
    return sum(map(len, sources)), make_extractor("pixels", sources[0]).dim, max(1, len(sources[0].class_names or []))
