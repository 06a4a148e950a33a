"""Scalars of the type at hand, so that one formula serves float32 and float64."""

from numba.extending import intrinsic


@intrinsic
def like(typingctx, x, value):
    """`value` in the type of `x`: a bare 0.5 would turn float32 arithmetic into float64."""

    def codegen(context, builder, signature, args):
        return context.cast(builder, args[1], signature.args[1], signature.return_type)

    return x(x, value), codegen
