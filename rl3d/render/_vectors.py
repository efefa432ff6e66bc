"""Vectors of sixteen float32 for compiled loops: a row of pixels of a tile, held in registers.

numba leaves it to LLVM to find vector instructions in scalar loops, which keeps the pixels' state in memory and, on processors
with AVX-512, takes half the width. These are LLVM's own vectors: 512-bit registers where there are any, and several narrower
ones elsewhere.
"""

from __future__ import annotations

import operator
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)
_MATH = ("contract",)


class Vector(types.Type):
    """Sixteen float32."""

    def __init__(self):
        super().__init__(name="Vector")


class Mask(types.Type):
    """Sixteen truth values."""

    def __init__(self):
        super().__init__(name="Mask")


VECTOR, MASK = Vector(), Mask()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _FLOATS)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _FLAGS)


@no_type_check
def _splat(builder, value):
    single = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(_INTS, None)
    return builder.shuffle_vector(single, ir.Constant(_FLOATS, ir.Undefined), zeros)


@no_type_check
def _constant(value):
    return ir.Constant(_FLOATS, [ir.Constant(ir.FloatType(), value)] * LANES)


@no_type_check
def _wide(context, builder, value, kind):
    """A vector from a vector or any number."""
    if isinstance(kind, Vector):
        return value
    return _splat(builder, context.cast(builder, value, kind, types.float32))


@intrinsic
@no_type_check
def splat(typingctx, x):
    """The same number in every lane."""
    return VECTOR(x), lambda context, builder, sig, args: _wide(context, builder, args[0], sig.args[0])


@no_type_check
def _pointer(context, builder, sig, args):
    array = context.make_array(sig.args[0])(context, builder, args[0])
    start = builder.bitcast(array.data, ir.FloatType().as_pointer())
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.bitcast(builder.gep(start, [index]), _FLOATS.as_pointer())


@no_type_check
def _is_block(kind):
    return isinstance(kind, types.Array) and kind.layout == "C" and kind.dtype == types.float32


@intrinsic
@no_type_check
def load(typingctx, array, index):
    """Sixteen neighbours from a contiguous float32 array, from this flat index on."""
    if not _is_block(array):
        return None
    return VECTOR(array, index), lambda context, builder, sig, args: builder.load(
        _pointer(context, builder, sig, args), align=4
    )


@intrinsic
@no_type_check
def store(typingctx, array, index, x):
    """Write sixteen neighbours to a contiguous float32 array."""
    if not _is_block(array):
        return None

    def codegen(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig, args), align=4)
        return context.get_dummy_value()

    return types.void(array, index, x), codegen


@intrinsic
@no_type_check
def ask(typingctx, array, index):
    """Let the processor fetch the line of the cache with this flat index of a contiguous float32 array, and go on meanwhile."""
    if not _is_block(array):
        return None

    def codegen(context, builder, sig, args):
        place = builder.bitcast(_pointer(context, builder, sig, args), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, *[ir.IntType(32)] * 3])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, *(ir.Constant(ir.IntType(32), x) for x in (0, 2, 1))])  # to read, second cache, data
        return context.get_dummy_value()

    return types.void(array, index), codegen


@no_type_check
def _lanes(builder, x, y, lanes):
    """Lanes of two vectors that lie one after the other."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


@intrinsic
@no_type_check
def store_threes(typingctx, array, index, a, b, c):
    """Write sixteen pixels of three channels, one after the other."""
    if not _is_block(array):
        return None

    def codegen(context, builder, sig, args):
        low, high = _lanes(builder, args[2], args[3], range(2 * LANES)), _lanes(builder, args[4], args[4], range(2 * LANES))
        whole = _lanes(builder, low, high, [LANES * c + p for p in range(LANES) for c in range(3)])
        kind = ir.VectorType(ir.FloatType(), 3 * LANES)
        builder.store(whole, builder.bitcast(_pointer(context, builder, sig, args), kind.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, index, a, b, c), codegen


@intrinsic
@no_type_check
def load_threes(typingctx, array, index):
    """Sixteen pixels of three channels that lie one after the other: a vector for each channel."""
    if not _is_block(array):
        return None

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(ir.FloatType(), 3 * LANES)
        whole = builder.load(builder.bitcast(_pointer(context, builder, sig, args), kind.as_pointer()), align=4)
        parts = [_lanes(builder, whole, whole, range(c, 3 * LANES, 3)) for c in range(3)]
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(VECTOR, 3)(array, index), codegen


@intrinsic
@no_type_check
def store_fours(typingctx, array, index, stride, a, b, c, d):
    """Write four channels of sixteen pixels that lie ``stride`` numbers apart."""
    if not _is_block(array):
        return None

    def codegen(context, builder, sig, args):
        low, high = (_lanes(builder, args[i], args[i + 1], range(2 * LANES)) for i in (3, 5))
        whole = _lanes(builder, low, high, [LANES * c + p for p in range(LANES) for c in range(4)])
        for p, place in enumerate(_places(context, builder, sig, args)):
            builder.store(_lanes(builder, whole, whole, range(4 * p, 4 * p + 4)), place, align=4)
        return context.get_dummy_value()

    return types.void(array, index, stride, a, b, c, d), codegen


@intrinsic
@no_type_check
def load_fours(typingctx, array, index, stride):
    """Four channels of sixteen pixels that lie ``stride`` numbers apart: a vector for each channel."""
    if not _is_block(array):
        return None

    def codegen(context, builder, sig, args):
        rows = [builder.load(place, align=4) for place in _places(context, builder, sig, args)]
        while len(rows) > 1:
            rows = [_lanes(builder, rows[n], rows[n + 1], range(2 * rows[n].type.count)) for n in range(0, len(rows), 2)]
        parts = [_lanes(builder, rows[0], rows[0], range(c, 4 * LANES, 4)) for c in range(4)]
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(VECTOR, 4)(array, index, stride), codegen


@no_type_check
def _places(context, builder, sig, args):
    """Where the four numbers of each of sixteen pixels lie."""
    start = builder.bitcast(_pointer(context, builder, sig, args), ir.FloatType().as_pointer())
    stride = context.cast(builder, args[2], sig.args[2], types.intp)
    kind = ir.VectorType(ir.FloatType(), 4).as_pointer()
    steps = [builder.mul(stride, ir.Constant(stride.type, p)) for p in range(LANES)]
    return [builder.bitcast(builder.gep(start, [step]), kind) for step in steps]


@no_type_check
def _binary(name):
    @intrinsic
    def op(typingctx, a, b):
        def codegen(context, builder, sig, args):
            a, b = (_wide(context, builder, x, kind) for x, kind in zip(args, sig.args, strict=True))
            return getattr(builder, name)(a, b, flags=_MATH)

        return VECTOR(a, b), codegen

    return op


@no_type_check
def _comparison(sign):
    @intrinsic
    def op(typingctx, a, b):
        def codegen(context, builder, sig, args):
            a, b = (_wide(context, builder, x, kind) for x, kind in zip(args, sig.args, strict=True))
            return builder.fcmp_ordered(sign, a, b)

        return MASK(a, b), codegen

    return op


@no_type_check
def _overload(symbol, op):
    @overload(symbol)
    def chosen(a, b):
        if isinstance(a, Vector) or isinstance(b, Vector):
            return lambda a, b: op(a, b)
        return None


for _symbol, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _overload(_symbol, _binary(_name))
for _symbol, _name in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _overload(_symbol, _comparison(_name))


@intrinsic
@no_type_check
def both(typingctx, a, b):
    """Where both masks are true."""
    return MASK(MASK, MASK), lambda context, builder, sig, args: builder.and_(args[0], args[1])


@intrinsic
@no_type_check
def some(typingctx, mask):
    """Whether a mask is true anywhere."""

    def codegen(context, builder, sig, args):
        whole = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", whole, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(MASK), codegen


@intrinsic
@no_type_check
def where(typingctx, mask, a, b):
    """``a`` where the mask is true, ``b`` elsewhere."""

    def codegen(context, builder, sig, args):
        a, b = (_wide(context, builder, x, kind) for x, kind in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], a, b)

    return VECTOR(mask, a, b), codegen


@intrinsic
@no_type_check
def minus_abs(typingctx, x):
    """-abs(x)."""

    def codegen(context, builder, sig, args):
        sign = ir.Constant(_INTS, [ir.Constant(ir.IntType(32), 0x80000000)] * LANES)
        return builder.bitcast(builder.or_(builder.bitcast(args[0], _INTS), sign), _FLOATS)

    return VECTOR(VECTOR), codegen


@intrinsic
@no_type_check
def total(typingctx, x):
    """The sum of all lanes."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _FLOATS])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        zero = ir.Constant(ir.FloatType(), 0.0)
        return builder.call(reduce, [zero, args[0]], fastmath=("reassoc", "nsz"))

    return types.float32(VECTOR), codegen


@intrinsic
@no_type_check
def totals(typingctx, a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
    """The sums of all lanes of twelve vectors, in the first twelve lanes of one, and zeros.

    Two vectors are added into one that has the halves of both, and so on: a quarter of the work of twelve single sums.
    """

    def codegen(context, builder, sig, args):
        rows, lanes = [*args, *[ir.Constant(_FLOATS, None)] * (LANES - len(args))], LANES
        while lanes > 1:
            lanes //= 2
            low = [i for i in range(2 * LANES) if i % (2 * lanes) < lanes]
            rows = [_merge(builder, *rows[n : n + 2], low, lanes) for n in range(0, len(rows), 2)]
        return rows[0]

    return VECTOR(*[VECTOR] * 12), codegen


@no_type_check
def _merge(builder, x, y, low, step):
    return builder.fadd(_lanes(builder, x, y, low), _lanes(builder, x, y, [i + step for i in low]), flags=_MATH)


@njit(cache=True, nogil=True)
@no_type_check
def scratch(n):
    """Uninitialised float32, ``n`` of them, that start where a line of the cache does, as vectors should."""
    room = np.empty(n + LANES, np.float32)
    start = (-(room.ctypes.data // 4)) % LANES
    return room[start : start + n]


_POWERS = (
    0.0013276472454890609,
    0.009675540961325169,
    0.05550713092088699,
    0.24022120237350464,
    0.6931469440460205,
    1.0000001192,
)
"""Of the polynomial whose largest relative distance from 2**x over [-0.5, 0.5] is least."""
_ROUND = 1.5 * 2**23
"""Added to a small float32, it leaves the nearest integer in the low bits of the mantissa."""


@intrinsic
@no_type_check
def exp2(typingctx, x):
    """2**x in [-126, 126], within 3e-7 relative; anything elsewhere."""

    def codegen(context, builder, sig, args):
        shifted = builder.fadd(args[0], _constant(_ROUND))
        rest = builder.fsub(args[0], builder.fsub(shifted, _constant(_ROUND)))
        power = _constant(_POWERS[0])
        for coefficient in _POWERS[1:]:
            power = builder.fadd(builder.fmul(power, rest, flags=_MATH), _constant(coefficient), flags=_MATH)
        exponent = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [ir.Constant(ir.IntType(32), 23)] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _FLOATS)

    return VECTOR(VECTOR), codegen
