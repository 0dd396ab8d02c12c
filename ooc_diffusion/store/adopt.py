"""Stages of one store, taken into another."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .files import os_errors
from .store import Store


def adopt(store: Store, source: Store, stages: Sequence[str]) -> None:
    """Make stages of another store, with their arrays, part of a store.

    Parameters
    ----------
    store : Store
        Without arrays of these names; its lock is held.
    source : Store
        Where the stages are published.
    stages : sequence of str
        Their names.

    Notes
    -----
    Files of a manifest never change, so that both stores may name the same ones: they are linked, or copied where the stores lie
    on different disks. What stages were made from counts where it is taken, too.
    """
    with store.lock:
        given, manifest = source.manifest, store.manifest.edited()
        try:
            for stage in stages:
                made = manifest.stages[stage] = copy.deepcopy(given.stages[stage])
                made["inputs"] = {name: identity for name, identity in made["inputs"].items() if name in manifest.arrays}
                for name in made["arrays"]:
                    manifest.arrays[name] = given.arrays[name]
                    _take(source.path / given.arrays[name].file, store.path / given.arrays[name].file)
        except FileNotFoundError:
            if source.manifest.generation == given.generation:
                raise
            adopt(store, source, stages)  # another process published and cleaned in between
            return
        store.commit(manifest)


def _take(given: Path, file: Path) -> None:
    """Link or copy a file that is not taken yet; `FileNotFoundError` where it is there no longer."""
    if file.exists():
        return  # names are given once
    with contextlib.suppress(OSError):
        os.link(given, file)
        return
    with given.open("rb") as source, os_errors(file, "writing"), file.open("xb") as target:
        shutil.copyfileobj(source, target)
