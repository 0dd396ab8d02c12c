"""Before a graph is published, its self-check finds whatever was corrupted on the way to the disk."""

import itertools

import numpy as np
import pytest

from ooc_diffusion.errors import CorruptStore
from ooc_diffusion.graph import build_graph, check
from ooc_diffusion.store import Store
from ooc_diffusion.store.writer import ArrayWriter
from tests.reference import awkward_table, naive_csr, naive_w, naive_w0

HIGH_BIT = np.uint32(1 << 31)


def corrupted(monkeypatch, changes):
    """Change arrays on their way: functions by name, given and returning all rows that are appended at once."""
    original = ArrayWriter.append

    def append(writer, block):
        change = changes.get(writer.path.name.split(".")[1])
        original(writer, change(block.copy()) if change and len(block) > 1 else block)

    monkeypatch.setattr(ArrayWriter, "append", append)


@pytest.fixture(params=["constant", "weighted"])
def table(request):
    ids, weights = awkward_table(np.random.default_rng(8), 300, 7)
    return ids, (weights if request.param == "weighted" else None)


def build(table, **options):
    return build_graph(table[0], weights=table[1], threads=1, **options)


def set_at(place, value):
    def change(block):
        block[place] = value(block[place]) if callable(value) else value
        return block

    return change


def swapped(block):
    block[[1, 2]] = block[[2, 1]]
    return block


# awkward_table's node 0 is a hub: row 0 is long, and its first entries are among the first of the file
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": set_at(1, lambda entry: entry ^ HIGH_BIT)}, "row 0 .*row_scale is not 1 / row sum|halves of edges"),
        ({"indices": swapped}, "row 0 .*neighbors do not ascend"),
        ({"indices": lambda entries: entries[:-1]}, "indptr goes from 0 to"),
        ({"indices": set_at(-1, lambda entry: entry | np.uint32(300))}, r"row \d+ .*position that is not there"),
        ({"row_scale": set_at(0, lambda scale: scale * np.float32(1.00001))}, "row 0 .*row_scale is not 1 / row sum"),
        ({"row_scale": set_at(0, np.nan)}, "row 0 .*row_scale is not 1 / row sum"),
        ({"row_scale": set_at(0, 0)}, "row 0 .*row_scale is not 1 / row sum"),
        ({"indptr": set_at(4, 1)}, r"row \d+ .*(indptr descends|position|ascend|row_scale)"),
        ({"indptr": set_at(4, 10**9)}, "row 4 .*indptr descends or leaves"),
        ({"indptr": set_at(4, -1)}, "row 4 .*indptr descends or leaves"),
        ({"position": set_at(5, 6)}, "row 5 .*order and graph/position contradict"),
    ],
)
def test_what_was_corrupted_on_its_way_is_found(table, monkeypatch, tmp_path, changes, message):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    corrupted(monkeypatch, changes)
    order = np.arange(300, dtype=np.uint32)
    with pytest.raises(
        CorruptStore, match=f"^the graph failed its self-check: .*({message}).*; it was thrown away, run the stage again$"
    ):
        build(table, order=order, store=tmp_path / "g")
    assert "graph/indptr" not in Store(tmp_path / "g")
    monkeypatch.undo()
    assert build(table, order=order, store=tmp_path / "g").n == 300


@pytest.mark.parametrize(("node", "row"), [(5, 5), (300, 4)])
def test_an_order_that_was_corrupted_on_its_way_is_found(table, monkeypatch, node, row):
    corrupted(monkeypatch, {"order": set_at(4, node)})
    with pytest.raises(
        CorruptStore, match=f"graph/order is no permutation of the nodes: row {row} holds {node}; .*run the stage again"
    ):
        build(table)


def arrays_of(ids, weights):
    """The graph to the last bit, as rows that can be changed: dictionaries of entry (high bit included) by position."""
    indptr, indices, scale, values = naive_csr(ids, weights)
    rows = [indices[a:b].tolist() for a, b in itertools.pairwise(indptr)]
    return rows, scale, np.empty(0, np.float32) if values is None else values


def checked(ids, rows, weights=None, values=None):
    """Check rows whose offsets and scales are made to suit them, so that only their edges can be wrong."""
    n = len(ids)
    same = np.arange(n, dtype=np.uint32)
    indptr = np.cumsum([0] + [len(row) for row in rows])
    indices = np.array([entry for row in rows for entry in row], np.uint32)
    if weights is None:
        sums = np.array([sum(1 + (entry >> 31) for entry in row) for row in rows])
    else:
        sums = np.array([values[a:b].astype(np.float64).sum() for a, b in itertools.pairwise(indptr)])
    scale = np.divide(1, sums, out=np.zeros(n), where=sums > 0).astype(np.float32)
    graph = check.GraphArrays(same, same, indptr, indices, np.empty(0, np.float32) if values is None else values, scale)
    halves = 2 * int((naive_w0(ids, n).toarray() > 0).sum())
    return check.check_graph(graph, ids, weights, halves=halves, threads=2, advance=lambda rows: None)


def line():
    """Each node lists itself, and the next; the edge between 0 and 1 is reciprocal."""
    ids = np.stack([np.arange(9), np.minimum(np.arange(9) + 1, 8)], axis=1)
    ids[1, 0] = 0
    return ids


def test_a_dropped_entry_is_missed_in_the_sum_of_all_rows():
    rows, _, _ = arrays_of(line(), None)
    rows[3].pop()
    with pytest.raises(CorruptStore, match=r"graph/indices has 33 halves of edges, but the neighbor table 34;"):
        checked(line(), rows)


def test_a_flipped_bit_is_missed_in_the_sum_of_all_rows():
    rows, _, _ = arrays_of(line(), None)
    rows[3][0] ^= 1 << 31
    with pytest.raises(CorruptStore, match=r"has 35 halves of edges, but the neighbor table 34;"):
        checked(line(), rows)


def set_row(rows, row, entries):
    rows[row] = entries


BIT = 1 << 31


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # each leaves the number of halves as it was
        (lambda rows: (rows[3].remove(4), rows[6].insert(0, 1)), r"row 3 \(node 3\): a listed neighbor is missing"),
        (lambda rows: (rows[4].remove(3), rows[3].append(8)), "row 3 .*no mirror"),
        (
            lambda rows: (rows[4].remove(5), rows[5].remove(4), rows[2].append(7), rows[7].insert(0, 2)),
            "row 2 .*in no neighbor list",
        ),
        (lambda rows: (set_row(rows, 0, [0 | BIT, 1]), set_row(rows, 8, [7 | BIT, 8 | BIT])), "row 0 .*reciprocal bit"),
        (lambda rows: (set_row(rows, 0, [0, 1 | BIT]), set_row(rows, 8, [7 | BIT, 8 | BIT])), "row 0 .*reciprocal bit"),
        (lambda rows: (set_row(rows, 1, [0, 2]), set_row(rows, 8, [7 | BIT, 8 | BIT])), "row 0 .*reciprocal bit"),
    ],
)
def test_a_sample_is_compared_with_the_neighbor_table(change, message):
    rows, _, _ = arrays_of(line(), None)
    checked(line(), rows)
    change(rows)
    with pytest.raises(CorruptStore, match=message):
        checked(line(), rows)


@pytest.mark.parametrize("both", [False, True])
def test_a_wrong_weight_is_found(both):
    ids, weights = line(), np.random.default_rng(0).uniform(0.5, 2, (9, 2)).astype(np.float32)
    rows, _, values = arrays_of(ids, weights)
    assert checked(ids, rows, weights, values)["nnz"] == len(values)
    starts = np.cumsum([0] + [len(row) for row in rows])
    values[starts[0] + 1] *= 2
    values[starts[1]] *= 1 + both
    with pytest.raises(CorruptStore, match="row 0 .*weight of an entry"):
        checked(ids, rows, weights, values)


@pytest.mark.parametrize("threads", [1, 2])
def test_good_graphs_pass_and_say_what_they_are(table, tmp_path, threads):
    ids, weights = table
    build_graph(ids, weights=weights, store=tmp_path / "g", threads=threads, order=np.random.default_rng(1).permutation(300))
    indices = naive_csr(ids, weights)[1]
    record = Store(tmp_path / "g").record("graph")
    assert record.pop("in_degree")["largest"] == np.bincount(ids[ids >= 0]).max()
    assert record == {
        "n": 300,
        "k": 7,
        "nnz": len(indices),
        "nnz_per_row": len(indices) / 300,
        "reciprocal_share": pytest.approx((indices >> 31).mean()),
        "checked_rows": 300,
    }


@pytest.mark.parametrize("ids", [[[-1]], [[0]], [[-1, -1], [-1, -1]], [[1, 1], [-1, 1]], [[0, 0], [0, 1]]])
def test_the_smallest_graphs_pass(ids):
    ids = np.array(ids)
    assert build_graph(ids).nnz == np.count_nonzero(naive_w(ids).toarray())
    weightless = np.zeros(ids.shape, np.float32)
    assert build_graph(ids, weights=weightless).nnz == len(naive_csr(ids, weightless)[1])


def test_only_a_part_of_a_long_row_is_compared_and_the_rest_counted(monkeypatch):
    monkeypatch.setattr(check, "_MOST_ENTRIES", 3)
    monkeypatch.setattr(check, "_SAMPLE_ROWS", 5)
    ids, _ = awkward_table(np.random.default_rng(2), 200, 5)
    rows, _, _ = arrays_of(ids, None)
    assert checked(ids, rows)["checked_rows"] == 5
