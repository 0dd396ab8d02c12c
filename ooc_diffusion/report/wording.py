"""Numbers and names as people read them."""

from __future__ import annotations

import math
import unicodedata

from ..memory import format_size

UNKNOWN = "–"

# Overrides of the writing direction make "gpj.exe" look like "exe.jpg".
_DIRECTION = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN = {"Cc", "Cs", "Zl", "Zp"}


def visible(text: str) -> str:
    """Return text in which nothing hides: control characters and undecodable bytes appear as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:
        # A byte of a file name that is not UTF-8; Python keeps it as a surrogate.
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character in _DIRECTION or unicodedata.category(character) in _HIDDEN:
        return character.encode("unicode_escape").decode("ascii")
    return character


def size(n_bytes: int | None) -> str:
    """Bytes, or a dash where unknown."""
    return UNKNOWN if n_bytes is None else format_size(n_bytes)


def duration(seconds: float | None) -> str:
    """Seconds as the two largest units, or a dash where unknown."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def time_left(seconds: float) -> str:
    """An estimate of seconds as the two largest units, without parts of a second."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(round(seconds))


def count(number: int) -> str:
    """A whole number with thousands separators."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """A count and its noun, in the plural where it is not one; "1 class", "2 classes"."""
    plural = noun if number == 1 else f"{noun}{'es' if noun.endswith('s') else 's'}"
    return f"{count(number)} {plural}"


def confidence(value: float | None) -> str:
    """Three decimals; tiny but positive values do not become zero."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.0e}" if 0 < value < 0.0005 else f"{value:.3f}"


def accuracy(pair: tuple[float, float | None]) -> str:
    """Mean and standard deviation in percent."""
    mean, std = pair
    if not math.isfinite(mean):
        return UNKNOWN
    if std is None or not math.isfinite(std):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * std:.1f}"


def percent(share: float) -> str:
    """A share in percent, small ones with a decimal."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"
