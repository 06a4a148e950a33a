"""Instructions that Numba has no name for, each beside the Python that the simulator runs.

Where numba-cuda is missing only the Python exists, and nothing calls it.
"""

import numpy as np

from .target import SIMULATED, cuda

if cuda is not None and not SIMULATED:
    from llvmlite import ir
    from numba import types
    from numba.cuda import cgutils
    from numba.cuda.extending import intrinsic

    def place(context, builder, array_type, array, index_type, index):
        """Pointer to four elements of an array from an index on, and the alignment it has."""
        element = context.get_data_type(array_type.dtype)
        indices = [
            context.cast(builder, builder.extract_value(index, i), of, types.intp)
            for i, of in enumerate(index_type)
        ]
        array = context.make_array(array_type)(context, builder, array)
        pointer = cgutils.get_item_pointer(
            context, builder, array_type, array, indices, wraparound=False
        )
        vector = ir.VectorType(element, 4)
        return builder.bitcast(pointer, vector.as_pointer(pointer.type.addrspace)), vector

    def instruction(text, returns, takes):
        """A function of one PTX instruction: its operands are $0, $1 and so on, results first."""
        of = {types.float32: (ir.FloatType(), "f"), types.uint32: (ir.IntType(32), "r")}
        single = len(returns) == 1
        result = returns[0] if single else types.UniTuple(returns[0], len(returns))
        kinds = [of[each][0] for each in returns]
        constraints = ["=" + of[each][1] for each in returns] + [of[each][1] for each in takes]

        def emit(context, builder, signature, args):
            out = kinds[0] if single else ir.LiteralStructType(kinds)
            function = ir.FunctionType(out, [of[each][0] for each in takes])
            inline = ir.InlineAsm(function, text, ",".join(constraints), side_effect=False)
            value = builder.call(inline, args)
            if single:
                return value
            values = [builder.extract_value(value, i) for i in range(len(kinds))]
            return context.make_tuple(builder, result, values)

        return result(*takes), emit

    def mma(shape, kinds):
        """c + a @ b of a warp, in the fragments of the PTX manual."""
        text = f"mma.sync.aligned.{shape}.row.col.f32.{kinds}.{kinds}.f32 "
        text += "{$0,$1,$2,$3},{$4,$5,$6,$7},{$8,$9},{$10,$11,$12,$13};"
        return instruction(text, [types.float32] * 4, [types.uint32] * 6 + [types.float32] * 4)

    @intrinsic
    def mma_tf32(typingctx, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        """c + a @ b: a 16x8 and b 8x8 in tf32, c 16x8 in float32."""
        return mma("m16n8k8", "tf32")

    @intrinsic
    def mma_bf16(typingctx, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        """c + a @ b: a 16x16 and b 16x8 in pairs of bf16, c 16x8 in float32."""
        return mma("m16n8k16", "bf16")

    @intrinsic
    def to_tf32(typingctx, x):
        """A float32 rounded to 10 bits of mantissa, as the tensor cores take it."""
        return instruction("cvt.rna.tf32.f32 $0, $1;", [types.uint32], [types.float32])

    @intrinsic
    def to_bf16_pair(typingctx, low, high):
        """Two float32 rounded to bf16, in one word."""
        text = "cvt.rn.bf16x2.f32 $0, $2, $1;"
        return instruction(text, [types.uint32], [types.float32, types.float32])

    @intrinsic
    def load4(typingctx, array, index):
        """Four elements of a row from an index on, which lies on 16 bytes."""

        def codegen(context, builder, signature, args):
            array_type, index_type = signature.args
            pointer, _ = place(context, builder, array_type, args[0], index_type, args[1])
            vector = builder.load(pointer, align=16)
            lanes = [ir.Constant(ir.IntType(32), i) for i in range(4)]
            values = [builder.extract_element(vector, lane) for lane in lanes]
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(array.dtype, 4)(array, index), codegen

    @intrinsic
    def store4(typingctx, array, index, values):
        """array[..., j : j + 4] = values, for an index that lies on 16 bytes."""

        def codegen(context, builder, signature, args):
            array_type, index_type, _ = signature.args
            pointer, kind = place(context, builder, array_type, args[0], index_type, args[1])
            vector = ir.Constant(kind, ir.Undefined)
            for i in range(4):
                value = builder.extract_value(args[2], i)
                vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=16)
            return context.get_dummy_value()

        return types.none(array, index, values), codegen

else:

    def load4(array, index):
        """Four elements of a row from an index on, which lies on 16 bytes."""
        *row, j = index
        return tuple(array[(*row, j + i)] for i in range(4))

    def store4(array, index, values):
        """array[..., j : j + 4] = values, for an index that lies on 16 bytes."""
        *row, j = index
        for i in range(4):
            array[(*row, j + i)] = values[i]

    def to_tf32(x):
        """A float32 rounded to 10 bits of mantissa, as the tensor cores take it."""
        bits = np.float32(x).view(np.uint32)
        return bits if not np.isfinite(x) else (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)

    def to_bf16(x):
        """The 16 bits of a float32 rounded to bf16, to even."""
        bits = int(np.float32(x).view(np.uint32))
        if np.isnan(x):
            return 0x7FFF
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16

    def to_bf16_pair(low, high):
        """Two float32 rounded to bf16, in one word."""
        return np.uint32(to_bf16(high) << 16 | to_bf16(low))

    def warp_product(numbers, a, b, c):
        """c + a @ b of a warp, in the fragments of the PTX manual; numbers: those in a word."""
        words = cuda.shared.array((1024, 6), np.uint32)
        t = cuda.threadIdx.x
        words[t] = (*a, *b)
        cuda.syncthreads()
        warp, (group, pair) = t // 32 * 32, divmod(t % 32, 4)

        def row(i):
            lanes = range(warp + i % 8 * 4, warp + i % 8 * 4 + 4)
            return numbers([words[lane, i // 8 + 2 * half] for half in range(2) for lane in lanes])

        def column(j):
            lanes = range(warp + j * 4, warp + j * 4 + 4)
            return numbers([words[lane, 4 + half] for half in range(2) for lane in lanes])

        places = [(group + 8 * (i // 2), 2 * pair + i % 2) for i in range(4)]
        result = tuple(c[i] + np.dot(row(m), column(n)) for i, (m, n) in enumerate(places))
        cuda.syncthreads()
        return result

    def mma_tf32(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        """c + a @ b: a 16x8 and b 8x8 in tf32, c 16x8 in float32."""

        def numbers(words):
            return np.array(words, np.uint32).view(np.float32)

        return warp_product(numbers, (a0, a1, a2, a3), (b0, b1), (c0, c1, c2, c3))

    def mma_bf16(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        """c + a @ b: a 16x16 and b 16x8 in pairs of bf16, c 16x8 in float32."""

        def numbers(words):
            halves = [word << shift & 0xFFFF0000 for word in map(int, words) for shift in (16, 0)]
            return np.array(halves, np.uint32).view(np.float32)

        return warp_product(numbers, (a0, a1, a2, a3), (b0, b1), (c0, c1, c2, c3))
