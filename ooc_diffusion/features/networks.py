"""Classification networks, of torchvision or small ones, cut before their last layer."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput, BadOption, DoesNotFit
from .preprocessing import Preprocessing
from .small_networks import SMALL_MODELS, make_small_network
from .weights import download_state, load_state, parameter_hash, read_state, read_training

if TYPE_CHECKING:
    import torch
    from PIL import Image

logger = logging.getLogger(__name__)

# Published weights of these two expect an input that they scale themselves; their own start values take a minute.
_OPTIONS = {
    "googlenet": {"transform_input": True, "init_weights": False, "aux_logits": False},
    "inception_v3": {"transform_input": True, "init_weights": False, "aux_logits": False},
}


class NetworkExtractor:
    """The input of the last layer of a classification network.

    Parameters
    ----------
    model : str
        Name in torchvision, such as ``resnet50``, or of a small network, such as ``resnet10-small``.
    weights : str
        ``DEFAULT`` or another name of published weights; ``none`` for random ones; or a file: ``.safetensors``, or a state dict
        for ``torch.load``. What `train` wrote says itself how images are preprocessed. Default ``DEFAULT``.
    device : str
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``. Default ``auto``.
    seed : int
        Of random weights. Default 0.
    threads : int, optional
        Threads of torch on the CPU, for the whole process. Default: left as they are.
    preprocessing : Preprocessing, optional
        Of a small network whose weights do not say it. Default: that of the weights.

    Raises
    ------
    BadInput
        For an unknown model, weights that cannot be had or do not fit, or a device that is not there. Nothing is put in the
        place of what was asked for.
    """

    batch_images = 32

    def __init__(
        self,
        model: str,
        *,
        weights: str = "DEFAULT",
        device: str = "auto",
        seed: int = 0,
        threads: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        import torch

        self._device = find_device(device)
        if threads is not None and self._device.type == "cpu":
            torch.set_num_threads(threads)
        network, source, self._preprocessing = load_network(model, weights, seed, preprocessing)
        self._network = network.eval().to(self._device)
        layer, self._last = last_layer(self._network)
        self.dim: int = self._last.weight.shape[1]
        self.identity: dict[str, Any] = {
            "model": model,
            "weights": source,
            "parameters": parameter_hash(self._network),
            "layer": f"input of {layer}",
            **self._preprocessing.identity,
            "dtype": "float32",
            "device": self._device.type,
        }

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return uint8 (h, w, 1 or 3) pixels, resized and cropped as the weights want it."""
        return self._preprocessing.prepare(image)

    def describe(self, batch: np.ndarray) -> np.ndarray:
        """Return float32 (b, dim) descriptors, in full float32 precision on the GPU too."""
        import torch

        captured: list[torch.Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
        precise = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        try:
            with torch.inference_mode(), precise:
                self._network(self._preprocessing.scaled(torch.from_numpy(batch).to(self._device)))
                features = captured[0]
                if features.ndim == 4:
                    features = features.mean(dim=(2, 3))
                return features.to(torch.float32).cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            raise DoesNotFit(f"{len(batch)} images do not fit the memory of {self._device}; give --device cpu") from error
        finally:
            hook.remove()


def find_device(device: str) -> torch.device:
    """Return the device that a user means by ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; `BadInput` where it is not there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or not (number.isdigit() or device == "cuda")):
        raise BadInput(f"device {device!r} is none of auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {device} is not there ({torch.cuda.device_count()} GPUs found); give --device cpu")
    return torch.device(device)


def published_weights(model: str) -> Any:
    """Return the enumeration of the published weights of a model of torchvision; `BadInput` where it is unknown."""
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        close = difflib.get_close_matches(model.lower(), [*known, *SMALL_MODELS, "pixels"], n=3)
        raise BadOption(f"unknown model {model!r}; " + (f"did you mean {', '.join(close)}?" if close else "try resnet50"))
    return models.get_model_weights(model)


def make_network(model: str, n_classes: int | None = None, *, gray: bool = False, seed: int | None = None) -> torch.nn.Module:
    """Return a network with random weights.

    Parameters
    ----------
    model : str
        Its name.
    n_classes : int, optional
        Outputs of its last layer. Default: 1000.
    gray : bool
        Of a small network: one channel of the input instead of three. Default False.
    seed : int, optional
        Of the weights; the generator of torch is left as it is. Default: whatever that gives.
    """
    import torch
    from torchvision import models

    def make() -> torch.nn.Module:
        if model in SMALL_MODELS:
            return make_small_network(model, n_classes or 1000, gray=gray)
        sizes = {} if n_classes is None else {"num_classes": n_classes}
        return models.get_model(model, weights=None, **_OPTIONS.get(model, {}), **sizes)

    if seed is None:
        return make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def load_network(
    model: str, weights: str, seed: int, preprocessing: Preprocessing | None
) -> tuple[torch.nn.Module, str, Preprocessing]:
    """Return the network, what its weights are called, and the preprocessing that belongs to them."""
    import torch

    published = None if model in SMALL_MODELS else published_weights(model)
    names = [] if published is None else list(published.__members__)
    if published is not None:
        preprocessing = Preprocessing.published(published.DEFAULT.transforms())
    if weights == "none":
        assert preprocessing is not None
        logger.warning("%s has random weights (seed %d): its descriptors know nothing of images", model, seed)
        return make_network(model, gray=preprocessing.gray, seed=seed), f"random, seed {seed}", preprocessing
    if published is not None and weights in names:
        chosen = published[weights]
        preprocessing = Preprocessing.published(chosen.transforms())
        state, source = download_state(chosen, model), str(chosen)
    elif Path(weights).suffix or os.sep in weights:
        state, source = read_state(weights), Path(weights).name
        trained = read_training(weights)
        if trained is not None and trained["model"] != model:
            raise BadInput(f"{source} holds weights of {trained['model']}, not of {model}; leave --model out")
        preprocessing = preprocessing if trained is None else trained["preprocessing"]
    else:
        raise BadInput(f"{model} has no weights {weights!r}; give {', '.join([*names, 'none'])}, or a file")
    assert preprocessing is not None
    with torch.device("meta"):
        head, _ = last_layer(make_network(model))
    if f"{head}.weight" not in state:
        raise BadInput(f"{source} has no parameter '{head}.weight'; is it of another model than {model}?")
    network = make_network(model, len(state[f"{head}.weight"]), gray=preprocessing.gray)
    load_state(network, state, source)
    return network, source, preprocessing


def with_classes(network: torch.nn.Module, model: str, n_classes: int, *, gray: bool, seed: int) -> torch.nn.Module:
    """Return a network of the same parameters but those of the last layer, which is a new one of so many outputs."""
    fresh = make_network(model, n_classes, gray=gray, seed=seed)
    head, _ = last_layer(fresh)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{head}.")}
    fresh.load_state_dict(state, strict=False)
    return fresh


def last_layer(network: torch.nn.Module) -> tuple[str, Any]:
    """Return name and module of the last linear layer, or of the last convolution where there is none (squeezenet)."""
    from torch import nn

    for kind in (nn.Linear, nn.Conv2d):
        layers = [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]
        if layers:
            return layers[-1]
    raise BadInput(f"{type(network).__name__} has no layer to cut at; choose another model")
