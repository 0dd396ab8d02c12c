"""The images that scores belong to: names and descriptors row by row, across roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadInput
from ..images import ImageSource, UnreadableImage
from ..store import Store, Strings
from .class_names import class_names
from .listing import reopen

if TYPE_CHECKING:
    from PIL import Image


class Collection:
    """Tests, or the nodes of the graph: seeds first where they stand apart, then the background.

    Parameters
    ----------
    store : Store
        The store.
    rows : {"tests", "nodes"}
        Which of them.
    """

    def __init__(self, store: Store, rows: str) -> None:
        self.store = store
        nodes = [role for role in ("seeds", "background") if f"{role}/vectors" in store]
        self.roles = ["tests"] if rows == "tests" else nodes
        self.sizes = [store.entry(f"{role}/vectors").shape[0] for role in self.roles]
        self._names = {role: Strings.open(store, f"{role}/path") for role in self.roles if f"{role}/path_offsets" in store}
        self._sources: dict[str, ImageSource | None] = {}

    def __len__(self) -> int:
        return sum(self.sizes)

    def locate(self, i: int) -> tuple[str, int]:
        """Return role and row of image i."""
        for role, size in zip(self.roles, self.sizes, strict=True):
            if i < size:
                return role, i
            i -= size
        raise IndexError(i)

    def name(self, i: int) -> str:
        """Return the name of image i; its row where descriptors came without names, with the role where there are two."""
        role, row = self.locate(i)
        if role in self._names:
            return self._names[role][row]
        return str(row) if len(self.roles) == 1 else f"{role}/{row}"

    def find(self, name: str) -> int:
        """Return the number of the image of that name, -1 where there is none."""
        first = 0
        for role, size in zip(self.roles, self.sizes, strict=True):
            row = self._names[role].find(name) if role in self._names else -1
            if row >= 0:
                return first + row
            first += size
        return -1

    @property
    def has_images(self) -> bool:
        """Whether some of them came with images, and not as descriptors alone."""
        return any(f"list.{role}" in self.store.manifest.stages for role in self.roles)

    def array(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows of ``<role>/<name>``, across roles, as an array in memory."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        parts = None
        first = 0
        for role, size in zip(self.roles, self.sizes, strict=True):
            inside = (rows >= first) & (rows < first + size)
            if inside.any() or (parts is None and role == self.roles[-1]):
                values = self.store.array(f"{role}/{name}")
                if parts is None:
                    parts = np.empty((len(rows), *values.shape[1:]), values.dtype)
                if parts.shape[1:] != values.shape[1:]:
                    raise BadInput(
                        f"the {role} have {name} of {values.shape[1]} values, the {self.roles[0]} of {parts.shape[1]}, so both "
                        "cannot be classified by them at once; give --method diffusion or knn"
                    )
                parts[inside] = values[rows[inside] - first]
            first += size
        assert parts is not None
        return parts

    @property
    def unreadable(self) -> np.ndarray:
        """Images that could not be read, ascending int64; as nodes they stand for a white image."""
        firsts = np.cumsum([0, *self.sizes])
        found = [
            first + self.store.array(f"{role}/failed_rows")
            for role, first in zip(self.roles, firsts, strict=False)
            if f"{role}/failed_rows" in self.store
        ]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    @property
    def truth(self) -> np.ndarray | None:
        """True classes (n,) int32 where they are known, -1 = unknown; None where no role knows them."""
        if not all(f"{role}/truth" in self.store for role in self.roles):
            return None
        return np.concatenate([self.store.array(f"{role}/truth") for role in self.roles])

    def true_classes(self, rows: list[int]) -> list[str | None]:
        """Return the names of the true classes of some images, None where they are not known."""
        if not all(f"{role}/truth" in self.store for role in self.roles):
            return [None] * len(rows)
        names: list[str | None] = []
        for row, truth in zip(rows, self.array("truth", np.array(rows)).tolist(), strict=True):
            known = class_names(self.store, self.locate(row)[0]) or []
            # classes that were imported as numbers have no names
            names.append(None if truth < 0 else known[truth] if truth < len(known) else str(truth))
        return names

    def image(self, i: int) -> Image.Image | None:
        """Return the picture of image i; None where there is none or it cannot be read."""
        role, row = self.locate(i)
        if role not in self._sources:
            self._sources[role] = reopen(self.store, role)
        source = self._sources[role]
        try:
            return None if source is None else source.read(row)
        except UnreadableImage:
            return None
