"""The chain of stages on a few hundred digits, and the same thing computed naively from the descriptors on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.store import Store
from tests.reference import naive_neighbors, naive_w

K, DIM = 6, 12


@dataclass
class Sample:
    """Descriptors and classes of two or three roles."""

    background: np.ndarray
    background_truth: np.ndarray
    tests: np.ndarray
    tests_truth: np.ndarray
    seeds: np.ndarray | None = None
    seeds_truth: np.ndarray | None = None

    @property
    def roles(self):
        return [role for role in ("background", "seeds", "tests") if getattr(self, role) is not None]


def digits(n=300, q=80, m=0, seed=0):
    """Rows of scikit-learn's digits, moved by less than a gray level so that no distances are equal."""
    X, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    X = (X + rng.uniform(-0.3, 0.3, X.shape)).astype(np.float32)
    rows = rng.permutation(len(X))[: n + q + m]
    a, b, c = np.split(rows, [n, n + q])
    sample = Sample(X[a], truth[a], X[b], truth[b])
    if m:
        sample.seeds, sample.seeds_truth = X[c], truth[c]
    return sample


def import_roles(folder, sample, settings=None, roles=None):
    """Import all roles of a sample with their classes."""
    for role in roles or sample.roles:
        files = Path(folder).parent / "files"
        files.mkdir(exist_ok=True)
        if not (files / f"{role}.npy").exists():
            np.save(files / f"{role}.npy", getattr(sample, role))
            np.save(files / f"{role}_truth.npy", getattr(sample, f"{role}_truth"))
        options = {"store": folder, "role": role, "truth": files / f"{role}_truth.npy", "settings": settings}
        import_descriptors(files / f"{role}.npy", **options)
    return Store(folder)


def build(folder, sample, *, k=K, dim=DIM, settings=None, **options):
    """Import, reduce, find neighbors, build the graph."""
    store = import_roles(folder, sample, settings)
    reduce(folder, dim=dim, settings=settings)
    neighbors(folder, k=k, settings=settings)
    graph(folder, settings=settings, **options)
    return store


def naive_vectors(sample, dim=DIM):
    """PCA of the background by SVD, then unit length: float64 vectors of each role."""
    X = sample.background.astype(np.float64)
    mean = X.mean(axis=0)
    directions = np.linalg.svd(X - mean, full_matrices=False)[2][:dim]
    projected = {role: (getattr(sample, role) - mean) @ directions.T for role in sample.roles}
    return {role: P / np.linalg.norm(P, axis=1, keepdims=True) for role, P in projected.items()}


@dataclass
class Naive:
    """Unit vectors of nodes and tests, neighbor tables, W."""

    nodes: np.ndarray
    tests: np.ndarray
    table: np.ndarray
    similarities: np.ndarray
    test_table: np.ndarray
    W: object


def naive_chain(sample, k=K, sigma=None):
    """Seeds first, then background, searched from scratch as one set."""
    vectors = naive_vectors(sample)
    nodes = np.concatenate([vectors[role] for role in ("seeds", "background") if role in vectors])
    table, similarities = naive_neighbors(nodes, k)
    weights = None if sigma is None else np.exp(-((nodes[:, None] - nodes[table]) ** 2).sum(axis=2) / sigma**2)
    return Naive(
        nodes, vectors["tests"], table, similarities, naive_neighbors(nodes, k, vectors["tests"])[0], naive_w(table, weights)
    )


def write_labels(folder, rows, labels):
    """Write a CSV of labels by row number."""
    file = Path(folder).parent / "few.csv"
    file.write_text("row,label\n" + "".join(f"{row},{label}\n" for row, label in zip(rows, labels, strict=True)))
    return file


def published_bytes(store):
    """Every published array as bytes, by name."""
    return {name: store.array(name).tobytes() for name in store.manifest.arrays}
