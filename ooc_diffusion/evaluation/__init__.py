"""Draws of seeds, cross-validation, accuracy and tables: the protocol of the paper."""

from ooc_diffusion.evaluation.draws import draw_seeds
from ooc_diffusion.evaluation.folds import seed_folds
from ooc_diffusion.evaluation.metrics import Accuracy, hits
from ooc_diffusion.evaluation.selection import choose_iterations, fallback_iterations, quadratic_score
from ooc_diffusion.evaluation.tables import rows, summarize

__all__ = [
    "Accuracy",
    "choose_iterations",
    "draw_seeds",
    "fallback_iterations",
    "hits",
    "quadratic_score",
    "rows",
    "seed_folds",
    "summarize",
]
