"""The figures that Douze et al. (CVPR 2018) report, in percent of top-5 accuracy, to put beside those measured here."""

from __future__ import annotations

__all__ = ["ITERATIONS", "KNN", "N_PER_CLASS", "SECONDS", "TABLE_1", "TABLE_2", "TABLE_3", "TABLE_5", "TRANSDUCTIVE"]

N_PER_CLASS = (1, 2, 5, 10, 20)

# Table 1: n = 2, group 1, other descriptors than in the tables below; columns: no background, F1M, in-domain.
TABLE_1_COLUMNS = ("none", "F1M", "in-domain")
TABLE_1 = {
    "constant": (62.7, 65.4, 73.3),
    "Gaussian": (62.7, 65.4, 73.6),
    "meaningful neighbors": (62.7, 40.0, 73.6),
    "η none": (40.6, 41.1, 42.3),
    "η Sinkhorn": (61.1, 56.8, 72.3),
    "η columns": (62.7, 65.4, 73.3),
    "η Γ_r": (62.7, 65.4, 73.3),
    "η columns, prior": (62.7, 65.4, 73.3),
}

# Tables 2 and 3: group 2, base and novel classes; by n.
TABLE_2 = {
    "none": (58.5, 63.6, 69.0, 73.9, 78.0),
    "in-domain": (69.7, 75.4, 79.9, 82.1, 83.6),
    "logistic": (60.4, 68.8, 79.1, 83.4, 86.0),
    "in-domain + logistic": (69.76, 75.60, 81.35, 84.56, 86.72),
}
TABLE_3 = {
    "none": TABLE_2["none"],
    "F1M": (61.4, 66.8, 72.5, 76.2, 79.1),
    "F10M": (62.7, 68.4, 74.0, 77.4, 80.0),
    "F100M": (63.6, 69.5, 75.2, 78.5, 80.8),
    "logistic": TABLE_2["logistic"],
    "F10M + logistic": (63.3, 70.6, 79.4, 83.6, 86.2),
    "F100M + logistic": (64.0, 71.1, 79.7, 83.9, 86.3),
}

# Table 5: the tests of novel classes alone.
TABLE_5 = {
    "none": (39.4, 47.8, 56.8, 64.9, 71.4),
    "F1M": (43.9, 52.7, 62.2, 68.0, 72.7),
    "F10M": (46.3, 55.2, 64.6, 69.9, 74.1),
    "F100M": (47.6, 57.0, 66.3, 71.7, 75.3),
    "in-domain": (57.7, 66.9, 73.8, 77.6, 80.0),
    "logistic": (42.6, 54.4, 71.4, 78.6, 82.9),
    "F10M + logistic": (46.5, 57.5, 71.9, 78.7, 83.0),
    "F100M + logistic": (47.9, 58.4, 72.3, 79.2, 83.2),
}

# Table 4: on 24 cores at 2.5 GHz; columns: no background, F1M, F10M, F100M.
TABLE_4_COLUMNS = ("none", "F1M", "F10M", "F100M")
ITERATIONS = (2, 3, 4, 5)
SECONDS = {"graph completion": (177, 516, 2441, 14880), "diffusion": (4.4, 19, 224, 3240)}
# Logistic regression: from the fewest to the most labelled images.
LOGISTIC_SECONDS = (147, 720)

# n = 2: the tests in the graph, over F1M; the kNN classifier with 1000 neighbors, no background.
TRANSDUCTIVE = 69.6
KNN = 60.5
