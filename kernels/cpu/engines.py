"""Which engine runs a layer: a table in memory that compiled code reads at every call.

A bit per direction, float type and size: 0 the register tiles (tiled.py), 1 BLAS (blas.py). Sizes
count in powers of two, as n and k * m. All bits are 0 until somebody sets them: fastbp/engines.py
measures and forces.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import inline
from .pointers import WORD, get, symbol

FORWARD, BACKWARD = 0, 1
ROW_SIZES = 16  # powers of two of n: 1 to 2**15 and more
LAYER_SIZES = 63  # powers of two of k * m: the bits of a word

# [direction, float64, log2(n)]: a word with a bit for each log2(k * m)
choices = np.zeros((2, 2, ROW_SIZES), np.int64)
llvm.add_symbol("fastbp_engines", choices.ctypes.data)

table = symbol("fastbp_engines")


@intrinsic
def log2(typingctx, number):
    """The power of two at or below a number; 0 below 2."""

    def codegen(context, builder, signature, args):
        one = ir.Constant(WORD, 1)
        zeros = builder.ctlz(builder.or_(args[0], one), ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(WORD, 63), zeros)

    return types.intp(types.intp), codegen


@inline
def choice(direction, x, n, size):
    """The bit of a layer of n rows and so many weights, for the type of x."""
    double = x.itemsize >> 3
    row = (direction * 2 + double) * ROW_SIZES + min(log2(n), ROW_SIZES - 1)
    return (get(table(), row) >> log2(size)) & 1


@inline
def chooses_blas(direction, x, w):
    """Whether BLAS runs the layer of x (n, k) and w (k, m)."""
    return choice(direction, x, x.shape[0], w.size) == 1


@inline
def may_choose_blas(x):
    """Whether BLAS runs any layer of the type of x."""
    double, some = x.itemsize >> 3, 0
    for direction in range(2):
        for size in range(ROW_SIZES):
            some |= get(table(), (direction * 2 + double) * ROW_SIZES + size)
    return some != 0
