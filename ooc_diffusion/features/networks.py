"""Classification networks of torchvision, cut before their last layer."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput, DoesNotFit
from ..images import plain_image
from .weights import download_state, load_state, parameter_hash, read_state

if TYPE_CHECKING:
    import torch
    from PIL import Image

logger = logging.getLogger(__name__)

# Longer images are cut to this ratio around their middle, which is all that the central crop sees: a thread of 1 x 50000 pixels
# would be resized to 3 gigapixels first.
_LONGEST_RATIO = 8

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
        Name in torchvision, such as ``resnet50``.
    weights : str
        ``DEFAULT`` or another name of published weights; ``none`` for random ones; or a file: ``.safetensors``, or a state dict
        for ``torch.load``. Default ``DEFAULT``.
    device : str
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``. Default ``auto``.
    seed : int
        Of random weights. Default 0.
    threads : int, optional
        Threads of torch on the CPU, for the whole process. Default: left as they are.

    Raises
    ------
    BadInput
        For an unknown model, weights that cannot be had or do not fit, or a device that is not there. Nothing is put in the
        place of what was asked for.
    """

    batch_images = 32

    def __init__(
        self, model: str, *, weights: str = "DEFAULT", device: str = "auto", seed: int = 0, threads: int | None = None
    ) -> None:
        import torch

        self._device = _find_device(device)
        if threads is not None and self._device.type == "cpu":
            torch.set_num_threads(threads)
        published = _published_weights(model)
        network, source, preset = _build(model, published, weights, seed)
        self._preset = preset
        self._network = network.eval().to(self._device)
        layer, self._last = _last_layer(self._network)
        self.dim: int = self._last.weight.shape[1]
        self.identity: dict[str, Any] = {
            "model": model,
            "weights": source,
            "parameters": parameter_hash(self._network),
            "layer": f"input of {layer}",
            "resize": preset.resize_size[0],
            "crop": preset.crop_size[0],
            "interpolation": preset.interpolation.value,
            "mean": preset.mean,
            "std": preset.std,
            "dtype": "float32",
            "device": self._device.type,
        }
        # On the device beforehand, shaped to be subtracted from and divided into (b, 3, h, w).
        self._mean, self._std = (torch.tensor(values, device=self._device).view(3, 1, 1) for values in (preset.mean, preset.std))

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return uint8 (h, w, 3) pixels, resized and cropped as the published weights want it."""
        from torchvision.transforms import functional

        plain = _shortened(plain_image(image).convert("RGB"))
        resized = functional.resize(plain, self._preset.resize_size, self._preset.interpolation)
        return np.asarray(functional.center_crop(resized, self._preset.crop_size))

    def describe(self, batch: np.ndarray) -> np.ndarray:
        """Return float32 (b, dim) descriptors, in full float32 precision on the GPU too."""
        import torch

        captured: list[torch.Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
        precise = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        try:
            with torch.inference_mode(), precise:
                pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).contiguous()
                self._network(pixels.to(torch.float32).div(255).sub(self._mean).div(self._std))
                features = captured[0]
                if features.ndim == 4:
                    features = features.mean(dim=(2, 3))
                return features.to(torch.float32).cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            raise DoesNotFit(f"{len(batch)} images do not fit the memory of {self._device}; give --device cpu") from error
        finally:
            hook.remove()


def _find_device(device: str) -> torch.device:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or not (number.isdigit() or device == "cuda")):
        raise BadInput(f"device {device!r} is none of auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {device} is not there ({torch.cuda.device_count()} GPUs found); give --device cpu")
    return torch.device(device)


def _published_weights(model: str) -> Any:
    """Return the enumeration of the published weights of a model."""
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        close = difflib.get_close_matches(model.lower(), [*known, "pixels"], n=3)
        raise BadInput(f"unknown model {model!r}; " + (f"did you mean {', '.join(close)}?" if close else "try resnet50"))
    return models.get_model_weights(model)


def _build(model: str, published: Any, weights: str, seed: int) -> tuple[torch.nn.Module, str, Any]:
    """Return the network, what its weights are called, and the preprocessing that belongs to them."""
    import torch
    from torchvision import models

    options = _OPTIONS.get(model, {})
    preset = published.DEFAULT.transforms()
    if weights == "none":
        logger.warning("%s has random weights (seed %d): its descriptors know nothing of images", model, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return models.get_model(model, weights=None, **options), f"random, seed {seed}", preset
    if weights in published.__members__:
        chosen = published[weights]
        preset = chosen.transforms()
        state, source = download_state(chosen, model), str(chosen)
    elif Path(weights).suffix or os.sep in weights:
        state, source = read_state(weights), Path(weights).name
    else:
        raise BadInput(f"{model} has no weights {weights!r}; give {', '.join(published.__members__)}, none, or a file")
    with torch.device("meta"):
        head, _ = _last_layer(models.get_model(model, weights=None, **options))
    if f"{head}.weight" not in state:
        raise BadInput(f"{source} has no parameter '{head}.weight'; is it of another model than {model}?")
    network = models.get_model(model, weights=None, num_classes=len(state[f"{head}.weight"]), **options)
    load_state(network, state, source)
    return network, source, preset


def _last_layer(network: torch.nn.Module) -> tuple[str, Any]:
    """Return name and module of the last linear layer, or of the last convolution where there is none (squeezenet)."""
    from torch import nn

    for kind in (nn.Linear, nn.Conv2d):
        layers = [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]
        if layers:
            return layers[-1]
    raise BadInput(f"{type(network).__name__} has no layer to cut at; choose another model")


def _shortened(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = _LONGEST_RATIO * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest))) if left or top else image
