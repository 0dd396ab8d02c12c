"""How long `train` will take, from the time of a few steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..features import NetworkCosts, Preprocessing, Recipe, find_device, make_network, measure_training
from ..parallel import resolve_threads
from .seconds import Seconds
from .settings import Settings

# Multiply-adds of a step whose time is measured, and which part of training on an image testing on it takes.
_MEASURED, _TESTING = 2.0**33, 1 / 3


def training_seconds(
    n: int,
    held: int,
    n_classes: int,
    *,
    model: str,
    shown: Preprocessing,
    costs: NetworkCosts,
    recipe: Recipe,
    settings: Settings,
) -> Seconds:
    """Measure some steps on random pixels, and return the seconds of all; decoding images is left out.

    Parameters
    ----------
    n, held : int
        Images to train and to test on.
    n_classes : int
        Their classes.
    model, shown, costs, recipe
        The network, how images are shown to it, what it costs, and how it is trained.
    settings : Settings
        Options of the run.
    """
    network = make_network(model, n_classes, gray=shown.gray, seed=recipe.seed).to(find_device(settings.device))
    images = int(min(n, recipe.batch_size, max(2, _MEASURED // (3 * costs.multiply_adds))))
    with torch_threads(resolve_threads(settings.threads)):
        each = measure_training(network, shown, recipe, n_classes=n_classes, images=images)
    of_an_epoch = -(-n // n_classes) * n_classes if recipe.balanced else n
    return {"training": each * recipe.epochs * (of_an_epoch + _TESTING * held)}


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
