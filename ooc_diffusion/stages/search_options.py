"""How neighbors are searched: which index, where, and which options go together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput, DoesNotFit
from ..neighbors import INDEXES, MOST_GPU_SELECTED, NOT_ON_GPUS, choose_index, missing_room, n_lists, resolve_device
from .own_index import OwnIndex, open_index
from .own_table import EarlierTable, OwnTable, open_table
from .plans import EXTRA_NEIGHBORS
from .settings import Settings

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "float16")
# What GPUs search, and all indexes where there are some: "auto" takes the last.
_ON_GPUS = ("Flat", "IVFFlat")
_AUTO_ON_GPUS = ("auto", "list-major", *_ON_GPUS)
# Name of the index that somebody else made.
OF_FILE = "file"
# Parameters of a search that are files of somebody else.
FILES = ("table", "similarities", "index_file")


@dataclass(frozen=True)
class SearchOptions:
    """How neighbors are searched: the options of `neighbors`, what is to be chosen being chosen.

    Parameters
    ----------
    k : int
        Neighbors per image.
    index : str
        ``"Flat"``, ``"IVFFlat"``, ``"list-major"`` or ``"file"``.
    device : {"cpu", "cuda"}
        Where vectors are assigned and, but for the last two, searched.
    seed : int
        Of k-means and of the samples.
    precision : {"float32", "float16"}
        Of the vectors that are searched.
    probes, target_recall : int and float, optional
        See `neighbors`.
    min_recall : float, optional
        See `neighbors`; no part of what determines the result.
    own : OwnTable, EarlierTable or OwnIndex, optional
        What somebody else made.
    """

    k: int
    index: str
    device: str
    seed: int
    precision: str
    probes: int | None
    target_recall: float | None
    min_recall: float | None
    own: OwnTable | EarlierTable | OwnIndex | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the result."""
        parameters = {"k": self.k, "index": self.index, "seed": self.seed, "device": self.device}
        chosen = {"probes": self.probes, "target_recall": self.target_recall}
        if self.precision != PRECISIONS[0]:
            parameters["precision"] = self.precision
        parameters |= self.own.parameters if self.own else {}
        return parameters | {name: value for name, value in chosen.items() if value is not None}

    @property
    def on_gpus(self) -> bool:
        """Whether GPUs hold the vectors."""
        return held_by_gpus(self.index, self.device)

    @property
    def better(self) -> str:
        """What would give a higher recall."""
        more = "give another table or index" if self.own else "give more --probes, or a higher --target-recall"
        return f"{more}, with --overwrite"


def held_by_gpus(index: str, device: str) -> bool:
    """Return whether GPUs hold the vectors that an index searches."""
    return device == "cuda" and index in _ON_GPUS


def where_searched(n: int, dim: int, index: str, settings: Settings, precision: str = PRECISIONS[0]) -> tuple[str, str]:
    """Return what is searched, and on which device, for n images of ``dim`` values.

    ``"auto"`` takes what the GPUs have the memory for, and what it takes without them where they have not. That is decided by
    sizes that do not change, not by what is free: a run that goes on must find what it began with. A GPU that was asked for
    still trains and assigns then.

    Raises
    ------
    DoesNotFit
        Where the GPUs never have the memory for what was asked for.
    """
    asked, device = settings.device.startswith("cuda"), resolve_device(settings.device)
    if index == OF_FILE:
        return index, device if asked else "cpu"
    chosen = choose_index(n, index, indexes=INDEXES if device == "cpu" else _AUTO_ON_GPUS)
    if not held_by_gpus(chosen, device):
        return chosen, device if asked else "cpu"
    missing = missing_room((n, dim), inverted=chosen == "IVFFlat", precision=precision)
    if not missing:
        return chosen, device
    elsewhere = choose_index(n, index)
    if index != "auto" or (asked and held_by_gpus(elsewhere, device)):
        raise DoesNotFit(f"{missing}; give {NOT_ON_GPUS}")
    logger.info("%s: %s on the CPU instead", missing, elsewhere)
    return elsewhere, device if asked else "cpu"


def open_own(
    table: str | Path | None,
    similarities: str | Path | None,
    width: int | None,
    index_file: str | Path | None,
    index: str,
    n: int,
    k: int,
) -> OwnTable | OwnIndex | None:
    """Return the table or index of somebody else, None where none is given."""
    if similarities is not None and table is None:
        raise BadInput("`similarities` are those of a table; give `table` as well")
    if width is not None and table is None:
        raise BadInput("`table_width` is that of a table; give `table` as well")
    if index_file is None:
        return None if table is None else open_table(table, similarities, n=n, k=k, width=width)
    if table is not None or index != "auto":
        raise BadInput("everything is searched with the index of the file; leave out `table` and `index`, or `index_file`")
    return open_index(index_file)


def reopen_own(parameters: Mapping[str, Any]) -> EarlierTable | OwnIndex | None:
    """Return the table or index of somebody else that an earlier search took, None where it took none."""
    index = parameters.get("index_file")
    if index is None:
        files = {name: parameters[name] for name in (*FILES, "table_width") if name in parameters}
        return EarlierTable(files) if files else None
    return OwnIndex(index["path"], index["bytes"], {"index_file": index})


def check_options(how: SearchOptions, n: int) -> None:
    """Raise `BadInput` where options do not go together, or not with n images."""
    if how.precision not in PRECISIONS:
        raise BadInput(f"precision {how.precision!r} is not one of {', '.join(PRECISIONS)}")
    if how.precision != PRECISIONS[0] and how.index != "list-major" and (how.index, how.device) != ("IVFFlat", "cuda"):
        raise BadInput(f"`precision` {how.precision} is for `index` list-major, or IVFFlat on a GPU; {how.index} takes float32")
    if how.on_gpus and max(how.k + EXTRA_NEIGHBORS, how.probes or 0) > MOST_GPU_SELECTED:
        raise BadInput(f"on a GPU `k` + 2 and `probes` go up to {MOST_GPU_SELECTED}; give less, or --device cpu")
    if how.index == "Flat" and (how.probes or how.target_recall):
        raise BadInput(
            "an exact search (`index` Flat) visits everything; leave out `probes` and `target_recall`, or choose another `index`"
        )
    if how.probes is not None and how.target_recall is not None:
        raise BadInput("give either `probes` or `target_recall`: the one follows from the other")
    if how.index == OF_FILE and how.target_recall is not None:
        raise BadInput("`target_recall` is for lists that are made here; with `index_file` give `probes`")
    if how.probes is not None and not 1 <= how.probes <= (how.probes if how.index == OF_FILE else n_lists(n)):
        raise BadInput(f"`probes` is {how.probes}; give from 1 to all {n_lists(n)} lists")
    for name, recall in (("target_recall", how.target_recall), ("min_recall", how.min_recall)):
        if recall is not None and not 0 < recall <= 1:
            raise BadInput(f"`{name}` is {recall}; give a share above 0, up to 1")
