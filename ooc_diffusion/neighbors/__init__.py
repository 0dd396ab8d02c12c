"""The k nearest neighbors: faiss indexes, searching in blocks, merging, recall."""

from .completion import Entering, entering, entering_bytes, reach_for
from .kernels import take_entering
from .list_major import MOST_MEMORY_PROBES, OrderedLists, block_bytes, nearest_lists, query_rows, search_lists
from .lists import Inverted, bisect_centroids, locality_order, n_lists, n_probes, train_centroids, training_rows
from .merge import merge_neighbors
from .nearest import assign_lists
from .permute import inverse, permuted, row_bytes
from .recall import SAMPLES, Sample, draw_sample, measure_recall, measure_share, measure_table, probes_for
from .search import (
    DATABASE_ROWS,
    INDEXES,
    QUERY_ROWS,
    choose_index,
    index_bytes,
    resolve_device,
    search,
    search_bytes,
)

__all__ = [
    "DATABASE_ROWS",
    "INDEXES",
    "MOST_MEMORY_PROBES",
    "QUERY_ROWS",
    "SAMPLES",
    "Entering",
    "Inverted",
    "OrderedLists",
    "Sample",
    "assign_lists",
    "bisect_centroids",
    "block_bytes",
    "choose_index",
    "draw_sample",
    "entering",
    "entering_bytes",
    "index_bytes",
    "inverse",
    "locality_order",
    "measure_recall",
    "measure_share",
    "measure_table",
    "merge_neighbors",
    "n_lists",
    "n_probes",
    "nearest_lists",
    "permuted",
    "probes_for",
    "query_rows",
    "reach_for",
    "resolve_device",
    "row_bytes",
    "search",
    "search_bytes",
    "search_lists",
    "take_entering",
    "train_centroids",
    "training_rows",
]
