"""What a network is shown of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images import plain_image

if TYPE_CHECKING:
    import torch
    from PIL import Image

# Longer images are cut to this ratio around their middle, which is all that the central crop sees: a thread of 1 x 50000 pixels
# would be resized to 3 gigapixels first.
_LONGEST_RATIO = 8


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a network.

    Parameters
    ----------
    resize : int
        The shorter side is resized to so many pixels.
    crop : int
        Side of the square that is cut out of the middle.
    interpolation : str
        Of the resizing, as torchvision calls it.
    mean, std : sequence of float
        Subtracted from the values 0..1 of each channel, and divided by.
    gray : bool
        One channel instead of red, green, blue. Default False.
    """

    resize: int
    crop: int
    interpolation: str
    mean: Sequence[float]
    std: Sequence[float]
    gray: bool = False

    @classmethod
    def published(cls, preset: Any) -> Preprocessing:
        """Return that of published weights of torchvision."""
        return cls(preset.resize_size[0], preset.crop_size[0], preset.interpolation.value, preset.mean, preset.std)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The parameters, JSON-able; ``gray`` only where it is."""
        return {name: value for name, value in asdict(self).items() if name != "gray" or value}

    @property
    def channels(self) -> int:
        """Values per pixel."""
        return 1 if self.gray else 3

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return uint8 (crop, crop, channels) pixels."""
        from torchvision.transforms import InterpolationMode, functional

        mode = "L" if self.gray else "RGB"
        plain = _shortened(plain_image(image).convert(mode))
        resized = functional.resize(plain, [self.resize], InterpolationMode(self.interpolation))
        pixels = np.asarray(functional.center_crop(resized, [self.crop]))
        return pixels[:, :, None] if self.gray else pixels

    def scaled(self, batch: torch.Tensor) -> torch.Tensor:
        """Return float32 (b, channels, h, w) values, of mean 0 and deviation 1, from uint8 (b, h, w, channels) pixels."""
        import torch

        mean, std = (torch.tensor(values, device=batch.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return batch.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255).sub(mean).div(std)


def _shortened(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = _LONGEST_RATIO * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest))) if left or top else image
