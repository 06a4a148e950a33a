"""Functions that compiled code calls through an address: each is compiled once, by itself.

Where one Numba function calls another, Numba copies the callee's code into the caller and optimises
it there again: with all register tiles in each kernel of a network, a first warm-up took 149 s.
Here an address lies in a word of memory behind a linker symbol, where code on disk finds it in any
process.

`addressed` makes such a function, `launcher` a kernel that calls some: all that were made before it
are bound, which sets their words, when it is compiled or loaded. A user's own code that holds
launchers and comes from his disk cache binds them when it first runs.
"""

import ctypes
import os
import signal
import traceback
from collections import namedtuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from .jit import kernel
from .pointers import WORD

REALS = types.float32, types.float64
MOST_FUNCTIONS = 64

Addressed = namedtuple("Addressed", "number dispatcher arguments")
functions: list[Addressed] = []
_words = np.zeros((MOST_FUNCTIONS, len(REALS)), np.int64)  # their addresses; 0: not bound yet
_waiting: dict[types.Type, list[Addressed]] = {real: [] for real in REALS}  # functions to bind
_on_demand: dict[types.Type, list[Addressed]] = {real: [] for real in REALS}  # by the first call


def addressed(function, arguments, on_demand=False):
    """An intrinsic that gives the function's address for the float type of its operand.

    arguments: function of a float type that gives the types of the function's arguments.
    on_demand: no launcher binds it; the first call binds all such functions.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    bare = kernel(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    functions.append(Addressed(len(functions), bare, arguments))
    for i, real in enumerate(REALS):
        llvm.add_symbol(f"{name}.{real}", _words[len(functions) - 1, i:].ctypes.data)
        (_on_demand if on_demand else _waiting)[real].append(functions[-1])

    @intrinsic
    def address_of(typingctx, like):
        def codegen(context, builder, signature, args):
            word = cgutils.add_global_variable(builder.module, WORD, f"{name}.{like.dtype}")
            unbound = builder.icmp_signed("==", builder.load(word), ir.Constant(WORD, 0))
            with builder.if_then(unbound, likely=False):
                nothing = ir.FunctionType(ir.VoidType(), [])
                late = f"fastbp_{'demand' if on_demand else 'bind'}_{like.dtype}"
                builder.call(cgutils.get_or_insert_function(builder.module, nothing, late), [])
            return builder.load(word)

        return types.intp(like), codegen

    return address_of


@intrinsic
def call(typingctx, address, arguments):
    """Call a function by its address; arguments: a tuple of the very types that it was made for."""

    def codegen(context, builder, signature, args):
        pointer = cgutils.voidptr_t
        result, error = cgutils.alloca_once(builder, pointer), cgutils.alloca_once(builder, pointer)
        values = [result, error, *cgutils.unpack_tuple(builder, args[1])]
        convention = ir.FunctionType(ir.IntType(32), [value.type for value in values])
        builder.call(builder.inttoptr(args[0], convention.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.intp, arguments), codegen


def bind(real, count, on_demand=False):
    """Compile the first functions for a float type, or load them from the disk, and set words."""
    with global_compiler_lock:
        waiting = (_on_demand if on_demand else _waiting)[real]
        while waiting and waiting[0].number < count:
            function = waiting.pop(0)
            arguments = function.arguments(real)
            try:  # a function that calls a launcher comes here again, for those that follow it
                function.dispatcher.compile(arguments)
            except BaseException:
                waiting.insert(0, function)
                raise
            compiled = function.dispatcher.overloads[arguments]
            address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
            _words[function.number, REALS.index(real)] = address


def launcher(function):
    """A kernel that calls addressed functions."""
    dispatcher, count = kernel(function), len(functions)
    compile_kernel = dispatcher.compile

    def compile_bound(signature):
        arguments, _ = sigutils.normalize_signature(signature)
        floats = {getattr(argument, "dtype", None) for argument in arguments}
        bind(types.float32 if types.float32 in floats else types.float64, count)
        return compile_kernel(signature)

    dispatcher.compile = compile_bound
    return dispatcher


def _bind_late(real, on_demand=False):
    """`bind` for a call from compiled code, through which no exception can pass."""
    interrupted = False
    while (_on_demand if on_demand else _waiting)[real]:
        try:
            bind(real, len(functions), on_demand)
        except KeyboardInterrupt:
            interrupted = True
        except BaseException:
            traceback.print_exc()
            os.abort()
    if interrupted:
        signal.raise_signal(signal.SIGINT)


_callbacks = []
for _real in REALS:
    for _name, _late in (("bind", False), ("demand", True)):
        _callbacks.append(
            ctypes.CFUNCTYPE(None)(lambda real=_real, late=_late: _bind_late(real, late))
        )
        _place = ctypes.cast(_callbacks[-1], ctypes.c_void_p).value
        llvm.add_symbol(f"fastbp_{_name}_{_real}", _place)
