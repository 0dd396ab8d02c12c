"""The images of another collection, as background of the protocol."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..features import PCA, normalize_rows, project
from ..parallel import limit_threads
from ..store import Store, adopt, clean
from .neighbors import neighbors, search_parameters
from .plans import BLOCK_ROWS
from .search_options import FILES
from .settings import Settings, open_store
from .stage_names import digest

logger = logging.getLogger(__name__)

# Folder of a collection's store in which it lies searched: a store for each combination of vectors and parameters but k, with the
# widest table that was asked for. The first columns of a table are the table of fewer neighbors, bit by bit.
SEARCHED = "searched"
SEARCHED_STAGES = ("reduce.background", "neighbors.background")
# What may be alike in two stores, the first that is.
_ALIKE = ("background/descriptors", "background/vectors")
_PCA = [f"pca/{name}" for name in ("mean", "components", "variance", "bias")]


@dataclass(frozen=True)
class OwnNeighbors:
    """The neighbors that a collection has among itself, whatever found them.

    Parameters
    ----------
    k : int
        Neighbors per image.
    identity : str
        What tells them, and how others are searched among the images, from other ones.
    """

    k: int
    identity: str


@dataclass(frozen=True)
class Background:
    """The first images of another store.

    Parameters
    ----------
    other : Store
        Where they are.
    array : str
        Its array that is taken.
    n : int
        Number of images.
    own : OwnNeighbors, optional
        What it was found to have when it was opened.
    """

    other: Store
    array: str
    n: int
    own: OwnNeighbors | None = None

    @property
    def images(self) -> dict[str, Any]:
        """Which images these are, as JSON values."""
        return {"images": self.other.entry(self.array).identity, "n": self.n}

    def parameters(self, k: int) -> dict[str, Any]:
        """Return what determines the results of graphs of k neighbors, as JSON values."""
        return {**self.images, **({"neighbors": self.own.identity} if self.own and self.takes_own(k) else {})}

    def takes_own(self, k: int) -> bool:
        """Return whether the neighbors that the collection has are taken, where k of them are asked for."""
        return self.as_it_is and self.own is not None and self.own.k >= k

    @property
    def described(self) -> bool:
        """Whether they have descriptors like those of the store, and not only vectors, as the paper's collection."""
        return self.array == "background/descriptors"

    @property
    def as_it_is(self) -> bool:
        """Whether all vectors of the other store are taken, as they are."""
        return self.array == "background/vectors" and self.n == self.other.entry(self.array).shape[0]

    def warn_of_outdated(self) -> None:
        """Warn where the collection has neighbors that would be taken, were they not those of other vectors than it has now."""
        stages = self.other.manifest.stages
        outdated = [stage.split(".")[0] for stage in SEARCHED_STAGES if stage in stages and self.other.outdated(stage)]
        if self.as_it_is and self.own is None and SEARCHED_STAGES[1] in stages and outdated:
            logger.warning(
                "%s has neighbors that are outdated: they are not taken, its images are searched anew by default; to have its "
                "own taken, run %s again with `overwrite`",
                self.other.path,
                " and ".join(outdated),
            )

    def require_descriptors(self, store: Store) -> None:
        """Raise `BadInput` where they have no descriptors like those of a store."""
        if not self.described:
            raise BadInput(f"{self.other.path} has no descriptors like those of {store.path}, which the prior is estimated from")

    def descriptors(self, store: Store) -> np.ndarray:
        """Return their descriptors (n, d); `BadInput` where they are not those of a store."""
        self.require_descriptors(store)
        return self.other.array(self.array)[: self.n]

    def searched(self, store: Store, *, k: int, settings: Settings) -> Store:
        """Return a store with their unit vectors, brought to those of another, and their neighbors among themselves.

        Parameters
        ----------
        store : Store
            The images of the protocol.
        k : int
            Neighbors per image, at least.
        settings : Settings
            Options of the run.

        Returns
        -------
        Store
            The collection itself, where its vectors are taken as they are and it has so many neighbors, whatever found them; else
            one in its folder ``searched``, made where it is not there yet, after any other process that makes it. A wider table
            takes the place of a narrower one. A temporary store where nothing can be written there.
        """
        if self.takes_own(k):
            return self.other
        sought = search_parameters(self.n, store.entry("background/vectors").shape[1], k=k, settings=settings)
        vectors = {**self.images, **_brought(store, self.array, self.other.entry(self.array).shape[1])}
        if os.access(self.other.path, os.W_OK):
            how = {name: value for name, value in sought.items() if name != "k"}
            made = Store(self.other.path / SEARCHED / digest({**vectors, **how}), create=True)
        else:
            made = Store.temporary(inside=store.path / "jobs")
        if _has(made, sought):
            return made
        if self.as_it_is and self.own:
            logger.warning(
                "%s has %d neighbors per image, but %d are asked for: they are searched anew", self.other.path, self.own.k, k
            )
        telling = replace(settings, overwrite=True, dry_run=False).named(lambda stage: f"neighbors among {self.n:,} other images")
        with made.lock.waiting():
            if not _has(made, sought):  # nor has another process made it meanwhile
                self._bring(made, store, vectors, settings)
                neighbors(made, k=k, settings=telling)
                clean(made)
        return made

    def refuse_changed(self, adopted: Store, k: int) -> None:
        """Raise `BadInput` where the neighbors that a store took, k of which were asked for, are not those of before."""
        if self.takes_own(k) and own_neighbors(adopted) != self.own:
            raise BadInput(f"the neighbors of {self.other.path} changed while this ran; run the command again")

    def _bring(self, made: Store, store: Store, parameters: dict[str, Any], settings: Settings) -> None:
        """Write the vectors, or go on with it; those of the other store are linked where they are taken as they are."""
        if self.as_it_is:
            if SEARCHED_STAGES[0] not in made.manifest.stages:
                adopt(made, self.other, SEARCHED_STAGES[:1])
            return
        source, dim = self.other.array(self.array), store.entry("background/vectors").shape[1]
        pca = _pca(store, self.array, source.shape[1])
        with (
            limit_threads(settings.threads) as threads,
            made.job(SEARCHED_STAGES[0], parameters=parameters, overwrite=True) as job,
        ):
            if job.published:
                return
            vectors = job.array("background/vectors", "<f4", (self.n, dim))
            for first in range(vectors.rows, self.n, BLOCK_ROWS):
                block = np.array(source[first : min(first + BLOCK_ROWS, self.n)])
                if self.described:
                    block = normalize_rows(block) if pca is None else project(pca, block, threads=threads)
                vectors.append(block)
                job.checkpoint()
            job.publish({"images": self.n})


def own_neighbors(store: Store) -> OwnNeighbors | None:
    """Return the neighbors of the background of a store; None where it has none, or had other vectors then."""
    made = store.manifest.stages.get(SEARCHED_STAGES[1])
    if made is None or SEARCHED_STAGES[0] not in store.manifest.stages or store.outdated(SEARCHED_STAGES[1]):
        return None
    arrays = {name: store.entry(name).identity for name in ("background/vectors", *made["arrays"])}
    how = {name: made["parameters"].get(name) for name in ("index", "device", "index_file")}
    return OwnNeighbors(made["parameters"]["k"], digest({**arrays, **how, "probes": made["record"].get("probes")}))


def told_neighbors(store: Store, *, own: bool) -> dict[str, Any]:
    """Return what a record says of the neighbors of the background of a store: ``own`` are those that the collection has."""
    made = store.manifest.stages[SEARCHED_STAGES[1]]
    told = {name: made["record"][name] for name in ("k", "index", "probes", "recall") if name in made["record"]}
    files = {name: made["parameters"][name]["path"] for name in FILES if name in made["parameters"]}
    return {"images": store.entry("background/vectors").shape[0], "own": own, **files, **told}


def neighbors_text(told: dict[str, Any]) -> str:
    """Return `told_neighbors` in words."""
    files = [Path(told[name]).name for name in FILES if name in told]
    how = f"from {', '.join(files)}" if files else "exact" if told["index"] == "Flat" else told["index"]
    words = ["those it has" if told["own"] else "searched here by default", how]
    if "probes" in told and "table" not in told:
        words.append(f"{told['probes']} probes")
    if "recall" in told:
        words.append(f"recall {told['recall']['recall']:.4f} ± {told['recall']['uncertainty']:.4f}")
    return f"{told['k']} neighbors, {', '.join(words)}"


def _has(store: Store, sought: dict[str, Any]) -> bool:
    """Return whether a store has its background searched alike, for as many neighbors or more."""
    own = own_neighbors(store)
    return own is not None and own.k >= sought["k"] and {**store.parameters(SEARCHED_STAGES[1]), "k": sought["k"]} == sought


def _brought(store: Store, array: str, d: int) -> dict[str, Any]:
    """Return what brings an array of d values to the vectors of a store, as JSON values."""
    if _pca(store, array, d) is None:
        return {"array": array}
    return {"array": array, **{name: store.entry(name).identity for name in _PCA if name in store}}


def _pca(store: Store, array: str, d: int) -> PCA | None:
    """Return what brings an array of d values to the vectors of a store; None where only the length is changed."""
    if array != "background/descriptors" or "pca/mean" not in store or store.entry("pca/components").shape[1] != d:
        return None
    return PCA(*(store.array(name) for name in _PCA if name in store))


def open_background(store: Store, folder: Store | str | Path, *, size: int | None = None) -> Background:
    """Open the background of another store.

    Parameters
    ----------
    store : Store
        The images of the protocol.
    folder : Store or str or Path
        The other store, or its folder. Descriptors as long as those of ``store`` are brought to its vectors by its PCA; else
        vectors of the same length are taken as they are.
    size : int, optional
        Take the first images only. Default: all. The neighbors that the collection has are those among all.

    Returns
    -------
    Background

    Raises
    ------
    BadInput
        If neither descriptors nor vectors are alike, or there are fewer images.
    """
    other = open_store(folder)
    for name in _ALIKE:
        if name in other and name in store and other.entry(name).shape[1] == store.entry(name).shape[1]:
            n = other.entry(name).shape[0]
            if size is not None and not 1 <= size <= n:
                raise BadInput(f"`size` is {size}, but {other.path} has {n} images; give from 1 to {n}")
            return Background(other, name, size or n, own_neighbors(other))
    raise BadInput(f"the images of {other.path} are described by other numbers than those of {store.path}; extract both alike")
