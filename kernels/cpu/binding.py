"""Functions that compiled code calls through an address: each is compiled once, by itself.

Where one Numba function calls another, Numba copies the callee's code into the caller and optimises
it there again: with all register tiles in each kernel of a network, a first warm-up took 149 s.
Here an address lies in a word of memory behind a linker symbol, where code on disk finds it in any
process.

`addressed` makes such a function, `launcher` a kernel that calls some: all that were made before it
are bound, which sets their words, when it is compiled or loaded. A user's own code that holds
launchers and comes from his disk cache binds them when it first runs.

What few programs need, such as the engine of BLAS, is a group of its own and waits for its first
call. That call needs Python's lock: so it must not come from a thread of a caller that holds it.
Hence a user's own code, which may, binds all groups when it is compiled, and a kernel asks for an
address before its tasks do.
"""

import ctypes
import os
import signal
import traceback
from collections import namedtuple
from contextlib import contextmanager

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

Addressed = namedtuple("Addressed", "number dispatcher arguments group", defaults=("",))
functions: list[Addressed] = []
_words = np.zeros((MOST_FUNCTIONS, len(REALS)), np.int64)  # their addresses; 0: not bound yet
_waiting: dict[types.Type, list[Addressed]] = {real: [] for real in REALS}  # functions to bind
_on_demand: dict[tuple[str, types.Type], list[Addressed]] = {}  # the same, by their group
_callbacks: dict[str, object] = {}
_depth = 0  # of kernels that are being compiled, under the compiler's lock


def addressed(function, arguments, group=""):
    """An intrinsic that gives the function's address for the float type of its operand.

    arguments: function of a float type that gives the types of the function's arguments.
    group: no launcher binds these functions; the first call of one binds all of its group.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    bare = kernel(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    functions.append(Addressed(len(functions), bare, arguments, group))
    for i, real in enumerate(REALS):
        llvm.add_symbol(f"{name}.{real}", _words[len(functions) - 1, i:].ctypes.data)
        _queue(real, group).append(functions[-1])
        _provide_late(real, group)

    @intrinsic
    def address_of(typingctx, like):
        def codegen(context, builder, signature, args):
            module, symbol = builder.module, f"{name}.{like.dtype}"
            word = module.globals.get(symbol)  # there, if this kernel calls it a second time
            word = word or cgutils.add_global_variable(module, WORD, symbol)
            unbound = builder.icmp_signed("==", builder.load(word), ir.Constant(WORD, 0))
            with builder.if_then(unbound, likely=False):
                nothing = ir.FunctionType(ir.VoidType(), [])
                late = f"fastbp_bind{group}_{like.dtype}"
                builder.call(cgutils.get_or_insert_function(module, nothing, late), [])
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


@contextmanager
def _compiling():
    """While a kernel is compiled, or a function to bind: what it calls is not called by a user."""
    global _depth
    with global_compiler_lock:
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def _queue(real, group):
    return _on_demand.setdefault((group, real), []) if group else _waiting[real]


def bind(real, count, group=""):
    """Compile the first functions for a float type, or load them from the disk, and set words."""
    with _compiling():
        waiting = _queue(real, group)
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
    compile_kernel, type_call = dispatcher.compile, dispatcher.get_call_template

    def real_of(arguments):
        floats = {getattr(argument, "dtype", None) for argument in arguments}
        return types.float32 if types.float32 in floats else types.float64

    def compile_bound(signature):
        arguments, _ = sigutils.normalize_signature(signature)
        with _compiling():
            bind(real_of(arguments), count)
            return compile_kernel(signature)

    def type_call_bound(arguments, keywords):
        if _depth == 0:  # a user's own code calls the kernel
            bind_all(real_of((*arguments, *keywords.values())), count)
        return type_call(arguments, keywords)

    dispatcher.compile, dispatcher.get_call_template = compile_bound, type_call_bound
    return dispatcher


def bind_all(real, count=MOST_FUNCTIONS):
    """`bind` for all groups."""
    for group in ("", *(group for group, kind in tuple(_on_demand) if kind == real)):
        bind(real, count, group)


def _bind_late(real, group=""):
    """`bind` for a call from compiled code, through which no exception can pass."""
    interrupted = False
    while _queue(real, group):
        try:
            if group:
                bind(real, len(functions), group)
            else:  # code from a user's cache
                bind_all(real)
        except KeyboardInterrupt:
            interrupted = True
        except BaseException:
            traceback.print_exc()
            os.abort()
    if interrupted:
        signal.raise_signal(signal.SIGINT)


def _provide_late(real, group):
    """`_bind_late` behind the symbol that compiled code calls."""
    name = f"fastbp_bind{group}_{real}"
    if name not in _callbacks:
        _callbacks[name] = ctypes.CFUNCTYPE(None)(lambda: _bind_late(real, group))
        llvm.add_symbol(name, ctypes.cast(_callbacks[name], ctypes.c_void_p).value)
