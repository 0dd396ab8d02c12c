"""Stages of one store, taken into another."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Sequence

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
        for stage in stages:
            made = manifest.stages[stage] = copy.deepcopy(given.stages[stage])
            made["inputs"] = {name: identity for name, identity in made["inputs"].items() if name in manifest.arrays}
            for name in made["arrays"]:
                manifest.arrays[name] = given.arrays[name]
                _take(source, store, given.arrays[name].file)
        store.commit(manifest)


def _take(source: Store, store: Store, file: str) -> None:
    with os_errors(store.path / file, "writing"):
        with contextlib.suppress(OSError):
            os.link(source.path / file, store.path / file)
            return
        shutil.copyfile(source.path / file, store.path / file)
