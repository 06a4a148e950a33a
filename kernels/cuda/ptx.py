"""Instructions that Numba has no name for, each beside the Python that the simulator runs.

Where numba-cuda is missing only the Python exists, and nothing calls it.
"""

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
