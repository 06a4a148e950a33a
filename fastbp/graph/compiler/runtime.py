"""What generated modules call besides kernels: what @njit code has no word for."""

from typing import Any

from llvmlite import ir
from numba import carray
from numba.extending import intrinsic

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
