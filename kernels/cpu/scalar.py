"""Scalars of the type at hand, so that one formula serves float32 and float64, and their sums."""

from llvmlite import ir
from numba.extending import intrinsic


@intrinsic
def like(typingctx, x, value):
    """`value` in the type of `x`: a bare 0.5 would turn float32 arithmetic into float64."""

    def codegen(context, builder, signature, args):
        return context.cast(builder, args[1], signature.args[1], signature.return_type)

    return x(x, value), codegen


@intrinsic
def plus(typingctx, a, b):
    """a + b for a running sum, whose terms may be added in any order: only so a loop uses vectors.

    The flag is on this one addition: on all, log(s) - (z - peak) would become log(s) + peak - z.
    """

    def codegen(context, builder, signature, args):
        return builder.fadd(*args, flags=("reassoc",))

    return a(a, a), codegen


@intrinsic
def larger(typingctx, a, b):
    """max(a, b), and NaN where one is NaN."""
    return a(a, a), _call("llvm.maximum")


@intrinsic
def smaller(typingctx, a, b):
    """min(a, b), and NaN where one is NaN."""
    return a(a, a), _call("llvm.minimum")


@intrinsic
def sign(typingctx, x):
    """1 or -1, and x where it is a zero or NaN: np.sign without a second choice."""

    def codegen(context, builder, signature, args):
        kind, (number,) = args[0].type, args
        function = ir.FunctionType(kind, (kind, kind))
        copied = builder.module.declare_intrinsic("llvm.copysign", (kind,), function)
        one = builder.call(copied, (ir.Constant(kind, 1), number))
        different = builder.fcmp_ordered("!=", number, ir.Constant(kind, 0))
        return builder.select(different, one, number)

    return x(x), codegen


def _call(name):
    def codegen(context, builder, signature, args):
        kind = args[0].type
        function = ir.FunctionType(kind, (kind, kind))
        return builder.call(builder.module.declare_intrinsic(name, (kind,), function), args)

    return codegen
