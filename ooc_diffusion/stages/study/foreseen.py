"""The images of a study as they will be, and what it costs to make them; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...features import make_extractor
from ...images import held_bytes
from ...memory import StagePlan
from ...store import ArrayEntry, Manifest, Store
from ..extract import plan_description
from ..listing import preview
from ..low_shot import check_store
from ..plans import plan_import, plan_list, plan_reduce
from ..reduce import resolve_dim
from ..settings import Settings, store_at
from .data import SPLITS, alike, data_set, halves, known_of, splits_of

# The values of an array that is read, the shape of another.
_Array = np.ndarray | tuple[int, ...]


class Foreseen(Store):
    """A store as it will be.

    Parameters
    ----------
    path : Path
        Where.
    arrays : mapping of str to numpy.ndarray or tuple of int
        Its arrays: the values of those that are read, the shapes of others, which are of float32.
    stages : mapping of str to dict
        Its stages: ``parameters`` and ``record`` of each.
    """

    def __init__(self, path: Path, arrays: Mapping[str, _Array], stages: Mapping[str, dict[str, Any]]) -> None:
        self.path = path
        self._values = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
        self._manifest = Manifest(0, dict(stages), {name: _entry(value) for name, value in arrays.items()})

    @property
    def manifest(self) -> Manifest:
        """Its stages and arrays."""
        return self._manifest

    def arrays(self, *names: str) -> list[np.ndarray]:
        """Return arrays that are read."""
        return [self._values[name] for name in names]

    def is_like(self, made: Store) -> bool:
        """Return whether a store has these arrays, as far as they are known."""
        entries = {name: made.manifest.arrays.get(name) for name in self._manifest.arrays}
        if any(entry is None or entry.shape != self.entry(name).shape for name, entry in entries.items()):
            return False
        return all(np.array_equal(made.array(name), values) for name, values in self._values.items())


def _entry(value: _Array) -> ArrayEntry:
    dtype, shape = (value.dtype.str, value.shape) if isinstance(value, np.ndarray) else ("<f4", value)
    return ArrayEntry("", dtype, shape, [], "")


def _made_before(foreseen: Foreseen) -> Store:
    """Return the store that an earlier run has made, or what is foreseen of it."""
    made = Store(foreseen.path) if store_at(foreseen.path) else foreseen
    return made if foreseen.is_like(made) else foreseen


class _Making:
    """A store that will be made, stage by stage, and the plans of these."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings, self.budget = path, settings, settings.budget
        self.arrays: dict[str, _Array] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.plans: list[StagePlan] = []

    @property
    def store(self) -> Foreseen:
        """The store as far as it is made."""
        return Foreseen(self.path, self.arrays, self.stages)

    def describe(self, where: dict[str, Any], role: str, **how: Any) -> None:
        """List and describe the images of a data set by their pixels."""
        source, n = preview(**where, settings=self.settings)
        extractor, held = make_extractor("pixels", source, **how), held_bytes(source)
        self.plans.append(plan_list(n, budget=self.budget, held_bytes=held))
        self.plans.append(plan_description(n, extractor, "pixels", self.settings, held=held))
        self.arrays[f"{role}/descriptors"] = (n, extractor.dim)
        if source.truth is not None:
            self.arrays[f"{role}/truth"] = source.truth
        self.stages[f"list.{role}"] = {"parameters": {}, "record": {"class_names": source.class_names}}
        self.stages[f"extract.{role}"] = {"parameters": dict(extractor.identity), "record": {}}

    def halve(self, source: Store) -> None:
        """Copy the two halves of each class of another store."""
        parts = halves(source)
        d, truth = source.entry("background/descriptors").shape[1], source.array("background/truth")
        for role, rows in parts.items():
            self.plans.append(plan_import(len(rows), d, budget=self.budget))
            self.arrays |= {f"{role}/descriptors": (len(rows), d), f"{role}/truth": np.asarray(truth[rows])}
            self.stages[f"list.{role}"] = {"parameters": {}, "record": known_of(source)}

    def reduce(self, dim: int) -> None:
        """Bring the descriptors to fewer values."""
        shapes = {role: self.store.entry(f"{role}/descriptors").shape for role in SPLITS}
        n, d = shapes["background"]
        kept = resolve_dim(dim, n, d)
        for role, (rows, _) in shapes.items():
            train = role == "background" and dim > 0
            self.plans.append(plan_reduce(rows, d, kept, train=train, budget=self.budget))
            self.arrays[f"{role}/vectors"] = (rows, kept)


def foresee_images(data: str, folder: Path, *, root: str | None, dim: int, settings: Settings) -> tuple[Store, list[StagePlan]]:
    """Return what `open_images` will return, and the plans of the stages that it will run."""
    made = _Making(folder / "images.store", settings)
    if store_at(data):
        source = Store(data)
        if "tests/descriptors" in source:
            check_store(source)
            return source, []
        made.halve(source)
    elif splits_of(data):
        for role, part in SPLITS.items():
            made.describe({**data_set(data, root), "split": part}, role)
    else:
        whole = _Making(folder, settings)
        whole.describe(data_set(data, root), "background")
        made.plans += whole.plans
        made.halve(whole.store)
    made.reduce(dim)
    check_store(made.store)
    return _made_before(made.store), made.plans


def foresee_other(
    background: str | None, images: Store, folder: Path, *, root: str | None, settings: Settings
) -> tuple[Store | None, list[StagePlan]]:
    """Return what `open_other` will return, and the plans of the stages that it will run."""
    if background is None or store_at(background):
        return None if background is None else Store(background), []
    made, how = _Making(folder / "background.store", settings), alike(images, background)
    made.describe(data_set(background, root), "background", image_size=how["image_size"], color=how["color"])
    return _made_before(made.store), made.plans
