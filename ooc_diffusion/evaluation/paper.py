"""The figures that Douze et al. (CVPR 2018) report, to put beside those measured here.

Accuracies are top-5 in percent: a mean, or mean and standard deviation over 5 draws where the paper prints that.
"""

from __future__ import annotations

__all__ = [
    "BLOCK_SECONDS",
    "CODE_ITERATIONS",
    "DIFFUSION_SECONDS",
    "HARIHARAN_GIRSHICK",
    "ITERATIONS",
    "KNN",
    "LOGISTIC_SECONDS",
    "LOGISTIC_SETTINGS",
    "MOST_ITERATIONS",
    "N_PER_CLASS",
    "TABLE_1",
    "TABLE_1_COLUMNS",
    "TABLE_2",
    "TABLE_3",
    "TABLE_4_COLUMNS",
    "TABLE_5",
    "TRANSDUCTIVE",
    "Percent",
    "fractions",
]

Percent = float | tuple[float, float]

N_PER_CLASS = (1, 2, 5, 10, 20)

# Table 1: n = 2, group 1, other descriptors than in the tables below; columns: no background, F1M, in-domain.
TABLE_1_COLUMNS = ("none", "F1M", "in-domain")
TABLE_1: dict[str, tuple[Percent, ...]] = {
    "constant": ((62.7, 0.68), (65.4, 0.55), (73.3, 0.72)),
    "Gaussian": (62.7, 65.4, 73.6),
    "meaningful neighbors": (62.7, 40.0, 73.6),
    "η none": (40.6, 41.1, 42.3),
    "η Sinkhorn": (61.1, 56.8, 72.3),
    "η columns": (62.7, 65.4, 73.3),
    "η Γ_r": (62.7, 65.4, 73.3),
    "η columns, prior": (62.7, 65.4, 73.3),
}

# Tables 2 and 3: group 2, base and novel classes; by n.
TABLE_2: dict[str, tuple[Percent, ...]] = {
    "none": ((58.5, 0.52), (63.6, 0.60), (69.0, 0.46), (73.9, 0.15), (78.0, 0.15)),
    "in-domain": ((69.7, 0.86), (75.4, 0.64), (79.9, 0.17), (82.1, 0.14), (83.6, 0.12)),
    "logistic": ((60.4, 0.78), (68.8, 0.82), (79.1, 0.35), (83.4, 0.16), (86.0, 0.15)),
    "in-domain + logistic": ((69.76, 0.88), (75.60, 0.69), (81.35, 0.22), (84.56, 0.12), (86.72, 0.09)),
}
TABLE_3: dict[str, tuple[Percent, ...]] = {
    "none": TABLE_2["none"],
    "F1M": ((61.4, 0.61), (66.8, 0.71), (72.5, 0.27), (76.2, 0.19), (79.1, 0.23)),
    "F10M": ((62.7, 0.76), (68.4, 0.74), (74.0, 0.35), (77.4, 0.31), (80.0, 0.27)),
    "F100M": ((63.6, 0.61), (69.5, 0.60), (75.2, 0.40), (78.5, 0.34), (80.8, 0.18)),
    "logistic": TABLE_2["logistic"],
    "F10M + logistic": ((63.3, 0.73), (70.6, 0.80), (79.4, 0.34), (83.6, 0.13), (86.2, 0.12)),
    "F100M + logistic": ((64.0, 0.70), (71.1, 0.82), (79.7, 0.38), (83.9, 0.10), (86.3, 0.17)),
}

# Table 5: the tests of novel classes alone.
TABLE_5: dict[str, tuple[Percent, ...]] = {
    "none": ((39.4, 0.85), (47.8, 0.94), (56.8, 0.73), (64.9, 0.28), (71.4, 0.26)),
    "F1M": ((43.9, 0.96), (52.7, 1.14), (62.2, 0.44), (68.0, 0.33), (72.7, 0.40)),
    "F10M": ((46.3, 1.28), (55.2, 1.21), (64.6, 0.57), (69.9, 0.47), (74.1, 0.38)),
    "F100M": ((47.6, 1.09), (57.0, 1.05), (66.3, 0.68), (71.7, 0.54), (75.3, 0.29)),
    "in-domain": ((57.7, 1.28), (66.9, 1.06), (73.8, 0.29), (77.6, 0.23), (80.0, 0.21)),
    "logistic": ((42.6, 1.31), (54.4, 1.29), (71.4, 0.54), (78.6, 0.27), (82.9, 0.20)),
    "F10M + logistic": ((46.5, 1.23), (57.5, 1.34), (71.9, 0.55), (78.7, 0.21), (83.0, 0.15)),
    "F100M + logistic": ((47.9, 1.18), (58.4, 1.29), (72.3, 0.58), (79.2, 0.14), (83.2, 0.22)),
}

# What the paper prints beside its own in tables 2 and 3, and in table 5: another method, of Hariharan and Girshick.
HARIHARAN_GIRSHICK: dict[str, tuple[Percent, ...]] = {
    "all": (63.6, 71.5, 80.0, 83.3, 85.2),
    "novel": (45.1, 58.8, 72.7, 79.1, 82.6),
}

# n = 2: the tests in the graph, over F1M; the kNN classifier with 1000 neighbors, no background.
TRANSDUCTIVE: Percent = (69.6, 0.68)
KNN: Percent = 60.5

# Table 4 and appendix D: on 24 cores at 2.5 GHz, and on 8 GPUs.
TABLE_4_COLUMNS = ("none", "F1M", "F10M", "F100M", "F100M, 8 GPUs")
ITERATIONS = (2, 3, 4, 5, None)
BLOCK_SECONDS: dict[str, tuple[float | None, ...]] = {
    "W_BB": (None, None, None, None, 25929),
    "W_LL": (None, None, None, 32, 1),
    "W_LB": (None, None, None, 65 + 2783, 732 + 64),
    "W_BL": (None, None, None, 12003, 533),
    "completion": (177, 516, 2441, 14880, 1380),
}
DIFFUSION_SECONDS = (4.4, 19, 224, 3240, None)
# Logistic regression: from the fewest to the most labelled images.
LOGISTIC_SECONDS = (147, 720)

# So few iterations are best: 2 to 7.
MOST_ITERATIONS = 7
# The published code, k = 30: the best iteration by n, for each background.
CODE_ITERATIONS: dict[str, tuple[int, ...]] = {
    "none": (3, 3, 1, 1, 1),
    "F100k": (0, 3, 0, 0, 0),
    "F1M": (3, 3, 3, 2, 2),
    "F10M": (4, 4, 4, 3, 3),
    "F100M": (7, 6, 5, 5, 4),
}

# What group 1 chose for logistic regression on raw descriptors, by n; of a grid of 27, each up to 75 000 steps.
LOGISTIC_SETTINGS = {
    "learning_rate": (0.001, 0.001, 0.001, 0.01, 0.01),
    "weight_decay": (0.1, 0.01, 0.01, 0, 0),
    "batch_size": (128, 128, 64, 128, 128),
    "n_steps": (47000, 29500, 70500, 12000, 22000),
}


def fractions(reported: Percent) -> tuple[float, float | None]:
    """Return mean and standard deviation as fractions of 1, the latter None where the paper has none."""
    mean, deviation = reported if isinstance(reported, tuple) else (reported, None)
    return round(mean / 100, 6), None if deviation is None else round(deviation / 100, 6)
