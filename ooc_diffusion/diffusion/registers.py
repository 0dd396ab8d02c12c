"""Weighted sums of rows of L whose accumulators stay in registers: what compilers do not make of the plain loops.

Numba keeps the sums of a row in memory, so that each neighbor loads, adds and stores them again. Here the loop over the entries
of W is written in LLVM's own terms: up to 64 columns are held in vectors of 8 float64, how many is a constant in each branch, and
the rows of the neighbors that come a few places later are fetched ahead.

Entries of L are float32, or uint16 that hold the bits of bfloat16; both are read and rounded here alone, one or many at a time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

MOST_COLUMNS = 64
# Entries ahead of which the rows are fetched: a row takes some 10 ns, memory some 100 ns.
_AHEAD = 32
# Into the cache of the second level, in the terms of llvm.prefetch: many more lines can be on their way there than to the first.
_CACHE = 2
_LINE_BYTES = 64
_POSITION = (1 << 31) - 1

_I16, _I32, _I64, _F32, _F64 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
_BYTES = ir.IntType(8).as_pointer()

# Lanes of a vector and number of vectors for a width. The last vector ends with the last column and may overlap the one before;
# it then writes the same sums a second time.
_SHAPES = {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (4, 1), 5: (4, 2), 6: (4, 2), 7: (4, 2)}
_SHAPES |= {width: (8, -(-width // 8)) for width in range(8, MOST_COLUMNS + 1)}


@intrinsic
def widen(typing: Any, entry: Any) -> tuple[Any, Any]:
    """Return an entry of L, float32 or the bits of a bfloat16, as float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _widened(builder, args[0])

    return types.float64(entry), generate


@intrinsic
def narrow(typing: Any, value: Any, like: Any) -> tuple[Any, Any]:
    """Return a float32 or float64 rounded to an entry of ``like``, an array of such entries of L."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _narrowed(builder, builder.fpext(args[0], _F64), context.get_data_type(like.dtype))

    return like.dtype(value, like), generate


@intrinsic
def fetch_row(typing: Any, L: Any, index: Any) -> tuple[Any, Any]:
    """Have row ``index``, a uint32 whose high bit does not count, of an array in C order brought into the cache."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(L)(context, builder, args[0])
        position = builder.zext(builder.and_(args[1], _I32(_POSITION)), _I64)
        stride = builder.extract_value(array.strides, 0)
        row = builder.gep(builder.bitcast(array.data, _BYTES), [builder.mul(position, stride)])
        with cgutils.for_range_slice(builder, _I64(0), stride, _I64(_LINE_BYTES), _I64) as (offset, _):
            _fetch(builder, builder.gep(row, [offset]))
        return context.get_dummy_value()

    return types.void(L, index), generate


def _fetch(builder: ir.IRBuilder, address: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [address, _I32(0), _I32(_CACHE), _I32(1)])


def _widened(builder: ir.IRBuilder, value: Any) -> Any:
    """Return one entry or a vector of them as float64."""
    if _of(value, _I16) == value.type:
        bits = builder.shl(builder.zext(value, _of(value, _I32)), _everywhere(value, 16))
        value = builder.bitcast(bits, _of(value, _F32))
    return builder.fpext(value, _of(value, _F64))


def _narrowed(builder: ir.IRBuilder, value: Any, element: ir.Type) -> Any:
    """Return one float64 or a vector of them rounded to float32, and from there to bfloat16: to nearest, ties to even."""
    value = builder.fptrunc(value, _of(value, _F32))
    if element == _F32:
        return value
    bits = builder.bitcast(value, _of(value, _I32))
    shift = _everywhere(value, 16)
    odd = builder.and_(builder.lshr(bits, shift), _everywhere(value, 1))
    rounded = builder.add(bits, builder.add(odd, _everywhere(value, 0x7FFF)))
    return builder.trunc(builder.lshr(rounded, shift), _of(value, _I16))


def _of(value: Any, element: ir.Type) -> ir.Type:
    """Return the type of as many ``element`` as a value holds."""
    return ir.VectorType(element, value.type.count) if isinstance(value.type, ir.VectorType) else element


def _everywhere(value: Any, number: int) -> ir.Constant:
    """Return an int32 in as many places as a value holds."""
    kind = _of(value, _I32)
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def _make_sum_rows(weighted: bool) -> Any:
    @intrinsic
    def sum_rows(
        typing: Any, indices: Any, weights: Any, begin: Any, end: Any, following: Any, scale: Any, L: Any, out: Any, row: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            operands = [
                context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, args, strict=True)
            ]
            _Code(builder, weighted, out.dtype == types.float64, context.get_data_type(L.dtype), *operands).write()
            return context.get_dummy_value()

        integer = types.int64
        return types.void(indices, weights, integer, integer, integer, scale, L, out, integer), generate

    return sum_rows


class _Code:
    """Writes the code of one call: a branch for each shape, with a loop over the entries in each."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        weighted: bool,
        adds: bool,
        element: ir.Type,
        indices: Any,
        weights: Any,
        begin: Any,
        end: Any,
        following: Any,
        scale: Any,
        L: Any,
        out: Any,
        row: Any,
    ) -> None:
        self.builder, self.indices, self.begin, self.end = builder, indices.data, begin, end
        self.adds, self.element, self.bytes = adds, element, 2 if element == _I16 else 4
        self.width = builder.extract_value(L.shape, 1)
        self.scale = builder.fpext(scale, _F64)
        self.out = builder.gep(out.data, [builder.mul(row, self.width)])
        self.weights = weights.data if weighted else None
        # read, not computed or chosen by a branch, it can be loaded into all lanes at once
        table = ir.Constant(ir.ArrayType(_F64, 2), [1.0, 2.0])
        self.one_and_two = cgutils.global_constant(builder, "one_and_two", table)
        # what comes behind the end begins at `following`
        self.skipped = builder.sub(following, end)
        later = builder.add(following, _I64(_AHEAD))
        inside = builder.icmp_signed("<=", later, builder.extract_value(indices.shape, 0))
        self.ahead = builder.select(inside, _I64(_AHEAD), _I64(0))
        self.first = builder.bitcast(L.data, _BYTES)
        self.stride = builder.extract_value(L.strides, 0)

    def write(self) -> None:
        done = self.builder.append_basic_block("done")
        switch = self.builder.switch(self.width, done)
        for shape in sorted(set(_SHAPES.values())):
            block = self.builder.append_basic_block("shape")
            for width in (width for width, its in _SHAPES.items() if its == shape):
                switch.add_case(_I64(width), block)
            self.builder.position_at_end(block)
            self._sum(*shape)
            self.builder.branch(done)
        self.builder.position_at_end(done)

    def _sum(self, lanes: int, vectors: int) -> None:
        builder, stored, wide = self.builder, ir.VectorType(self.element, lanes), ir.VectorType(_F64, lanes)
        offsets = [*(_I64(lanes * v) for v in range(vectors - 1)), builder.sub(self.width, _I64(lanes))]
        sums_before = [self._sums(offset, wide) for offset in offsets]
        before, entries, after = builder.block, builder.append_basic_block("entries"), builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", self.begin, self.end), entries, after)

        builder.position_at_end(entries)
        entry, sums = builder.phi(_I64), [builder.phi(wide) for _ in offsets]
        self._fetch_ahead(entry, self.bytes * lanes * vectors)
        added = self._add(entry, sums, offsets, lanes)
        following = builder.add(entry, _I64(1))
        for value, start, end in zip([entry, *sums], [self.begin, *sums_before], [following, *added], strict=True):
            value.add_incoming(start, before)
            value.add_incoming(end, entries)
        builder.cbranch(builder.icmp_signed("<", following, self.end), entries, after)

        builder.position_at_end(after)
        totals = [builder.phi(wide) for _ in offsets]
        for total, start, value in zip(totals, sums_before, added, strict=True):
            total.add_incoming(start, before)
            total.add_incoming(value, entries)
        for total, offset in zip(totals, offsets, strict=True):
            if self.adds:
                builder.store(total, builder.bitcast(builder.gep(self.out, [offset]), wide.as_pointer()), align=8)
                continue
            value = _narrowed(builder, builder.fmul(total, self._in_all_lanes(self.scale, lanes)), self.element)
            builder.store(value, builder.bitcast(builder.gep(self.out, [offset]), stored.as_pointer()), align=self.bytes)

    def _sums(self, offset: Any, wide: ir.VectorType) -> Any:
        """Return what the sums begin with: what is there, or nothing."""
        if not self.adds:
            return ir.Constant(wide, None)
        there = self.builder.gep(self.out, [offset])
        return self.builder.load(self.builder.bitcast(there, wide.as_pointer()), align=8)

    def _add(self, entry: Any, sums: list[Any], offsets: list[Any], lanes: int) -> list[Any]:
        """Return the sums with the row of an entry added."""
        builder = self.builder
        stored, wide = ir.VectorType(self.element, lanes), ir.VectorType(_F64, lanes)
        # fused or not, it rounds alike: the product of two float32 is exact in float64
        kind = ir.FunctionType(wide, [wide] * 3)
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{lanes}f64")
        index = builder.load(builder.gep(self.indices, [entry]))
        weight = self._in_all_lanes(self._weight(entry, index), lanes)
        row = builder.bitcast(self._row(index), self.element.as_pointer())
        added = []
        for total, offset in zip(sums, offsets, strict=True):
            values = builder.load(builder.bitcast(builder.gep(row, [offset]), stored.as_pointer()), align=self.bytes)
            added.append(builder.call(multiply_add, [weight, _widened(builder, values), total]))
        return added

    def _in_all_lanes(self, value: Any, lanes: int) -> Any:
        """Return a vector of one float64."""
        nothing = ir.Constant(ir.VectorType(_F64, lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, value, _I32(0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, lanes), None))

    def _weight(self, entry: Any, index: Any) -> Any:
        if self.weights is not None:
            return self.builder.fpext(self.builder.load(self.builder.gep(self.weights, [entry])), _F64)
        reciprocal = self.builder.zext(self.builder.lshr(index, _I32(31)), _I64)
        return self.builder.load(self.builder.gep(self.one_and_two, [_I64(0), reciprocal]))

    def _row(self, index: Any) -> Any:
        position = self.builder.zext(self.builder.and_(index, _I32(_POSITION)), _I64)
        return self.builder.gep(self.first, [self.builder.mul(position, self.stride)])

    def _fetch_ahead(self, entry: Any, n_bytes: int) -> None:
        builder = self.builder
        later = builder.add(entry, self.ahead)
        behind = builder.icmp_signed(">=", later, self.end)
        later = builder.add(later, builder.select(behind, self.skipped, _I64(0)))
        row = self._row(builder.load(builder.gep(self.indices, [later])))
        for offset in range(0, n_bytes, _LINE_BYTES):
            _fetch(builder, builder.gep(row, [_I64(offset)]))


# sum_rows(indices, weights, begin, end, following, scale, L, out, row) writes, for each of the 1 to MOST_COLUMNS columns c of L,
# out[row, c] = scale * sum over e = begin .. end - 1 of w_e L[j_e, c], summed in float64 and in the order of e. The entries that
# are summed next begin at ``following``, end or later; the rows of L that these want are fetched ahead. ``indices`` is uint32
# with j_e in the low 31 bits. In `sum_rows` w_e is 2 where the high bit is set, else 1, and ``weights`` is not read; in
# `sum_weighted_rows` it is ``weights[e]``. All arrays are in C order; scale is float32, L and out are float32 or bfloat16 bits.
# Where ``out`` is float64 the sums are added to what is there, and not scaled.
sum_rows = _make_sum_rows(weighted=False)
sum_weighted_rows = _make_sum_rows(weighted=True)
