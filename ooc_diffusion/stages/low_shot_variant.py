"""What the protocol of the paper diffuses over: the setting, the graph, η and the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..diffusion import Diffusion, check_alpha, check_normalization
from ..errors import BadInput
from ..evaluation import MEASURES
from .graph import check_weights
from .low_shot import LowShot
from .low_shot_background import Background
from .prior import check_power

SETTINGS = ("none", "in-domain", "out-of-domain")
MAX_ITER = 15
# Weights of logistic regression in a fusion.
COEFFICIENTS = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Variant:
    """What is diffused over.

    Parameters
    ----------
    setting : {"none", "in-domain", "out-of-domain"}
        The background: no images but the labelled ones; the training images of novel classes that are not labelled; the images of
        another collection.
    transductive : bool
        The tests are nodes of the graph.
    k : int
        Neighbors per node.
    weights : dict
        Arguments of `graph` that say how edges are weighted. Default: constant.
    eta : dict
        Fields of `Diffusion` that say what η is. Default: columns.
    prior_power : float, optional
        Power of the frequencies of the classes by which columns are multiplied. Default: no prior.
    frequencies : dict of int to float, optional
        These, for each class of the groups. Default: those that logistic regression predicts over the whole graph.
    max_iter : int
        Largest number of iterations.
    """

    setting: str = "none"
    transductive: bool = False
    k: int = 30
    weights: Mapping[str, Any] = field(default_factory=dict)
    eta: Mapping[str, Any] = field(default_factory=dict)
    prior_power: float | None = None
    max_iter: int = MAX_ITER
    frequencies: Mapping[int, float] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines results, as JSON values."""
        found = asdict(self)
        if found.pop("frequencies") is None:  # left out, so that stages from before there was a choice stay good
            return found
        return {**found, "frequencies": {str(c): frequency for c, frequency in (self.frequencies or {}).items()}}

    @property
    def estimated(self) -> bool:
        """Whether logistic regression is to estimate a prior."""
        return self.prior_power is not None and self.frequencies is None

    @property
    def limit(self) -> bool:
        """Whether what is diffused is a limit that is solved for: one result in place of one for each iteration."""
        return bool(self.eta.get("solver", "iterate") != "iterate")

    @property
    def kept(self) -> int:
        """Results of a diffusion."""
        return 1 if self.limit else self.max_iter + 1

    @property
    def surface_values(self) -> int:
        """Accuracies of all fusions of a diffusion."""
        return self.kept * len(COEFFICIENTS) * len(MEASURES)

    def result_values(self, *, fusion: bool) -> int:
        """Return how many numbers are published of a diffusion: accuracies and shares, and accuracies of fusions."""
        return self.kept * (len(MEASURES) + 1) + fusion * len(COEFFICIENTS) * len(MEASURES)

    def told(self, background: Background | None) -> str:
        """Return what it is in words: ``in-domain, k = 30, gaussian, sigma 0.35``, ``no background, k = 30, η rows``."""
        over = f"{background.n:,} other images" if background else "in-domain" if self.setting == "in-domain" else "no background"
        said = [over, f"k = {self.k}"]
        for name, value in {**self.weights, **self.eta, "prior_power": self.prior_power}.items():
            if value is True:
                said.append(name)
            elif isinstance(value, str):
                said.append(f"η {value}" if name == "normalization" else value)
            elif value is not None and value is not False:
                said.append(f"{name.replace('_', ' ')} {value:g}")
        return ", ".join([*said, *["tests in the graph"] * self.transductive])

    def check(self, problems: Sequence[LowShot], background: Background | None) -> None:
        """Raise `BadInput` where an option is none of those allowed, or asks for more neighbors than there are images.

        Parameters
        ----------
        problems : sequence of LowShot
            Those of the groups, from group 1 on.
        background : Background, optional
            Images of another collection.
        """
        if self.setting not in SETTINGS:
            raise BadInput(f"setting {self.setting!r} is not one of {', '.join(SETTINGS)}")
        if (self.setting == "out-of-domain") != (background is not None):
            raise BadInput("`setting` out-of-domain goes with a `background`, and this with that; give both or neither")
        if self.k < 1 or self.max_iter < 0:
            raise BadInput("`k` must be at least 1, and `max_iter` at least 0")
        check_weights(**{name: value for name, value in self.weights.items() if name != "mutual"})
        nothing = np.empty(0, np.int64)
        what = Diffusion(nothing, nothing, 0, self.max_iter, every_iteration=not self.limit, **self.eta)
        check_normalization(what.normalization, what.power)
        check_alpha(what)
        if self.prior_power is not None:
            check_power(self.prior_power, what.normalization)
        if background is None:
            self._refuse_small_graphs(problems)
        elif self.k > background.n:  # they are searched among themselves
            raise BadInput(
                f"`k` is {self.k}, but there are only {background.n} images of {background.other.path}; give a `k` of at most "
                f"{background.n}"
            )

    def _refuse_small_graphs(self, problems: Sequence[LowShot]) -> None:
        """Refuse graphs in which each image would have all images as neighbors: then all classes reach it alike."""
        n, group = min((self._nodes(problem), group) for group, problem in enumerate(problems, start=1))
        if self.k < n:
            return
        if self.setting == "in-domain":
            there, where = "there", f"group {group}"
        else:
            there, where = "with few labels there", f"n = {min(problems[0].sizes)}, group {group}"
        raise BadInput(f"`k` is {self.k}, but {there} are {n} images in the graph ({where}); give a `k` of at most {n - 1}")

    def _nodes(self, problem: LowShot) -> int:
        """Return the nodes of the smallest graph of a group, without another collection."""
        labelled = len(problem.train_rows) if self.setting == "in-domain" else problem.n_labelled(min(problem.sizes))
        return labelled + len(problem.test_rows) * self.transductive
