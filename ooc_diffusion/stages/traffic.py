"""How many bytes `neighbors` and `graph` read from disk, step by step, from sizes and memory alone.

Counted is each pass over an array on disk, as if the system kept nothing of it until the next pass. Rows that are read alone cost
what the system reads around them, those of a sample all of the array at most. Centroids are left out, and seeds and the pairs of
seeds that enter, which are needed all the time, are counted once. Two things sizes do not tell: whether a recall is so poor that
more than one sample is drawn (`more_of_tables`, `more_of_seeds`), and how many rows seeds enter (`more_pairs`). Of both that is
counted which is usual, and what may come at most is told apart.
"""

from __future__ import annotations

from ..graph import graph_bytes, table_passes
from ..memory import MemoryBudget, StagePlan
from ..neighbors import QUERY_ROWS, SAMPLES, most_samples, n_lists, query_rows, training_rows

# What Linux reads around a page of a mapped file that it has not in memory.
READ_AROUND = 128 * 2**10
# A seed enters more lists than its own has neighbors: hubs enter many.
ENTERED = 4
# With so few seeds their reach is not measured.
FEW_SEEDS = 4 * SAMPLES
# Entries of a row of W that are compared with the table.
_EDGES = 64
# Each bucket of rows on disk is two open files.
MOST_BUCKETS = 128
Reads = dict[str, int]


def alone(rows: int, row_bytes: int, total_bytes: int) -> int:
    """Return the bytes read for rows that are read one by one from an array of so many bytes."""
    return min(total_bytes, rows * (row_bytes + READ_AROUND))


def by_buckets(passes: int, row_bytes: int, source_bytes: int) -> bool:
    """Return whether rows are put in order with less traffic by buckets on disk than in so many passes over the source.

    A row that goes through a bucket is written and read once more, with its place of 4 bytes.
    """
    return passes <= MOST_BUCKETS and (passes - 1) * (source_bytes + 4) > 2 * (row_bytes + 4)


def bucket_bytes(n: int, row_bytes: int, *, room: int, source_bytes: int | None = None) -> int:
    """Return the bytes on disk of the buckets through which `put_permuted` puts n rows in order; 0 where it takes none."""
    there = by_buckets(_ranges(n, row_bytes, room), row_bytes, row_bytes if source_bytes is None else source_bytes)
    return n * (row_bytes + 4) if there else 0


def permuting(n: int, row_bytes: int, *, room: int, source_bytes: int | None = None, places_bytes: int = 4) -> int:
    """Return the bytes that `put_permuted` reads: a pass over source and places for each range of rows, or one and the buckets.

    Parameters
    ----------
    n : int
        Rows.
    row_bytes : int
        Of a row of the result.
    room : int
        Bytes of memory for a range.
    source_bytes : int, optional
        Bytes on disk of a row of the source, where they differ.
    places_bytes : int
        Bytes on disk of a place; 0 where they are in memory. Default 4.
    """
    pass_bytes = n * ((row_bytes if source_bytes is None else source_bytes) + places_bytes)
    buckets = bucket_bytes(n, row_bytes, room=room, source_bytes=source_bytes)
    return pass_bytes + buckets if buckets else _ranges(n, row_bytes, room) * pass_bytes


def _ranges(n: int, row_bytes: int, room: int) -> int:
    return -(-n // max(1, min(n, room // row_bytes)))


def comparing(n: int, q: int, dim: int, *, threads: int) -> int:
    """Return the bytes that comparing q queries with all of n vectors reads: a pass for as many blocks as there are threads."""
    return 4 * dim * (q + -(-q // (threads * QUERY_ROWS)) * n)


def visiting(n: int, q: int, vector_bytes: int, *, query_bytes: int, probes: int) -> int:
    """Return the most bytes that a search of q queries list after list reads: a block of queries reads no list twice."""
    return q * query_bytes + -(-q // query_rows(q, probes)) * n * vector_bytes


def searching_lists(n: int, q: int, dim: int, *, itemsize: int, probes: int, train: bool, part: float = 1.0) -> int:
    """Return the bytes that searching q queries list after list reads, each block of them that part of all vectors."""
    query_bytes = dim * (itemsize if train else 4)
    # an id is looked up beside each vector
    return visiting(round(part * n), q, dim * itemsize + 4, query_bytes=query_bytes, probes=probes)


def neighbors_reads(
    n: int,
    q: int,
    dim: int,
    *,
    k: int,
    width: int,
    index: str,
    train: bool,
    probes: int,
    itemsize: int,
    sampled: bool,
    room: int,
    threads: int,
    device: str = "cpu",
    measured: bool = False,
) -> Reads:
    """Return what `neighbors` reads for the q images of a role: bytes by step.

    Parameters
    ----------
    n, q, dim : int
        Images of the background and of the role, and their dimensions.
    k, width : int
        Neighbors per image, and those that are stored.
    index : str
        ``"Flat"``, ``"IVFFlat"`` or ``"list-major"``.
    train : bool
        Whether the role is the background.
    probes : int
        Lists that are visited for each image; an estimate where they follow from a recall.
    itemsize : int
        Bytes of a value of the vectors in order.
    sampled : bool
        Whether the probes follow from a recall.
    room, threads : int
        Bytes of memory for rows that are put in order, and threads.
    device : str
        Where faiss has its index.
    measured : bool
        Whether the recall is measured also where ``index`` is exact.
    """
    vectors, table = 4 * n * dim, 4 * n * width
    reads = {"training": 0, "assigning": 4 * q * dim, "samples": 0, "ordering": 0}
    if train and n_lists(n):
        reads["training"] = alone(training_rows(n, dim), 4 * dim, vectors)
    if train and (index != "Flat" or measured):
        reads["samples"] = _sample_of_table(n, dim, k=k, width=width, itemsize=itemsize)
        reads["samples"] += _choosing(n, dim, k=k) if sampled else 0
    if index == "list-major":
        reads["searching"] = searching_lists(n, q, dim, itemsize=itemsize, probes=probes, train=train)
        if train:
            # the lists twice, to count and to order; the order once, to turn it around
            reads["ordering"] = 12 * n + permuting(n, dim * itemsize, source_bytes=4 * dim, room=room)
            reads["putting back"] = 2 * permuting(n, 4 * width, room=room)
    elif index == "Flat" and device == "cpu":
        reads["searching"] = comparing(n, q, dim, threads=threads)
    else:
        reads["searching"] = vectors + 4 * q * dim + (0 if index == "Flat" else 4 * n)
    reads["checking"] = table if train else 0
    return {step: size for step, size in reads.items() if size}


def _sample_of_table(n: int, dim: int, *, k: int, width: int, itemsize: int) -> int:
    """Return the most bytes read to compare a sample of the rows of a table with exact search."""
    vectors = 4 * n * dim
    # the lists of true neighbors, to tell what half precision costs
    lists = alone(SAMPLES * k, 4, 4 * n) if itemsize == 2 else 0
    compared = alone(SAMPLES, 4 * width, 4 * n * width) + in_place_of(n, dim, k=k)
    return alone(SAMPLES, 4 * dim, vectors) + vectors + compared + lists


def _choosing(n: int, dim: int, *, k: int) -> int:
    """Return the bytes read to choose the probes on a sample."""
    vectors = 4 * n * dim
    return 2 * alone(SAMPLES, 4 * dim, vectors) + vectors + alone(SAMPLES * k, 4, 4 * n)


def more_of_tables(n: int, dim: int, *, k: int, width: int, itemsize: int) -> int:
    """Return the most bytes read beyond one sample to measure the recall of a table of n rows."""
    return (most_samples(n) - 1) * _sample_of_table(n, dim, k=k, width=width, itemsize=itemsize)


def in_place_of(n: int, dim: int, *, k: int) -> int:
    """Return the most bytes read to compare a sample with what a table has in place of true neighbors."""
    return alone(SAMPLES * k, 4 * dim, 4 * n * dim)


def adding_reads(
    n: int,
    m: int,
    dim: int,
    *,
    copied: int,
    width: int,
    index: str,
    itemsize: int,
    probes: int,
    room: int,
    threads: int,
    device: str,
) -> Reads:
    """Return what adding m images to n reads, with ``copied`` bytes of arrays that grow; else as `neighbors_reads`."""
    vectors, table = 4 * (n + m) * dim, 4 * (n + m) * width
    reads = {"copying": copied + 4 * n, "assigning": 4 * m * dim, "comparing": 8 * n * width, "merging": 8 * n * width}
    if index == "list-major":
        rounded = 4 * m * dim if itemsize == 2 else 0  # as they are searched
        reads["entering"] = rounded + permuting(m, 4 * dim, places_bytes=0, room=room)
        reads["entering"] += _entering(n, m, dim, width=width, itemsize=itemsize, room=room)
        reads["merging"] += 16 * n + pairs(n, m, k=width)
        reads["ordering"] = 12 * (n + m) + permuting(n + m, dim * itemsize, source_bytes=4 * dim, room=room)
        reads["searching"] = visiting(n + m, m, dim * itemsize + 4, query_bytes=4 * dim, probes=probes)
    else:
        reads["entering"] = comparing(m, n, dim, threads=threads)
        indexed = vectors + 4 * m * dim + (0 if index == "Flat" else 4 * (n + m))
        reads["searching"] = comparing(n + m, m, dim, threads=threads) if (index, device) == ("Flat", "cpu") else indexed
    if index != "Flat":
        reads["samples"] = _sample_of_table(n + m, dim, k=width, width=width, itemsize=4)
        reads["samples"] += _reach(n, m, dim, itemsize=itemsize) if index == "list-major" else 0
    return {**reads, "checking": table}


def reads_without_search(plan: StagePlan) -> Reads:
    """Return what a plan reads but for the search and what follows from it."""
    return {step: size for step, size in plan.reads.items() if step not in ("searching", "putting back")}


def pairs(n: int, m: int, *, k: int) -> int:
    """Return the bytes of the pairs of m seeds and rows of n that they enter, as many as is usual."""
    return 8 * min(n, ENTERED * m) * k


def more_pairs(n: int, m: int, *, k: int) -> int:
    """Return the most bytes of such pairs beyond these: where thousands of images are identical, each row has k."""
    return max(0, 8 * n * min(k, m) - pairs(n, m, k=k))


def graph_reads(
    n: int,
    k: int,
    *,
    width: int,
    n_seeds: int,
    tests: int,
    dim: int,
    itemsize: int,
    by_lists: bool,
    exact: bool,
    probes: int,
    weighted: bool,
    budget: MemoryBudget,
    room: int,
    threads: int,
) -> Reads:
    """Return what `graph` reads to complete the table of n nodes, seeds included, and to build W: bytes by step.

    Parameters
    ----------
    n, k : int
        Nodes, and neighbors of each.
    width : int
        Neighbors that the tables of the roles have.
    n_seeds, tests, dim : int
        Seeds and tests, and their dimensions.
    itemsize : int
        Bytes of a value of the vectors in order.
    by_lists : bool
        Whether the background was searched by lists on disk.
    exact : bool
        Whether the seeds are searched exactly nevertheless.
    probes : int
        Lists that are visited for each image.
    weighted : bool
        Whether edges are weighted.
    budget, room, threads : MemoryBudget, int and int
        Limit on memory; bytes of it for rows that are put in order; threads.
    """
    # what the stage reads of the tables is compared with their checksums first
    reads = {"comparing": 4 * width * (2 * (n + tests) if n_seeds else 2 * n if weighted else n)}
    if n_seeds:
        sizes = {"width": width, "dim": dim, "room": room, "itemsize": itemsize, "probes": probes, "threads": threads}
        reads |= _completing(n - n_seeds, n_seeds, tests, k, by_lists=by_lists, exact=exact, **sizes)
    table = 4 * n * (k if n_seeds else width)
    reads |= _building(n, k, n_seeds, table=table, weighted=weighted, budget=budget)
    return {step: size for step, size in reads.items() if size}


def _building(n: int, k: int, n_seeds: int, *, table: int, weighted: bool, budget: MemoryBudget) -> Reads:
    """Return what building W of n nodes, seeds included, reads, the table being so many bytes; and what checking it reads."""
    key_bytes, passes = 8 if weighted else 4, table_passes(n, k, budget=budget, weighted=weighted)
    reads = {}
    # counting, a pass for each range of rows, in-degrees; the order to turn it around and for the ranges
    reads["building"] = (passes + 2) * table + 3 * 4 * n
    if n_lists(n - n_seeds):
        reads["building"] += (1 if n_seeds else 2) * 4 * n  # the lists, twice where they are not put together first
    if weighted:
        reads["building"] += 2 * table + passes * 4 * n * k
    ends = SAMPLES * (2 + _EDGES)
    written = graph_bytes(n, k, weighted=weighted)
    reads["checking"] = written + alone(ends, 4 * k, table) + alone(ends, 4 * k, 2 * n * k * key_bytes)
    return reads


def _completing(
    n: int,
    m: int,
    tests: int,
    k: int,
    *,
    width: int,
    dim: int,
    room: int,
    itemsize: int,
    by_lists: bool,
    exact: bool,
    probes: int,
    threads: int,
) -> Reads:
    """Return what completing the tables of n images of the background, m seeds and some tests reads."""
    asking = [m, *([tests] if tests else []), *([] if by_lists else [n])]
    reads = {"merging": 8 * width * (n + m + tests)}
    if exact or not by_lists:
        reads["searching seeds"] = sum(comparing(m, q, dim, threads=threads) for q in asking)
    else:
        searched = sum(8 * m + visiting(m, q, 4 * dim, query_bytes=4 * dim, probes=probes) for q in asking)
        reads["searching seeds"] = searched + permuting(m, 4 * dim, places_bytes=0, room=room)
    if not by_lists:
        return reads
    reads["entering"] = _entering(n, m, dim, width=width, itemsize=itemsize, room=room)
    reads["merging"] += 16 * n + pairs(n, m, k=k)
    if not exact:
        how = {"width": width, "dim": dim, "itemsize": itemsize}
        reads["samples"] = _reach(n, m, dim, itemsize=itemsize)
        reads["samples"] += _sample_of_seeds(n, m, k, entered=SAMPLES * ENTERED * k, **how)
    return reads


def _entering(n: int, m: int, dim: int, *, width: int, itemsize: int, room: int) -> int:
    """Return the bytes read to find which of m seeds enter the rows of n."""
    least = permuting(n, 4, source_bytes=4 * width, room=room)
    return 8 * m + 4 * n + least + 4 * m * dim + _comparing_lists(n, dim, itemsize) + 4 * n + permuting(n, 16, room=room)


def _comparing_lists(n: int, dim: int, itemsize: int) -> int:
    """Return the bytes read of all lists: twice, to see which seeds are near, and to compare; with what must be reached."""
    return 2 * n * (dim * itemsize + 4)


def _reach(n: int, m: int, dim: int, *, itemsize: int) -> int:
    """Return the most bytes read to learn on a sample how far seeds reach: all lists, and those again that the sample enters."""
    return alone(SAMPLES, 4 * dim, 4 * m * dim) + 2 * _comparing_lists(n, dim, itemsize) if m > FEW_SEEDS else 0


def _sample_of_seeds(n: int, m: int, k: int, *, width: int, dim: int, itemsize: int, entered: int) -> int:
    """Return the bytes read to measure, on a sample of m seeds, the recall of their rows and of the rows of n that they enter."""
    seeds, table = 4 * m * dim, 4 * (n + m) * k
    rows = 2 * alone(SAMPLES, 4 * width, 4 * m * width) + alone(SAMPLES, 4 * k, table)
    of_seeds = alone(SAMPLES, 4 * dim, seeds) + seeds + rows + in_place_of(m, dim, k=k)
    found = alone(SAMPLES, 4 * dim, seeds) + _comparing_lists(n, dim, itemsize)
    return of_seeds + found + 2 * alone(entered, 4 * k, table) + alone(entered, 4, 4 * n)


def more_of_seeds(n: int, m: int, k: int, *, width: int, dim: int, itemsize: int) -> int:
    """Return the most bytes read beyond one sample, which enters as many rows as is usual, to measure the recalls of m seeds."""
    how = {"width": width, "dim": dim, "itemsize": itemsize}
    usual, most = (_sample_of_seeds(n, m, k, entered=rows, **how) for rows in (SAMPLES * ENTERED * k, n * min(k, m, SAMPLES)))
    return most_samples(m) * max(usual, most) - usual
