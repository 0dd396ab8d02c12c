"""The predictions as a CSV for people."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import xxhash

from ..errors import BadInput
from ..store import Store
from ..store.files import os_errors, require_writable, sync_folder
from .collection import Collection
from .plans import BLOCK_ROWS
from .settings import Settings


def check_folder(file: str | Path) -> None:
    """Refuse a file that cannot be written where it is wanted."""
    path = Path(file).absolute()
    if path.is_dir():
        raise BadInput(f"{file} is a folder; give the name of a file to write")
    if not path.parent.is_dir():
        raise BadInput(f"{path.parent} is no folder; make it, or give another output")
    require_writable(path.parent)


def check_output(store: Store | None, output: str | Path | None, settings: Settings, *, report: str | Path | None = None) -> None:
    """Refuse, before any work, a file that exists and was not written from this store, unless it may be overwritten.

    None is a store that is not made yet.
    """
    for option, file in (("output", output), ("report", report)):
        if file is None:
            continue
        check_folder(file)
        path = Path(file).absolute()
        if path.exists() and not settings.overwrite and not is_own_output(store, path):
            raise BadInput(f"{file} exists; give another --{option}, or --overwrite to replace it")


def is_own_output(store: Store | None, path: Path) -> bool:
    """Return whether this store has written (or was about to write) this file."""
    stage = None if store is None else store.manifest.stages.get("output")
    if stage is None:
        return False
    written = stage["parameters"]
    if str(path) == written["report"]:
        return True
    # a file that somebody has edited since is theirs; "replaced" is what stood there when a run was killed before its rename
    return str(path) == written["path"] and _file_digest(path) in (written["digest"], written["replaced"])


def write_output(store: Store, output: str | Path, *, report: str | Path | None = None) -> dict[str, Any]:
    """Write ``path,label,confidence,origin`` for every image; the file appears whole or not at all.

    That it (and the report, which the caller writes next) is to be written is published before it appears, so that a run that
    was killed in between knows its own files.
    """
    path = Path(output).absolute()
    # a name that the next run after a kill finds again and overwrites
    temporary = path.with_name(f".{path.name}.{xxhash.xxh3_64_hexdigest(os.fsencode(store.path.absolute()))}.tmp")
    diffused, classified = store.record("diffuse"), store.record("classify")
    origin = classified["method"]
    if origin == "fusion" and classified.get("coefficient") == 0:
        origin = "diffusion"
    with store.lock:
        try:
            with os_errors(path, "writing"):
                digest = _write_rows(store, temporary, diffused, origin)
            report = None if report is None else str(Path(report).absolute())
            replaced = _file_digest(path) if path.exists() else None
            replaced = _before(store, path) if replaced == digest else replaced
            parameters = {"path": str(path), "digest": digest, "report": report, "replaced": replaced}
            with store.job("output", parameters=parameters, inputs=["predictions/labels"], overwrite=True) as job:
                if not job.published:
                    job.publish({"stage": "output", "path": str(path)})
            with os_errors(path, "writing"):
                temporary.replace(path)
                sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return {"path": str(path)}


def _before(store: Store, path: Path) -> str | None:
    """Return what the file had replaced, so that writing the same again changes nothing."""
    written = store.manifest.stages.get("output", {}).get("parameters", {})
    return written.get("replaced") if written.get("path") == str(path) else None


def _file_digest(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(2**24):
            hasher.update(piece)
    return hasher.hexdigest()


def _write_rows(store: Store, file: Path, diffused: dict[str, Any], origin: str) -> str:
    labels, confidence = store.array("predictions/labels"), store.array("predictions/confidence")
    images = Collection(store, diffused["rows"])
    names = diffused["class_names"]
    # tests are never seeds, whatever their numbers
    seeds = set(store.array("diffusion/seed_nodes").tolist()) if diffused["rows"] == "nodes" else set()
    unreadable = set(images.unreadable.tolist())
    hasher = xxhash.xxh3_128()
    with file.open("wb") as out:
        for first in range(0, len(labels), BLOCK_ROWS):
            text = io.StringIO(newline="")
            rows = csv.writer(text, lineterminator="\n")
            quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
            if first == 0:
                rows.writerow(["path", "label", "confidence", "origin"])
            for i in range(first, min(first + BLOCK_ROWS, len(labels))):
                label = names[labels[i]] if labels[i] >= 0 else "-1"
                missing = "unreadable" if i in unreadable else "unreached"
                source = missing if labels[i] < 0 else "given" if i in seeds else origin
                fields = [images.name(i), label, f"{confidence[i]:.6f}", source]
                # a lone carriage return ends a line for most readers, but csv quotes only the terminator that it writes itself
                (quoted if any("\r" in field for field in fields) else rows).writerow(fields)
            data = os.fsencode(text.getvalue())
            hasher.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return hasher.hexdigest()
