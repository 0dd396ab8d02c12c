"""Indexes of faiss from files: sound ones find what a loop finds; of others one line is left, and this process."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import faiss
import numpy as np
import psutil
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.neighbors import ForeignIndex, foreign_index
from tests.reference import naive_neighbors

N, D, K = 3000, 16, 6
KINDS = {
    "Flat": ("Flat", faiss.METRIC_INNER_PRODUCT),
    "Flat, L2": ("Flat", faiss.METRIC_L2),
    "IVFFlat": ("IVF32,Flat", faiss.METRIC_L2),
    "HNSW": ("HNSW16", faiss.METRIC_INNER_PRODUCT),
    "IVFPQ": ("IVF32,PQ16x4", faiss.METRIC_INNER_PRODUCT),
    "SQ8": ("IVF32,SQ8", faiss.METRIC_L2),
}


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, D))[rng.integers(0, 40, N)] + 0.5 * rng.normal(size=(N, D))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def write(file, X, kind="Flat"):
    spec, metric = KINDS[kind]
    index = faiss.index_factory(D, spec, metric)
    index.train(X)
    index.add(X)
    faiss.write_index(index, str(file))
    return str(file)


@pytest.fixture(scope="module")
def files(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    return {kind: write(folder / f"{kind}.faiss", vectors, kind) for kind in KINDS}


def found(path, X, queries=None, **options):
    with ForeignIndex(str(path), X, k=K, **options) as index:
        ids, similarities = zip(*index.blocks(X if queries is None else queries), strict=True)
        return np.concatenate(ids), np.concatenate(similarities), index


def recall(ids, X):
    some = np.arange(0, N, 50)
    truth, _ = naive_neighbors(X, K, X[some])
    return np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(truth, ids[some], strict=True)])


@pytest.mark.parametrize(
    ("kind", "least", "off"), [(kind, 0.9, 0.01) for kind in KINDS if kind != "IVFPQ"] + [("IVFPQ", 0.5, 0.1)]
)
def test_every_kind_finds_neighbors(files, vectors, kind, least, off):
    ids, similarities, index = found(files[kind], vectors)
    assert (ids.dtype, similarities.dtype) == (np.int32, np.float32)
    assert recall(ids, vectors) > (0.999 if kind.startswith("Flat") else least)
    products = np.einsum("qd,qkd->qk", vectors, vectors[ids])
    assert np.abs(similarities - products)[ids >= 0].mean() < off
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert index.probes == (24 if "32" in KINDS[kind][0] else 0)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_whole_blocks_of_exact_search_have_the_memory_that_they_take(tmp_path, threads):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(foreign_index.QUERY_ROWS + 1, 32)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(32)
    index.add(X)
    faiss.write_index(index, str(tmp_path / "flat.faiss"))
    ids, _, _ = found(tmp_path / "flat.faiss", X, threads=threads)
    some = np.arange(0, len(X), 100)
    np.testing.assert_array_equal(ids[some], naive_neighbors(X, K, X[some])[0])


def test_more_probes_find_more(files, vectors):
    one, _, index = found(files["IVFFlat"], vectors, probes=1)
    assert index.probes == 1
    assert recall(one, vectors) < recall(found(files["IVFFlat"], vectors, probes=32)[0], vectors)
    for kind, lists in (("IVFFlat", 32), ("HNSW", 0)):
        with pytest.raises(BadInput, match=rf"`probes` is 33, but .* \(Index\w+\) has {lists} lists"):
            found(files[kind], vectors, probes=33)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_blocks_change_no_bit(files, vectors, kind, monkeypatch):
    ids, similarities, _ = found(files[kind], vectors, threads=1)
    other_ids, other, _ = found(files[kind], vectors, threads=2)
    assert ids.tobytes() == other_ids.tobytes()
    assert similarities.tobytes() == other.tobytes()
    with ForeignIndex(files[kind], vectors, k=K) as index:
        monkeypatch.setattr(foreign_index, "QUERY_ROWS", 1000)
        blocks = list(index.blocks(vectors, start=2000))
    assert [len(block) for block, _ in blocks] == [1000]
    assert (blocks[0][0] == ids[2000:]).mean() > 0.999


OTHERS = {
    "rows": (lambda X: X[:-1], r"holds 2999 vectors, but the background has 3000"),
    "order": (lambda X: np.roll(X, 1, axis=0), r"finds only \d+ % of 256 sampled vectors of the background: it is of others"),
    "length": (lambda X: 3 * X, r"differs from the inner products of the vectors in the store by \d"),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_an_index_of_other_vectors(vectors, tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        found(write(tmp_path / "other.faiss", np.ascontiguousarray(change(vectors))), vectors)


def test_other_spaces(vectors, tmp_path):
    index = faiss.IndexFlatL2(D + 1)
    index.add(np.zeros((N, D + 1), np.float32))
    faiss.write_index(index, str(tmp_path / "wide.faiss"))
    with pytest.raises(BadInput, match="holds 17 values in each vector, but the background has 16"):
        found(tmp_path / "wide.faiss", vectors)
    index = faiss.IndexFlat(D, faiss.METRIC_L1)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "l1.faiss"))
    with pytest.raises(BadInput, match="has metric 2 of faiss; give an index by inner product or by L2"):
        found(tmp_path / "l1.faiss", vectors)


def test_identical_vectors_find_equals(tmp_path, vectors):
    X = np.ascontiguousarray(np.repeat(vectors[:3], 1000, axis=0))
    ids, similarities, _ = found(write(tmp_path / "same.faiss", X), X)
    assert (ids // 1000 == np.arange(N)[:, None] // 1000).all()
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


def outcome(path, X):
    """One line of error, or a table that is as good as that of a sound file, nearly."""
    try:
        ids, similarities, _ = found(path, X)
    except BadInput as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        return "refused"
    assert ((ids >= -1) & (ids < N)).all()
    assert np.isfinite(similarities).all()
    assert recall(ids, X) > 0.4
    return "searched"


@pytest.mark.faults
def test_junk(tmp_path, vectors, files):
    rng = np.random.default_rng(1)
    whole = bytearray(Path(files["IVFFlat"]).read_bytes())
    junk = {"empty": b"", "bytes": rng.bytes(5000), "text": b"IwFl" * 1000, "longer": bytes(whole) + rng.bytes(5000)}
    for name, data in junk.items():
        (tmp_path / name).write_bytes(data)
        assert outcome(tmp_path / name, vectors) == ("searched" if name == "longer" else "refused")


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_truncated(tmp_path, vectors, files, kind):
    whole = Path(files[kind]).read_bytes()
    for end in (3, 40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:end])
        assert outcome(tmp_path / "cut", vectors) == "refused", end


def flipped(tmp_path, files, kind, vectors, flips):
    whole, rng, outcomes = Path(files[kind]).read_bytes(), np.random.default_rng(7), set()
    for number in range(flips):
        data = bytearray(whole)
        for _ in range(1 + number % 4):  # headers and counts stand at the front
            data[rng.integers(0, [len(data), 64, 400][number % 3])] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "flipped").write_bytes(data)
        outcomes.add(outcome(tmp_path / "flipped", vectors))
    return outcomes


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits(tmp_path, vectors, files, kind):
    assert "refused" in flipped(tmp_path, files, kind, vectors, 5)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_many_flipped_bits(tmp_path, vectors, files, kind):
    assert flipped(tmp_path, files, kind, vectors, 60) == {"refused", "searched"}


@pytest.mark.faults
def test_huge_counts(tmp_path, vectors, files):
    """The number of vectors, 8 bytes behind the name and d, and the size of the array behind the header."""
    whole = Path(files["Flat"]).read_bytes()
    for place in (8, 37):
        for count in (2**63 - 1, 2**40, 2**31):
            data = bytearray(whole)
            data[place : place + 8] = count.to_bytes(8, "little")
            (tmp_path / "huge").write_bytes(data)
            assert outcome(tmp_path / "huge", vectors) == "refused"


PROGRAMS = {
    "crash": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "faiss crashed over it, SIGSEGV"),
    "hang": ("import time; time.sleep(60)", "faiss takes too long over it"),
    "silence": ("pass", "exit code 0"),
    "chatter": ("import sys; sys.stderr.write('one\\nt\\x00wo\\n'); print('no json')", r"two"),
    "late crash": (
        """
        import json, os, sys
        print(json.dumps({"n": 3000, "d": 16, "metric": 0, "kind": "Index", "lists": 0}), flush=True)
        sys.stdin.buffer.readline()
        os.abort()
        """,
        "faiss crashed over it, SIGABRT",
    ),
    "half an answer": (
        """
        import json, sys
        print(json.dumps({"n": 3000, "d": 16, "metric": 0, "kind": "Index", "lists": 0}), flush=True)
        sys.stdin.buffer.read(100)
        sys.stdout.buffer.write(bytes(100))
        """,
        "exit code 0",
    ),
}


@pytest.mark.faults
@pytest.mark.parametrize(("program", "reason"), PROGRAMS.values(), ids=PROGRAMS)
def test_whatever_the_other_process_does(monkeypatch, tmp_path, vectors, files, program, reason):
    (tmp_path / "child.py").write_text(textwrap.dedent(program))
    monkeypatch.setattr(foreign_index, "_PROGRAM", tmp_path / "child.py")
    monkeypatch.setattr(foreign_index, "_SECONDS", 2.0)
    monkeypatch.setattr(foreign_index, "_EXIT_SECONDS", 1.0)
    with pytest.raises(BadInput, match=rf"cannot be searched as a faiss index \({reason}\); write it anew") as error:
        found(files["Flat"], vectors)
    assert "\n" not in str(error.value)


@pytest.mark.faults
def test_no_more_memory_than_was_planned(monkeypatch, vectors, files):
    monkeypatch.setattr(foreign_index, "_data_bytes", lambda *sizes: 2**16)
    monkeypatch.setattr(foreign_index, "_RESERVED", 0)
    with pytest.raises(BadInput, match="cannot be searched as a faiss index"):
        found(files["HNSW"], vectors)


def test_the_process_ends_with_the_block(vectors, files):
    with pytest.raises(KeyError), ForeignIndex(files["Flat"], vectors, k=K) as index:
        raise KeyError
    assert index._child.returncode is not None


ORPHAN = """
    import os, signal, sys
    import numpy as np
    from ooc_diffusion.neighbors import ForeignIndex
    with ForeignIndex(sys.argv[1], np.load(sys.argv[2]), k=6) as index:
        print(index._child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.faults
def test_the_process_ends_with_its_parent(vectors, files, tmp_path):
    np.save(tmp_path / "X.npy", vectors)
    command = [sys.executable, "-c", textwrap.dedent(ORPHAN), files["Flat"], str(tmp_path / "X.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    for _ in range(100):
        if not psutil.pid_exists(int(done.stdout)) or psutil.Process(int(done.stdout)).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("it is still there")
