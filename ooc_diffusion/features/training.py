"""Training a classification network: stochastic gradient descent that can be stopped after any step and gone on with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput, DoesNotFit
from .augmentation import augment
from .preprocessing import Preprocessing
from .training_images import TrainingImages

if TYPE_CHECKING:
    import torch

# Share of all steps over which the learning rate rises to its full value.
_WARM_UP = 0.05
_MOMENTUM = 0.9
# Steps of which the fastest counts, where only their time is wanted.
_MEASURED = 3
# What random numbers are for: each step has its own, so that none depends on those before.
_ORDER, _CHANGES, _NETWORK = range(3)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        How often each image is seen.
    batch_size : int
        Images at a time; the batches of an epoch differ by one image at most.
    learning_rate : float
        Its highest value: it rises to that over the first twentieth of the steps, and falls to 0 as half a cosine.
    weight_decay : float
        Of all parameters.
    balanced : bool
        Whether an epoch has equally many images of every class.
    augmentation : str
        See `augment`.
    flip : bool
        Whether every other image is mirrored.
    seed : int
        Of everything that is drawn.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    balanced: bool
    augmentation: str
    flip: bool
    seed: int

    def order(self, classes: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Return the places of the images of each step of an epoch."""
        random = np.random.default_rng([self.seed, _ORDER, epoch])
        order = random.permutation(len(classes))
        if self.balanced:
            order = _balanced(classes, random)
        return np.array_split(order, self.steps(classes))

    def steps(self, classes: np.ndarray) -> int:
        """Return the steps of an epoch: none has fewer than two images."""
        n = self.images(classes)
        steps = -(-n // self.batch_size)
        return steps if n >= 2 * steps else max(1, n // 2)

    def images(self, classes: np.ndarray) -> int:
        """Return the images of an epoch."""
        n_classes = int(classes.max()) + 1
        return -(-len(classes) // n_classes) * n_classes if self.balanced else len(classes)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of one of all steps."""
        rising = max(1, round(_WARM_UP * steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _balanced(classes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return places with equally many of every class; those of small classes come several times."""
    n_classes = int(classes.max()) + 1
    each = -(-len(classes) // n_classes)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
    turns = [np.concatenate([random.permutation(own) for _ in range(-(-each // len(own)))])[:each] for own in members]
    return random.permutation(np.concatenate(turns))


class Training:
    """A network on its way.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place; on its device.
    images, held_out : TrainingImages
        What it is trained on, and what it is tested on after each epoch (may be empty).
    preprocessing : Preprocessing
        Of the network; images are prepared with ``crop`` as large as ``resize``.
    recipe : Recipe
        How.

    Attributes
    ----------
    step : int
        Steps done.
    curve : list of dict
        Of each epoch that is done: ``epoch`` from 1 on, ``learning_rate`` of its last step, mean ``loss`` and ``accuracy`` on the
        images as they were changed at random, by the network as it was then; ``held_out_loss`` and ``held_out_accuracy``, of
        unchanged images after the epoch, None where nothing is held out.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        images: TrainingImages,
        held_out: TrainingImages,
        preprocessing: Preprocessing,
        recipe: Recipe,
    ) -> None:
        import torch

        self.step = 0
        self.curve: list[dict[str, Any]] = []
        self._sums = [0.0, 0, 0]  # of the epoch under way: loss, right answers, images
        self._network = network
        self._device = next(network.parameters()).device
        self._images, self._held_out = images, held_out
        self._preprocessing, self._recipe = preprocessing, recipe
        self._steps_per_epoch = recipe.steps(images.classes)
        options: dict[str, Any] = {"momentum": _MOMENTUM, "nesterov": True, "weight_decay": recipe.weight_decay}
        self._optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, **options)

    @property
    def steps(self) -> int:
        """All steps."""
        return self._recipe.epochs * self._steps_per_epoch

    @property
    def images_seen(self) -> int:
        """Images that the steps done were to see."""
        epochs, steps = divmod(self.step, self._steps_per_epoch)
        n = self._recipe.images(self._images.classes)
        whole, rest = divmod(n, self._steps_per_epoch)
        return epochs * n + steps * whole + min(steps, rest)

    def run(self, done: Callable[[int], object]) -> None:
        """Do the steps that are left.

        Parameters
        ----------
        done : callable
            Called after each step, with the images of it; `state` may be taken then.

        Raises
        ------
        BadInput
            Where the loss is no longer a number, or too many images cannot be read.
        DoesNotFit
            Where a batch is too large for the GPU.
        """
        import torch

        devices = [self._device] if self._device.type == "cuda" else []
        precise = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)
        try:
            with torch.random.fork_rng(devices=devices), precise:
                for pixels, classes in self._images.batches(self._places_left()):
                    before = self.images_seen
                    self._train(pixels, classes)
                    self.step += 1
                    if self.step % self._steps_per_epoch == 0:
                        self._end_epoch()
                    done(self.images_seen - before)
        except torch.cuda.OutOfMemoryError as error:
            raise DoesNotFit(f"a batch of {self._recipe.batch_size} does not fit {self._device}; lower --batch-size") from error

    def _places_left(self) -> Iterator[np.ndarray]:
        first_epoch, skipped = divmod(self.step, self._steps_per_epoch)
        for epoch in range(first_epoch, self._recipe.epochs):
            yield from self._recipe.order(self._images.classes, epoch)[skipped if epoch == first_epoch else 0 :]

    def _train(self, pixels: np.ndarray, classes: np.ndarray) -> None:
        import torch
        from torch.nn import functional

        if len(classes) < 2:  # so many could not be read that batch normalization has nothing to go by
            return
        recipe = self._recipe
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, _NETWORK, self.step]).generate_state(1)[0]))
        random = np.random.default_rng([recipe.seed, _CHANGES, self.step])
        values = self._preprocessing.scaled(torch.from_numpy(pixels).to(self._device))
        values = augment(values, self._preprocessing.crop, recipe.augmentation, flip=recipe.flip, random=random)
        truth = torch.from_numpy(classes).to(self._device)
        self._optimizer.param_groups[0]["lr"] = recipe.rate(self.step, self.steps)
        self._network.train()
        self._optimizer.zero_grad(set_to_none=True)
        scores = self._network(values)
        loss = functional.cross_entropy(scores, truth)
        loss.backward()
        self._optimizer.step()
        self._sums[0] += float(loss.detach()) * len(classes)
        self._sums[1] += int((scores.argmax(dim=1) == truth).sum())
        self._sums[2] += len(classes)
        if not math.isfinite(self._sums[0]):
            raise BadInput(f"the loss is no longer a number in step {self.step + 1}; lower --learning-rate and start anew")

    def _end_epoch(self) -> None:
        loss, right, seen = self._sums
        held_out = self._test()
        self.curve.append(
            {
                "epoch": len(self.curve) + 1,
                "learning_rate": self._recipe.rate(self.step - 1, self.steps),
                "loss": loss / max(1, seen),
                "accuracy": right / max(1, seen),
                "held_out_loss": held_out[0],
                "held_out_accuracy": held_out[1],
            }
        )
        self._sums = [0.0, 0, 0]

    def _test(self) -> tuple[float | None, float | None]:
        """Return loss and accuracy on the images that are held out."""
        import torch
        from torch.nn import functional

        self._network.eval()
        loss, right, seen = 0.0, 0, 0
        n, none = len(self._held_out), np.random.default_rng(0)
        with torch.inference_mode():
            blocks = np.array_split(np.arange(n), -(-n // self._recipe.batch_size)) if n else []
            for pixels, classes in self._held_out.batches(blocks):
                values = self._preprocessing.scaled(torch.from_numpy(pixels).to(self._device))
                truth = torch.from_numpy(classes).to(self._device)
                scores = self._network(augment(values, self._preprocessing.crop, "none", flip=False, random=none))
                loss += float(functional.cross_entropy(scores, truth, reduction="sum"))
                right += int((scores.argmax(dim=1) == truth).sum())
                seen += len(classes)
        return (loss / seen, right / seen) if seen else (None, None)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that the steps left depend on: tensors, and JSON values beside them."""
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            momentum = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        failures = [sorted(images.failures.copy().items()) for images in (self._images, self._held_out)]
        return tensors, {
            "step": self.step,
            "images_seen": self.images_seen,
            "curve": self.curve,
            "sums": self._sums,
            "failures": failures,
        }

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        own = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
        self._network.load_state_dict(own)
        for name, parameter in self._network.named_parameters():
            if f"momentum.{name}" in tensors:
                momentum = tensors[f"momentum.{name}"].to(self._device, copy=True)
                self._optimizer.state[parameter]["momentum_buffer"] = momentum
        self.step, self.curve, self._sums = values["step"], values["curve"], values["sums"]
        for images, failures in zip((self._images, self._held_out), values["failures"], strict=True):
            images.failures.update((int(place), why) for place, why in failures)


def measure_training(
    network: torch.nn.Module, preprocessing: Preprocessing, recipe: Recipe, *, n_classes: int, images: int
) -> float:
    """Return the seconds that training takes for an image, decoding left out.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place; on its device.
    preprocessing : Preprocessing
        Of the network.
    recipe : Recipe
        How it is trained.
    n_classes : int
        Outputs of the network.
    images : int
        Images of random pixels in each of the steps that are measured.
    """
    import torch

    classes = np.arange(images, dtype=np.int64) % n_classes
    given: Any = SimpleNamespace(classes=classes)
    shape = (images, preprocessing.resize, preprocessing.resize, preprocessing.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    training = Training(network, given, given, preprocessing, replace(recipe, learning_rate=0.0))
    taken = []
    with torch.random.fork_rng(devices=[training._device] if training._device.type == "cuda" else []):
        for _ in range(_MEASURED + 1):  # the first warms up
            started = time.perf_counter()
            training._train(pixels, classes)  # reads the loss, and waits for it
            taken.append(time.perf_counter() - started)
    return min(taken[1:]) / images
