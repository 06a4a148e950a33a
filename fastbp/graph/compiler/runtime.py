"""What generated modules call besides kernels: what @njit code has no word for."""

from typing import Any

import numba
from numba import carray, types
from numba.extending import intrinsic

from ...kernels.cpu.jit import OPTIONS, inline
from ...kernels.cpu.pointers import WORD, address, at, number_of

# Panels of rows: an operand travels to a task as a word, the address of its first element.


def separate(function: Any) -> Any:
    """A jitted function none of whose arrays share memory: its loops use vectors unchecked."""
    dispatcher = numba.njit(**OPTIONS)(function)

    def with_noalias(flags: Any) -> Any:
        flags.noalias = True
        return flags

    dispatcher._compiler._customize_flags = with_noalias
    return dispatcher


@intrinsic
def task_of(typingctx: Any, function: Any) -> Any:
    """The address of a jitted function (job, number, scratch) of this module, as a task."""
    words = types.CPointer(types.intp)
    arguments = (words, types.intp, words)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        compiled = function.dispatcher.get_compile_result(types.void(*arguments))
        context.active_code_library.add_linking_library(compiled.library)
        code = context.declare_function(builder.module, compiled.fndesc)
        return builder.ptrtoint(code, WORD)

    function.dispatcher.compile(arguments)
    return types.intp(function), codegen


@inline
def place(array: Any) -> Any:
    """The address of an array as a word."""
    return number_of(address(array, 0))


@inline
def words(array: Any) -> Any:
    """An array of integers, or any memory, as the words of a job."""
    return words_at(number_of(address(array, 0)))


@intrinsic
def words_at(typingctx: Any, number: Any) -> Any:
    """The integer as a pointer to words."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.intp)(types.intp), codegen


@intrinsic
def elements_at(typingctx: Any, number: Any, like: Any) -> Any:
    """The integer as a pointer to elements of the type of `like`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.intp, like), codegen


@inline
def array(word: Any, like: Any, offset: Any, shape: Any) -> Any:
    """The elements from an offset on, of the array that a word stands for, in a shape."""
    return carray(at(elements_at(word, like), offset), shape)


@inline
def room(scratch: Any, offset: Any, like: Any, size: Any) -> Any:
    """A piece of the scratch of a task, from so many bytes after its first cache line on."""
    begin = (number_of(scratch) + 63) // 64 * 64 + offset
    return carray(elements_at(begin, like), size)


@intrinsic
def keep(typingctx: Any, array: Any) -> Any:
    """Nothing; an array lives until here, though only its address is used."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), codegen


@inline
def add_up(sums: Any) -> None:
    """The sums (groups, size) of all groups into those of the first, in order."""
    for group in range(1, len(sums)):
        for i in range(sums.shape[1]):
            sums[0, i] += sums[group, i]


@inline
def unlocked(x: Any) -> Any:
    """An input as the kernels take it: they are compiled for arrays that may be written to."""
    return carray(address(x, 0), x.shape)
