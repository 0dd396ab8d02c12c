"""Images as small PNG data URIs."""

from __future__ import annotations

import base64
import io
import logging
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# Below this side, pixels are shown as squares instead of being blurred into one another.
_TINY = 32


def thumbnail_uri(image: Image.Image | None, *, side: int = 72) -> str | None:
    """Return a PNG data URI, or None where there are no pixels.

    Parameters
    ----------
    image : PIL.Image.Image, optional
        Any mode, any size.
    side : int
        The longer side of the thumbnail is at most this. Default 72.
    """
    small = thumbnail(image, side=side)
    return None if small is None else "data:image/png;base64," + base64.b64encode(_smallest_png(small)).decode("ascii")


def thumbnail(image: Image.Image | None, *, side: int = 72) -> Image.Image | None:
    """Return an image made small, 8-bit gray or RGB; None where there are no pixels. See `thumbnail_uri`."""
    if image is None or 0 in image.size:
        return None
    try:
        return _resized(_plain(image), side)
    except (OSError, ValueError, SyntaxError) as error:
        # Pillow decodes late; a picture broken in the middle costs its frame, not the page.
        logger.warning("a thumbnail could not be made: %s", error)
        return None


def _plain(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit gray or RGB, transparent parts on white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # 16- and 32-bit values have no common white; the range that is there is shown.
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        low, high = values.min(), values.max()
        return Image.fromarray(np.uint8(np.rint((values - low) * (255 / max(high - low, 1e-12)))))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _resized(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    longest = max(image.size)
    if longest < min(_TINY, side):
        factor = side // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longest <= side:
        return image
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _smallest_png(image: Image.Image) -> bytes:
    from PIL import Image

    # 256 colors are enough for a photograph of this size and halve its bytes; flat pictures are smaller as they are. The octree
    # takes 0.3 ms where the median cut takes 8, which matters with thousands of tiles.
    encodings = [_png(image)]
    if image.mode == "RGB":
        encodings.append(_png(image.quantize(256, Image.Quantize.FASTOCTREE)))
    return min(encodings, key=len)


def _png(image: Image.Image) -> bytes:
    image.info.clear()  # Pillow would write the color profile of the original into every thumbnail
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
