"""Diffusing on one GPU through torch: a batch of columns stays there from L_0 until its rows are read."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadInput, DoesNotFit
from ..graph import Graph
from ..memory import MemoryBudget, format_size
from ..store import Job
from . import room
from .device_matrix import DeviceMatrix, add_product, pick, product_bytes, resident_bytes, slot_bytes
from .steps import Steps

if TYPE_CHECKING:
    import torch

    from .scores import Diffusion

# A gathered row of 8 numbers is the least that a GPU reads from its memory (32 bytes). With fewer columns beside W, W had better
# be streamed.
_ENOUGH_COLUMNS = 8
# Numbers of L that are summed or read at once: 8 MiB in float32.
_NUMBERS = 2**21
# What libraries take on the GPU while they work.
_WORKSPACE_BYTES = 256 * 2**20
# Above this part of the rows, choosing them costs more than it saves.
_WORTH = 0.75
_MOST_MASKS = 8


def resolve_device(device: str, *, unskipped: bool = False, precision: str = "float32") -> str:
    """Return ``cpu``, or the GPU that torch is to use.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or ``"auto"``: the GPU where there is one. torch is imported only where a driver is.
    unskipped : bool
        Whether the diffusion is one that is done on the CPU only (`Diffusion.unskipped`).
    precision : str
        How L is stored; on a GPU as float32 only.

    Raises
    ------
    BadInput
        For a GPU that is not there, or of no use.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise BadInput(f"device {device!r} is not one of auto, cpu, cuda")
    if unskipped and device.startswith("cuda"):
        raise BadInput(f"rows, sinkhorn, gamma, `reset` and `alpha` run on the CPU, but `device` is {device}; give `device` cpu")
    if precision != "float32" and device.startswith("cuda"):
        raise BadInput(f"`precision` {precision} runs on the CPU, but `device` is {device}; give `device` cpu")
    if device == "cpu" or unskipped or precision != "float32":
        return "cpu"
    gpus = _count_gpus()
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if int(device.partition(":")[2] or 0) >= gpus:
        raise BadInput(f"device {device} is not there ({gpus} GPUs found); give --device cpu")
    return device


def gpu_host_bytes(n_columns: int) -> int:
    """Return the bytes of memory on the host that a diffusion on a GPU takes: two blocks of W, their rows, a block of scores."""
    rows = room.BLOCK_ROWS + room.BLOCK_ENTRIES // 2**10
    return 2 * (8 * room.BLOCK_ENTRIES + 16 * rows) + 32 * rows + 4 * max(_NUMBERS, n_columns) + 32 * _NUMBERS


def make_device_room(graph: Graph, n_columns: int, free: int) -> tuple[int, bool]:
    """Divide the free memory of a GPU: columns of L at once, and whether W stays there beside them.

    Raises
    ------
    DoesNotFit
        Where not one column fits.
    """
    # bool per node for the rows that are needed at each iteration, and while these are found
    fixed = _WORKSPACE_BYTES + product_bytes(graph, 0) + 24 * _NUMBERS + (_MOST_MASKS + 2) * graph.n + 2 * slot_bytes(graph)
    column = 8 * graph.n + product_bytes(graph, 1) - product_bytes(graph, 0)
    beside = (free - fixed - resident_bytes(graph)) // column
    if beside >= min(n_columns, _ENOUGH_COLUMNS):
        return min(n_columns, beside), True
    columns = (free - fixed) // column
    if columns < 1:
        raise DoesNotFit(
            f"diffusing over {graph.n} nodes needs {format_size(fixed + column)} of memory on the GPU, but {format_size(free)} "
            "are free; end what else runs there, or give --device cpu"
        )
    return min(n_columns, columns), False


class DevicePanels:
    """Column batches diffused on a GPU.

    Parameters
    ----------
    job : Job
        Where the panels are written.
    graph : Graph
        W.
    what : Diffusion
        Seeds, iterations, rows.
    classes : numpy.ndarray of shape (C,), int64
        The classes in the order of the columns.
    device : str
        From `resolve_device`, not ``cpu``.
    budget : MemoryBudget
        Limit on the memory of the host.

    Notes
    -----
    Sums over neighbors are made in float32: scores equal those of the CPU within its rounding, and may differ in the last bits
    with the width of a batch. Column sums and the sums over the neighbors of a query are made in float64, as on the CPU.
    """

    def __init__(
        self, job: Job, graph: Graph, what: Diffusion, classes: np.ndarray, *, device: str, budget: MemoryBudget
    ) -> None:
        budget.require(gpu_host_bytes(what.n_classes), what="diffusing on a GPU", torch=True)
        self._job, self._graph, self._what, self._classes = job, graph, what, classes
        place = torch_device(device)
        self._columns, resident = make_device_room(graph, len(classes), free_bytes(place))
        with _fitting(self._columns):
            self._W = DeviceMatrix(graph, place, resident=resident)
            # where W is streamed, bringing it takes longer than multiplying: masks would cost passes and save none
            all_rows: list[torch.Tensor | None] = [None] * (what.n_iter + 1)
            self._masks = self._needed_rows() if resident else all_rows
            few = self._masks[-1] is not None
            self._sums = self._adjoint_sums() if few and what.normalization == "columns" else None

    def write_panel(self, begin: int, batches: list[list[int]], steps: Steps) -> int:
        """Diffuse one batch of columns into a scratch array of shape (kept * rows, columns); return its end."""
        what, end = self._what, min(begin + self._columns, len(self._classes))
        self._job.drop(f"panel/{begin}")  # of a batch that was cut off, perhaps of another width
        panel = self._job.array(f"panel/{begin}", "<f4", (what.kept * what.n_rows(self._graph), end - begin), scratch=True)
        classes = self._classes[begin:end]
        with _fitting(end - begin):
            for t, L in iterates(self._W, self._seeds(classes), what.n_iter, self._masks):
                if t > 0:
                    steps.add(t, "dense" if self._masks[t] is None else "masked", batches=1)
                if what.every_iteration or t == what.n_iter:
                    for block in _scores(self._graph, what, L, self._scale(t, L, classes)):
                        panel.append(block)
        return end

    def _seeds(self, classes: np.ndarray) -> torch.Tensor:
        """Return L_0 of some classes, float32 (N, C')."""
        import torch

        column = np.full(self._what.n_classes, -1, np.int64)
        column[classes] = np.arange(len(classes))
        columns = column[self._what.seed_classes]
        positions = self._graph.position[self._what.seeds[columns >= 0]].astype(np.int64)
        L = torch.zeros((self._graph.n, len(classes)), device=self._W.device)
        L[_sent(positions, L), _sent(columns[columns >= 0], L)] = 1
        return L

    def _scale(self, t: int, L: torch.Tensor, classes: np.ndarray) -> torch.Tensor:
        """Return what each column of L_t is multiplied by when it is read, float64 (C',)."""
        import torch

        if self._what.normalization == "none":
            return torch.ones(len(classes), dtype=torch.float64, device=L.device)
        sums = column_sums(L) if self._sums is None else self._sums[t, _sent(classes, L)]
        return torch.where(sums > 0, 1 / sums, 1) * torch.from_numpy(self._what.shares[classes]).to(L.device)

    def _needed_rows(self) -> list[torch.Tensor | None]:
        import torch

        what = self._what
        if what.queries is None:
            return [None] * (what.n_iter + 1)
        read = torch.zeros(self._graph.n, dtype=torch.bool, device=self._W.device)
        for positions in _query_positions(self._graph, what.queries, rows=max(1, _NUMBERS // max(1, what.queries.shape[1]))):
            read[_sent(positions[positions >= 0], read)] = True
        return needed_rows(self._W, read, what.n_iter, every_iteration=what.every_iteration)

    def _adjoint_sums(self) -> torch.Tensor:
        """Return the column sums of each L_t, float64 (T + 1, C), without all of its rows: see `engine.adjoint_weights`."""
        import torch

        what = self._what
        pairs = np.unique(np.stack([what.seed_classes, what.seeds], axis=1), axis=0)
        u_0 = torch.zeros((self._graph.n, 1), device=self._W.device)
        for block in self._W.blocks(1):
            u_0[block.begin : block.end, 0] = block.scale
        positions = _sent(self._graph.position[pairs[:, 1]].astype(np.int64), u_0)
        scale = u_0[positions, 0].double()
        sums = np.empty((what.n_iter + 1, what.n_classes))
        for t, u in iterates(self._W, u_0, what.n_iter, [None] * (what.n_iter + 1)):
            # a seed without edges has its one in L_0 alone
            weights = torch.where(scale > 0, u[positions, 0] / scale, float(t == 0))
            sums[t] = np.bincount(pairs[:, 0], weights.cpu().numpy(), minlength=what.n_classes)
        return _sent(sums, u_0)


def iterates(
    W: DeviceMatrix, L: torch.Tensor, n_iter: int, masks: list[torch.Tensor | None]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield t and L_t = W L_{t-1} for t = 0 .. T, not to be kept; rows that ``masks`` leave out are 0."""
    import torch

    yield 0, L
    spare = torch.empty_like(L, memory_format=torch.contiguous_format) if n_iter else L
    for t in range(1, n_iter + 1):
        _step(W, L, spare.zero_(), t, masks[t])
        L, spare = spare, L
        yield t, L


def _step(W: DeviceMatrix, L: torch.Tensor, out: torch.Tensor, t: int, mask: torch.Tensor | None) -> None:
    for block in W.blocks(t):
        wanted = block if mask is None else pick(block, mask)
        if len(wanted.starts) > 1:
            add_product(wanted, L, out)


def needed_rows(W: DeviceMatrix, read: torch.Tensor, n_iter: int, *, every_iteration: bool) -> list[torch.Tensor | None]:
    """Go back from the rows that queries read, bool (N,), to those that L_t must have; None for all. See `needed.needed_rows`."""
    masks: list[torch.Tensor | None] = [None] * (n_iter + 1)
    marked = read
    for t in range(n_iter, max(0, n_iter - _MOST_MASKS), -1):
        if int(marked.sum()) > _WORTH * len(marked):
            break
        masks[t] = marked
        if t > 1:
            marked = _neighbors(W, marked, t) | read if every_iteration else _neighbors(W, marked, t)
    return masks


def _neighbors(W: DeviceMatrix, marked: torch.Tensor, t: int) -> torch.Tensor:
    found = marked.new_zeros(len(marked))
    for block in W.blocks(t):
        found[pick(block, marked).columns()] = True
    return found


def column_sums(L: torch.Tensor) -> torch.Tensor:
    """Return the sum of each column, float64 (C',)."""
    import torch

    sums = torch.zeros(L.shape[1], dtype=torch.float64, device=L.device)
    for rows in L.split(_rows(L)):
        sums += rows.sum(dim=0, dtype=torch.float64)
    return sums


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, that which torch keeps for later included."""
    import torch

    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def torch_device(device: str) -> torch.device:
    """Return what torch calls a GPU."""
    import torch

    return torch.device(device)


@contextlib.contextmanager
def _fitting(columns: int) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"{columns} columns no longer fit the memory of the GPU; end what else runs there, or give --device cpu"
        ) from error


def _count_gpus() -> int:
    """Return how many GPUs torch finds; without a driver it is not imported to look."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _scores(graph: Graph, what: Diffusion, L: torch.Tensor, scale: torch.Tensor) -> Iterator[np.ndarray]:
    """Yield blocks of the rows that are read, float32 (b, C')."""
    if what.queries is None:
        for first in range(0, graph.n, _rows(L)):
            positions = np.asarray(graph.position[first : first + _rows(L)]).astype(np.int64)
            yield (L[_sent(positions, L)] * scale).float().cpu().numpy()
    else:
        for positions in _query_positions(graph, what.queries, rows=_rows(L, beside=what.queries.shape[1])):
            yield (_sum_of_rows(L, _sent(positions, L)) * scale).float().cpu().numpy()


def _query_positions(graph: Graph, queries: np.ndarray, *, rows: int) -> Iterator[np.ndarray]:
    """Yield the positions of the neighbors of some queries, int64 (rows, k), -1 = none."""
    for first in range(0, len(queries), rows):
        block = queries[first : first + rows]
        positions = np.full(block.shape, -1, np.int64)
        positions[block >= 0] = graph.position[block[block >= 0]]
        yield positions


def _sum_of_rows(L: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the sums of rows of L (float64), one neighbor after the other, as on the CPU."""
    import torch

    sums = torch.zeros((len(positions), L.shape[1]), dtype=torch.float64, device=L.device)
    for place in positions.T:
        sums += torch.where(place[:, None] >= 0, L[place.clamp(min=0)], 0)
    return sums


def _rows(L: torch.Tensor, *, beside: int = 1) -> int:
    """Return how many rows of L, with so many numbers beside each, are read at once."""
    return max(1, _NUMBERS // max(L.shape[1], beside))


def _sent(array: np.ndarray, to: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.from_numpy(array).to(to.device)
