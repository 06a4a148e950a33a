"""What generated modules call: the kernels, and what @njit code has no word for."""

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import numpy_support

from ...kernels import cpu
from ...kernels.cpu.jit import inline
from ...kernels.cpu.pointers import address


@intrinsic
def plus(typingctx: Any, a: Any, b: Any) -> Any:
    """a + b for a running sum, whose terms may be added in any order: only so a loop uses vectors.

    The flag is on this one addition: on all, log(s) - (z - peak) would become log(s) + peak - z.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=("reassoc",))

    return a(a, a), codegen


@intrinsic
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """max(a, b), and NaN where one is NaN."""
    return a(a, a), _call("llvm.maximum")


@intrinsic
def smaller(typingctx: Any, a: Any, b: Any) -> Any:
    """min(a, b), and NaN where one is NaN."""
    return a(a, a), _call("llvm.minimum")


def _call(name: str) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        function = ir.FunctionType(kind, (kind, kind))
        return builder.call(builder.module.declare_intrinsic(name, (kind,), function), args)

    return codegen


@inline
def unlocked(x: Any) -> Any:
    """An input as the kernels take it: they are compiled for arrays that may be written to."""
    return carray(address(x, 0), x.shape)


# Kernels by symbol. A call of a dispatcher compiles the kernel again into each caller: 14 seconds
# for the backward kernel, measured. A symbol is linked instead, and survives in a cache on disk.

_M, _V, _I = 2, 1, 0  # a matrix, a vector, an integer
KERNELS = {
    "dense_forward": (_M, _M, _V, _I, _V, _M, _M),
    "dense_backward": (_M, _M, _M, _M, _I, _V, _M, _V, _M),
}


def arguments(name: str, dtype: Any) -> tuple[Any, ...]:
    """Numba's types of a kernel's arguments."""
    return tuple(types.Array(dtype, d, "C") if d else types.intp for d in KERNELS[name])


def link(dtype: np.dtype[Any]) -> None:
    """Compile the kernels for a float type, or load them, and tell the linker where they are."""
    for name in KERNELS:
        kernel = getattr(cpu, name)
        taken = arguments(name, numpy_support.from_dtype(dtype))
        kernel.compile(taken)
        compiled = kernel.overloads[taken]
        place = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        llvm.add_symbol(f"fastbp_{name}_{dtype}", place)


def _linked(name: str) -> Any:
    """The kernel as a function for @njit code, after `link`."""

    def template(typingctx: Any, *given: Any) -> Any:
        dtype = given[0].dtype
        signature = types.none(*arguments(name, dtype))

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            convention = context.call_conv
            kind = convention.get_function_type(types.none, signature.args)
            symbol = f"fastbp_{name}_{dtype.name}"
            function = cgutils.get_or_insert_function(builder.module, kind, symbol)
            status, _ = convention.call_function(
                builder, function, types.none, signature.args, args
            )
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return signature, codegen

    return template


@intrinsic
def dense_forward(
    typingctx: Any, x: Any, w: Any, b: Any, activation: Any, work: Any, z: Any, y: Any
) -> Any:
    """The kernel, by its symbol."""
    return _linked("dense_forward")(typingctx, x, w, b, activation, work, z, y)


@intrinsic
def dense_backward(
    typingctx: Any,
    dy: Any,
    x: Any,
    w: Any,
    saved: Any,
    code: Any,
    work: Any,
    dw: Any,
    db: Any,
    dx: Any,
) -> Any:
    """The kernel, by its symbol."""
    return _linked("dense_backward")(typingctx, dy, x, w, saved, code, work, dw, db, dx)
