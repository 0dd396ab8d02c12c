"""The predictions as a CSV for people."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..errors import BadInput
from ..store import Store
from ..store.files import os_errors, sync_folder
from .collection import Collection
from .plans import BLOCK_ROWS
from .settings import Settings


def check_folder(output: str | Path) -> None:
    """Refuse an output that cannot be written where it is wanted."""
    path = Path(output).absolute()
    if path.is_dir():
        raise BadInput(f"{output} is a folder; give the name of a CSV file to write")
    if not path.parent.is_dir():
        raise BadInput(f"{path.parent} is no folder; make it, or give another output")


def check_output(store: Store, output: str | Path | None, settings: Settings) -> None:
    """Refuse, before any work, an output that exists and was not written from this store, unless it may be overwritten."""
    if output is None:
        return
    check_folder(output)
    path = Path(output).absolute()
    if path.exists() and not settings.overwrite and not is_own_output(store, path):
        raise BadInput(f"{output} exists; give another output, or --overwrite to replace it")


def is_own_output(store: Store, path: Path) -> bool:
    """Return whether this store has written (or was about to write) this file."""
    stage = store.manifest.stages.get("output")
    return stage is not None and stage["parameters"]["path"] == str(path)


def write_output(store: Store, output: str | Path, settings: Settings) -> dict[str, Any]:
    """Write ``path,label,confidence,origin`` for every image; the file appears whole or not at all.

    That it is to be written is published before it appears, so that a run that was killed in between knows its own file.
    """
    path = Path(output).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    diffused, classified = store.record("diffuse"), store.record("classify")
    origin = classified["method"]
    if origin == "fusion" and classified.get("coefficient") == 0:
        origin = "diffusion"
    try:
        with os_errors(path, "writing"):
            digest = _write_rows(store, temporary, diffused, origin)
        parameters = {"path": str(path), "digest": digest}
        with store.job("output", parameters=parameters, inputs=["predictions/labels"], overwrite=True) as job:
            if not job.published:
                job.publish({"stage": "output", "path": str(path)})
        with os_errors(path, "writing"):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return {"path": str(path)}


def _write_rows(store: Store, file: Path, diffused: dict[str, Any], origin: str) -> str:
    labels, confidence = store.array("predictions/labels"), store.array("predictions/confidence")
    images = Collection(store, diffused["rows"])
    names = diffused["class_names"]
    given = np.zeros(len(labels), bool)
    if diffused["rows"] == "nodes":
        given[store.array("diffusion/seed_nodes")] = True
    hasher = xxhash.xxh3_128()
    with file.open("wb") as out:
        for first in range(0, len(labels), BLOCK_ROWS):
            text = io.StringIO(newline="")
            rows = csv.writer(text, lineterminator="\n")
            if first == 0:
                rows.writerow(["path", "label", "confidence", "origin"])
            for i in range(first, min(first + BLOCK_ROWS, len(labels))):
                label = names[labels[i]] if labels[i] >= 0 else "-1"
                source = "given" if given[i] else "unreached" if labels[i] < 0 else origin
                rows.writerow([images.name(i), label, f"{confidence[i]:.6f}", source])
            data = os.fsencode(text.getvalue())
            hasher.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return hasher.hexdigest()
