"""The door for Python: label diffusion in the manner of scikit-learn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .classify import predict as predict_rows
from .diffusion import check_normalization, check_precision, diffuse_once, kernels
from .errors import BadInput
from .graph import build_graph
from .memory import MemoryBudget
from .neighbors import Inverted, assign_lists, choose_index, locality_order, n_lists, search, train_centroids
from .parallel import limit_threads
from .stages.selection import Seeds, select_iterations
from .store import Store

_BLOCK_ROWS = 4096
_INDEXES = ("auto", "Flat", "IVFFlat")


class LabelDiffusion(ClassifierMixin, BaseEstimator):
    """Labels for many vectors from a few labelled ones, by diffusion over the graph of nearest neighbors.

    Parameters
    ----------
    n_neighbors : int
        Neighbors k of each vector, itself included. Default 30.
    n_iter : int or "auto"
        Number of iterations T; ``"auto"`` chooses it by cross-validation on the labelled vectors. Default 3.
    normalization : {"columns", "none", "rows", "sinkhorn", "gamma"}
        η, as in `ooc_diffusion.diffuse`: every class gets the same mass, none, every vector, both, or Γ_r. Default ``"columns"``.
    reset : bool
        Set labelled vectors back to their labels after each iteration. Default False.
    power : float
        r of ``"gamma"``, more than 1 and at most 2. Default 2.
    precision : {"float32", "bfloat16"}
        How L is stored, as in `ooc_diffusion.diffuse`; ``"bfloat16"`` for columns or none without reset. Default ``"float32"``.
    metric : {"euclidean", "cosine"}
        Distance; the same thing for vectors of unit length. Default ``"euclidean"``.
    index : {"auto", "Flat", "IVFFlat"}
        Exact search, or inverted lists; ``"auto"`` is exact up to 100 000 vectors. Default ``"auto"``.
    memory_budget : str or int
        Limit on anonymous and shared memory while the graph is built and the labels are diffused, ``X`` and what was there before
        included; the search for neighbors takes a block of ``X`` besides, or a copy with ``"IVFFlat"`` or ``"cosine"``. Default
        ``"auto"``.
    store : str or Path, optional
        Folder in which ``label-diffusion`` keeps the graph; a later `fit` to the same ``X`` finds it there, another replaces it.
        Default: a temporary one.
    threads : int, optional
        Default: all cores.
    random_state : int
        Seed of k-means and of the folds, default 0.

    Attributes
    ----------
    classes_ : numpy.ndarray of shape (n_classes,)
        The labels.
    transduction_ : numpy.ndarray of shape (n,)
        Label of each vector given to `fit`: the given one, else the predicted one; -1 (None for labels that are no numbers)
        where no label arrived.
    label_distributions_ : numpy.ndarray of shape (n, n_classes), float32
        Rows of η(L_T), each divided by its sum; zeros where no label arrived. A map of a file that is removed at the end.
    unreached_ : numpy.ndarray of shape (n,), bool
        Where no label arrived.
    n_iter_ : int
        Number of iterations done.
    n_features_in_ : int
        Dimensions seen in `fit`.

    See Also
    --------
    ooc_diffusion.build_graph, ooc_diffusion.diffuse : The same for a neighbor table of your own.

    Notes
    -----
    Douze, Szlam, Hariharan, Jégou, "Low-shot learning with large-scale diffusion", CVPR 2018. A vector outside the graph is
    scored by the sum over its neighbors of their rows of η(L_T).

    Examples
    --------
    >>> import numpy as np
    >>> from ooc_diffusion import LabelDiffusion
    >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32) + np.repeat([[0, 0], [9, 9]], 100, axis=0)
    >>> y = np.full(200, -1)
    >>> y[[0, 100]] = [3, 7]
    >>> model = LabelDiffusion(n_neighbors=10, n_iter="auto").fit(X, y)
    >>> int((model.transduction_[:100] == 3).sum()), int((model.transduction_[100:] == 7).sum())
    (100, 100)
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 30,
        n_iter: int | str = 3,
        normalization: str = "columns",
        reset: bool = False,
        power: float = 2.0,
        precision: str = "float32",
        metric: str = "euclidean",
        index: str = "auto",
        memory_budget: str | int = "auto",
        store: str | Path | None = None,
        threads: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_iter = n_iter
        self.normalization = normalization
        self.reset = reset
        self.power = power
        self.precision = precision
        self.metric = metric
        self.index = index
        self.memory_budget = memory_budget
        self.store = store
        self.threads = threads
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray) -> LabelDiffusion:
        """Build the graph of ``X`` and diffuse the labels over it.

        Parameters
        ----------
        X : numpy.ndarray of shape (n, d), float32
            All vectors, labelled or not; may be a memmap. Kept by reference for `predict`.
        y : numpy.ndarray of shape (n,)
            Labels, numbers or strings; -1, or None among strings, for a vector without one.

        Returns
        -------
        LabelDiffusion
            Itself.

        Raises
        ------
        BadInput
            If no vector is labelled, n_neighbors > n, or a parameter is none of those allowed.
        """
        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        self._check(len(X))
        seeds = self._read_labels(X, y)
        check_precision(self.precision, unskipped=seeds.diffusion(0, None).unskipped)
        budget = MemoryBudget.parse(self.memory_budget)
        self._vectors = self._scaled(X)
        self._inverted: Inverted | None = None
        table, order = self._table(self._vectors, budget)
        folder = None if self.store is None else Path(self.store) / "label-diffusion"
        graph = build_graph(table, store=folder, order=order, memory_budget=budget, threads=self.threads, overwrite=True)
        if self.n_iter == "auto":
            with limit_threads(self.threads) as threads:
                chosen = select_iterations(graph, seeds, None, seed=self.random_state, budget=budget, threads=threads)
            self.n_iter_ = chosen.n_iter
        else:
            self.n_iter_ = int(self.n_iter)
        self._scores = diffuse_once(graph, seeds.diffusion(self.n_iter_, None), budget=budget, threads=self.threads)[0]
        self._finish(seeds)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Label vectors that may stand outside the graph.

        Parameters
        ----------
        X : numpy.ndarray of shape (q, d), float32
            The vectors.

        Returns
        -------
        numpy.ndarray of shape (q,)
            Labels of `classes_`; -1 (None for labels that are no numbers) where no label reaches the neighbors.
        """
        return self._named(predict_rows(self._score(X))[0])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the share of each class in the scores of vectors.

        Parameters
        ----------
        X : numpy.ndarray of shape (q, d), float32
            The vectors.

        Returns
        -------
        numpy.ndarray of shape (q, n_classes), float32
            Rows that sum to 1, or of zeros where no label reaches the neighbors.
        """
        return _shares(self._score(X))

    def _check(self, n: int) -> None:
        if not isinstance(self.n_neighbors, int | np.integer) or self.n_neighbors < 1:
            raise BadInput(f"n_neighbors is {self.n_neighbors!r}; give a whole number of at least 1")
        if self.n_neighbors > n:
            raise BadInput(f"n_neighbors is {self.n_neighbors}, but n_samples is {n}; give at most {n}")
        if self.n_iter != "auto" and (not isinstance(self.n_iter, int | np.integer) or self.n_iter < 0):
            raise BadInput(f"n_iter is {self.n_iter!r}; give 0 or more iterations, or 'auto'")
        check_normalization(self.normalization, self.power)
        if self.metric not in ("euclidean", "cosine"):
            raise BadInput(f"metric {self.metric!r} is not one of euclidean, cosine")

    def _read_labels(self, X: np.ndarray, y: np.ndarray) -> Seeds:
        from sklearn.utils.validation import check_consistent_length, column_or_1d

        if y is None:
            raise BadInput("requires y to be passed, but the target y is None")
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise BadInput(f"Input y contains NaN or infinity, first in row {np.argmin(np.isfinite(y))}; -1 is for no label")
        # NumPy itself turns the -1 of a list with strings into "-1"
        nothing: Any = "-1" if y.dtype.kind == "U" else -1
        known = y != nothing if y.dtype != object else np.array([value not in (None, -1, "-1") for value in y])
        if not known.any():
            raise BadInput("no vector is labelled: y is -1 (or None) everywhere; label at least one of each class")
        given = y[known]
        if given.dtype == object and not any(isinstance(value, str) for value in given):
            given = np.array(given.tolist())
        _check_targets(given)
        self.classes_, classes = np.unique(given, return_inverse=True)
        eta = {"normalization": self.normalization, "reset": self.reset, "power": self.power, "precision": self.precision}
        return Seeds(np.flatnonzero(known), classes.astype(np.int64), len(self.classes_), eta)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        if self.metric == "euclidean":
            return X
        norms = np.linalg.norm(X, axis=1, keepdims=True)
        return X / np.where(norms > 0, norms, 1)

    def _table(self, X: np.ndarray, budget: MemoryBudget) -> tuple[np.ndarray, np.ndarray | None]:
        """Return neighbor ids (n, k) on disk, and the locality order where the set is large enough to have one."""
        n, k = len(X), int(self.n_neighbors)
        index = choose_index(n, self.index, indexes=_INDEXES)
        order = None
        store = Store.temporary()
        with limit_threads(self.threads), store.job("neighbors", parameters={}) as job:
            if n_lists(n):
                centroids = train_centroids(X, seed=self.random_state)
                blocks = [assign_lists(X[i : i + _BLOCK_ROWS], centroids) for i in range(0, n, _BLOCK_ROWS)]
                lists = np.concatenate(blocks)
                order, _ = locality_order(lists, len(centroids))
                self._inverted = Inverted(centroids, lists) if index == "IVFFlat" else None
            ids = job.array("ids", "<i4", (n, k))
            for block, _ in self._neighbors(X, k):
                ids.append(block)
            job.publish({})
        return store.array("ids"), order

    def _neighbors(self, queries: np.ndarray, k: int) -> Any:
        return search(self._vectors, queries, k=k, inverted=self._inverted, metric="euclidean")

    def _finish(self, seeds: Seeds) -> None:
        n = len(self._scores)
        labels = np.empty(n, np.int32)
        store = Store.temporary()
        with store.job("shares", parameters={}) as job:
            shares = job.array("shares", "<f4", self._scores.shape)
            for first in range(0, n, _BLOCK_ROWS):
                block = np.array(self._scores[first : first + _BLOCK_ROWS])
                labels[first : first + _BLOCK_ROWS] = predict_rows(block)[0]
                shares.append(_shares(block))
            job.publish({})
        self.label_distributions_ = store.array("shares")
        self.unreached_ = labels < 0
        labels[seeds.nodes] = seeds.classes
        self.unreached_[seeds.nodes] = False
        self.transduction_ = self._named(labels)

    def _score(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        queries = self._scaled(validate_data(self, X, dtype=np.float32, reset=False))
        scores = np.empty((len(queries), len(self.classes_)), np.float32)
        same, ones = np.arange(len(self._scores), dtype=np.uint32), np.ones(len(self.classes_))
        first = 0
        with limit_threads(self.threads):
            for ids, _ in self._neighbors(queries, int(self.n_neighbors)):
                kernels.read_rows(ids, same, self._scores, ones, scores[first : first + len(ids)])
                first += len(ids)
        return scores

    def _named(self, labels: np.ndarray) -> np.ndarray:
        if (labels >= 0).all():
            return self.classes_[labels]
        if self.classes_.dtype.kind in "iuf":
            kind = np.result_type(self.classes_.dtype, np.int8)
            return np.asarray(np.where(labels >= 0, self.classes_[labels].astype(kind), kind.type(-1)))
        return np.asarray(np.where(labels >= 0, self.classes_[labels].astype(object), None))


def _check_targets(labels: np.ndarray) -> None:
    from sklearn.utils.multiclass import check_classification_targets

    with warnings.catch_warnings():  # one label per class is no sign of a regression here
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        check_classification_targets(labels)


def _shares(scores: np.ndarray) -> np.ndarray:
    sums = scores.sum(axis=1, keepdims=True, dtype=np.float64)
    return (scores / np.where(sums > 0, sums, 1.0)).astype(np.float32)
