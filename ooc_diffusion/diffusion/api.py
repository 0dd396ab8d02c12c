"""Diffusing labels over a graph, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..graph import Graph, check_table
from ..memory import MemoryBudget
from ..parallel import limit_threads
from ..store import Store
from .gpu import resolve_device
from .precision import check_precision
from .scores import Diffusion, write_scores
from .zhou import check_alpha, warn_of_unsolved

NORMALIZATIONS = ("columns", "none", "rows", "sinkhorn", "gamma")


def diffuse(
    graph: Graph | str | Path,
    seeds: np.ndarray,
    seed_classes: np.ndarray,
    n_classes: int,
    *,
    queries: np.ndarray | None = None,
    n_iter: int = 3,
    normalization: str = "columns",
    every_iteration: bool = False,
    reset: bool = False,
    power: float = 2.0,
    prior: np.ndarray | None = None,
    precision: str = "float32",
    alpha: float | None = None,
    solver: str = "iterate",
    tolerance: float = 1e-5,
    max_steps: int = 1000,
    memory_budget: str | int | MemoryBudget = "auto",
    threads: int | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """Diffuse the labels of a few nodes over the graph: L_{t+1} = η(W L_t).

    Parameters
    ----------
    graph : Graph or str or Path
        From `build_graph`, or the folder of a store with a graph.
    seeds : numpy.ndarray of shape (m,), integers
        Ids of the labelled nodes.
    seed_classes : numpy.ndarray of shape (m,), integers
        Their classes, 0 to ``n_classes`` - 1.
    n_classes : int
        Number of classes C.
    queries : numpy.ndarray of shape (q, k), integers, optional
        Neighbors, in the graph, of images that stand outside it; -1 = none. Default: all nodes of the graph are read.
    n_iter : int
        Number of iterations T, default 3. 0 reads the seeds alone.
    normalization : {"columns", "none", "rows", "sinkhorn", "gamma"}
        η; columns and rows of zeros stay as they are. Default ``"columns"``.

        - ``"columns"``: each column is divided by its sum, and multiplied by p_c where there is a ``prior``.
        - ``"none"``: nothing is done.
        - ``"rows"``: each row is divided by its sum.
        - ``"sinkhorn"``: 5 times the columns are scaled to sums in proportion to ``prior``, then each row is divided by its sum.
        - ``"gamma"``: the Γ_r of Markov clustering. Each column is divided by its sum, each entry raised to ``power``, and each
          column divided by its sum again.
    every_iteration : bool
        Return the scores of all iterations. Default False.
    reset : bool
        Set the rows of the seeds back to one-hot after each iteration, behind η. Default False.
    power : float
        r of ``"gamma"``, which Markov clustering calls inflation: more than 1, at most 2. Default 2. Other η do not look at it.
    prior : numpy.ndarray of shape (n_classes,), floats, optional
        Frequencies p_c of the classes, in any unit (they are divided by their sum), for ``"columns"`` and ``"sinkhorn"``.
        Default: all classes are equally frequent.
    precision : {"float32", "bfloat16"}
        How L_t is stored. ``"bfloat16"`` takes half the memory, so that a budget holds up to twice the columns, and costs
        accuracy: in each iteration each entry is rounded to 8 bits, relatively by 2^-8 at most and by 2^-9.5 on average. Not for
        rows, Sinkhorn, Γ_r, ``reset``, ``alpha`` or a GPU. Default ``"float32"``.
    alpha : float, optional
        Above 0 and below 1: the diffusion of Zhou et al. instead, in which each node keeps a part of what it began with. For
        ``"columns"`` and ``"none"``, which are applied once, at the end, and without ``reset``. Default: none.
    solver : {"iterate", "conjugate-gradient"}
        With ``alpha``: ``n_iter`` iterations, or the limit of infinitely many, solved for by conjugate gradients, which do not
        look at ``n_iter`` nor allow ``every_iteration``. Default ``"iterate"``.
    tolerance : float
        Conjugate gradients end where the residual of each entry is at most this part of the entry itself, so that those of nodes
        far from the seeds are as exact, relatively, as others; entries below 1e-30 are not looked at. Default 1e-5: L is stored
        as float32, which hardly holds less than 1e-6.
    max_steps : int
        Or after so many steps, with a warning. A label goes one edge further with each. Default 1000.
    memory_budget : str, int or MemoryBudget
        Limit on anonymous and shared memory, default ``"auto"``. The result does not depend on it.
    threads : int, optional
        Default: all cores. The result does not depend on it.
    device : {"cpu", "cuda", "auto"}
        Where to multiply; ``"cuda:1"`` is the second GPU, ``"auto"`` a GPU where there is one. Default ``"cpu"``. Scores from a
        GPU equal those of the CPU within the rounding of float32.

    Returns
    -------
    numpy.ndarray of shape (q, n_classes), float32
        For each query the sum over its neighbors of the rows of L_T. Without ``queries``: a read-only map of shape
        (n, n_classes), L_T itself. Rows are in the caller's ids. With ``every_iteration`` there is a leading axis t = 0 .. T.
        A row of zeros is a query or node that no label reached.

    Raises
    ------
    BadInput
        If ids or classes are out of range, an option is none of those allowed, the arrays do not belong together, or the GPU is
        not there.
    DoesNotFit
        If the budget, or the memory of the GPU, does not hold one column, or a few rows of all columns; the message names the
        smallest that would do.

    Notes
    -----
    Douze et al., CVPR 2018, sections 3.3 and 3.4. Column normalization is linear, so that doing it once, when L_t is read, equals
    doing it in every iteration. A seed given twice with the same class counts once; with two classes it counts in both.

    With ``reset``, or with rows, Sinkhorn or Γ_r, L_0 is one-hot as it is, L_{t+1} = reset(η(W L_t)) is computed for all columns
    in every iteration, nothing skipped, and L_T is read as it is; 8 n C bytes on disk are in use meanwhile. The reset comes last:
    columns that were divided by their sums no longer sum to 1, and the row of a seed given to two classes holds two ones. L_t is
    stored as float32, in which Γ_r soon turns the smallest entries to zero.

    With ``alpha``, L_{t+1} = α 𝒲 L_t + (1 - α) L_0 with the symmetric 𝒲 = D^(-1/2) (W0 + W0ᵀ) D^(-1/2), whose limit is
    (1 - α) (I - α 𝒲)⁻¹ L_0 (Zhou, Bousquet, Lal, Weston, Schölkopf, NIPS 2003). A node without edges keeps (1 - α) L_0. Every row
    is computed in every step, with 8 n bytes of memory for each column of a batch, 16 n for conjugate gradients.

    Examples
    --------
    >>> import numpy as np
    >>> from ooc_diffusion import build_graph
    >>> graph = build_graph(np.array([[0, 1], [1, 0], [2, 1]]))
    >>> diffuse(graph, [0], [0], 1, queries=np.array([[0, -1], [2, 1]]), n_iter=1)
    array([[0.5555555 ],
           [0.44444445]], dtype=float32)
    """
    graph = graph if isinstance(graph, Graph) else Graph(graph)
    seeds, seed_classes = check_seeds(seeds, seed_classes, graph.n, n_classes)
    if queries is not None:
        queries = np.asanyarray(queries)
        check_table(queries, what="table of query neighbors", n=graph.n)
    if not isinstance(n_iter, int | np.integer) or n_iter < 0:
        raise BadInput(f"`n_iter` is {n_iter!r}; give a whole number of iterations, 0 or more")
    check_normalization(normalization, power)
    prior = None if prior is None else check_prior(prior, normalization, n_classes)
    what = Diffusion(
        seeds,
        seed_classes,
        n_classes,
        n_iter,
        queries,
        normalization,
        every_iteration,
        reset,
        power,
        prior,
        precision,
        alpha,
        solver,
        tolerance,
        max_steps,
    )
    check_alpha(what)
    check_precision(precision, unskipped=what.unskipped)
    device = resolve_device(device, unskipped=what.unskipped, precision=precision)
    scores = diffuse_once(graph, what, budget=MemoryBudget.parse(memory_budget), threads=threads, device=device)
    scores = scores if every_iteration else scores[0]
    return scores if queries is None else np.array(scores)


def diffuse_once(
    graph: Graph, what: Diffusion, *, budget: MemoryBudget, threads: int | None, device: str = "cpu", warn: bool = True
) -> np.ndarray:
    """Diffuse into a temporary store beside the graph and return a read-only map (kept, rows, C) of the scores.

    ``warn``: say it where classes are not solved for.
    """
    store = Store.temporary(inside=graph.store.path / "jobs")
    with limit_threads(threads) as n_threads, store.job("diffuse", parameters={}) as job:
        record = write_scores(job, graph, what, name="scores", budget=budget, threads=n_threads, device=device)
        job.publish({})
    if warn:
        warn_of_unsolved(record, what)
    return store.array("scores").reshape(what.kept, -1, what.n_classes)


def check_seeds(seeds: np.ndarray, seed_classes: np.ndarray, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seeds and classes as int64, or raise `BadInput` naming the first that is wrong."""
    seeds, seed_classes = np.asarray(seeds), np.asarray(seed_classes)
    if seeds.ndim != 1 or seeds.shape != seed_classes.shape:
        raise BadInput(f"seeds {seeds.shape} and seed_classes {seed_classes.shape} must be two lists of equal length")
    if len(seeds) == 0:
        raise BadInput("there are no seeds: label at least one image")
    for name, values, end in (("seeds", seeds, n), ("seed_classes", seed_classes, n_classes)):
        if values.dtype.kind not in "iu":
            raise BadInput(f"{name} holds {values.dtype}; give integers")
        bad = (values < 0) | (values >= end)
        if bad.any():
            raise BadInput(f"{name}[{np.argmax(bad)}] is {values[np.argmax(bad)]}; it must be from 0 to {end - 1}")
    return seeds.astype(np.int64), seed_classes.astype(np.int64)


def check_normalization(normalization: str, power: float) -> None:
    """Raise `BadInput` unless η is one of those there are, and its power one that Γ_r takes."""
    if normalization not in NORMALIZATIONS:
        raise BadInput(f"normalization {normalization!r} is not one of {', '.join(NORMALIZATIONS)}")
    if not isinstance(power, int | float | np.integer | np.floating) or not 1 < power <= 2:
        raise BadInput(f"`power` is {power!r}; give a number above 1 and at most 2")


def check_prior(prior: np.ndarray, normalization: str, n_classes: int) -> np.ndarray:
    """Return the prior as float64, or raise `BadInput`."""
    if normalization not in ("columns", "sinkhorn"):
        raise BadInput(f"`prior` is for `normalization` columns or sinkhorn, not {normalization}; leave it out")
    prior = np.asarray(prior)
    if prior.shape != (n_classes,) or prior.dtype.kind not in "iuf":
        raise BadInput(f"prior is {prior.dtype} {prior.shape}; give a number for each of the {n_classes} classes")
    bad = ~(np.isfinite(prior) & (prior > 0))
    if bad.any():
        raise BadInput(f"prior[{np.argmax(bad)}] is {prior[np.argmax(bad)]}; give frequencies above 0")
    return prior.astype(np.float64)
