"""The matrix product of SciPy's BLAS for @njit code, with the transpose and sum np.dot lacks."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.linalg import ensure_blas

from .jit import inline


@intrinsic
def _xxgemm(typingctx, a, transpose_a, b, transpose_b, beta, c):
    """c = op(a) @ op(b) + beta c, all C-ordered, through the symbol behind Numba's np.dot."""
    ensure_blas()
    signature = types.void(a, transpose_a, b, transpose_b, beta, c)
    real = ir.FloatType() if c.dtype == types.float32 else ir.DoubleType()
    kind = "s" if c.dtype == types.float32 else "d"

    def codegen(context, builder, signature, args):
        char, pointer = ir.IntType(8), cgutils.voidptr_t
        a, b, c = (
            context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 5)
        )
        rows, columns = cgutils.unpack_tuple(builder, c.shape)
        a_rows, a_columns = cgutils.unpack_tuple(builder, a.shape)
        _, b_columns = cgutils.unpack_tuple(builder, b.shape)
        inner = builder.select(args[1], a_rows, a_columns)

        def flag(transpose):
            yes, no = ir.Constant(char, ord("t")), ir.Constant(char, ord("n"))
            return builder.select(transpose, yes, no)

        def slot(value):
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        def memory(array):
            return builder.bitcast(array.data, pointer)

        # BLAS counts in columns: a C-ordered product is the product of the transposes, b first.
        operands = {
            "kind": ir.Constant(char, ord(kind)),
            "transpose_a": flag(args[3]),
            "transpose_b": flag(args[1]),
            "m": columns,
            "n": rows,
            "k": inner,
            "alpha": slot(ir.Constant(real, 1.0)),
            "a": memory(b),
            "lda": b_columns,
            "b": memory(a),
            "ldb": a_columns,
            "beta": slot(builder.fptrunc(args[4], real) if kind == "s" else args[4]),
            "c": memory(c),
            "ldc": columns,
        }
        function = ir.FunctionType(ir.IntType(32), [value.type for value in operands.values()])
        gemm = cgutils.get_or_insert_function(builder.module, function, "numba_xxgemm")
        builder.call(gemm, list(operands.values()))
        return context.get_dummy_value()

    return signature, codegen


@inline
def gemm(a, transpose_a, b, transpose_b, beta, c):
    """c = op(a) @ op(b) + beta * c, op the transpose where asked for."""
    if a.size > 0 and b.size > 0:
        _xxgemm(a, transpose_a, b, transpose_b, beta, c)
    elif beta == 0:
        c[:] = 0
