"""How far a call is through all the runs that it asks for, and what time is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..report.wording import time_left
from ..store import Store
from .settings import Record, Settings

# The part of all work from which on its pace is told: a few small runs take longer than theirs, to begin with.
_ENOUGH = 0.01


@dataclass(frozen=True)
class Asked:
    """A run that a call asks for.

    Parameters
    ----------
    work : float
        What it is weighed by against others, in any unit.
    record : dict, optional
        That of the run, where it was done before.
    """

    work: float
    record: Record | None = None


class Course:
    """Counts the runs of a call as they end.

    Parameters
    ----------
    runs : sequence of Asked
        All of them.

    Attributes
    ----------
    runs, before, ended : int
        All runs, those that were done before the call, and these with those that it has done since.
    """

    def __init__(self, runs: Sequence[Asked]) -> None:
        done = [(run.record, run.work) for run in runs if run.record is not None]
        self.runs, self.before, self.ended = len(runs), len(done), len(done)
        self._all = sum(run.work for run in runs)
        self._left = sum(run.work for run in runs if run.record is None)
        self._earlier, self._now = _Pace(), _Pace()
        for record, work in done:
            self._earlier.add(record, work)

    def end(self, record: Record, work: float) -> None:
        """Count a run that ended, unless it was done before the call."""
        if not record.get("skipped"):
            self.ended += 1
            self._left -= work
            self._now.add(record, work)

    @property
    def seconds_left(self) -> float | None:
        """What is left takes so long at the pace of the runs of this call, or of earlier ones; None where these are too few."""
        told = [pace for pace in (self._now, self._earlier) if pace.work >= _ENOUGH * self._all]
        return told[0].seconds / told[0].work * max(0.0, self._left) if told else None

    @property
    def record(self) -> Record:
        """What is known before the first run, for a dry run."""
        return {"runs": self.runs, "runs_done_before": self.before, "seconds_left": self.seconds_left}

    @property
    def text(self) -> str:
        """Which run comes now, of how many, and how long all that are left take."""
        left = self.seconds_left
        return f"run {self.ended + 1} of {self.runs}" + ("" if left is None else f", about {time_left(left)} left")

    def telling(self, settings: Settings, what: Callable[[], str] = str) -> Settings:
        """Return options of runs whose progress begins with `text`, and what they are for."""
        return settings.named(lambda stage: ": ".join(filter(None, (self.text, what(), stage))))


class _Pace:
    """Adds up the seconds and the work of runs; of one that was interrupted it is not known how long it took in all."""

    def __init__(self) -> None:
        self.seconds, self.work = 0.0, 0.0

    def add(self, record: Record, work: float) -> None:
        if not record["resumed"]:
            self.seconds += record["seconds"]
            self.work += work


def done_run(store: Store, stage: str) -> Record | None:
    """Return the record of a stage that needs not be run again; None where it has to be."""
    return store.record(stage) if stage in store.manifest.stages and not store.outdated(stage) else None
