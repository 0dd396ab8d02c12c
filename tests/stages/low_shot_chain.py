"""A tiny low-shot problem, and the whole protocol on it computed by dense NumPy."""

import numpy as np

from ooc_diffusion.evaluation import Group, Split
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.low_shot import Protocol
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.reference import (
    naive_coupled,
    naive_diffuse,
    naive_neighbors,
    naive_normalized,
    naive_query_scores,
    naive_top_k_accuracy,
    naive_w,
    naive_zhou,
)

QUICK = Settings(memory_budget="2GiB", threads=2, device="cpu")
CLASSES, DIM, PER_CLASS, TESTS, OTHERS = 12, 8, 9, 3, 60
# one class of no group, and classes in an order that is not ascending
SPLIT = Split((Group(np.array([4, 1]), np.array([7, 0, 2])), Group(np.array([3, 9]), np.array([11, 5, 8]))))
K, MAX_ITER = 4, 3


def clusters(seed=0):
    """Training images, tests and images of another collection: descriptors, and classes of the first two."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(CLASSES, DIM))
    truth, test_truth = (rng.permutation(np.repeat(np.arange(CLASSES), n)).astype(np.int64) for n in (PER_CLASS, TESTS))
    X, T = (centers[c] + rng.normal(scale=0.7, size=(len(c), DIM)) for c in (truth, test_truth))
    return X.astype(np.float32), truth, T.astype(np.float32), test_truth, rng.normal(size=(OTHERS, DIM)).astype(np.float32)


def import_clusters(root, *, test_truth=None, seed=0):
    """Stores of the images, and of the others."""
    X, truth, T, own_truth, others = clusters(seed)
    root.mkdir(parents=True, exist_ok=True)
    given = {"x": X, "x_truth": truth, "t": T, "t_truth": own_truth if test_truth is None else test_truth, "o": others}
    for name, values in given.items():
        np.save(root / f"{name}.npy", values)
    import_descriptors(root / "x.npy", store=root / "s", truth=root / "x_truth.npy", settings=QUICK)
    import_descriptors(root / "t.npy", store=root / "s", role="tests", truth=root / "t_truth.npy", settings=QUICK)
    import_descriptors(root / "o.npy", store=root / "others", settings=QUICK)
    reduce(root / "s", dim=0, settings=QUICK)
    return Store(root / "s"), Store(root / "others")


def protocol(**options):
    return Protocol(SPLIT, **{"n_per_class": (1, 2), "draws": 2, **options})


def naive_draws(truth, group, sizes, draw):
    """Rows that are labelled, for each n: all of base classes, and the first n of a permutation of novel ones."""
    rng = np.random.default_rng(draw)
    orders = [rng.permutation(np.flatnonzero(truth == c)) for c in group.novel]
    base = [row for row in range(len(truth)) if truth[row] in group.base]
    return [sorted([*base, *(row for order in orders for row in order[:n])]) for n in sizes]


def unit(X):
    return X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)


def naive_edges(ids, sims, *, weighting="constant", sigma=None, mutual=False):
    """Neighbors that count, -1 = none, and the weights of edges."""
    kept = [[j if not mutual or i in ids[j] else -1 for j in row] for i, row in enumerate(ids.tolist())]
    return np.array(kept), np.exp(-(2 - 2 * sims) / sigma**2) if weighting == "gaussian" else None


def naive_scores(
    data,
    group,
    labelled,
    *,
    setting="none",
    transductive=False,
    others=0,
    table=None,
    weights=None,
    normalization="columns",
    **eta,
):
    """Dense scores of the tests of a group after each iteration, and their columns.

    ``table`` has the neighbors of the others among themselves, in place of the nearest.
    """
    X, truth, T, test_truth, other_X = data
    classes = [*group.base, *group.novel]
    test_rows = [i for i in range(len(T)) if test_truth[i] in classes]
    rows = list(labelled)
    if setting == "in-domain":
        rows += [i for i in range(len(X)) if truth[i] in group.novel and i not in labelled]
    nodes = np.concatenate([unit(X[rows])] + [unit(T[test_rows])] * transductive + [unit(other_X[:others])])
    ids, similarities = naive_neighbors(nodes, K)
    if table is not None:
        ids[-others:] = naive_completed(nodes, len(nodes) - others, table)
    ids, weight = naive_edges(ids, similarities, **(weights or {}))
    W = naive_w(ids, weight)
    seeds, columns = range(len(labelled)), [classes.index(truth[i]) for i in labelled]
    if "solver" in eta:
        L = [naive_normalized(naive_zhou(ids, weight, seeds, columns, len(classes), eta["alpha"]), "columns")]
    elif normalization in ("columns", "none") and not eta:
        L = naive_diffuse(W, seeds, columns, len(classes), MAX_ITER, normalization)
    else:
        L = naive_coupled(W, seeds, columns, len(classes), MAX_ITER, normalization, **eta)
    if transductive:
        queries = [[len(rows) + i] for i in range(len(test_rows))]
    else:
        queries = naive_neighbors(nodes, K, unit(T[test_rows]))[0]
    reached = [np.count_nonzero(each) / each.size for each in L]
    return [naive_query_scores(each, queries) for each in L], [classes.index(test_truth[i]) for i in test_rows], reached


def naive_completed(nodes, n_seeds, table):
    """For each node behind the seeds the best K of those that a table lists and the seeds."""
    rows = []
    for row, listed in enumerate(table, start=n_seeds):
        known = np.concatenate([np.arange(n_seeds), n_seeds + listed])
        rows.append(known[np.argsort(-(nodes[known] @ nodes[row]), kind="stable")[:K]])
    return rows


def naive_accuracies(scores, columns, n_base, **options):
    """Top-1 and top-5 on all tests, and on those of novel classes."""
    novel = [i for i, c in enumerate(columns) if c >= n_base]
    parts = [(scores, columns), (scores[novel], [columns[i] for i in novel])]
    return [naive_top_k_accuracy(*part, k, **options) for part in parts for k in (1, 5)]


def naive_choice(accuracies):
    """The candidate with the best mean over the draws: by top-1, as classes are few, then by top-5, then the first of equals."""
    means = [np.mean(of_candidate, axis=0).round(12).tolist() for of_candidate in np.moveaxis(accuracies, 1, 0)]
    return sorted(range(len(means)), key=lambda i: (-means[i][0], -means[i][1], i))[0]


def naive_bounds(scores, columns, n_base, *, error=1e-5):
    """The least and the most that accuracies can be where scores are rounded to float32, which decides exact ties."""
    least, most = (np.array(scores) for _ in range(2))
    own = np.arange(len(columns)), columns
    least[own] *= 1 - error
    most[own] *= 1 + error
    return [naive_accuracies(each, columns, n_base) for each in (least, most)]
