"""What a study costs at most, and how many runs it takes: its chapters ask for these, and they are planned in place of run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DoesNotFit
from ...evaluation import MEASURES, random_split
from ...memory import MemoryBudget, StagePlan
from ...report import Chapter
from ...store import Store
from ..course import Asked, Course, done_run
from ..low_shot import Protocol, count_classes, make_protocol
from ..low_shot_background import Background, open_background
from ..low_shot_diffusion import low_shot
from ..low_shot_knn import NEIGHBORS, low_shot_knn
from ..low_shot_logistic import GRID, STEPS, low_shot_logistic
from ..low_shot_plan import result_bytes
from ..low_shot_smooth import MUS, low_shot_smooth
from ..low_shot_variant import COEFFICIENTS, Variant
from ..low_shot_work import diffusion_work, knn_work, logistic_work, smooth_work
from ..settings import Record, Settings, check_plan
from ..temporary_graphs import GraphKeeper
from .data import possible_sizes
from .foreseen import foresee_images, foresee_other
from .runs import Found, Runs

_UNLIMITED = 2**60
_LOGISTIC = "logistic regression"
# What a manifest says of a stage and its arrays: some 2 KiB, and 3 KiB of the longest (measured, with two n).
_STAGE_BYTES = 6 * 2**10
# Chapters that the plan of a kind of run names.
_SHOWN = 4
# Of graphs that runs share: the groups of classes, the size of the background, and whether it has the neighbors that are taken.
_Graphs = tuple[tuple[int, ...], int, bool]


def plan_study(
    chapters: Mapping[str, Callable[[Runs], Chapter]],
    data: str,
    *,
    background: str | None,
    wanted: tuple[int, ...],
    split: str | None,
    root: str | None,
    folder: Path,
    n_per_class: Sequence[int],
    draws: int,
    k: int,
    max_iter: int,
    widest: int,
    dim: int,
    settings: Settings,
) -> StudyPlan:
    """Plan a study without writing anything.

    The libraries are counted with torch throughout, which stays once it is loaded.
    """
    settings = replace(settings, dry_run=True)
    torch = settings.budget.overhead(torch=True) - settings.budget.overhead()
    images, plans = foresee_images(data, folder, root=root, dim=dim, settings=settings)
    other, more = foresee_other(background, images, folder, root=root, settings=settings)
    if other is not None:
        open_background(images, other, size=max(wanted, default=None)).warn_of_outdated()
    makings = [_Planned(plan.stage, _beside_torch(plan, torch)) for plan in [*plans, *more]]
    classes = Path(split) if split else random_split(count_classes(images), seed=settings.seed)
    sizes = possible_sizes(images, classes, n_per_class, settings.seed)
    protocol = make_protocol(images, classes, seed=settings.seed, n_per_class=sizes, draws=draws)

    def planned(budget: MemoryBudget) -> StudyPlan:
        how = replace(settings, memory_budget=budget)
        runs = PlannedRuns(images, protocol, other, wanted, k, max_iter, how, GraphKeeper(widest), torch=torch)
        for name, chapter in chapters.items():
            runs.place.chapter = name
            chapter(runs)
        return StudyPlan(images, makings, list(runs.planned.values()), settings.budget)

    try:
        return planned(settings.budget)
    except DoesNotFit:  # all that does not is shown, under the smallest budget that would do
        least = max(plan.least_bytes for plan in planned(MemoryBudget(_UNLIMITED)).plans)
        return planned(MemoryBudget(least))


@dataclass
class _Planned:
    """One stage of the study: what kind of run it is, what it costs, and which chapters ask for it.

    ``kept`` is the part of its disk that runs over the same ``graphs`` share. ``asked`` is None for the making of images.
    """

    kind: str
    plan: StagePlan
    asked: Asked | None = None
    chapters: dict[str, None] = field(default_factory=dict)
    graphs: _Graphs | None = None
    kept: int = 0


@dataclass(frozen=True)
class StudyPlan:
    """What a study would do.

    Parameters
    ----------
    images : Store
        The images, as they are or will be.
    makings, runs : list
        The stages that make them and the other collection, and the runs of the protocol.
    budget : MemoryBudget
        The budget of the study, which may be too small.
    """

    images: Store
    makings: list[_Planned]
    runs: list[_Planned]
    budget: MemoryBudget

    @cached_property
    def plans(self) -> list[StagePlan]:
        """The plans of those of a kind together, of the graphs that they share, and of the manifests."""
        stages = [*self.makings, *self.runs]
        return [*_by_kind(stages), _manifests(self.images, len(stages))]

    @property
    def course(self) -> Course:
        """All runs of the protocol, none of them done by this call."""
        return Course([run.asked for run in self.runs if run.asked is not None])

    @property
    def record(self) -> Record:
        """What a dry run returns."""
        return {
            "stage": "study",
            "images": self.images.entry("background/truth").shape[0] + self.images.entry("tests/truth").shape[0],
            **self.course.record,
            "memory_budget_bytes": self.budget.total,
            "plans": [asdict(plan) for plan in self.plans],
        }

    def require_budget(self) -> None:
        """Raise `DoesNotFit` where the budget is too small for any stage."""
        check_plan(max(self.plans, key=lambda plan: plan.least_bytes), self.budget)


@dataclass(frozen=True)
class _Unrun(Found):
    """The results of a run that was planned alone: zeros of their ``shapes``, for each draw."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def values(self, array: str, n: int, *, group: int | None = None) -> np.ndarray:
        """Return zeros."""
        return np.zeros((self.protocol.draws, *self.shapes[array]))


@dataclass(frozen=True)
class PlannedRuns(Runs):
    """Runs of which only the plans are made. What chapters ask for does not depend on results.

    Parameters
    ----------
    torch : int
        Bytes that the libraries hold more with torch than without.
    planned : dict
        The stages that were asked for, by name.
    """

    torch: int = 0
    planned: dict[str, _Planned] = field(default_factory=dict)

    def _open(self, size: int | None) -> Background:
        assert self.background is not None
        return open_background(self.store, self.background, size=size)

    def _how(self, *, torch: bool) -> Settings:
        """Return the options of a stage that counts torch among the libraries, or leaves its memory to others."""
        budget = self.settings.budget
        return replace(self.settings, memory_budget=budget if torch else MemoryBudget(budget.total - self.torch))

    def _plan(self, kind: str, work: float, name: str, record: Record, *, torch: bool = True) -> _Planned:
        if name not in self.planned:
            plan, asked = StagePlan(**record["plan"]), Asked(work, done_run(self.store, name))
            self.planned[name] = _Planned(kind, plan if torch else _beside_torch(plan, self.torch), asked)
        planned = self.planned[name]
        planned.chapters[self.place.chapter] = None
        return planned

    def _unrun(self, protocol: Protocol, name: str, record: Record, shapes: Mapping[str, tuple[int, ...]]) -> Found:
        return _Unrun(self.store, name, record, protocol, shapes)

    def _run(self, protocol: Protocol, variant: Variant, size: int | None, *, fusion: bool) -> Found:
        torch = fusion or variant.estimated
        if torch:
            self._logistic(protocol)
        background = self._open(size) if variant.setting == "out-of-domain" else None
        options: dict[str, Any] = {"background": background, "fusion": fusion, "keeper": self.keeper}
        name, record = low_shot(self.store, protocol, variant, settings=self._how(torch=torch), **options)
        work = diffusion_work(self.store, protocol, variant, background, fusion=fusion)
        planned = self._plan(_kind(variant, fusion=fusion), work, name, record, torch=torch)
        planned.graphs = _graphs(protocol, background, variant.k)
        problems = protocol.problems(self.store)
        planned.kept = planned.plan.disk_bytes - result_bytes(variant, problems, draws=protocol.draws, fusion=fusion)
        shapes = {
            "curves": (variant.kept, len(MEASURES)),
            "reached": (variant.kept,),
            "fusion": (len(COEFFICIENTS), len(MEASURES)),
        }
        sizes = [str(n) for n in protocol.n_per_class]
        about: Record = {"chosen": {n: {"n_iter": 0, "coefficient": 0.0} for n in sizes}, "block_seconds": {}}
        return self._unrun(protocol, name, {**about, "diffusion_seconds": dict.fromkeys(sizes, 0.0)}, shapes)

    def _logistic(self, protocol: Protocol) -> Found:
        name, record = low_shot_logistic(self.store, protocol, settings=self.settings)
        self._plan(_LOGISTIC, logistic_work(self.store, protocol), name, record)
        sizes, setting = [str(n) for n in protocol.n_per_class], {**GRID[0], "n_steps": STEPS[0]}
        about = {"chosen": dict.fromkeys(sizes, setting), "tried": {key: [value] for key, value in setting.items()}}
        seconds = {"training_seconds": dict.fromkeys(sizes, 0.0)}
        return self._unrun(protocol, name, {**about, **seconds}, {"accuracy": (len(MEASURES),)})

    def smooth(self) -> Found:
        """Plan graph-regularized logistic regression."""
        protocol = self._of_parameters
        self._logistic(protocol)
        name, record = low_shot_smooth(self.store, protocol, k=self.k, keeper=self.keeper, settings=self.settings)
        work = smooth_work(self.store, protocol)
        self._plan(f"{_LOGISTIC}, smooth", work, name, record).graphs = _graphs(protocol, None, self.k)
        return self._unrun(protocol, name, {"mus": list(MUS)}, {"accuracy": (len(MUS), len(MEASURES))})

    def knn(self) -> Found:
        """Plan the kNN classifier."""
        name, record = low_shot_knn(self.store, self.protocol, settings=self._how(torch=False))
        self._plan("kNN classifier", knn_work(self.store, self.protocol), name, record, torch=False)
        about = {"neighbors": list(NEIGHBORS), "chosen": {str(n): NEIGHBORS[0] for n in self.n_tables}}
        return self._unrun(self.protocol, name, about, {"accuracy": (len(NEIGHBORS), len(MEASURES))})


def _graphs(protocol: Protocol, background: Background | None, k: int) -> _Graphs:
    return (protocol.groups, 0, False) if background is None else (protocol.groups, background.n, background.takes_own(k))


def _beside_torch(plan: StagePlan, torch: int) -> StagePlan:
    return replace(plan, memory_bytes=plan.memory_bytes + torch, least_bytes=plan.least_bytes + torch)


def _kind(variant: Variant, *, fusion: bool) -> str:
    """Return what kind of run a variant is, by what makes it cost more than others."""
    if variant.transductive:
        return "tests in the graph"
    if fusion:
        return "diffusion and fusion"
    if "alpha" in variant.eta:
        return "Zhou et al., limit" if variant.limit else "Zhou et al."
    if variant.prior_power is not None:
        return "η with a prior"
    if variant.eta.get("normalization", "columns") not in ("columns", "none") or variant.eta.get("reset"):
        return "η over all columns"
    return "weighted edges" if "weighting" in variant.weights else "diffusion"


def _by_kind(planned: Sequence[_Planned]) -> list[StagePlan]:
    """Return a plan for each kind of run, and one for the graphs, which stay on disk until the end."""
    kinds: dict[str, list[_Planned]] = {}
    scratch: dict[_Graphs, int] = {}
    kept: dict[int, int] = {}
    for one in planned:
        kinds.setdefault(one.kind, []).append(one)
        if one.graphs is not None:
            scratch[one.graphs] = max(scratch.get(one.graphs, 0), one.plan.scratch_bytes)
            size = one.graphs[1]
            kept[size] = max(kept.get(size, 0), one.kept)
    sets = f"{len(scratch)} set{'s' * (len(scratch) != 1)} of graphs"
    work = f"{sets} that runs share, kept until the end; backgrounds stay searched in their stores"
    graphs = [StagePlan("graphs", work, 0, 0, sum(kept.values()), sum(scratch.values()))] if scratch else []
    return [_together(kind, of) for kind, of in kinds.items()] + graphs


def _manifests(images: Store, stages: int) -> StagePlan:
    """Return the plan of what the store says of itself, a copy of which is kept for each stage that is run."""
    last = len(images.manifest.encode()) + stages * _STAGE_BYTES
    return StagePlan("manifests", f"{stages:,} copies, one for each stage", 0, 0, last + stages * last)


def _together(kind: str, planned: Sequence[_Planned]) -> StagePlan:
    """Return the plan of all runs of a kind: one after the other, and the work of the one that takes most memory."""
    plans = [one.plan for one in planned]
    largest = max(plans, key=lambda plan: (plan.memory_bytes, plan.operations, plan.disk_bytes))
    chapters = list(dict.fromkeys(name for one in planned for name in one.chapters))
    asking = ", ".join(chapters) if len(chapters) <= _SHOWN else f"{len(chapters)} chapters"
    told = f"{len(plans)} run{'s' * (len(plans) > 1)} for {asking}; the largest: " if chapters else ""
    return StagePlan(
        kind,
        told + largest.work,
        max(plan.memory_bytes for plan in plans),
        max(plan.least_bytes for plan in plans),
        sum(one.plan.disk_bytes - one.kept for one in planned),
        max(plan.scratch_bytes for plan in plans),
        sum(plan.operations for plan in plans),
        identical_bytes=max(plan.identical_bytes for plan in plans),
    )
