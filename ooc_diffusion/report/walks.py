"""Walks from a seed to an image: a row of thumbnails with the share of each hop, as a PNG and in a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .page import environment
from .wording import percent, visible

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

SIDE = 72
# From one tile to the next there is room for an arrow and the share above it.
GAP = 56
_MARGIN = 12
_HEAD, _FOOT = 44, 34
_INK, _SOFT, _FRAME, _WRONG = "#1f2428", "#626a70", "#b9b9b0", "#c22f1f"
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Stop:
    """One image of a walk.

    Parameters
    ----------
    image : PIL.Image.Image, optional
        A thumbnail; None shows an empty frame.
    name : str
        Where the image comes from.
    place : str
        What it is in the walk: the iteration, or the image itself.
    share : float, optional
        Share of what it contributed in the entry of the next; None for the last.
    """

    image: Image.Image | None
    name: str
    place: str
    share: float | None = None


@dataclass(frozen=True)
class Walk:
    """A walk from a seed to an image.

    Parameters
    ----------
    image : str
        Name of the image.
    label : str
        Name of the class.
    kind : str
        Why this class: ``predicted``, ``true`` or ``given``.
    stops : sequence of Stop
        From the seed to the image; empty where no label of the class has come to it.
    truth : str, optional
        Name of the true class where it is known.
    """

    image: str
    label: str
    kind: str
    stops: Sequence[Stop] = ()
    truth: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether the class is known not to be the true one."""
        return self.truth is not None and self.truth != self.label


@dataclass(frozen=True)
class WalkPage:
    """Everything that the page of walks shows.

    Parameters
    ----------
    title : str
        Heading and title.
    summary : sequence of (str, str or int)
        Terms and values.
    walks : sequence of Walk
        In the order in which they are shown.
    command : str
        The command line that made the page.
    """

    title: str
    summary: Sequence[tuple[str, str | int]]
    walks: Sequence[Walk]
    command: str = ""


def render_walks(page: WalkPage) -> str:
    """Return the page as HTML, one file that needs no other; the same contents give the same text."""
    return environment().get_template("walks.html.j2").render(page=page, side=SIDE)


def walk_png(walk: Walk) -> bytes:
    """Draw the tiles of a walk side by side, the share of each hop above an arrow; return a PNG."""
    from PIL import Image, ImageDraw

    width = 2 * _MARGIN + len(walk.stops) * SIDE + (len(walk.stops) - 1) * GAP
    picture = Image.new("RGB", (width, _HEAD + SIDE + _FOOT + _MARGIN), "white")
    draw, font = ImageDraw.Draw(picture), _font(12)
    kind = f"{walk.kind}: {_short(walk.label)}"
    draw.text((_MARGIN, 6), kind, fill=_WRONG if walk.wrong else _INK, font=_font(14))
    draw.text((_MARGIN, 24), _short(walk.image), fill=_SOFT, font=font)
    for i, stop in enumerate(walk.stops):
        left = tile_left(i)
        _draw_tile(picture, draw, stop, left)
        draw.text((left + SIDE // 2, _HEAD + SIDE + 6), _short(stop.place, 14), fill=_SOFT, font=font, anchor="mt")
        if stop.share is not None:
            _draw_hop(draw, stop.share, left + SIDE, font)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def tile_left(i: int) -> int:
    """Return the first column of pixels of tile i."""
    return _MARGIN + i * (SIDE + GAP)


def _draw_tile(picture: Image.Image, draw: ImageDraw.ImageDraw, stop: Stop, left: int) -> None:
    if stop.image is None:
        draw.text((left + SIDE // 2, _HEAD + SIDE // 2), "no picture", fill=_SOFT, font=_font(11), anchor="mm")
    else:
        x, y = left + (SIDE - stop.image.width) // 2, _HEAD + (SIDE - stop.image.height) // 2
        picture.paste(stop.image.convert("RGB"), (x, y))
    draw.rectangle((left - 1, _HEAD - 1, left + SIDE, _HEAD + SIDE), outline=_FRAME)


def _draw_hop(draw: ImageDraw.ImageDraw, share: float, left: int, font: ImageFont.FreeTypeFont) -> None:
    middle, right = _HEAD + SIDE // 2, left + GAP - 6
    draw.text((left + GAP // 2, middle - 6), percent(share), fill=_INK, font=font, anchor="ms")
    draw.line((left + 6, middle, right - 4, middle), fill=_INK)
    draw.polygon([(right, middle), (right - 6, middle - 3), (right - 6, middle + 3)], fill=_INK)


def _short(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    """Return text that can be drawn in a line: nothing hides in it, and the end of a long one is kept."""
    text = visible(text)
    return text if len(text) <= most else "…" + text[1 - most :]


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return a font with more alphabets than that of Pillow."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
