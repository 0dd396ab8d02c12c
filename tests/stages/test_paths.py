"""Walks over stores with seeds apart, and of columns that are rounded: published nodes and shares are those of brute force."""

import numpy as np
import pytest

from ooc_diffusion.evaluation import draw_seeds
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.paths import paths
from tests.reference import naive_bfloat16, naive_diffuse_rounded, naive_float32, naive_w0, naive_walk
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
