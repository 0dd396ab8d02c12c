"""Runs of the protocol as the study asks for them: by setting and option, each one once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ... import __version__
from ...errors import BadInput
from ...evaluation import MEASURES, choose_place
from ...store import Store
from ..course import Course
from ..low_shot import INPUTS, LowShot, Protocol
from ..low_shot_background import Background, neighbors_text, open_background
from ..low_shot_diffusion import low_shot
from ..low_shot_knn import low_shot_knn
from ..low_shot_logistic import low_shot_logistic
from ..low_shot_smooth import low_shot_smooth
from ..low_shot_variant import COEFFICIENTS, Variant
from ..low_shot_work import diffusion_work, knn_work, logistic_work, smooth_work
from ..settings import Record, Settings
from ..stage_names import digest
from ..temporary_graphs import GraphKeeper
from .rules import rules

# Backgrounds of growing size, where they are not given: shares of all images of the other collection.
_SHARES = (1 / 16, 1 / 4, 1)


@dataclass(frozen=True)
class Found:
    """The results of one stage of the protocol.

    Parameters
    ----------
    store : Store
        Where its arrays are.
    name : str
        Of the stage.
    record : dict
        Its record.
    protocol : Protocol
        What was drawn.
    """

    store: Store
    name: str
    record: Record
    protocol: Protocol

    def values(self, array: str, n: int, *, group: int | None = None) -> np.ndarray:
        """Return an array for one number of labelled images and a group (default: the last that was run), (draws, ...)."""
        sizes = self.protocol.n_per_class
        runs = self.protocol.draws * len(sizes)
        first = ((group or self.protocol.groups[-1]) - 1) * runs
        return np.asarray(self.store.array(f"{self.name}/{array}")[first + sizes.index(n) : first + runs : len(sizes)])

    def chosen(self, n: int) -> dict[str, Any]:
        """Return what group 1 chose."""
        return self.record["chosen"][str(n)]

    def diffusion(self, n: int, measure: str, *, group: int | None = None) -> list[float]:
        """Return the accuracies of diffusion in each draw, after the chosen number of iterations, or in the limit."""
        n_iter = self.chosen(n)["n_iter"] or 0
        return self.values("curves", n, group=group)[:, n_iter, MEASURES.index(measure)].tolist()

    def best_of_draws(self, n: int, array: str, measure: str) -> list[int]:
        """Return the place of the best iteration (``curves``) or coefficient (``fusion``) of each draw of group 1."""
        values = self.values(array, n, group=1)
        return [choose_place(values[draw : draw + 1], measure) for draw in range(len(values))]

    def fusion(self, n: int, measure: str) -> list[float]:
        """Return the accuracies of the fusion in each draw, with the chosen coefficient."""
        place = int(np.argmin(np.abs(COEFFICIENTS - self.chosen(n)["coefficient"])))
        return self.values("fusion", n)[:, place, MEASURES.index(measure)].tolist()

    def accuracy(self, n: int, measure: str) -> list[float]:
        """Return the accuracies of logistic regression in each draw."""
        return self.values("accuracy", n)[:, MEASURES.index(measure)].tolist()


@dataclass
class Place:
    """Where a study is: the chapter that asks for runs now, and how far all runs are, where they were planned."""

    chapter: str = ""
    course: Course | None = None


@dataclass(frozen=True)
class Runs:
    """What the study runs on.

    Parameters
    ----------
    store : Store
        Training images and tests.
    protocol : Protocol
        Draws on both groups.
    background : Store, optional
        Another collection.
    wanted : tuple of int
        Sizes of growing backgrounds, ascending, the first images of it each; one alone: the most that are taken; none: all are.
    k : int
        Neighbors per node.
    max_iter : int
        Largest number of iterations.
    settings : Settings
        Options of the run.
    keeper : GraphKeeper
        Graphs that runs share.
    place : Place
        Which chapter asks, and how far all runs are.
    """

    store: Store
    protocol: Protocol
    background: Store | None
    wanted: tuple[int, ...]
    k: int
    max_iter: int
    settings: Settings
    keeper: GraphKeeper
    place: Place = field(default_factory=Place)

    def __post_init__(self) -> None:
        if self.background is None:
            return
        n = self._open(self.most).n  # refuses what is not there before anything is run
        if self.wanted and min(self.wanted) <= self.k:
            raise BadInput(f"`size` {min(self.wanted)} is not above `k` = {self.k}; leave it out, or lower `k`")
        if n <= self.k:
            raise BadInput(
                f"{self.background.path} has {n} images, not more than `k` = {self.k}; give a larger collection, or lower `k`"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines all figures and verdicts, as JSON values: chapters that were made with the same belong on one page."""
        other = None if self.background is None else self._open(self.most).parameters(self.k)
        growing = {"sizes": self.sizes} if len(self.wanted) > 1 else {}
        return {
            "images": digest({name: self.store.entry(name).identity for name in INPUTS}),
            "other collection": other,
            **growing,
            **self.protocol.parameters,
            "k": self.k,
            "max_iter": self.max_iter,
            "code": ".".join(__version__.split(".")[:2]),
            "rules": rules(),
        }

    @cached_property
    def _records(self) -> dict[str, Record]:
        """The records of the stages as they were when they were first asked for: later they are all done before."""
        return {}

    @cached_property
    def measure(self) -> str:
        """Which accuracy the study speaks of: that by which hyper-parameters are chosen."""
        return self.protocol.problems(self.store)[0].by

    @property
    def most(self) -> int | None:
        """Images of the other collection that are taken at most; None: all."""
        return max(self.wanted, default=None)

    @cached_property
    def sizes(self) -> list[int]:
        """Images of the other collection, ascending; none where there is no other collection."""
        if self.background is None:
            return []
        n = self._open(self.most).n
        if len(self.wanted) > 1:
            return list(self.wanted)
        return sorted({size for share in _SHARES if (size := round(share * n)) > max(self.k, 1)})

    @cached_property
    def label(self) -> str:
        """The measure as people write it, such as top-5."""
        return self.measure.replace("top", "top-")

    @property
    def n_tables(self) -> tuple[int, ...]:
        """Numbers of labelled images per novel class."""
        return self.protocol.n_per_class

    @property
    def n_parameters(self) -> int:
        """Number of labelled images in studies of parameters: 2, as in the paper, or the nearest there is."""
        return min(self.n_tables, key=lambda n: (abs(n - 2), n))

    @cached_property
    def _of_parameters(self) -> Protocol:
        """What is drawn in studies of parameters."""
        return replace(self.protocol, n_per_class=(self.n_parameters,), groups=(1,))

    @cached_property
    def n_drawn(self) -> dict[int, list[int]]:
        """Numbers of labelled images for which there is something to draw, by group: they leave images without label."""
        problems = zip(self.protocol.groups, self.protocol.problems(self.store), strict=True)
        return {group: _leaving_some(problem, self.n_tables) for group, problem in problems}

    def _open(self, size: int | None) -> Background:
        assert self.background is not None
        return open_background(self.store, self.background.path, size=size)

    def tells_prior(self, setting: str) -> bool:
        """Return whether all images of a graph have descriptors, from which a prior is estimated."""
        return setting != "out-of-domain" or self._open(self.most).described

    def diffusion(
        self,
        setting: str,
        size: int | None = None,
        *,
        transductive: bool = False,
    ) -> Found:
        """Run diffusion and fusion on both groups for all numbers of labelled images."""
        variant = Variant(setting, transductive, self.k, max_iter=self.max_iter)
        return self._run(self.protocol, variant, size, fusion=True)

    def parameter(
        self,
        setting: str,
        size: int | None = None,
        *,
        k: int | None = None,
        weights: Mapping[str, Any] | None = None,
        eta: Mapping[str, Any] | None = None,
        prior_power: float | None = None,
    ) -> Found:
        """Run diffusion alone on group 1, for the number of labelled images of studies of parameters."""
        variant = Variant(setting, False, k or self.k, weights or {}, eta or {}, prior_power, self.max_iter)
        return self._run(self._of_parameters, variant, size, fusion=False)

    def _run(self, protocol: Protocol, variant: Variant, size: int | None, *, fusion: bool) -> Found:
        background = self._open(size) if variant.setting == "out-of-domain" else None
        if fusion or variant.estimated:
            self._logistic(protocol)
        options: dict[str, Any] = {"background": background, "fusion": fusion, "keeper": self.keeper, "settings": self.settings}
        work = diffusion_work(self.store, protocol, variant, background, fusion=fusion)
        return self._found(protocol, work, *low_shot(self.store, protocol, variant, **options))

    def _found(self, protocol: Protocol, work: float, name: str, record: Record) -> Found:
        if self.place.course:
            self.place.course.end(record, work)
        return Found(self.store, name, self._records.setdefault(name, record), protocol)

    def logistic(self) -> Found:
        """Run logistic regression."""
        return self._logistic(self.protocol)

    def _logistic(self, protocol: Protocol) -> Found:
        work = logistic_work(self.store, protocol)
        return self._found(protocol, work, *low_shot_logistic(self.store, protocol, settings=self.settings))

    def smooth(self) -> Found:
        """Run graph-regularized logistic regression on group 1, for the number of labelled images of studies of parameters."""
        protocol = self._of_parameters
        self._logistic(protocol)
        options: dict[str, Any] = {"k": self.k, "keeper": self.keeper, "settings": self.settings}
        return self._found(protocol, smooth_work(self.store, protocol), *low_shot_smooth(self.store, protocol, **options))

    def knn(self) -> Found:
        """Run the kNN classifier."""
        work = knn_work(self.store, self.protocol)
        return self._found(self.protocol, work, *low_shot_knn(self.store, self.protocol, settings=self.settings))

    def neighbors(self) -> list[str]:
        """Return, for the backgrounds of the runs so far, which neighbors their images have."""
        told = [record["background"] for record in self._records.values() if record.get("background")]
        return sorted({f"{_other(each['images'])}: {neighbors_text(each)}" for each in told})

    def settings_of(self) -> list[tuple[str, str, int | None]]:
        """Return name, setting and size of the backgrounds of tables: none, growing other collections, in-domain."""
        others = [(_other(size), "out-of-domain", size) for size in self.sizes]
        return [("none", "none", None), *others, ("in-domain", "in-domain", None)]


def _leaving_some(problem: LowShot, sizes: Sequence[int]) -> list[int]:
    return [n for n, some in zip(sizes, problem.labelled(0), strict=True) if len(some.rows) < len(problem.train_rows)]


def _other(size: int) -> str:
    return f"other {size:,}"
