"""Comparing 32 similarities at once: what compilers do not make of the plain loop."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

CHUNK = 32
_FLOAT, _MASK = ir.FloatType(), ir.IntType(CHUNK)
_VECTOR = ir.VectorType(_FLOAT, CHUNK)


@intrinsic
def at_least(typing: Any, row: Any, begin: Any, least: Any) -> tuple[Any, Any]:
    """Return a uint32 whose bit j says whether entry ``begin`` + j of a row (n,) float32, contiguous, is at least ``least``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(row)(context, builder, args[0])
        address = builder.bitcast(builder.gep(array.data, [args[1]]), _VECTOR.as_pointer())
        values = builder.load(address)
        values.align = 4
        lanes = ir.Constant(_VECTOR, ir.Undefined)
        limit = builder.insert_element(lanes, args[2], ir.IntType(32)(0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), CHUNK), [0] * CHUNK)
        limit = builder.shuffle_vector(limit, lanes, everywhere)
        return builder.bitcast(builder.fcmp_ordered(">=", values, limit), _MASK)

    return types.uint32(row, types.int64, types.float32), generate
