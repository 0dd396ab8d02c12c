"""Multinomial logistic regression on the seeds, the baseline of the paper and one half of the late fusion."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ooc_diffusion.errors import BadInput

if TYPE_CHECKING:
    import torch

    from ooc_diffusion.classify.graph_logistic import Smoothness

__all__ = ["BalancedSampler", "LogisticModel", "train_logistic", "train_logistic_until"]

_log = logging.getLogger(__name__)

# Rows of `log_probabilities` that are in float64 at a time.
_SUB_BLOCK = 1024
# Rows read at a time for mean and scale; fixed, because float64 sums depend on the grouping too.
_STATISTICS_ROWS = 4096
# Multiply-adds of a step below which a second thread waits longer than it works, by far on a machine that has other work too.
_WORK_PER_THREAD = 2e7
# Steps whose rows are drawn at once: spares the call per step, and the stream of random numbers does not depend on it.
_DRAWN_STEPS = 256


@dataclass(frozen=True)
class LogisticModel:
    """A linear classifier with softmax, on descriptors as they are (centering and scaling are folded in).

    Parameters
    ----------
    weights : ndarray of float32, shape (d, C)
        One column per class.
    bias : ndarray of float32, shape (C,)
        One entry per class.
    """

    weights: np.ndarray
    bias: np.ndarray

    def log_probabilities(self, block: np.ndarray) -> np.ndarray:
        """Logarithms of the class probabilities of a block of descriptors.

        Parameters
        ----------
        block : ndarray, shape (b, d)
            Descriptors, cast to float32; a memmap is read in sub-blocks.

        Returns
        -------
        ndarray of float32, shape (b, C)
            Finite; a row does not depend on the rows that come with it, to the last bit.

        Raises
        ------
        BadInput
            The block is not two-dimensional with d columns, or a descriptor is not finite.

        Notes
        -----
        BLAS sums in an order that depends on the place of a row in the block and on the threads. So both factors are rounded
        to integers so short (21 bits for d = 2048) that their products sum up in float64 without rounding, in any order.
        """
        d, n_classes = self.weights.shape
        if block.ndim != 2 or block.shape[1] != d:
            raise BadInput(f"descriptors of shape {block.shape} for a model of {d} dimensions: use those it was trained on")
        bits = _exact_bits(d)
        columns, column_exponents = _fixed_point(self.weights, 0, bits)
        result = np.empty((len(block), n_classes), dtype=np.float32)
        for start in range(0, len(block), _SUB_BLOCK):
            part = np.asarray(block[start : start + _SUB_BLOCK])
            if not np.isfinite(part).all():
                raise BadInput("descriptors contain NaN or infinity: extract or import them again")
            rows, row_exponents = _fixed_point(part, 1, bits)
            logits = np.ldexp(rows @ columns, row_exponents + column_exponents) + self.bias
            logits -= logits.max(axis=1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
            result[start : start + len(part)] = np.maximum(logits, np.finfo(np.float32).min)
        return result


def _exact_bits(d: int) -> int:
    """Most bits of two factors for which a sum of d products, d * 4^bits, is exact in the 53 bits of float64."""
    return (53 - max(d - 1, 0).bit_length()) // 2


def _fixed_point(values: np.ndarray, axis: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of at most ``bits`` bits, as float64, and the exponents that scale each row (or column) of them back."""
    exact = np.asarray(values, dtype=np.float64)
    _, exponents = np.frexp(np.abs(exact).max(axis=axis, keepdims=True, initial=0.0))
    return np.rint(np.ldexp(exact, bits - exponents)), exponents - bits


class BalancedSampler:
    """Draws rows class by class: a class uniformly among those that have rows, then one of its rows uniformly.

    Parameters
    ----------
    y : ndarray of int, shape (m,)
        Class of each row.
    rng : numpy.random.Generator
        Source of the draws.
    """

    def __init__(self, y: np.ndarray, rng: np.random.Generator) -> None:
        self._order = np.argsort(y, kind="stable")
        _, self._first, self._count = np.unique(y[self._order], return_index=True, return_counts=True)
        self._rng = rng

    def draw(self, size: int) -> np.ndarray:
        """Return ``size`` row numbers, int64, with replacement."""
        # Both numbers of a row are drawn together, so that the stream is the same however the draws are grouped.
        uniform = self._rng.random((size, 2))
        chosen = (uniform[:, 0] * len(self._count)).astype(np.int64)
        return self._order[self._first[chosen] + (uniform[:, 1] * self._count[chosen]).astype(np.int64)]


def train_logistic(
    X: np.ndarray,
    y: np.ndarray,
    *,
    n_classes: int,
    learning_rate: float = 1.0,
    weight_decay: float = 1e-4,
    batch_size: int = 128,
    n_steps: int = 2000,
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    smooth: Smoothness | None = None,
) -> LogisticModel:
    """Train a linear layer with softmax by stochastic gradient descent on class-balanced batches, for a number of steps.

    Parameters
    ----------
    X : ndarray, shape (m, d)
        Descriptors of the seeds; a memmap is read batch by batch.
    y : ndarray of int, shape (m,)
        Their classes, 0 to ``n_classes`` - 1. A class without rows is only pushed down.
    n_classes : int
        Number of classes C.
    learning_rate, weight_decay : float
        Step size, and factor of ``0.5 * |weights|^2`` in the objective; the bias is not decayed. See Notes for their unit.
    batch_size, n_steps : int
        Rows per step, and steps.
    device : str
        Where torch computes: ``"cpu"`` or ``"cuda"``.
    seed : int
        Seed of the sampler. The same seed, device and threads give the same model.
    threads : int or None
        CPU threads of torch during the training, one where the steps are small; None leaves its setting.
    smooth : Smoothness or None
        Differences over the edges of a graph that are added to the objective.

    Returns
    -------
    LogisticModel
        For descriptors as they are.

    Raises
    ------
    BadInput
        Shapes or classes do not agree, a descriptor is not finite, or the training diverged.

    Notes
    -----
    The baseline of sections 3.3 and 4.1: SGD without momentum; each batch draws a class uniformly, then an image of it. The
    expected objective is the mean over classes of their mean cross-entropy, plus the decay, as in scikit-learn's
    ``LogisticRegression(class_weight="balanced", C=1 / (weight_decay * m))`` on the same inputs.

    Inside, descriptors are centered by their mean and divided by one number, the root of the mean squared norm of the
    centered rows. The curvature of the loss is then at most about 1/2 whatever the dimension and the unit of the descriptor,
    so ``learning_rate`` and ``weight_decay`` mean the same everywhere. They are not those of the paper, which are for raw
    ResNet-50 features.
    """
    return train_logistic_until(
        X,
        y,
        n_classes=n_classes,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        batch_size=batch_size,
        n_steps=(n_steps,),
        device=device,
        seed=seed,
        threads=threads,
        smooth=smooth,
    )[0]


def train_logistic_until(
    X: np.ndarray,
    y: np.ndarray,
    *,
    n_classes: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
    n_steps: Sequence[int],
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    smooth: Smoothness | None = None,
) -> list[LogisticModel]:
    """Train once and return the models that trainings of several lengths would give, to the same bytes.

    Parameters
    ----------
    X, y, n_classes, learning_rate, weight_decay, batch_size, device, seed, threads, smooth
        See `train_logistic`.
    n_steps : sequence of int
        Numbers of steps, ascending.

    Returns
    -------
    list of LogisticModel
        One for each number of steps.
    """
    import torch

    _check(X, y, n_classes, batch_size=batch_size, n_steps=n_steps)
    mean, scale = _center_and_scale(X)
    center = torch.as_tensor(mean.astype(np.float32), device=device)
    sampler = BalancedSampler(y, np.random.default_rng(seed))
    weights = torch.zeros((X.shape[1], n_classes), device=device)
    bias = torch.zeros(n_classes, device=device)
    if batch_size * X.shape[1] * n_classes < _WORK_PER_THREAD:
        threads = 1
    models = [_folded(weights, bias, mean, scale)] if 0 in n_steps else []
    with _torch_threads(threads), torch.inference_mode():
        for done, rows in enumerate(_batches(sampler, batch_size, n_steps[-1]), start=1):
            # In place is safe, indexing has copied; and it is what a step on a small batch costs most.
            x = torch.from_numpy(np.asarray(X[rows], dtype=np.float32)).to(device).sub_(center).mul_(1.0 / scale)
            target = torch.from_numpy(y[rows].astype(np.int64)).to(device)
            gradient = None if smooth is None else smooth.gradient(weights, bias, center, scale, batch_size)
            _step(weights, bias, x, target, learning_rate, weight_decay)
            if gradient is not None:
                weights.sub_(gradient[0], alpha=learning_rate)
                bias.sub_(gradient[1], alpha=learning_rate)
            if done in n_steps:
                models.append(_folded(weights, bias, mean, scale))
    if not all(np.isfinite(model.weights).all() and np.isfinite(model.bias).all() for model in models):
        raise BadInput(f"logistic regression diverged at learning rate {learning_rate:g}: use a smaller one")
    _log.debug("logistic regression: %d rows, %d steps of %d", len(y), n_steps[-1], batch_size)
    return models


def _folded(weights: torch.Tensor, bias: torch.Tensor, mean: np.ndarray, scale: float) -> LogisticModel:
    """Return the model for descriptors that are neither centered nor scaled."""
    folded = weights.cpu().numpy().astype(np.float64) / scale
    return LogisticModel(folded.astype(np.float32), (bias.cpu().numpy() - mean @ folded).astype(np.float32))


def _step(
    weights: torch.Tensor,
    bias: torch.Tensor,
    x: torch.Tensor,
    target: torch.Tensor,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """One step in place; the gradient of the mean cross-entropy is x^T (softmax - one-hot) / rows."""
    import torch

    residual = torch.softmax(torch.addmm(bias, x, weights), dim=1)
    residual[torch.arange(len(target), device=target.device), target] -= 1.0
    residual /= len(target)
    weights.mul_(1.0 - learning_rate * weight_decay)
    weights.addmm_(x.T, residual, alpha=-learning_rate)
    bias.sub_(residual.sum(dim=0), alpha=learning_rate)


def _batches(sampler: BalancedSampler, batch_size: int, n_steps: int) -> Iterator[np.ndarray]:
    for first in range(0, n_steps, _DRAWN_STEPS):
        steps = min(_DRAWN_STEPS, n_steps - first)
        yield from sampler.draw(steps * batch_size).reshape(steps, batch_size)


def _center_and_scale(X: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean row, float64 (d,), and root of the mean squared norm of the centered rows (1 if that is zero)."""
    total = np.zeros(X.shape[1])
    for start in range(0, len(X), _STATISTICS_ROWS):
        total += np.asarray(X[start : start + _STATISTICS_ROWS], dtype=np.float64).sum(axis=0)
    mean = total / len(X)
    squares = 0.0
    for start in range(0, len(X), _STATISTICS_ROWS):
        squares += float(np.square(X[start : start + _STATISTICS_ROWS] - mean).sum())
    scale = float(np.sqrt(squares / len(X)))
    if not np.isfinite(scale):
        raise BadInput("the descriptors of the seeds contain NaN or infinity: extract or import them again")
    return mean, scale or 1.0


def _check(X: np.ndarray, y: np.ndarray, n_classes: int, *, batch_size: int, n_steps: Sequence[int]) -> None:
    if X.ndim != 2 or y.shape != (len(X),):
        raise BadInput(f"descriptors of shape {X.shape} and classes of shape {y.shape}: give one class per row")
    if len(y) == 0:
        raise BadInput("logistic regression has no seeds: give at least one labelled image")
    if y.min() < 0 or y.max() >= n_classes:
        raise BadInput(f"classes {y.min()} to {y.max()} among {n_classes}: number them from 0 to {n_classes - 1}")
    if batch_size < 1 or min(n_steps) < 0:
        raise BadInput(f"batch size {batch_size}, steps {min(n_steps)}: give at least 1 row and 0 steps")


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Give torch this many threads for a while: the setting is global, and callers' own must come back."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
