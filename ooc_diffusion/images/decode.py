"""From the bytes of a file to an upright, opaque image of mode L or RGB."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .source import UnreadableImage

_GRAY_MODES = frozenset({"1", "L", "LA", "La"})


def white_image(size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Image.Image:
    """Return the uniform white image that stands in for an unreadable one (``size`` is width and height in pixels)."""
    return Image.new(mode, size, "white")


def read_image(path: str | bytes | os.PathLike[str]) -> Image.Image:
    """Decode an image file completely.

    Parameters
    ----------
    path : path
        A regular file or a link to one. Anything else (a FIFO, a device) is not opened.

    Returns
    -------
    PIL.Image.Image
        The first frame, turned as its EXIF orientation says, of mode L or RGB (see `plain_image`).

    Raises
    ------
    UnreadableImage
        Whatever is wrong with the file: missing, forbidden, empty, no image, truncated, corrupt, or so many pixels that Pillow
        would warn of a decompression bomb.
    """
    with _one_line():
        status = os.stat(path)  # noqa: PTH116 - paths that are not UTF-8 travel as bytes
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage("not a regular file")
        if status.st_size == 0:
            raise UnreadableImage("empty file")
        with open(path, "rb") as file:  # noqa: PTH123
            return _decode(file)


def decode_image(data: bytes) -> Image.Image:
    """Decode an image of which all bytes are in memory, as `read_image` does."""
    with _one_line():
        if not data:
            raise UnreadableImage("empty file")
        return _decode(io.BytesIO(data))


def _decode(file: BinaryIO) -> Image.Image:
    with Image.open(file) as image:
        _refuse_bomb(image)
        image.load()
        return plain_image(ImageOps.exif_transpose(image))


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn whatever is wrong with an image into an `UnreadableImage` of one line."""
    try:
        yield
    except (MemoryError, UnreadableImage):
        raise
    except UnidentifiedImageError:
        # The text of Pillow names the file object and its address, which differ from run to run.
        raise UnreadableImage("no image format that Pillow knows") from None
    except Exception as error:  # the plugins of Pillow raise anything from struct.error to AttributeError
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(" ".join(text.split()) or type(error).__name__) from error


def plain_image(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to L (gray) or RGB.

    Transparent pixels are laid over white. 16-bit gray is scaled to 8 bits (65535 is white), as is the mode ``I`` that Pillow
    uses for some 16-bit files. Floating-point gray is taken as 0..1 where no value is above 1, as 0..255 otherwise.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    mode = "L" if image.mode in _GRAY_MODES else "RGB"
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels)
        scaled = pixels * 255 if pixels.max() <= 1 else pixels
    else:
        scaled = pixels / 257
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _refuse_bomb(image: Image.Image) -> None:
    # Pillow only warns up to twice its limit, and warning filters belong to the whole process, not to one of its threads.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise UnreadableImage(f"{image.width}x{image.height} pixels are more than the {limit} that Pillow holds safe")
