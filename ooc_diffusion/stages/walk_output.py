"""Walks as a CSV, as pictures, and as a page."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..report import Stop, Walk, WalkPage, render_walks, thumbnail, walk_png
from ..store import Store
from .collection import Collection
from .output_folder import check_output_folder, drafted

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = ["walk", "image", "class", "kind", "hop", "iteration", "role", "path", "share"]
_OURS = re.compile(r"paths\.(csv|html)|walk-\d+\.png")


@dataclass(frozen=True)
class Wanted:
    """A walk that is asked for.

    Parameters
    ----------
    row : int
        The image, among those that have scores.
    label : int
        The class.
    kind : str
        ``predicted``, ``true`` or ``given``.
    """

    row: int
    label: int
    kind: str


def check_walk_folder(output: str | Path, *, overwrite: bool) -> None:
    """Refuse, before any work, a folder that cannot be made or that holds something, unless it may be overwritten."""
    check_output_folder(output, overwrite=overwrite, option="output", what="paths")


def write_walks(store: Store, wanted: Sequence[Wanted], output: str | Path, *, command: str) -> dict[str, Any]:
    """Write ``paths.csv`` and, where there are images, ``walk-*.png`` and ``paths.html``; the folder appears whole.

    In a folder that is there, paths of before are replaced and all else is left alone.
    """
    with drafted(output, store, _OURS) as draft:
        pictured = _write_all(store, wanted, draft, command)
    page = {"report": str(Path(output) / "paths.html")} if pictured else {}
    return {"output": str(Path(output) / "paths.csv"), **page}


def _write_all(store: Store, wanted: Sequence[Wanted], folder: Path, command: str) -> bool:
    """Write all files; return whether there are pictures among them."""
    walks = _Walks(store)
    with (folder / "paths.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines, quoted = (csv.writer(file, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        lines.writerow(COLUMNS)
        for i, walk in enumerate(wanted):
            for row in walks.rows(i, walk):
                # a lone carriage return ends a line for most readers, but csv quotes only the terminator that it writes itself
                (quoted if any("\r" in str(field) for field in row) else lines).writerow(row)
    if not walks.has_images:
        return False
    shown = []
    for i, walk in enumerate(wanted):
        shown.append(walks.shown(i, walk))
        if shown[-1].stops:
            (folder / f"walk-{i:03d}.png").write_bytes(walk_png(shown[-1]))
    page = WalkPage(
        title=f"Where {len({walk.row for walk in wanted}):,} labels came from",
        summary=[
            ("Images", len({walk.row for walk in wanted})),
            ("Walks", len(wanted)),
            ("Without a path", sum(not walk.stops for walk in shown)),
            ("Iterations", store.record("paths")["n_iter"]),
        ],
        walks=shown,
        command=command,
    )
    (folder / "paths.html").write_text(render_walks(page), encoding="utf-8")
    return True


class _Walks:
    """Published walks with the names and pictures of their images."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tests = store.record("diffuse")["rows"] == "tests"
        self.names: list[str] = store.record("diffuse")["class_names"]
        self.images, self.graph = Collection(store, "tests" if self.tests else "nodes"), Collection(store, "nodes")
        self.nodes, self.shares = store.arrays("paths/nodes", "paths/shares")
        self.has_images = self.images.has_images or self.graph.has_images
        self._thumbnails: dict[tuple[str, int], Image.Image | None] = {}

    def stops(self, i: int, walk: Wanted) -> list[tuple[Collection, int, int | None, float | None]]:
        """Return for each image of a walk where it is, its number there, the iteration, and its share in the next."""
        if self.nodes[i, 0] < 0:
            return []
        found: list[tuple[Collection, int, int | None, float | None]] = [
            (self.graph, int(node), t, float(share))
            for t, (node, share) in enumerate(zip(self.nodes[i], self.shares[i], strict=True))
        ]
        if self.tests:
            return [*found, (self.images, walk.row, None, None)]
        return [*found[:-1], (*found[-1][:3], None)]  # the image itself, whose share in itself is all

    def rows(self, i: int, walk: Wanted) -> list[list[Any]]:
        """Return the lines of a walk in the CSV."""
        what = [i, self.images.name(walk.row), self.names[walk.label], walk.kind]
        return [
            [*what, hop, "" if t is None else t, of.locate(row)[0], of.name(row), "" if share is None else f"{share:.6g}"]
            for hop, (of, row, t, share) in enumerate(self.stops(i, walk))
        ]

    def shown(self, i: int, walk: Wanted) -> Walk:
        """Return a walk with thumbnails."""
        stops = [Stop(self._thumbnail(of, row), of.name(row), self._place(t), share) for of, row, t, share in self.stops(i, walk)]
        (truth,) = self.images.true_classes([walk.row])
        return Walk(self.images.name(walk.row), self.names[walk.label], walk.kind, stops, truth)

    def _place(self, t: int | None) -> str:
        if t is None:
            return "test"
        return "seed" if t == 0 else f"t = {t}"

    def _thumbnail(self, of: Collection, row: int) -> Image.Image | None:
        key = of.locate(row)
        if key not in self._thumbnails:
            self._thumbnails[key] = thumbnail(of.image(row))
        return self._thumbnails[key]
