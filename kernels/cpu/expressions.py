"""Activations and losses that were compiled from expressions: calls of a function at an address.

fastbp/graph/compiler/expressions.py writes and compiles these functions. For pointers to numbers of
one float type:

activation(size, kept, y): y = f(y) in place, and kept = f'(y before) unless kept is null;
loss(n, m, y, t, sample_weight, share, dy): writes dy and returns what n rows add to the loss of a
batch; sample_weight may be null, `share` is what one unit of weight counts in the mean.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import inline, kernel
from .losses import row_share
from .pointers import address, pointer_to


def call(builder, place, result, values):
    """Call a compiled function that raises nothing: Numba's own convention."""
    error = cgutils.alloca_once(builder, cgutils.voidptr_t)
    values = [result, error, *values]
    convention = ir.FunctionType(ir.IntType(32), [value.type for value in values])
    builder.call(builder.inttoptr(place, convention.as_pointer()), values)


@intrinsic
def call_activation(typingctx, code, size, kept, y):
    """Run the activation at an address."""

    def codegen(context, builder, signature, args):
        call(builder, args[0], cgutils.alloca_once(builder, cgutils.voidptr_t), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, y, y), codegen


@intrinsic
def call_loss(typingctx, code, n, m, y, t, sample_weight, share, dy):
    """Run the loss at an address."""

    def codegen(context, builder, signature, args):
        result = cgutils.alloca_once(builder, ir.DoubleType())
        call(builder, args[0], result, args[1:])
        return builder.load(result)

    return types.float64(types.intp, types.intp, types.intp, y, y, y, types.float64, y), codegen


@inline
def pointer_or_null(array):
    """The address of an operand, null of one that is left out."""
    place = address(array, 0)
    return place if array.size > 0 else pointer_to(0, place)


@inline
def expression_activation(activation, kept, y):
    """y = f(y) in place, and kept = f'(z) unless it is empty. y, kept: (size,)."""
    call_activation(activation, y.size, pointer_or_null(kept), address(y, 0))


@inline
def expression_losses(code, y, t, sample_weight, share, dy):
    """expression_loss of some rows."""
    (n, m), s = y.shape, pointer_or_null(sample_weight)
    return call_loss(code, n, m, address(y, 0), address(t, 0), s, share, address(dy, 0))


@kernel
def expression_loss(y, t, code, sample_weight, dy):
    """The loss of an expression, by its code. y, t, dy: (n, m)."""
    return expression_losses(code, y, t, sample_weight, row_share(sample_weight, len(y)), dy)
