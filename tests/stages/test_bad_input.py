"""Each stage says in one line what is wrong and what to do."""

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.evaluate import evaluate
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from tests.stages.chain import build, digits, import_roles, write_labels


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build(tmp_path_factory.mktemp("bad") / "store", digits(120, 30))


CASES = {
    "k": (lambda s: neighbors(s, k=121), "`k` is 121, but there are only 120 background images; give a `k` of at most 120"),
    "no k": (lambda s: neighbors(s, k=0), "`k` is 0; give at least 1"),
    "index": (lambda s: neighbors(s, index="IVFFlat"), "IVFFlat needs at least 4096 vectors, there are 120; use Flat"),
    "too many probes": (
        lambda s: neighbors(s, probes=9),
        r"exact search \(`index` Flat\) visits everything; leave out `probes`",
    ),
    "half precision": (
        lambda s: neighbors(s, precision="float16"),
        "`precision` float16 is for `index` list-major, or IVFFlat on a GPU; Flat",
    ),
    "no precision": (lambda s: neighbors(s, precision="int8"), "precision 'int8' is not one of float32, float16"),
    "recall": (lambda s: neighbors(s, min_recall=1.5), "`min_recall` is 1.5; give a share above 0, up to 1"),
    "graph k": (lambda s: graph(s, k=7), "`k` is 7, but 6 neighbors were searched for"),
    "weighting": (lambda s: graph(s, weighting="cosine"), "weighting 'cosine' is not one of constant, gaussian, meaningful"),
    "other parameters": (lambda s: graph(s, k=5), r"stage graph in .* was finished with k = 6 \(now 5\).*--overwrite"),
    "sigma": (
        lambda s: graph(s, weighting="gaussian", sigma=0.0, settings=Settings(overwrite=True)),
        r"`sigma` is 0\.0; give a distance above 0",
    ),
    "sigma that is none": (
        lambda s: graph(s, weighting="gaussian", sigma=float("nan")),
        "`sigma` is nan; give a distance above 0",
    ),
    "dim": (lambda s: reduce(s, dim=-1), "`dim` is -1"),
    "rows": (lambda s: diffuse(s, labels=few(s), rows="all"), "rows 'all' is not one of auto, tests, nodes"),
    "n_iter": (lambda s: diffuse(s, labels=few(s), n_iter=-1), "`n_iter` is -1; give 0 or more"),
    "normalization": (lambda s: diffuse(s, labels=few(s), normalization="softmax"), "'softmax' is not one of columns, none"),
    "power": (lambda s: diffuse(s, labels=few(s), power=1.0), "`power` is 1.0; give a number above 1 and at most 2"),
    "precision": (lambda s: diffuse(s, labels=few(s), precision="half"), "precision 'half' is not one of float32, bfloat16"),
    "precision of rows": (
        lambda s: diffuse(s, labels=few(s), normalization="rows", precision="bfloat16"),
        "rows, sinkhorn, gamma, `reset` and `alpha` take no bfloat16; give `precision` float32",
    ),
    "precision on a GPU": (
        lambda s: diffuse(s, labels=few(s), precision="bfloat16", settings=Settings(device="cuda")),
        "`precision` bfloat16 runs on the CPU, but `device` is cuda; give `device` cpu",
    ),
    "not diffused": (lambda s: classify(s), "has no stage 'diffuse'"),
    "a class too small": (
        lambda s: evaluate(s, n_per_class=[100], draws=1),
        r"class \d has \d+ images, 100 are to be drawn: lower the number per class",
    ),
    "no draw": (lambda s: evaluate(s, draws=0), "must be at least 1"),
    "threads": (lambda s: neighbors(s, k=5, settings=Settings(threads=0, overwrite=True)), "threads must be at least 1"),
}


def few(folder):
    return write_labels(folder, [0, 1], ["a", "b"])


@pytest.mark.parametrize("case", CASES)
def test_bad_parameters(store, case):
    call, message = CASES[case]
    with pytest.raises(BadInput, match=message) as error:
        call(store.path)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3


def test_refused_parameters_leave_no_journal_behind(store):
    assert list((store.path / "jobs").iterdir()) == []


def test_no_truth(tmp_path):
    sample = digits(120, 30)
    folder = tmp_path / "store"
    for role in ("background", "tests"):
        np.save(tmp_path / f"{role}.npy", getattr(sample, role))
        import_descriptors(tmp_path / f"{role}.npy", store=folder, role=role)
    reduce(folder, dim=8)
    neighbors(folder, k=4)
    graph(folder)
    with pytest.raises(BadInput, match="does not know the true classes of its background; .* --truth"):
        evaluate(folder)


def test_outdated_inputs_are_refused(tmp_path):
    sample = digits(120, 30)
    folder = tmp_path / "store"
    build(folder, sample)
    diffuse(folder, labels=few(folder), n_iter=1)
    reduce(folder, dim=5, settings=Settings(overwrite=True))
    for stage in (lambda: graph(folder), lambda: diffuse(folder, labels=few(folder), n_iter=1), lambda: classify(folder)):
        with pytest.raises(BadInput, match=r"was made from an earlier \S+; run stage \S+ again with --overwrite"):
            stage()
    neighbors(folder, k=6, settings=Settings(overwrite=True))
    graph(folder, settings=Settings(overwrite=True))
    diffuse(folder, labels=few(folder), n_iter=1, settings=Settings(overwrite=True))
    assert classify(folder, method="diffusion")["images"] == 30


def test_stages_out_of_order(tmp_path):
    folder = tmp_path / "store"
    sample = digits(60, 20)
    import_roles(folder, sample, roles=["tests"])
    with pytest.raises(BadInput, match="has no background descriptors; run `ooc-diffusion extract` or `import` first"):
        reduce(folder)
    import_roles(folder, sample, roles=["background"])
    with pytest.raises(BadInput, match="has no array 'background/vectors'"):
        neighbors(folder)
    reduce(folder, dim=4)
    with pytest.raises(BadInput, match=r"has no stage 'neighbors\.background'"):
        graph(folder)
    neighbors(folder, k=4)
    with pytest.raises(BadInput, match="holds no graph"):
        diffuse(folder, labels=few(folder))


def test_roles_of_another_width(tmp_path):
    sample = digits(60, 20)
    sample.tests = sample.tests[:, :50]
    import_roles(tmp_path / "store", sample)
    with pytest.raises(BadInput, match="the tests have descriptors of 50 values, the background of 64; extract both alike"):
        reduce(tmp_path / "store")
