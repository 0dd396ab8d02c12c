"""What all stages have in common: the options of a run, and the frame in which a stage does its work."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, CorruptStore, DoesNotFit
from ..memory import Clock, MemoryBudget, MemoryMeter, StagePlan, disk_bytes_read, format_size
from ..parallel import limit_threads
from ..store import Job, Store

logger = logging.getLogger(__name__)

ROLES = ("background", "seeds", "tests")
# Images that will be part of the background have descriptors and vectors only.
DESCRIBED = (*ROLES, "added")

Advance = Callable[[int], object]
Record = dict[str, Any]


@contextlib.contextmanager
def _silent(stage: str, total: int | None, unit: str) -> Iterator[Advance]:
    yield lambda done: None


@dataclass(frozen=True)
class Settings:
    """Options that every stage takes.

    Parameters
    ----------
    memory_budget : str or int
        Limit on anonymous and shared memory, default ``"auto"``.
    threads : int, optional
        Default: all cores.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``. Default ``"auto"``.
    seed : int
        Seed of everything that is drawn, default 0.
    overwrite : bool
        Start anew where an earlier run had other parameters or inputs; what had the same is kept. Default False.
    dry_run : bool
        Only return the plan. Default False.
    progress : callable
        Given the stage, the number of units and their name, returns a context manager whose value is told the units done, first
        those that an interrupted run had done. Stages may run within others.
    """

    memory_budget: str | int | MemoryBudget = "auto"
    threads: int | None = None
    device: str = "auto"
    seed: int = 0
    overwrite: bool = False
    dry_run: bool = False
    progress: Callable[[str, int | None, str], AbstractContextManager[Advance]] = _silent

    @property
    def budget(self) -> MemoryBudget:
        """The memory budget in bytes."""
        return MemoryBudget.parse(self.memory_budget)

    def named(self, name: Callable[[str], str]) -> Settings:
        """Return these options with a progress that calls stages by other names, which ``name`` makes from their own."""
        return replace(self, progress=lambda stage, total, unit: self.progress(name(stage), total, unit))


@dataclass(frozen=True)
class Worker:
    """What the work of a stage is given."""

    job: Job
    budget: MemoryBudget
    threads: int
    advance: Advance
    clock: Clock = field(default_factory=Clock)

    def checked_blocks(self, name: str, *, rows: int, start: int) -> Iterator[np.ndarray]:
        """Yield an array of the store block by block from row ``start`` on, all of it being compared with its checksums.

        Where it has changed the work is thrown away, or the next run would go on with what was made from it.
        """
        try:
            yield from self.job.store.checked_blocks(name, rows=rows, start=start)
        except CorruptStore:
            self.job.discard()
            raise


def run_stage(
    store: Store,
    stage: str,
    settings: Settings,
    *,
    plan: StagePlan,
    parameters: dict[str, Any],
    work: Callable[[Worker], dict[str, Any]],
    inputs: Sequence[str] = (),
    replaces: Sequence[str] = (),
    title: str = "",
    total: int | None = None,
    unit: str = "rows",
    forecast: Callable[[], dict[str, Any]] | None = None,
    extend: Callable[[Job, Record], None] | None = None,
) -> Record:
    """Plan, check, run, measure and publish one stage.

    Parameters
    ----------
    store : Store
        Where it reads and publishes.
    stage : str
        Its name.
    settings : Settings
        Options of the run.
    plan : StagePlan
        What it costs.
    parameters : dict
        JSON values that determine the result.
    work : callable
        Does the work and returns what the record says besides plan and measurement.
    inputs : sequence of str
        Arrays that it reads.
    replaces : sequence of str
        Stages that make the same arrays in another way.
    title, total, unit : str, int and str
        For the progress; the title is the name of the stage where none is given.
    forecast : callable, optional
        Says more of what will be done, for ``dry_run``: entries of the record.
    extend : callable, optional
        Makes longer what the stage has published (`Job.extend`), instead of publishing it.

    Returns
    -------
    dict
        The record; with ``dry_run`` the plan alone.

    Raises
    ------
    DoesNotFit
        Before anything is written, where the budget is below the smallest that would do.
    NoSpace
        Before anything is written, where the disk has not the space.
    """
    budget = settings.budget
    options: dict[str, Any] = {"overwrite": settings.overwrite, "extends": extend is not None}
    check_plan(plan, budget)
    if settings.dry_run:
        planned = {"stage": stage, "plan": asdict(plan)}
        if forecast is None:
            return planned
        with limit_threads(settings.threads):
            return planned | forecast()
    with (
        limit_threads(settings.threads) as threads,
        store.job(stage, parameters=parameters, inputs=inputs, replaces=replaces, **options) as job,
    ):
        if job.published:
            logger.info("%s: done before, nothing to do", stage)
            return {**job.record, "skipped": True}
        job.reserve(plan.disk_bytes + plan.scratch_bytes)
        started, read_before = time.monotonic(), disk_bytes_read()
        with MemoryMeter() as meter, settings.progress(title or stage, total, unit) as advance:
            worker = Worker(job, budget, threads, advance)
            details = work(worker)
        record = {
            "stage": stage,
            **details,
            "plan": asdict(plan),
            "seconds": time.monotonic() - started,
            **({"step_seconds": worker.clock.seconds} if worker.clock.seconds else {}),
            "peak_memory_bytes": meter.peak,
            "memory_budget_bytes": budget.total,
            "read_bytes": disk_bytes_read() - read_before,
            "written_bytes": job.written_bytes,
            "resumed": job.resumed,
        }
        (Job.publish if extend is None else extend)(job, record)
        logger.info("%s: done in %.1f s, peak memory %s", stage, record["seconds"], format_size(meter.peak))
        return record


def check_plan(plan: StagePlan, budget: MemoryBudget) -> None:
    """Raise `DoesNotFit` unless the budget is at least the smallest that would do."""
    if budget.total < plan.least_bytes:
        least = f"{-(-plan.least_bytes // 2**20)}MiB"
        raise DoesNotFit(
            f"stage {plan.stage} needs a memory budget of {least} at least, but it is {format_size(budget.total)}; "
            f"give --memory-budget {least} or more"
        )


def open_store(store: Store | str | Path, *, create: bool = False) -> Store:
    """Open a store by its folder, or pass an open one through: its lock may be held across stages."""
    return store if isinstance(store, Store) else Store(store, create=create)


def store_at(path: str | Path) -> bool:
    """Return whether a path is that of a store."""
    return (Path(path) / "manifest.json").exists()


def check_role(role: str) -> str:
    """Return a role, or raise `BadInput`."""
    if role not in DESCRIBED:
        raise BadInput(f"role {role!r} is not one of {', '.join(DESCRIBED)}")
    return role


def stage_ids(store: Store) -> dict[str, str]:
    """Return what tells the published stages from those that replace them."""
    return {name: made["id"] for name, made in store.manifest.stages.items()}


def done_before(store: Store, ids: dict[str, str]) -> list[str]:
    """Return the stages that are those of an earlier `stage_ids`: their records are of another run."""
    return [name for name, made in store.manifest.stages.items() if ids.get(name) == made["id"]]


def disk_bytes(store: Store, stage: str) -> int:
    """Bytes of the arrays that a published stage made."""
    manifest = store.manifest
    return sum(manifest.arrays[name].bytes for name in manifest.stages[stage]["arrays"])
