"""Images changed at random, in ways that leave their class as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

AUGMENTATIONS = ("none", "shift", "affine", "crop")

_SHIFT = 1 / 8  # of the side, in each direction
_ANGLE = np.pi / 12
_ZOOM = 1.25
# Of `crop`, as networks are commonly trained on photographs: share of the area, and ratio of the sides.
_AREA = (0.25, 1.0)
_RATIO = (3 / 4, 4 / 3)


def augment(pixels: torch.Tensor, size: int, kind: str, *, flip: bool, random: np.random.Generator) -> torch.Tensor:
    """Return a part of each image, placed at random.

    Parameters
    ----------
    pixels : torch.Tensor of shape (b, channels, side, side), float32
        The images.
    size : int
        Side of what is returned, at most ``side``.
    kind : {"none", "shift", "affine", "crop"}
        Out of the middle; moved by up to an eighth of the size; that, turned by up to 15 degrees and made larger or smaller by
        up to a quarter; a rectangle of a quarter of the area at least, scaled to the size.
    flip : bool
        Whether every other image is mirrored.
    random : numpy.random.Generator
        What is drawn comes from here, so that it is the same on every device.

    Returns
    -------
    torch.Tensor of shape (b, channels, size, size), float32
        Beyond the border an image goes on with its last pixels.
    """
    import torch
    from torch.nn import functional

    if kind == "none" and not flip:
        first = (pixels.shape[2] - size) // 2
        return pixels[:, :, first : first + size, first : first + size]
    theta = torch.from_numpy(_placements(len(pixels), size / pixels.shape[2], kind, flip, random)).to(pixels.device)
    grid = functional.affine_grid(theta, [len(pixels), pixels.shape[1], size, size], align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _placements(b: int, part: float, kind: str, flip: bool, random: np.random.Generator) -> np.ndarray:
    """Return float32 (b, 2, 3): where each pixel comes from, in halves of the side from the middle; ``part`` is size by side."""
    angle, height, width = np.zeros(b), np.full(b, part), np.full(b, part)
    move = np.zeros((2, b))
    if kind in ("shift", "affine"):
        move = random.uniform(-2 * _SHIFT * part, 2 * _SHIFT * part, (2, b))
    if kind == "affine":
        angle = random.uniform(-_ANGLE, _ANGLE, b)
        zoom = np.exp(random.uniform(-np.log(_ZOOM), np.log(_ZOOM), b))
        height, width = height * zoom, width * zoom
    if kind == "crop":
        area, ratio = random.uniform(*_AREA, b), np.exp(random.uniform(np.log(_RATIO[0]), np.log(_RATIO[1]), b))
        height, width = np.minimum(1, np.sqrt(area / ratio)), np.minimum(1, np.sqrt(area * ratio))
        move = random.uniform(-1, 1, (2, b)) * (1 - np.stack([width, height]))
    mirror = np.where(random.random(b) < 0.5, -1.0, 1.0) if flip else np.ones(b)
    cosine, sine = np.cos(angle), np.sin(angle)
    rows = [[mirror * width * cosine, -height * sine, move[0]], [mirror * width * sine, height * cosine, move[1]]]
    return np.array(rows, np.float32).transpose(2, 0, 1).copy()
