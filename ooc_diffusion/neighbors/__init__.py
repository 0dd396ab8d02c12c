"""The k nearest neighbors: faiss indexes, searching in blocks, merging, recall."""

from .list_major import OrderedLists, nearest_lists, query_rows, search_lists
from .lists import Inverted, bisect_centroids, locality_order, n_lists, n_probes, train_centroids, training_rows
from .merge import merge_neighbors
from .permute import inverse, permuted
from .recall import measure_recall
from .search import (
    DATABASE_ROWS,
    QUERY_ROWS,
    assign_lists,
    choose_index,
    index_bytes,
    resolve_device,
    search,
    search_bytes,
)

__all__ = [
    "DATABASE_ROWS",
    "QUERY_ROWS",
    "Inverted",
    "OrderedLists",
    "assign_lists",
    "bisect_centroids",
    "choose_index",
    "index_bytes",
    "inverse",
    "locality_order",
    "measure_recall",
    "merge_neighbors",
    "n_lists",
    "n_probes",
    "nearest_lists",
    "permuted",
    "query_rows",
    "resolve_device",
    "search",
    "search_bytes",
    "search_lists",
    "train_centroids",
    "training_rows",
]
