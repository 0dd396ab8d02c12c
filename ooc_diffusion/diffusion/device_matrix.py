"""W on a torch device, whole or streamed in blocks, and its product with columns that lie there."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Graph
from . import room
from .blocks import row_blocks

if TYPE_CHECKING:
    import torch

# A longer row is cut: the device adds up its pieces in float32 and the sums of the pieces in float64, so that a hub with
# millions of neighbors is as right as any other row.
PIECE_ENTRIES = 512
_POSITION = 2**31 - 1
# With more numbers than this in L, places in it are counted by int64.
_INT32_NUMBERS = 2**31


@dataclass(frozen=True)
class Block:
    """Some rows of W on the device, or some entries of one long row.

    Parameters
    ----------
    begin, end : int
        Its rows.
    entries : torch.Tensor of shape (e,), int32
        ``graph.indices`` as they are: below 0 where the high bit is set.
    weights : torch.Tensor of shape (e,), float32, or None
        Explicit weights.
    starts : torch.Tensor of shape (pieces + 1,), int32
        Where the pieces of the rows begin among the entries.
    owners : torch.Tensor of shape (pieces,), int32 or int64, or None
        The row of each piece, counted from ``begin``; None where each row is one piece.
    scale : torch.Tensor of shape (end - begin,), float32
        1 / row sum.
    cut : bool
        Whether a row is in several pieces.
    """

    begin: int
    end: int
    entries: torch.Tensor
    weights: torch.Tensor | None
    starts: torch.Tensor
    owners: torch.Tensor | None
    scale: torch.Tensor
    cut: bool

    def columns(self) -> torch.Tensor:
        """Return the positions of the neighbors, int32 (e,)."""
        return self.entries & _POSITION


class DeviceMatrix:
    """W on a torch device.

    Parameters
    ----------
    graph : Graph
        W on disk.
    device : torch.device
        Where the blocks are handed out.
    resident : bool
        Hold all of W there, or bring it block by block in each pass.
    """

    def __init__(self, graph: Graph, device: torch.device, *, resident: bool) -> None:
        self._graph, self._ranges, self.device, self.resident = graph, list(_ranges(graph)), device, resident
        slots = [_Slot(graph, device), _Slot(graph, device)]
        self._blocks = [_copied(block) for block in self._streamed(slots, 1)] if resident else []
        self._slots = [] if resident else slots

    def blocks(self, t: int) -> Iterator[Block]:
        """Yield the blocks that have entries, each good until the next one; streamed ones backwards in every second pass."""
        return iter(self._blocks) if self.resident else self._streamed(self._slots, t)

    def _streamed(self, slots: list[_Slot], t: int) -> Iterator[Block]:
        for number, (begin, end, first, last) in enumerate(self._ranges if t % 2 else self._ranges[::-1]):
            slot = slots[number % 2]
            yield slot.send(begin, end, _host_arrays(self._graph, begin, end, first, last))
            slot.release()


class _Slot:
    """Memory of one block on the host (pinned) and on the device.

    While a block is multiplied, the next one is read from disk and copied on a stream of its own.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        import torch

        cuda = device.type == "cuda"
        types = {"entries": torch.int32, "starts": torch.int32, "owners": torch.int32, "scale": torch.float32}
        types |= {} if graph.weights is None else {"weights": torch.float32}
        sizes = _slot_sizes(graph)
        self._host = {name: torch.empty(sizes[name], dtype=dtype, pin_memory=cuda) for name, dtype in types.items()}
        self._device = {name: torch.empty(sizes[name], dtype=dtype, device=device) for name, dtype in types.items()}
        self._place = device
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._copied = torch.cuda.Event() if cuda else None
        self._used = torch.cuda.Event() if cuda else None
        if cuda:
            torch.cuda.synchronize(device)  # what used this memory before is done with it

    def send(self, begin: int, end: int, arrays: dict[str, np.ndarray]) -> Block:
        """Copy the arrays of a block to the device."""
        if self._copied is not None:
            self._copied.synchronize()
        for name, values in arrays.items():
            self._host[name].numpy()[: len(values)] = values
        with self._copying():
            for name, values in arrays.items():
                self._device[name][: len(values)].copy_(self._host[name][: len(values)], non_blocking=True)
        sent = {name: self._device[name][: len(values)] for name, values in arrays.items()}
        owners, weights = sent.get("owners"), sent.get("weights")
        return Block(begin, end, sent["entries"], weights, sent["starts"], owners, sent["scale"], owners is not None)

    def release(self) -> None:
        """Note that the block is read no more once the work given to the device so far is done."""
        import torch

        if self._used is not None:
            self._used.record(torch.cuda.current_stream(self._place))

    @contextlib.contextmanager
    def _copying(self) -> Iterator[None]:
        import torch

        if self._stream is None or self._copied is None or self._used is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used)
            yield
            self._copied.record(self._stream)
        torch.cuda.current_stream(self._place).wait_event(self._copied)


def slot_bytes(graph: Graph) -> int:
    """Return the bytes of one slot, on the host as on the device."""
    return 4 * sum(_slot_sizes(graph).values())


def resident_bytes(graph: Graph) -> int:
    """Return the bytes of W on the device, with what its allocator rounds up."""
    return (4 * graph.nnz * (1 if graph.weights is None else 2) + 12 * (graph.n + graph.nnz // PIECE_ENTRIES)) * 9 // 8


def product_bytes(graph: Graph, columns: int) -> int:
    """Return the bytes that a product takes besides L_t and L_{t+1}: for chosen entries of a block, and sums of its pieces."""
    sizes = _slot_sizes(graph)
    return 48 * sizes["entries"] + 24 * sizes["starts"] * columns


def add_product(block: Block, L: torch.Tensor, out: torch.Tensor) -> None:
    """Add rows of W L to ``out`` (N, C'), where they are 0 before their first block: equation 1 of the paper.

    The sums of each piece are those of the device's sparse product, in float32.
    """
    if block.owners is None:
        out[block.begin : block.end].addcmul_(_multiply(block, L), block.scale[:, None])
        return
    rows, sums = _sums_of_rows(block, L) if block.cut else (block.owners, _multiply(block, L))
    # each row once: the order in which the device adds them does not matter
    out[block.begin : block.end].index_add_(0, rows, sums * block.scale[rows, None])


def _sums_of_rows(block: Block, L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of a block and their sums, those of rows in several pieces added up in float64."""
    import torch

    # what waits for the device stands before the product, so that the next block can be brought during it
    rows, pieces = torch.unique_consecutive(block.owners, return_counts=True)
    heads, several = pieces.cumsum(0) - pieces, pieces > 1
    cut = several.nonzero()[:, 0]
    inside = torch.repeat_interleave(several, pieces, output_size=len(block.starts) - 1).nonzero()[:, 0]
    sums = _multiply(block, L)
    if len(cut):
        added = torch.segment_reduce(sums[inside].double(), "sum", lengths=pieces[cut], axis=0, unsafe=True)
        sums[heads[cut]] = added.float()
    return rows, sums[heads]


def pick(block: Block, mask: torch.Tensor) -> Block:
    """Return the rows of a block for which ``mask`` (N,) bool is true."""
    import torch

    kept = mask[block.begin : block.end]
    pieces = (kept if block.owners is None else kept[block.owners]).nonzero()[:, 0]
    first = block.starts[pieces].long()
    lengths = block.starts[pieces + 1] - first
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total = int(starts[-1])
    places = torch.repeat_interleave(first - starts[:-1], lengths, output_size=total)
    places += torch.arange(total, device=places.device)
    return replace(
        block,
        entries=block.entries[places],
        weights=None if block.weights is None else block.weights[places],
        starts=starts.int(),
        owners=pieces if block.owners is None else block.owners[pieces],
    )


def _multiply(block: Block, L: torch.Tensor) -> torch.Tensor:
    """Return the sums over the entries of each piece, float32 (pieces, C')."""
    import torch

    weights = (block.entries < 0).float().add_(1) if block.weights is None else block.weights
    places = torch.int32 if L.numel() < _INT32_NUMBERS else torch.int64
    starts, columns = block.starts.to(places), block.columns().to(places)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        S = torch.sparse_csr_tensor(starts, columns, weights, size=(len(starts) - 1, len(L)), check_invariants=False)
    return S @ L


def _ranges(graph: Graph) -> Iterator[tuple[int, int, int, int]]:
    """Cut W into blocks: rows from and to, entries from and to. The entries are bounded even where one row has more."""
    for begin, end in row_blocks(graph.indptr):
        last = int(graph.indptr[end])
        for first in range(int(graph.indptr[begin]), last, room.BLOCK_ENTRIES):
            yield begin, end, first, min(first + room.BLOCK_ENTRIES, last)


def _host_arrays(graph: Graph, begin: int, end: int, first: int, last: int) -> dict[str, np.ndarray]:
    """Return the arrays of a block by their names in `Block`, maps where they can be."""
    starts, owners = _pieces(np.clip(graph.indptr[begin : end + 1], first, last) - first)
    arrays = {"entries": graph.indices[first:last].view(np.int32), "starts": starts, "scale": graph.row_scale[begin:end]}
    if owners is not None:
        arrays["owners"] = owners
    if graph.weights is not None:
        arrays["weights"] = graph.weights[first:last]
    return arrays


def _pieces(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut rows that begin at ``starts`` (rows + 1,) into pieces; return where these begin and whose they are."""
    pieces = np.maximum(1, -(-np.diff(starts) // PIECE_ENTRIES))
    if pieces.max() == 1:
        return starts, None
    owners = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(owners)) - (np.cumsum(pieces) - pieces)[owners]
    return np.append(starts[owners] + PIECE_ENTRIES * number, starts[-1]), owners


def _slot_sizes(graph: Graph) -> dict[str, int]:
    """Return the most elements that each array of a block can have."""
    entries = min(graph.nnz, room.BLOCK_ENTRIES)
    rows = min(graph.n, max(8, room.BLOCK_ROWS))
    pieces = rows + entries // PIECE_ENTRIES
    sizes = {"entries": entries, "starts": pieces + 1, "owners": pieces, "scale": rows}
    return sizes if graph.weights is None else {**sizes, "weights": entries}


def _copied(block: Block) -> Block:
    tensors = ("entries", "weights", "starts", "owners", "scale")
    return replace(block, **{name: tensor.clone() for name in tensors if (tensor := getattr(block, name)) is not None})
