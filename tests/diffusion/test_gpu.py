"""The step on a torch device equals the naive product and the CPU within float32 rounding; the same code runs on cpu and cuda."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import Diffusion, device_matrix, gpu, room, write_scores
from ooc_diffusion.diffusion.device_matrix import DeviceMatrix, add_product
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.evaluation import draw_seeds
from ooc_diffusion.memory import MemoryBudget, parse_size
from ooc_diffusion.stages.diffuse import diffuse as diffuse_stage
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.reference import awkward_table, naive_diffuse, naive_query_scores, naive_w
from tests.stages.chain import build, digits, write_labels

N, C, T = 99, 7, 4
# Sums of float32 in another order.
CLOSE = {"rtol": 2e-6, "atol": 1e-12}


def ring_table(n, k, rng):
    """Neighbors on a ring, some of them far: few queries need few rows."""
    ids = (np.arange(n)[:, None] + rng.integers(-3, 4, (n, k))) % n
    ids[rng.random((n, k)) < 0.02] = -1
    return ids


@pytest.fixture(params=["constant", "weighted", "ring"])
def case(request):
    rng = np.random.default_rng(7)
    ids, weights = awkward_table(rng, N, 5) if request.param != "ring" else (ring_table(N, 5, rng), None)
    weights = weights.astype(np.float32) if request.param == "weighted" else None
    graph = build_graph(ids, weights=weights, order=rng.permutation(N).astype(np.uint32))
    seeds = rng.choice(N, 30, replace=False)
    classes = rng.integers(0, C - 1, 30)  # the last class stays empty
    queries = rng.integers(-1, N, (6, 3))
    queries[2] = -1
    return graph, naive_w(ids, weights), seeds, classes, queries


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Stand for the GPU: torch's CPU, on which the same code runs, or a GPU where there is one."""
    import torch

    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch finds no GPU")
    else:
        monkeypatch.setattr(gpu, "_count_gpus", lambda: 1)
        monkeypatch.setattr(gpu, "torch_device", lambda device: torch.device("cpu"))
        monkeypatch.setattr(gpu, "free_bytes", lambda device: 2**30)
    return torch.device(request.param)


def plan(monkeypatch, *, columns=C, resident=True, rows=room.BLOCK_ROWS, entries=room.BLOCK_ENTRIES, piece=10**6):
    monkeypatch.setattr(gpu, "make_device_room", lambda graph, n_columns, free: (min(columns, n_columns), resident))
    monkeypatch.setattr(room, "BLOCK_ROWS", rows)
    monkeypatch.setattr(room, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(device_matrix, "PIECE_ENTRIES", piece)


PLANS = [
    {"rows": 1},
    {"rows": N - 1, "columns": 3},
    {"rows": N, "columns": 1, "resident": False},
    {"rows": N + 1, "entries": 29, "piece": 3},
    {"rows": 40, "columns": 5, "entries": 64, "piece": 4, "resident": False},
    {"rows": 16, "columns": 6, "piece": 1},
]


@pytest.mark.parametrize(("every", "normalization"), [(False, "columns"), (True, "columns"), (True, "none")])
@pytest.mark.parametrize("outside", [False, True])
def test_equals_the_naive_product_and_the_cpu(case, device, monkeypatch, every, outside, normalization):
    graph, W, seeds, classes, queries = case
    options = {"queries": queries if outside else None, "n_iter": T, "every_iteration": every, "normalization": normalization}
    on_cpu = np.array(diffuse(graph, seeds, classes, C, **options))
    expected = naive_diffuse(W, seeds, classes, C, T, normalization)
    expected = [naive_query_scores(L, queries) for L in expected] if outside else expected
    for one in PLANS:
        plan(monkeypatch, **one)
        found = np.array(diffuse(graph, seeds, classes, C, device="cuda", **options))
        np.testing.assert_allclose(found, np.stack(expected) if every else expected[-1], **CLOSE)
        np.testing.assert_allclose(found, on_cpu, **CLOSE)


def test_a_prior(case, device):
    graph, W, seeds, classes, queries = case
    prior = np.arange(1.0, C + 1)
    for outside in (None, queries):
        L = naive_diffuse(W, seeds, classes, C, 2)[-1] * prior / prior.sum()
        expected = L if outside is None else naive_query_scores(L, outside)
        found = diffuse(graph, seeds, classes, C, queries=outside, n_iter=2, prior=prior, device="cuda")
        np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("n_iter", [0, 1])
def test_few_iterations(case, device, n_iter):
    graph, W, seeds, classes, queries = case
    expected = naive_query_scores(naive_diffuse(W, seeds, classes, C, n_iter)[-1], queries)
    np.testing.assert_allclose(
        diffuse(graph, seeds, classes, C, queries=queries, n_iter=n_iter, device="cuda"), expected, **CLOSE
    )


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("numbers", [1, 20, 10**6])
def test_blocks_of_scores_and_sums(case, device, monkeypatch, numbers, resident):
    graph, W, seeds, classes, queries = case
    plan(monkeypatch, columns=4, resident=resident)
    monkeypatch.setattr(gpu, "_NUMBERS", numbers)
    expected = naive_diffuse(W, seeds, classes, C, 2)[-1]
    np.testing.assert_allclose(diffuse(graph, seeds, classes, C, n_iter=2, device="cuda"), expected, **CLOSE)
    found = diffuse(graph, seeds, classes, C, queries=queries, n_iter=2, device="cuda")
    np.testing.assert_allclose(found, naive_query_scores(expected, queries), **CLOSE)


def run(store, graph, what, **options):
    with store.job("diffuse", parameters={}) as job:
        record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**32), threads=2, **options)
        job.publish(record)
    return record


@pytest.mark.parametrize("resident", [False, True])
def test_the_steps_that_are_recorded_and_the_rows_they_skip(case, device, monkeypatch, tmp_path, resident):
    graph, _, seeds, classes, queries = case
    plan(monkeypatch, columns=5, resident=resident)
    multiplied = []
    monkeypatch.setattr(gpu, "add_product", lambda block, L, out: (multiplied.append(block), add_product(block, L, out)))
    what = Diffusion(seeds, classes, C, T, queries[:2])
    record = run(Store(tmp_path, create=True), graph, what, device="cuda")
    assert record["column_batches"] == 2
    assert sum(record["steps"].values()) == 2 * T
    assert ("masked" in record["steps"]) == resident
    entries = sum(len(block.entries) for block in multiplied)
    if resident:
        assert entries < (2 * T + T) * graph.nnz  # with the pass of the adjoint sums
        assert min(len(block.starts) for block in multiplied) <= 1 + queries[:2].size
    else:
        assert entries == 2 * T * graph.nnz


class Crash(Exception):
    pass


@pytest.mark.parametrize("widths", [(2, 2), (3, 4)])
def test_an_interrupted_run_goes_on_behind_its_last_batch(case, device, monkeypatch, tmp_path, widths):
    graph, W, seeds, classes, _ = case
    what = Diffusion(seeds, classes, C, T)
    iterates, begun = gpu.iterates, []

    def counted(*args):
        begun.append(args)
        for t, L in iterates(*args):
            if len(begun) == crash_at and t == 3:
                raise Crash
            yield t, L

    monkeypatch.setattr(gpu, "iterates", counted)
    store, crash_at = Store(tmp_path, create=True), 2
    plan(monkeypatch, columns=widths[0])
    with pytest.raises(Crash):
        run(store, graph, what, device="cuda")
    begun.clear()
    crash_at = None
    plan(monkeypatch, columns=widths[1])
    record = run(store, graph, what, device="cuda")
    assert len(begun) == -(-(C - widths[0]) // widths[1])
    assert record["column_batches"] == 1 + len(begun)
    assert record["steps"] == {"dense": T * record["column_batches"]}
    np.testing.assert_allclose(store.array("scores"), naive_diffuse(W, seeds, classes, C, T)[-1], **CLOSE)


@pytest.mark.parametrize("entries", [10**4, 10**6])
def test_a_hub_is_summed_in_pieces(device, monkeypatch, entries):
    n = 300_000
    graph = build_graph(np.stack([np.zeros(n, np.int64), np.arange(n)], axis=1))
    monkeypatch.setattr(room, "BLOCK_ENTRIES", entries)
    import torch

    W = DeviceMatrix(graph, device, resident=False)
    L = torch.full((n, 1), 0.1, device=device)
    (_, _), (_, found) = gpu.iterates(W, L, 1, [None, None])
    np.testing.assert_allclose(found.cpu().numpy(), np.float32(0.1), rtol=1e-5)


def test_places_beyond_int32(case, device, monkeypatch):
    graph, W, seeds, classes, _ = case
    monkeypatch.setattr(device_matrix, "_INT32_NUMBERS", 0)
    found = diffuse(graph, seeds, classes, C, n_iter=T, device="cuda")
    np.testing.assert_allclose(found, naive_diffuse(W, seeds, classes, C, T)[-1], **CLOSE)


@pytest.mark.parametrize("how", ["a wrong high bit", "a dropped block", "a permuted order"])
def test_a_broken_graph_is_noticed(device, how):
    rng = np.random.default_rng(3)
    ids = ring_table(N, 5, rng)
    graph = build_graph(ids, order=rng.permutation(N).astype(np.uint32))
    seeds, classes = rng.choice(N, 40, replace=False), rng.integers(0, C, 40)
    expected = naive_diffuse(naive_w(ids), seeds, classes, C, 3)[-1]
    np.testing.assert_allclose(diffuse(graph, seeds, classes, C, n_iter=3, device="cuda"), expected, **CLOSE)
    if how == "a wrong high bit":
        graph.indices = np.array(graph.indices)
        graph.indices[len(graph.indices) // 2] ^= np.uint32(1 << 31)
    elif how == "a dropped block":
        graph.row_scale = np.array(graph.row_scale)
        graph.row_scale[40:80] = 0
    else:
        graph.position = np.roll(graph.position, 1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(diffuse(graph, seeds, classes, C, n_iter=3, device="cuda"), expected, **CLOSE)


def test_the_free_memory_decides_columns_and_residence(case):
    graph = case[0]
    least = next(free for free in range(2**28, 2**31, 2**18) if fits(graph, free))
    assert gpu.make_device_room(graph, 10**6, 2**32)[1]
    columns, _ = gpu.make_device_room(graph, 10**6, least)
    assert columns >= 1
    with pytest.raises(DoesNotFit, match=r"needs .* of memory on the GPU, but .* are free; .* --device cpu"):
        gpu.make_device_room(graph, 1, least - 2**19)


def fits(graph, free):
    try:
        return gpu.make_device_room(graph, 1, free)
    except DoesNotFit:
        return None


class LargeGraph:
    """The sizes of the paper's graph of 100 million images."""

    n, nnz, weights = 10**8, 5_300_000_000, None


def test_w_is_streamed_where_few_columns_would_fit_beside_it():
    for free, resident in ((24 * 2**30, False), (80 * 10**9, True)):
        columns, found = gpu.make_device_room(LargeGraph, 507, free)
        held = 8 * LargeGraph.n * columns + (4 * LargeGraph.nnz if resident else 0)
        assert found == resident
        assert 0.6 * free < held < free


def test_the_budget_of_the_host_is_respected(case, device):
    graph, _, seeds, classes, _ = case
    least = MemoryBudget(1).overhead(torch=True) + gpu.gpu_host_bytes(C)
    with pytest.raises(DoesNotFit, match=r"diffusing on a GPU needs a memory budget of \d+MiB") as error:
        diffuse(graph, seeds, classes, C, device="cuda", memory_budget=least - 2**21)
    named = parse_size(str(error.value).rsplit(" ", 3)[1])
    assert named - least < 2**24


def test_a_missing_gpu_is_an_error_and_not_a_fallback(case, monkeypatch):
    graph, _, seeds, classes, _ = case
    monkeypatch.setattr(gpu, "_count_gpus", lambda: 0)
    assert gpu.resolve_device("auto") == "cpu"
    with pytest.raises(BadInput, match=r"device cuda is not there \(0 GPUs found\); give --device cpu"):
        diffuse(graph, seeds, classes, C, device="cuda")
    with pytest.raises(BadInput, match="device 'tpu' is not one of auto, cpu, cuda"):
        diffuse(graph, seeds, classes, C, device="tpu")
    monkeypatch.setattr(gpu, "_count_gpus", lambda: 2)
    assert [gpu.resolve_device(name) for name in ("auto", "cpu", "cuda", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:1"]
    assert gpu.resolve_device("auto", precision="bfloat16") == "cpu"
    with pytest.raises(BadInput, match=r"cuda:2 is not there \(2 GPUs found\)"):
        gpu.resolve_device("cuda:2")


def test_a_stage_on_a_gpu_equals_that_on_the_cpu_and_is_another_run(device, tmp_path):
    store = build(tmp_path / "store", digits(), settings=Settings(device="cpu"))
    labels = write_labels(tmp_path / "store", *draw_seeds(store.array("background/truth"), n_per_class=3, seed=0))
    stage = partial(diffuse_stage, tmp_path / "store", labels=labels, n_iter=3)
    stage(settings=Settings(device="cpu"))
    assert "device" not in store.parameters("diffuse")
    names = ("diffusion/scores", "diffusion/held_out_scores")
    on_cpu = [np.array(store.array(name)) for name in names]
    with pytest.raises(BadInput, match=r"device = None \(now cuda\)"):
        stage(settings=Settings(device="cuda"))
    record = stage(settings=Settings(device="cuda", overwrite=True))
    assert "batches that fit the GPU" in record["plan"]["work"]
    assert record["steps"].keys() <= {"dense", "masked"}
    for name, expected in zip(names, on_cpu, strict=True):
        assert (expected > 0).any()
        np.testing.assert_allclose(store.array(name), expected, **CLOSE)
    assert stage(settings=Settings(device="cuda:0"))["skipped"]


def test_diffusing_on_the_cpu_loads_no_torch():
    code = (
        "import sys, numpy as np\n"
        "from ooc_diffusion import build_graph, diffuse\n"
        "diffuse(build_graph(np.array([[0, 1], [1, 0]])), [0], [0], 1)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
