"""Walks over stores with seeds apart, and of columns that are rounded: published nodes and shares are those of brute force."""

import numpy as np
import pytest

from ooc_diffusion.evaluation import draw_seeds
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.paths import paths
from tests.reference import naive_bfloat16, naive_coupled, naive_diffuse_rounded, naive_float32, naive_w0, naive_walk
from tests.stages.chain import K, build, digits, write_labels

T = 3


@pytest.mark.parametrize(("m", "precision"), [(60, "float32"), (0, "bfloat16")])
@pytest.mark.parametrize("rows", ["tests", "nodes"])
def test_walks_are_those_of_brute_force(tmp_path, m, precision, rows):
    sample = digits(m=m)
    store = build(tmp_path / "store", sample)
    labels = write_labels(store.path, *draw_seeds(sample.seeds_truth if m else sample.background_truth, n_per_class=2, seed=0))
    diffuse(store, labels=labels, n_iter=T, rows=rows, precision=precision)
    classify(store, method="diffusion")
    chosen = list(range(70, 80))
    record = paths(store, output=tmp_path / "p", rows=chosen)
    table = store.array("graph/neighbor_ids" if m else "background/neighbor_ids")[:, :K]
    tests = store.array("graph/query_ids" if m else "tests/neighbor_ids")[:, :K]
    rounded = naive_float32 if precision == "float32" else lambda sums: naive_bfloat16(naive_float32(sums))
    seeds, classes = store.array("diffusion/seed_nodes"), store.array("diffusion/seed_classes")
    L = naive_diffuse_rounded(table, seeds, classes, 10, T, order=Graph(store).order, rounded=rounded)
    W0 = naive_w0(table, len(table)).toarray()
    nodes, shares = store.array("paths/nodes"), store.array("paths/shares")
    wanted = store.parameters("paths")["walks"]
    assert len(wanted) == len(nodes) == record["walks"]
    assert {kind for _, _, kind in wanted} == {"predicted", "true"}
    for (row, label, _), found, share in zip(wanted, nodes, shares, strict=True):
        expected = naive_walk(W0 + W0.T, L, tests[row] if rows == "tests" else [row], label)
        if expected is None:
            assert (found == -1).all()
            continue
        assert found.tolist() == [node for node, _ in expected]
        np.testing.assert_allclose(share, [part for _, part in expected], rtol=1e-6)
        assert found[0] in seeds[classes == label]


@pytest.mark.parametrize(
    "eta",
    [
        {"normalization": "rows"},
        {"normalization": "gamma", "power": 1.5},
        {"reset": True},
        {"normalization": "rows", "reset": True},
    ],
)
def test_walks_where_all_classes_are_normalized_are_those_of_brute_force(tmp_path, eta):
    sample = digits(m=0)
    store = build(tmp_path / "store", sample)
    labels = write_labels(store.path, *draw_seeds(sample.background_truth, n_per_class=2, seed=0))
    diffuse(store, labels=labels, n_iter=T, rows="nodes", **eta)
    classify(store, method="diffusion")
    seeds, classes = store.array("diffusion/seed_nodes"), store.array("diffusion/seed_classes")
    paths(store, output=tmp_path / "p", rows=[*range(70, 76), int(seeds[0])])
    W0 = naive_w0(store.array("background/neighbor_ids")[:, :K], Graph(store).n).toarray()
    S = W0 + W0.T
    W = S / np.maximum(S.sum(axis=1, keepdims=True), 1)
    given = {"normalization": "columns", **eta}
    L = naive_coupled(W, seeds, classes, 10, T, given.pop("normalization"), **given)
    for (row, label, _), found, share in zip(
        store.parameters("paths")["walks"], *store.arrays("paths/nodes", "paths/shares"), strict=True
    ):
        at = row
        if found[0] < 0:
            assert L[T][row, label] == 0
            continue
        assert found[-1] == row
        assert found[0] in seeds[classes == label]
        for t in range(T - 1, -1, -1):
            if eta.get("reset") and at in seeds:
                assert (found[: t + 1] == at).all()
                assert (share[: t + 1] == 1).all()
                break
            contributions = [S[at, j] * L[t][j, label] for j in range(len(S))]
            at = int(found[t])
            assert contributions[at] >= max(contributions) * (1 - 1e-4)  # near ties may fall otherwise in float32
            np.testing.assert_allclose(share[t], contributions[at] / sum(contributions), rtol=1e-3)


def test_images_are_drawn_by_the_seed_among_those_without_a_given_label(tmp_path):
    sample = digits()
    store = build(tmp_path / "store", sample)
    labels = write_labels(store.path, *draw_seeds(sample.background_truth, n_per_class=20, seed=0))
    diffuse(store, labels=labels, n_iter=1, rows="nodes")
    classify(store, method="diffusion")
    drawn = paths(store, output=tmp_path / "p", number=200)
    rows = [row for row, _, kind in store.parameters("paths")["walks"] if kind == "predicted"]
    predicted = store.array("predictions/labels")
    free = np.setdiff1d(np.flatnonzero(predicted >= 0), store.array("diffusion/seed_nodes"))
    assert rows == free.tolist()
    assert drawn["without_path"] < drawn["walks"]
    paths(store, output=tmp_path / "few", number=5)
    few = {row for row, _, _ in store.parameters("paths")["walks"]}
    assert len(few) == 5
    assert few < set(rows)
