"""Bits of masks in LLVM's terms."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


@intrinsic
def lowest_bit(typing: Any, mask: Any) -> tuple[Any, Any]:
    """Return the number of the lowest bit that is set in a uint32 or uint64 other than 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.cttz(args[0], ir.IntType(1)(1))
        return builder.zext(place, ir.IntType(64)) if place.type.width < 64 else place

    return types.int64(mask), generate
