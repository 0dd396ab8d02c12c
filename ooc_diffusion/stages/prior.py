"""How frequent the classes are: from a file, or as logistic regression on the seeds predicts over the whole graph."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..classify import softmax, train_logistic
from ..diffusion import check_prior
from ..errors import BadInput
from ..images import printable
from ..store import Store
from .classify import torch_device
from .collection import Collection
from .plans import BLOCK_ROWS
from .selection import Seeds
from .settings import Settings, Worker

ESTIMATE = "estimate"


@dataclass(frozen=True)
class Prior:
    """How frequent the classes are.

    Parameters
    ----------
    frequencies : numpy.ndarray of shape (C,), float64, or None
        Those that were given; None: they are to be estimated.
    power : float
        Power that they are raised to.
    """

    frequencies: np.ndarray | None
    power: float

    @classmethod
    def of(cls, prior: str | Path, power: float, class_names: list[str], normalization: str) -> Prior:
        """Read what was asked for, or raise `BadInput`."""
        check_power(power, normalization)
        return cls(None if prior == ESTIMATE else read_prior(prior, class_names), power)

    @property
    def estimated(self) -> bool:
        """Whether the frequencies are to be estimated."""
        return self.frequencies is None

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the result, as JSON."""
        return {"prior": ESTIMATE if self.frequencies is None else self.frequencies.tolist(), "prior_power": self.power}

    def applied(self, worker: Worker, store: Store, seeds: Seeds, settings: Settings) -> Seeds:
        """Write the shares of the classes, and return the seeds with an η that takes their power."""
        given = self.frequencies
        shares = estimate_prior(worker, store, seeds, settings) if given is None else given / given.sum()
        shares = worker.job.put("diffusion/prior", shares)
        return replace(seeds, eta={**seeds.eta, "prior": powered(shares, self.power)})


def check_power(power: float, normalization: str) -> None:
    """Raise `BadInput` unless frequencies may be raised to a power, and η takes them."""
    if not 0 <= power < np.inf:
        raise BadInput(f"`prior_power` is {power!r}; give a number of 0 or more")
    check_prior(np.ones(1), normalization, 1)


def powered(frequencies: np.ndarray, power: float) -> np.ndarray:
    """Return frequencies, in any unit, raised to a power; one that it turned into nothing is still one."""
    return np.maximum((frequencies / frequencies.max()) ** power, np.finfo(np.float32).tiny)


def read_prior(file: str | Path, class_names: list[str]) -> np.ndarray:
    """Read a CSV with the columns ``class,frequency`` and return the frequency of each class, float64 (C,).

    Frequencies are in any unit, above 0; classes that are not diffused may stand there too.
    """
    found: dict[str, float] = {}
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as text:
            lines = csv.reader(text, strict=True)
            header = [name.strip().lower() for name in next(lines, [])]
            if sorted(header) != ["class", "frequency"]:
                raise BadInput(
                    f"{file} has the columns {', '.join(map(printable, header)) or 'none'}; give class,frequency "
                    "in its first line"
                )
            for row in lines:
                if not row:
                    continue
                if len(row) != 2:
                    raise BadInput(f"{file} line {lines.line_num} has {len(row)} fields; give a class and its frequency")
                name, frequency = row[header.index("class")], row[header.index("frequency")]
                if name in found:
                    raise BadInput(f"{file} line {lines.line_num}: class {printable(name)!r} stands there twice; keep one")
                found[name] = _number(file, lines.line_num, frequency)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; give a CSV with the columns class,frequency") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no CSV in UTF-8: {error}; give the columns class,frequency") from None
    missing = [name for name in class_names if name not in found]
    if missing:
        raise BadInput(f"{file} has no frequency of class {printable(missing[0])!r}; give one for each class that is diffused")
    return np.array([found[name] for name in class_names])


def _number(file: str | Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise BadInput(f"{file} line {line}: frequency {printable(text)!r} is no number above 0")
    return value


def estimate_prior(worker: Worker, store: Store, seeds: Seeds, settings: Settings) -> np.ndarray:
    """Return the share of each class among all nodes as logistic regression on the seeds predicts it, float64 (C,).

    Notes
    -----
    Section 3.4 and appendix B of the paper. The share is the mean of the predicted probabilities, p_c = 1/N Σ_i p(c | x_i), not a
    count of the likeliest classes: it is never 0. Descriptors are read a block at a time, whose sums are kept on disk, so that
    an interrupted run goes on behind its last block, and the sum over all does not depend on where it was interrupted.
    """
    nodes, threads = Collection(store, "nodes"), worker.threads
    sums = worker.job.array("prior/sums", "<f8", (-(-len(nodes) // BLOCK_ROWS), seeds.n_classes), scratch=True)
    if sums.rows * BLOCK_ROWS < len(nodes):
        descriptors = nodes.array("descriptors", seeds.nodes)
        training: dict[str, Any] = {"n_classes": seeds.n_classes, "seed": settings.seed, "threads": threads}
        model = train_logistic(descriptors, seeds.classes, device=torch_device(settings.device), **training)
        for first in range(sums.rows * BLOCK_ROWS, len(nodes), BLOCK_ROWS):
            block = nodes.array("descriptors", slice(first, min(first + BLOCK_ROWS, len(nodes))))
            sums.append(softmax(model.log_probabilities(block)).sum(axis=0, dtype=np.float64)[None])
            worker.job.checkpoint()
    return sums.view().sum(axis=0) / len(nodes)
