"""From descriptors and scores to labels: logistic regression, late fusion, kNN classifier, predictions."""

from ooc_diffusion.classify.fusion import choose_coefficient, fuse, log_scores, softmax
from ooc_diffusion.classify.graph_logistic import EdgeSampler, Smoothness
from ooc_diffusion.classify.knn import DEFAULT_VOTERS, count_votes, knn_scores, votes_bytes
from ooc_diffusion.classify.logistic import LogisticModel, train_logistic, train_logistic_until
from ooc_diffusion.classify.predictions import predict

__all__ = [
    "DEFAULT_VOTERS",
    "EdgeSampler",
    "LogisticModel",
    "Smoothness",
    "choose_coefficient",
    "count_votes",
    "fuse",
    "knn_scores",
    "log_scores",
    "predict",
    "softmax",
    "train_logistic",
    "train_logistic_until",
    "votes_bytes",
]
