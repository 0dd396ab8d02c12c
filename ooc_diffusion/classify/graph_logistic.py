"""Logistic regression whose predictions are to change little along the edges of the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from ooc_diffusion.graph import Graph

__all__ = ["EdgeSampler", "Smoothness"]


class EdgeSampler:
    """Draws edges out of core: a node uniformly, then one of its neighbors by its weight in W.

    Parameters
    ----------
    graph : Graph
        W; the rows of drawn nodes are read from its maps.
    rng : numpy.random.Generator
        Source of the draws.
    """

    def __init__(self, graph: Graph, rng: np.random.Generator) -> None:
        self._graph, self._rng = graph, rng

    def draw(self, size: int) -> np.ndarray:
        """Return the node ids of both ends of ``size`` edges, int64 (size, 2); a node without edges is both ends."""
        from ooc_diffusion.classify import kernels  # Numba

        graph = self._graph
        weights = np.empty(0, np.float32) if graph.weights is None else graph.weights
        ends = np.empty((size, 2), np.int64)
        kernels.draw_edges(self._rng.random((size, 2)), graph.indptr, graph.indices, weights, ends)
        return graph.order[ends].astype(np.int64)


@dataclass(frozen=True)
class Smoothness:
    """What the graph adds to the objective of logistic regression.

    Parameters
    ----------
    mu : float
        Its weight μ.
    edges : EdgeSampler
        Source of the edges of each step.
    descriptors : callable
        Given node ids (m,), returns their descriptors (m, d), float32.

    Notes
    -----
    The regularized logistic regression of section 3.3 of the paper, which reports it as neutral. For p_i the class probabilities
    of node i, all nodes of the graph counting, labelled or not,

        μ / N Σ_i Σ_j W_ij |p_i - p_j|²

    is added to the loss of `train_logistic`. Since rows of W sum to 1, that is μ times the mean over edges drawn as
    `EdgeSampler` does: each step takes as many edges as it takes seeds. The differences are those of probabilities and not of
    logits, so that they are at most 2 for each edge and μ means the same for any number of classes.
    """

    mu: float
    edges: EdgeSampler
    descriptors: Callable[[np.ndarray], np.ndarray]

    def gradient(
        self, weights: torch.Tensor, bias: torch.Tensor, center: torch.Tensor, scale: float, size: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the gradients by weights (d, C) and bias (C,) over ``size`` drawn edges; None for μ = 0.

        Descriptors are centered and scaled as those of the seeds.
        """
        import torch

        if self.mu == 0:
            return None
        ends = self.edges.draw(size)
        x = torch.from_numpy(np.asarray(self.descriptors(ends.ravel()), dtype=np.float32)).to(weights.device)
        x.sub_(center).mul_(1.0 / scale)
        by_weights, by_bias, _ = smooth_gradient(weights, bias, x.reshape(size, 2, -1))
        return by_weights.mul_(self.mu), by_bias.mul_(self.mu)


def smooth_gradient(
    weights: torch.Tensor, bias: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of the mean of |p_i - p_j|² over edges by weights (d, C) and bias (C,), and that mean.

    ``x`` (m, 2, d) holds the descriptors of both ends. With δ = p_i - p_j, and J = diag(p) - p pᵀ the derivative of the softmax,
    the gradient by the logits of i is 2 J_i δ, by those of j -2 J_j δ.
    """
    import torch

    p = torch.softmax(x @ weights + bias, dim=2)
    difference = p[:, 0] - p[:, 1]
    signed = torch.stack([difference, -difference], dim=1)
    by_logits = 2.0 / len(x) * p * (signed - (p * signed).sum(dim=2, keepdim=True))
    by_logits = by_logits.reshape(-1, by_logits.shape[2])
    return x.reshape(-1, x.shape[2]).T @ by_logits, by_logits.sum(dim=0), difference.square().sum(dim=1).mean()
