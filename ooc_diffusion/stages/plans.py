"""What each stage costs, from sizes alone: memory, disk and work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..diffusion import (
    ELEMENTS,
    FIXED_BYTES,
    column_bytes,
    columns_at_once,
    copied_bytes,
    coupled_bytes,
    gpu_host_bytes,
    least_coupled_bytes,
    make_room,
    masks_bytes,
    reading_bytes,
    room_bytes,
    seed_bytes,
    zhou_column_bytes,
    zhou_columns,
)
from ..features import NetworkCosts
from ..graph import graph_bytes, least_cluster_memory, least_memory
from ..memory import MemoryBudget, StagePlan
from ..neighbors import (
    MOST_MEMORY_PROBES,
    block_bytes,
    choose_index,
    entering_bytes,
    index_bytes,
    n_lists,
    n_probes,
    search_bytes,
    training_rows,
)
from ..parallel import resolve_threads
from .traffic import (
    adding_reads,
    bucket_bytes,
    graph_reads,
    more_of_seeds,
    more_of_tables,
    more_pairs,
    neighbors_reads,
    pairs,
)

EXTRA_NEIGHBORS = 2
NAME_BYTES = 64
# Rows in which stages read, convert and write; the same for every budget.
BLOCK_ROWS = 8192
# Activations of a network on one batch (measured: resnet50 at 224 pixels, batches of 32: 0.4 GiB).
_NETWORK_BYTES = 768 * 2**20
# Decoded pictures on their way, with two threads; larger ones than 10 million pixels take more.
_DECODING_BYTES = 128 * 2**20
_SAMPLE_BYTES = 256 * 2**20
# A thumbnail on its way into pictures and a page.
_TILE_BYTES = 2**16
SLACK = 32 * 2**20


def _overhead(budget: MemoryBudget, arrays: int, *, torch: bool = False) -> tuple[int, int]:
    """Return the planned peak and the smallest budget of a stage that holds ``arrays`` bytes whatever the budget."""
    least = budget.overhead(torch=torch) + arrays + SLACK
    return least, least


def _room(budget: MemoryBudget, least: int) -> int:
    """Return the bytes for rows that are put in order."""
    return MemoryBudget(max(budget.total, least)).room() - SLACK


def plan_list(n: int, *, budget: MemoryBudget, name_bytes: int | None = None, held_bytes: int = 0) -> StagePlan:
    """Plan the listing of n images; ``held_bytes`` for the index of an archive."""
    names = NAME_BYTES * n if name_bytes is None else name_bytes
    peak, least = _overhead(budget, 16 * 2**20 + held_bytes)
    return StagePlan("list", f"names of {n:,} images", peak, least, names + 12 * n + 8)


def plan_extract(n: int, dim: int, *, buffer_bytes: int, network: bool, budget: MemoryBudget) -> StagePlan:
    """Plan the description of n images by ``dim`` numbers each."""
    arrays = buffer_bytes + _DECODING_BYTES + (_NETWORK_BYTES if network else 0)
    peak, least = _overhead(budget, arrays, torch=network)
    return StagePlan("extract", f"{n:,} images to {dim} values each", peak, least, 4 * n * dim)


def plan_train(
    n: int,
    *,
    epochs: int,
    batch_size: int,
    image_bytes: int,
    costs: NetworkCosts,
    threads: int,
    budget: MemoryBudget,
) -> StagePlan:
    """Plan the training of a network on n images, which stay in memory where they fit there.

    The state is written about once a minute, and in place of the one before only when it is whole.
    """
    network = 4 * costs.parameters
    batches = (threads + 2) * batch_size * image_bytes
    arrays = 8 * network + batches + batch_size * costs.activation_bytes + 64 * n + _DECODING_BYTES
    least, _ = _overhead(budget, arrays, torch=True)
    peak = least + n * image_bytes if budget.total >= least + n * image_bytes else least
    work = f"{epochs} x {n:,} images, {costs.parameters:,} parameters"
    operations = 3.0 * epochs * n * costs.multiply_adds  # forward, and backward to images and parameters
    return StagePlan("train", work, peak, least, network + 16 * n, 4 * network, operations)


def plan_import(n: int, dim: int, *, budget: MemoryBudget, held_bytes: int = 0) -> StagePlan:
    """Plan the copying of n descriptors from a file whose reading takes ``held_bytes``."""
    peak, least = _overhead(budget, 3 * 4 * BLOCK_ROWS * dim + held_bytes)
    return StagePlan("import", f"{n:,} descriptors of {dim} values", peak, least, 4 * n * (dim + 1))


def plan_reduce(n: int, d: int, dim: int, *, train: bool, budget: MemoryBudget) -> StagePlan:
    """Plan PCA from d to ``dim`` dimensions and L2 normalization of n descriptors."""
    sample = min(4 * n * d, _SAMPLE_BYTES) if train else 0
    peak, least = _overhead(budget, 2 * sample + 24 * d * d + 4 * BLOCK_ROWS * (2 * d + 2 * dim))
    work = f"PCA {d} to {dim} dimensions" if train else f"projection {d} to {dim} dimensions"
    return StagePlan("reduce", work, peak, least, 4 * n * dim + 4 * d * (dim + 1), operations=float(n) * d * dim)


def plan_neighbors(
    n: int,
    q: int,
    dim: int,
    *,
    k: int,
    index: str,
    train: bool,
    budget: MemoryBudget,
    probes: int | None = None,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    target_recall: float | None = None,
    measured: bool = False,
) -> StagePlan:
    """Plan the search of q queries among n vectors; ``measured``: with the recall also of an exact search."""
    chosen = choose_index(n, index)
    lists, width, itemsize = n_lists(n), k + EXTRA_NEIGHBORS, np.dtype(precision).itemsize
    threads = resolve_threads(threads)
    visited = probes or n_probes(max(lists, 1))
    # the sample; sums, means and centroids to compare with; products of some vectors with some centroids
    training = 4 * training_rows(n, dim) * dim + 24 * lists * (dim + 1) + threads * 2**23 if train else 0
    fixed, scratch = 4 * lists * dim, 0
    disk = 8 * q * width + (4 * lists * dim + 4 * n if train else 4 * q)
    # recall is measured by exact search
    exact = index_bytes(n, dim, inverted=False) + search_bytes(dim, width, threads=threads)
    if chosen == "list-major":
        # how many lists a recall takes is not known yet
        block = max(block_bytes(q, dim, k=width, probes=p) for p in ([probes] if probes else [visited, MOST_MEMORY_PROBES]))
        fixed += 8 * lists
        ordered = n * max(dim * itemsize, 4 * width)
        wanted = max(training, exact, threads * block, 8 * n + ordered if train else 0)
        needed = max(training, exact, block, 8 * n if train else 0)
        if train:
            disk += 4 * n + 8 * lists + n * dim * itemsize
            scratch = 4 * n + 8 * n * width
    else:
        inside = index_bytes(n, dim, inverted=chosen == "IVFFlat", device=device)
        searching = search_bytes(dim, width, threads=threads, device=device)
        wanted = needed = max(training, exact, inside + searching)
    gpu = device != "cpu"  # torch tells how much memory it has
    _, least = _overhead(budget, needed + fixed, torch=gpu)
    peak = max(least, min(budget.total, _overhead(budget, wanted + fixed, torch=gpu)[0]))
    products = float(q) * (n if chosen == "Flat" else lists + visited * n / max(lists, 1))
    room, written = _room(budget, least), disk + scratch
    if chosen == "list-major" and train:
        ordering = bucket_bytes(n, dim * itemsize, source_bytes=4 * dim, room=room)
        putting_back = bucket_bytes(n, 4 * width, room=room)
        written += ordering + 2 * putting_back
        scratch = max(4 * n + ordering, scratch + putting_back)
    sizes = {"k": k, "width": width, "probes": visited, "itemsize": itemsize, "room": room, "threads": threads}
    how = {"index": chosen, "train": train, "sampled": target_recall is not None, "device": device, "measured": measured}
    reads = neighbors_reads(n, q, dim, **sizes, **how)  # type: ignore[arg-type]
    more = more_of_tables(n, dim, k=k, width=width, itemsize=itemsize) if "samples" in reads else 0
    work = f"{chosen}, {q:,} queries in {n:,} vectors"
    return StagePlan("neighbors", work, peak, least, disk, scratch, products * dim, reads, written, more)


def plan_add(
    n: int,
    m: int,
    dim: int,
    *,
    k: int,
    index: str,
    copied_bytes: int,
    budget: MemoryBudget,
    probes: int = 1,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
) -> StagePlan:
    """Plan the addition of m vectors to the n of the background, whose arrays are copied with those of the new images."""
    lists, width, workers = n_lists(n), k + EXTRA_NEIGHBORS, resolve_threads(threads)
    itemsize = np.dtype(precision).itemsize
    disk, scratch, fixed = copied_bytes + (n + m) * (8 * width + 4), 0, 4 * lists * dim
    # recall is measured by exact search
    exact = index_bytes(n + m, dim, inverted=False) + search_bytes(dim, width, threads=workers)
    if index == "list-major":
        block, row = block_bytes(m, dim, k=width, probes=probes), dim * itemsize
        entering = 4 * n + workers * entering_bytes(n, m, dim, k=width)
        needed = max(exact, block, entering, 8 * (n + m))
        wanted = max(needed, workers * block, 4 * n + 16 * n, 8 * (n + m) + (n + m) * row)
        fixed += 8 * lists
        disk += (n + m) * (4 + row) + 8 * lists
        # positions, least similarities, counts, spans twice; entries of 8 bytes; places; vectors in order, and rounded
        scratch = 44 * n + pairs(n, m, k=width) + 4 * (n + m) + (4 if precision == "float32" else 8) * m * dim
    else:
        inside = index_bytes(n + m, dim, inverted=index == "IVFFlat", device=device)
        needed = wanted = max(exact, inside + search_bytes(dim, width, threads=workers, device=device))
    gpu = device != "cpu"
    _, least = _overhead(budget, needed + fixed, torch=gpu)
    peak = max(least, min(budget.total, _overhead(budget, wanted + fixed, torch=gpu)[0]))
    room, written = _room(budget, least), disk + scratch
    if index == "list-major":
        permuted = [(m, 4 * dim, 4 * dim), (n, 4, 4 * width), (n, 16, 16), (n + m, dim * itemsize, 4 * dim)]
        buckets = [bucket_bytes(rows, size, source_bytes=source, room=room) for rows, size, source in permuted]
        written, scratch = written + sum(buckets), scratch + max(buckets)
    sizes = {"copied": copied_bytes, "width": width, "itemsize": itemsize, "probes": probes, "room": room, "threads": workers}
    reads = adding_reads(n, m, dim, index=index, device=device, **sizes)
    products = float(m) * (n + (n + m if index == "Flat" else lists + probes * n / max(lists, 1)))
    work = f"{index}, {m:,} vectors added to {n:,}"
    recall = more_of_tables(n + m, dim, k=width, width=width, itemsize=4) if "samples" in reads else 0
    more = more_pairs(n, m, k=width) if index == "list-major" else 0
    return StagePlan("neighbors", work, peak, least, disk, scratch, products * dim, reads, written, recall, more)


def plan_graph(
    n: int,
    k: int,
    *,
    budget: MemoryBudget,
    n_seeds: int = 0,
    dim: int = 0,
    tests: int = 0,
    by_lists: bool = False,
    weighted: bool = False,
    mutual: bool = False,
    threads: int | None = None,
    width: int | None = None,
    precision: str = "float32",
    probes: int | None = None,
    exact: bool = False,
) -> StagePlan:
    """Plan the completion, symmetrization and normalization of the table of n nodes (seeds included), and of the tests."""
    fixed = least_memory(n, k, weighted=weighted) + (4 * n if n_seeds else 0)  # the lists of seeds and background, side by side
    completion = (
        index_bytes(n_seeds, dim, inverted=False) + search_bytes(dim, k, threads=resolve_threads(threads)) if n_seeds else 0
    )
    if n_seeds and by_lists:
        blocks = (block_bytes(q, dim, k=k, probes=MOST_MEMORY_PROBES) for q in (n_seeds, tests))
        completion = max(completion, *blocks, 4 * n + resolve_threads(threads) * entering_bytes(n, n_seeds, dim, k=k))
    least = budget.overhead() + max(fixed, completion) + SLACK
    wanted = fixed + 2 * 2 * n * k * (8 if weighted else 4)
    peak = max(least, min(budget.total, budget.overhead() + wanted))
    scratch = (4 * n * k if weighted else 0) + (4 * n if mutual else 0)
    if n_seeds and by_lists:  # positions, least similarities, counts, spans twice; entries of 8 bytes
        scratch += 44 * n + 4 * n_seeds * dim + pairs(n - n_seeds, n_seeds, k=k)
    disk = graph_bytes(n, k, weighted=weighted) + (8 * n * k + 4 * tests * k if n_seeds else 0)
    width = width or k + EXTRA_NEIGHBORS
    room, background = _room(budget, least), n - n_seeds
    written = disk + scratch
    if n_seeds and by_lists:
        permuted = [(n_seeds, 4 * dim, 4 * dim), (background, 4, 4 * width), (background, 16, 16)]
        buckets = [bucket_bytes(rows, size, source_bytes=source, room=room) for rows, size, source in permuted]
        written, scratch = written + sum(buckets), scratch + max(buckets)
    reads = graph_reads(
        n,
        k,
        width=width,
        n_seeds=n_seeds,
        tests=tests,
        dim=dim,
        itemsize=np.dtype(precision).itemsize,
        by_lists=by_lists,
        exact=exact,
        probes=probes or n_probes(max(1, n_lists(n - n_seeds))),
        weighted=weighted,
        budget=MemoryBudget(max(budget.total, least)),
        room=room,
        threads=resolve_threads(threads),
    )
    work = f"{n:,} nodes, {n * k:,} neighbors"
    about = {"width": width, "dim": dim, "itemsize": np.dtype(precision).itemsize}
    recall = more_of_seeds(background, n_seeds, k, **about) if "samples" in reads else 0
    more = more_pairs(background, n_seeds, k=k) if n_seeds and by_lists else 0
    return StagePlan("graph", work, peak, least, disk, scratch, float(n) * n_seeds * dim, reads, written, recall, more)


def plan_diffuse(
    n: int,
    nnz: int,
    n_classes: int,
    n_iter: int,
    *,
    rows: int,
    budget: MemoryBudget,
    folds: int = 0,
    held_out: int = 0,
    kept: int = 1,
    n_seeds: int = 0,
    weighted: bool = False,
    coupled: bool = False,
    zhou: str | None = None,
    estimated: int = 0,
    device: str = "cpu",
    precision: str = "float32",
) -> StagePlan:
    """Plan the diffusion of the classes, and of ``folds`` runs whose ``held_out`` bytes of scores are kept, over n nodes.

    With ``coupled`` η takes all columns in each iteration (`Diffusion.coupled`). ``zhou`` is the solver of Zhou's diffusion, and
    ``n_iter`` its passes over W. A prior that is estimated takes logistic regression on ``estimated`` values. On a GPU the
    columns lie in its memory, which decides how many there are at once: the host holds torch and two blocks of W, whatever n is.
    """
    scores, itemsize = 4 * rows * n_classes * kept, ELEMENTS[precision].itemsize
    operations = float(nnz) * n_classes * n_iter * (1 + folds)
    estimating = _overhead(budget, BLOCK_ROWS * (8 * estimated + 40 * n_classes), torch=True)[0] if estimated else 0
    if device != "cpu":
        peak, least = _overhead(budget, gpu_host_bytes(n_classes) + held_out, torch=True)
        peak, least = max(peak, estimating), max(least, estimating)
        work = f"{n_classes:,} classes in batches that fit the GPU, at most {n_iter * (1 + folds):,} passes over W for each"
        return StagePlan("diffuse", work, peak, least, scores, scores, operations)
    reading = reading_bytes(nnz, weighted=weighted)
    beside = seed_bytes(n_seeds, n_iter) + reading
    overhead = budget.overhead(torch=estimated > 0)  # which stays
    fixed = overhead + FIXED_BYTES + masks_bytes(n) + beside + SLACK + held_out
    least = zhou_column_bytes(n, zhou) if zhou else least_coupled_bytes(n, n_classes) if coupled else column_bytes(n)
    least = max(fixed + least, estimating)
    left = MemoryBudget(max(budget.total, least) - SLACK - held_out - (overhead - budget.overhead()))
    if zhou:
        columns, on_disk = zhou_columns(n, n_classes, solver=zhou, budget=left, beside=reading), 0
        arrays, copied = columns * zhou_column_bytes(n, zhou), 0
    elif coupled:
        columns, on_disk = columns_at_once(n, n_classes, budget=left, beside=reading), n_classes
        arrays, copied = coupled_bytes(n, n_classes, budget=left, beside=reading), 0
    else:
        room = make_room(n, n_classes, budget=left, itemsize=itemsize, beside=beside)
        columns, on_disk = room.columns, 1 if room.in_memory else room.columns
        arrays, copied = room_bytes(n, room, itemsize), 0 if room.in_memory else copied_bytes(n, nnz)
    passes = -(-n_classes // columns) * n_iter * (1 + folds)
    how = "every column in every iteration, no skipping, " if coupled else "no skipping, " if zhou else ""
    work = f"{n_classes:,} classes in batches of {columns:,}, {how}at most {passes:,} passes over W"
    # panels, L_t and L_{t+1} of the columns that lie on disk, rows of W that the last iterations need
    scratch = scores + 2 * itemsize * n * on_disk + copied
    peak = max(fixed + arrays, estimating)
    if estimated:
        work = f"logistic regression over {n:,} nodes, then {work}"
        operations += float(n) * estimated * n_classes
        scratch += 8 * n_classes * -(-n // BLOCK_ROWS)
    return StagePlan("diffuse", work, peak, least, scores, scratch, operations)


def plan_cluster(n: int, nnz: int, *, budget: MemoryBudget) -> StagePlan:
    """Plan the Markov clustering of n nodes, in memory: what it takes beyond the least, nobody knows before."""
    _, least = _overhead(budget, least_cluster_memory(n, nnz))
    work = f"squares of W, {nnz:,} entries at first, in memory; refused where they outgrow it"
    return StagePlan("cluster", work, max(least, budget.total), least, 4 * n, 0, float(nnz) * nnz / max(n, 1))


def plan_paths(
    n: int,
    nnz: int,
    n_classes: int,
    n_iter: int,
    *,
    walks: int,
    budget: MemoryBudget,
    n_seeds: int,
    weighted: bool = False,
    precision: str = "float32",
    coupled: bool = False,
) -> StagePlan:
    """Plan walks back from images: the columns of their classes are diffused again, and L_0 .. L_T of these kept on disk."""
    sizes = {"rows": n, "kept": n_iter + 1, "n_seeds": n_seeds, "weighted": weighted, "precision": precision, "coupled": coupled}
    diffused = plan_diffuse(n, nnz, n_classes, n_iter, budget=budget, **sizes)  # type: ignore[arg-type]
    shown, _ = _overhead(budget, _DECODING_BYTES + walks * (n_iter + 2) * _TILE_BYTES)
    return replace(
        diffused,
        stage="paths",
        work=f"{walks:,} walks, {diffused.work}",
        memory_bytes=max(diffused.memory_bytes, shown),
        least_bytes=max(diffused.least_bytes, shown),
        disk_bytes=walks * (12 + 12 * (n_iter + 1)),
        scratch_bytes=diffused.disk_bytes + diffused.scratch_bytes,
    )


def plan_classify(rows: int, d: int, n_classes: int, *, network: bool, budget: MemoryBudget) -> StagePlan:
    """Plan logistic regression, fusion and predictions for ``rows`` images."""
    peak, least = _overhead(budget, BLOCK_ROWS * (8 * d + 40 * n_classes), torch=network)
    return StagePlan("classify", f"{rows:,} images, {n_classes:,} classes", peak, least, 8 * rows, 0, float(rows) * d * n_classes)
