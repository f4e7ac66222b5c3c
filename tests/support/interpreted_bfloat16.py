"""bfloat16 in Triton's interpreter (3.7.1), which keeps such numbers as uint16 and computes with those integers.

`compute_bfloat16()` makes it compute as a GPU does: each operation in float32, its result rounded to the nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy


def widen(bits: numpy.ndarray) -> numpy.ndarray:
    """bfloat16 given as uint16 -> float32, exactly."""
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def narrow(values: numpy.ndarray) -> numpy.ndarray:
    """Numbers -> bfloat16 as uint16, to the nearest, ties to even.

    >>> [float(one) for one in widen(narrow(numpy.array([1.0, -3.140625, 1.00390625, 1.01171875])))]
    [1.0, -3.140625, 1.0, 1.015625]
    """
    bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
    rounded = ((bits.astype(numpy.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)
    return numpy.where(numpy.isnan(bits.view(numpy.float32)), numpy.uint16(0x7FC0), rounded)


def compute_bfloat16() -> None:
    """For this process, once."""
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle

    def is_bfloat16(one: object) -> bool:
        return isinstance(one, handle) and one.dtype.scalar == tl.bfloat16 and one.data.dtype == numpy.uint16

    def wide(one: object) -> object:
        return handle(widen(one.data), tl.float32) if is_bfloat16(one) else one

    def rounded(result: object) -> object:
        return result if result.data.dtype == bool else handle(narrow(result.data), tl.bfloat16)

    def replace(name: str, replacement: Callable) -> None:
        original = getattr(builder, name)
        setattr(builder, name, lambda self, *arguments: replacement(original, self, *arguments))

    def compute(original, self, *operands):
        result = original(self, *map(wide, operands))
        return rounded(result) if any(map(is_bfloat16, operands)) else result

    def multiply(original, self, left, right, total, *options):
        result = original(self, wide(left), wide(right), wide(total), *options)
        return rounded(result) if is_bfloat16(total) else result

    def cast(original, self, source, kind, *options):
        if kind.scalar == tl.bfloat16 and source.dtype.scalar != tl.bfloat16:
            return handle(narrow(source.data), tl.bfloat16)
        return original(self, wide(source), kind, *options) if kind.scalar != tl.bfloat16 else source

    for name in ("binary_op", "unary_op", "ternary_op", "create_fma", "create_erf", "create_rsqrt"):
        replace(name, compute)
    replace("create_dot", multiply)
    for name in ("cast_impl", "create_fp_to_fp"):
        replace(name, cast)
    sum_of = interpreter.ReduceOps.sum

    def add_up(self, values):
        if not is_bfloat16(values.handle):
            return sum_of(self, values)
        total = numpy.sum(widen(values.handle.data), axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(narrow(numpy.asarray(total)), values.dtype)

    interpreter.ReduceOps.sum = add_up
