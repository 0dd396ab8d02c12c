"""The k nearest neighbors: faiss indexes, searching in blocks, merging, recall."""

from .merge import merge_neighbors
from .recall import measure_recall
from .search import (
    DATABASE_ROWS,
    QUERY_ROWS,
    Inverted,
    assign_lists,
    choose_index,
    index_bytes,
    n_lists,
    n_probes,
    resolve_device,
    search,
    search_bytes,
    train_centroids,
    training_rows,
)

__all__ = [
    "DATABASE_ROWS",
    "QUERY_ROWS",
    "Inverted",
    "assign_lists",
    "choose_index",
    "index_bytes",
    "measure_recall",
    "merge_neighbors",
    "n_lists",
    "n_probes",
    "resolve_device",
    "search",
    "search_bytes",
    "train_centroids",
    "training_rows",
]
