"""Draws of seeds, cross-validation and accuracy: the protocol of the paper."""

from ooc_diffusion.evaluation.draws import draw_novel, draw_seeds, seed_of_draw
from ooc_diffusion.evaluation.folds import seed_folds
from ooc_diffusion.evaluation.metrics import Accuracy, hits, mean_std
from ooc_diffusion.evaluation.protocol import FEWEST_FOR_TOP5, MEASURES, choose_place, choosing_measure, count_hits, shares
from ooc_diffusion.evaluation.selection import choose_iterations, fallback_iterations, quadratic_score
from ooc_diffusion.evaluation.splits import Group, Split, as_classes, random_split, read_split, shown_class, write_split

__all__ = [
    "FEWEST_FOR_TOP5",
    "MEASURES",
    "Accuracy",
    "Group",
    "Split",
    "as_classes",
    "choose_iterations",
    "choose_place",
    "choosing_measure",
    "count_hits",
    "draw_novel",
    "draw_seeds",
    "fallback_iterations",
    "hits",
    "mean_std",
    "quadratic_score",
    "random_split",
    "read_split",
    "seed_folds",
    "seed_of_draw",
    "shares",
    "shown_class",
    "write_split",
]
