"""The pixels themselves as descriptor: no network, no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput
from ..images import ImageSource, UnreadableImage, plain_image

if TYPE_CHECKING:
    from PIL import Image

_LARGEST_DEFAULT_SIZE = 32
_SAMPLES = 64


class PixelExtractor:
    """Images resized to a small square, as values in 0..1.

    Parameters
    ----------
    size : int
        Height and width in pixels. Images of this size are taken as they are, others resized bilinearly.
    gray : bool
        One value per pixel instead of red, green, blue.
    """

    batch_images = 1024

    def __init__(self, size: int, *, gray: bool) -> None:
        if size < 1:
            raise BadInput(f"image size {size} is not positive; give the pixels of one side, such as 32")
        self.size = size
        self.gray = gray
        self.dim = size * size * (1 if gray else 3)
        self.identity: dict[str, Any] = {
            "model": "pixels",
            "image_size": size,
            "color": "gray" if gray else "rgb",
            "resize": "bilinear",
            "range": [0, 1],
            "dtype": "float32",
        }

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return uint8 (dim,) pixels, row by row, the colors of one pixel side by side."""
        from PIL.Image import Resampling

        mode = "L" if self.gray else "RGB"
        plain = plain_image(image)
        if plain.mode != mode:
            plain = plain.convert(mode)
        if plain.size != (self.size, self.size):
            plain = plain.resize((self.size, self.size), Resampling.BILINEAR)
        return np.asarray(plain).reshape(-1)

    def describe(self, batch: np.ndarray) -> np.ndarray:
        """Return float32 (b, dim) descriptors: 0 is black, 1 is white."""
        return batch.astype(np.float32) / np.float32(255)


def pixel_settings(source: ImageSource, *, size: int | None = None, color: str = "auto") -> tuple[int, bool]:
    """Choose size and color for `PixelExtractor` where the user leaves them open.

    Parameters
    ----------
    source : ImageSource
        The images.
    size : int, optional
        Height and width in pixels. Default: the smaller side of the first readable image, at most 32.
    color : {"auto", "gray", "rgb"}
        Default ``auto``: gray where 64 images, evenly spread over the collection, are gray as far as they can be read.

    Returns
    -------
    tuple of (int, bool)
        Size and whether gray.

    Raises
    ------
    BadInput
        For an unknown color, or where a choice is open and no image can be read.
    """
    if color not in ("auto", "gray", "rgb"):
        raise BadInput(f"color {color!r} is none of auto, gray, rgb")
    if size is not None and color != "auto":
        return size, color == "gray"
    first = _first_readable(source)
    if size is None:
        size = min(*first.size, _LARGEST_DEFAULT_SIZE)
    if color != "auto":
        return size, color == "gray"
    rows = np.unique(np.linspace(0, len(source) - 1, _SAMPLES).astype(np.int64))
    images = (_readable(source, int(row)) for row in rows)
    return size, first.mode == "L" and all(image is None or image.mode == "L" for image in images)


def _first_readable(source: ImageSource) -> Image.Image:
    for row in range(len(source)):
        image = _readable(source, row)
        if image is not None:
            return image
    raise BadInput(f"none of the {len(source)} images can be read; check one of them in an image viewer")


def _readable(source: ImageSource, row: int) -> Image.Image | None:
    try:
        return plain_image(source.read(row))
    except UnreadableImage:
        return None
