"""Bare pointers for kernels: addresses of elements, numbers, and words shared between threads."""

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.extending import intrinsic

WORD = ir.IntType(64)
JOB_WORDS = 32


def symbol(name):
    """An intrinsic that gives a pointer to the words behind a linker symbol.

    llvmlite.binding.add_symbol names them. An address in the code would not survive on disk.
    """

    @intrinsic
    def pointer(typingctx):
        def codegen(context, builder, signature, args):
            if name not in builder.module.globals:
                ir.GlobalVariable(builder.module, WORD, name).linkage = "external"
            return builder.module.globals[name]

        return types.CPointer(types.intp)(), codegen

    return pointer


@intrinsic
def address(typingctx, array, offset):
    """Pointer to the element `offset` of a C-ordered array."""
    if array.layout != "C":
        raise errors.TypingError(
            f"expected a C-contiguous array, got {array}; pass np.ascontiguousarray(...) of it"
        )

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def at(typingctx, pointer, offset):
    """Pointer moved by `offset` elements."""

    def codegen(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def element(typingctx, pointer):
    """A zero of the type that the pointer leads to."""

    def codegen(context, builder, signature, args):
        return context.get_constant(signature.return_type, 0)

    return pointer.dtype(pointer), codegen


@intrinsic
def number_of(typingctx, pointer):
    """The pointer as an integer."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(args[0], WORD)

    return types.intp(pointer), codegen


@intrinsic
def pointer_to(typingctx, number, like):
    """The integer as a pointer of the type of `like`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return like(types.intp, like), codegen


@intrinsic
def doubles_at(typingctx, number):
    """The integer as a pointer to float64."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float64)(types.intp), codegen


@intrinsic
def new_job(typingctx):
    """Room for the JOB_WORDS words of a job, on the stack of the calling kernel."""

    def codegen(context, builder, signature, args):
        return cgutils.alloca_once(builder, WORD, size=JOB_WORDS)

    return types.CPointer(types.intp)(), codegen


@intrinsic(prefer_literal=True)
def room(typingctx, kind, size):
    """Room for `size` numbers, a literal, of a type, on the stack of the calling function."""
    number = kind.instance_type if isinstance(kind, types.NumberClass) else types.boolean

    def codegen(context, builder, signature, args):
        element = context.get_data_type(number)
        return cgutils.alloca_once(builder, element, size=size.literal_value)

    return types.CPointer(number)(kind, size), codegen


def _word_at(builder, pointer, index):
    return builder.gep(pointer, [index])


@intrinsic
def get(typingctx, pointer, index):
    """The word at `index`."""

    def codegen(context, builder, signature, args):
        return builder.load(_word_at(builder, *args))

    return types.intp(pointer, types.intp), codegen


@intrinsic
def put(typingctx, pointer, index, value):
    """Write a word."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], _word_at(builder, *args[:2]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp), codegen


@intrinsic
def atomic_get(typingctx, pointer, index):
    """The word at `index`, as all threads agree on it."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word_at(builder, *args), "seq_cst", 8)

    return types.intp(pointer, types.intp), codegen


@intrinsic
def atomic_put(typingctx, pointer, index, value):
    """Write a word for all threads."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], _word_at(builder, *args[:2]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp), codegen


@intrinsic
def atomic_add(typingctx, pointer, index, value):
    """Add to a word; returns what it was before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _word_at(builder, *args[:2]), args[2], "seq_cst")

    return types.intp(pointer, types.intp, types.intp), codegen


@intrinsic
def atomic_replace(typingctx, pointer, index, expected, value):
    """Write `value` where the word is `expected`; returns whether it was."""

    def codegen(context, builder, signature, args):
        place = _word_at(builder, *args[:2])
        result = builder.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    size = types.intp
    return types.boolean(pointer, size, size, size), codegen
