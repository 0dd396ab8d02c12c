"""One run of the whole study, on clusters of the tests' own, which all modules look at."""

import contextlib
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ooc_diffusion.stages import low_shot_logistic
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.stages.study import graphs, parameters, runs, study

from ..low_shot_chain import import_clusters

QUICK = Settings(memory_budget="2GiB", threads=2, device="cpu")
OPTIONS = {"n_per_class": (1, 2, 50), "draws": 1, "k": 3, "max_iter": 3, "settings": QUICK}


@contextlib.contextmanager
def few_figures():
    """Few steps and values, two sizes of the other collection, and no waiting for a disk, since nothing is killed here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(low_shot_logistic, "STEPS", (10, 30))
        patch.setattr(parameters, "SWEPT", tuple(replace(swept, values=swept.values[:1]) for swept in parameters.SWEPT))
        patch.setattr(graphs, "_NEIGHBORS", (2, 3))
        patch.setattr(runs, "_SHARES", (1 / 4, 1))
        yield patch


@pytest.fixture(scope="module", autouse=True)
def quick():
    with few_figures():
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Folder, store, other collection, and record of a study of all chapters; to be read, not run again with other options."""
    root = tmp_path_factory.mktemp("study")
    store, others = import_clusters(root / "images")
    with few_figures():
        record = study(["all"], data=str(store.path), background=str(others.path), output=root / "out", **OPTIONS)
    split = next((root / "out").glob("split-*.json"))
    ran = frozenset(store.manifest.stages)  # others may come, of tests that run something else over the same images
    return SimpleNamespace(root=root, out=root / "out", store=store, others=others, record=record, split=split, ran=ran)
