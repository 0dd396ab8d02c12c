"""Names for stages of which a store has one for each combination of parameters."""

from __future__ import annotations

import json
from typing import Any

import xxhash


def stage_name(prefix: str, parameters: dict[str, Any]) -> str:
    """Return the prefix and a digest of JSON values: other parameters have a stage of their own, and nothing to overwrite."""
    return f"{prefix}-{digest(parameters)}"


def digest(value: Any) -> str:
    """Return 12 hexadecimal digits that tell JSON values apart."""
    return xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True).encode())[:12]
