"""A pool of threads inside the kernels: one fork and one join per parallel call.

A parallel call is a job: a task, its operands, and a count. Threads take task numbers from one
shared word, the ticket, until none is left; the caller takes part, so a job never waits for a
thread to wake up. The caller begins at the first task, half of the others at the last: so a part
of the data mostly stays with the processor whose cache has it from the job before. What a task
computes depends on its number alone, never on who runs it: results are the same bits for every
number of threads.

A call that finds the pool at work for somebody else runs its tasks alone. So any number of Python
threads may call kernels at once, and after a fork, where the child has no workers, nothing waits.
"""

import atexit
import contextlib
import os
import sys
import threading
import time

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .binding import addressed
from .jit import inline, kernel
from .pointers import (
    WORD,
    at,
    atomic_add,
    atomic_get,
    atomic_put,
    atomic_replace,
    get,
    pointer_to,
    put,
    symbol,
)

# Words of the pool, each on a cache line of its own where threads contend for it.
TICKET = 0  # serial number of the job << 32 | end << 16 | begin of the tasks that nobody has taken
DONE = 8  # tasks finished
BUSY = 16  # 1 while a job runs
SLEEPERS = 24  # workers that wait for the semaphore
STOP = 32
TASK, JOB = 40, 41  # what runs
WORKERS = 42
SEMAPHORE = 48  # a sem_t of libc: 32 bytes
ALLOWED, CHOSEN = 64, 80  # masks of processors: of the process; of the workers
ARENAS = 96  # a pointer to scratch memory per worker
MOST_WORKERS = 255
IDENTITIES = ARENAS + MOST_WORKERS  # of the workers' threads
MASK_WORDS = 16  # 1024 processors
ARENA_BYTES = 2**21

# Looks at the ticket before a worker sleeps, some milliseconds: waking one took 0.3 ms on a virtual
# machine, and a step of 784-512-512-10 4.3 ms in place of 2.9.
SPINS = 2**18
JOB_POINTER = types.CPointer(types.intp)
HAS_SEMAPHORE = sys.platform == "linux"

_memory = np.zeros(IDENTITIES + MOST_WORKERS + 1 + 8, np.int64)
_first = (-_memory.ctypes.data // 8) % 8  # where a cache line begins
_pool = _memory[_first : _first + IDENTITIES + MOST_WORKERS]
llvm.add_symbol("fastbp_pool", _pool.ctypes.data)

pool = symbol("fastbp_pool")


def _libc(builder, name, *args):
    function = ir.FunctionType(ir.IntType(32), [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


@intrinsic
def pause(typingctx):
    """Tell the processor that this is a loop of waiting."""

    def codegen(context, builder, signature, args):
        if "86" in llvm.get_default_triple():
            nothing = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, nothing, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def sleep(typingctx, semaphore):
    """Wait for `wake`, or where there are no such semaphores for a tenth of a millisecond."""

    def codegen(context, builder, signature, args):
        if HAS_SEMAPHORE:
            _libc(builder, "sem_wait", builder.gep(args[0], [ir.Constant(WORD, SEMAPHORE)]))
        else:
            _libc(builder, "usleep", ir.Constant(ir.IntType(32), 100))
        return context.get_dummy_value()

    return types.void(semaphore), codegen


@intrinsic
def wake(typingctx, semaphore):
    """Let one sleeper go on."""

    def codegen(context, builder, signature, args):
        if HAS_SEMAPHORE:
            _libc(builder, "sem_post", builder.gep(args[0], [ir.Constant(WORD, SEMAPHORE)]))
        return context.get_dummy_value()

    return types.void(semaphore), codegen


@intrinsic
def processor(typingctx):
    """The number of the processor that this thread runs on; -1 where nobody tells."""

    def codegen(context, builder, signature, args):
        if not HAS_SEMAPHORE:
            return ir.Constant(WORD, -1)
        return builder.sext(_libc(builder, "sched_getcpu"), WORD)

    return types.intp(), codegen


@intrinsic
def keep_to(typingctx, identity, mask):
    """Let a thread run on the processors of a mask alone; 0: this thread."""

    def codegen(context, builder, signature, args):
        if HAS_SEMAPHORE:
            thread = builder.trunc(args[0], ir.IntType(32))
            size = ir.Constant(WORD, 8 * MASK_WORDS)
            _libc(builder, "sched_setaffinity", thread, size, args[1])
        return context.get_dummy_value()

    return types.void(types.intp, mask), codegen


def task(function, group=""):
    """A task (job, number, scratch): an intrinsic that gives its address for a type of scratch.

    job: pointer to the words of the job; scratch: pointer to memory of the thread that runs it.
    """

    def arguments(real):
        return JOB_POINTER, types.intp, types.CPointer(real)

    return addressed(function, arguments, group)


@intrinsic
def call(typingctx, address, job, number, scratch):
    """Run one task; `address` comes from `task`."""

    def codegen(context, builder, signature, args):
        pointer = cgutils.voidptr_t
        result, error = cgutils.alloca_once(builder, pointer), cgutils.alloca_once(builder, pointer)
        values = [result, error, *args[1:]]
        convention = ir.FunctionType(ir.IntType(32), [value.type for value in values])
        builder.call(builder.inttoptr(args[0], convention.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.intp, job, types.intp, scratch), codegen


@inline
def take(p, from_end):
    """The first number of a task that nobody has taken, or the last; -1 if there is none."""
    while True:
        ticket = atomic_get(p, TICKET)
        begin, end = ticket & 0xFFFF, (ticket >> 16) & 0xFFFF
        if begin >= end:
            return -1
        if atomic_replace(p, TICKET, ticket, ticket - 0x10000 if from_end else ticket + 1):
            return end - 1 if from_end else begin


@inline
def thread_count():
    """Threads of the pool and the caller."""
    return get(pool(), WORKERS) + 1


@inline
def useful_tasks(work, grain):
    """How many tasks to cut `work` into: two a thread even out, fewer than a grain cost more."""
    workers = get(pool(), WORKERS)
    return max(1, min(work // grain, 2 * (workers + 1))) if workers > 0 else 1


@inline
def parts(size, limit, wanted, multiple):
    """Into how many parts to cut `size`: none above `limit`; a multiple of `wanted`, so that no
    thread waits for the last one, if the parts keep `multiple`.
    """
    least = (size + limit - 1) // limit
    most = max(1, size // multiple)
    return max(least, min((least + wanted - 1) // wanted * wanted, most))


@inline
def part(size, count, number, multiple):
    """(begin, end) of one of `count` nearly equal parts that begin at multiples."""
    step = ((size + count - 1) // count + multiple - 1) // multiple * multiple
    return min(size, number * step), min(size, (number + 1) * step)


@inline
def keep_workers_away(p):
    """Let the workers wake up anywhere but on the processor of the caller.

    A thread that is woken often begins on the processor of the one that woke it, and waits there
    for milliseconds while another processor is idle.
    """
    here = processor()
    if here < 0 or here >= 64 * MASK_WORDS:
        return
    others = 0
    for i in range(MASK_WORDS):
        mask = get(p, ALLOWED + i)
        if i == here // 64:
            mask &= ~(1 << (here % 64))
        put(p, CHOSEN + i, mask)
        others |= mask
    if others != 0:
        for worker in range(get(p, WORKERS)):
            keep_to(get(p, IDENTITIES + worker), at(p, CHOSEN))


@inline
def run(address, job, count, scratch, worth):
    """Run the tasks 0..count-1 of a job, on several threads if `worth` it and the pool is free."""
    p = pool()
    alone = count < 2 or count > 0xFFFF or not worth or get(p, WORKERS) == 0
    if alone or not atomic_replace(p, BUSY, 0, 1):
        for number in range(count):
            call(address, job, number, scratch)
        return
    put(p, TASK, address)
    put_pointer(p, JOB, job)
    atomic_put(p, DONE, 0)
    serial = ((atomic_get(p, TICKET) >> 32) + 1) & 0x7FFFFFFF
    atomic_put(p, TICKET, serial << 32 | count << 16)
    sleeping = atomic_get(p, SLEEPERS)
    if sleeping > 0:
        atomic_add(p, SLEEPERS, -sleeping)
        keep_workers_away(p)
        for _ in range(sleeping):
            wake(p)
    number = take(p, False)
    while number >= 0:
        call(address, job, number, scratch)
        atomic_add(p, DONE, 1)
        number = take(p, False)
    while atomic_get(p, DONE) < count:
        pause()
    atomic_put(p, BUSY, 0)


@intrinsic
def put_pointer(typingctx, pointer, index, value):
    """Write a pointer as a word."""

    def codegen(context, builder, signature, args):
        builder.store(builder.ptrtoint(args[2], WORD), builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


@kernel
def work(slot):
    """What a worker does until it is told to stop."""
    p = pool()
    scratch = pointer_to(get(p, ARENAS + slot), p)
    idle = 0
    while atomic_get(p, STOP) == 0:
        number = take(p, slot % 2 == 0)
        if number >= 0:
            call(get(p, TASK), pointer_to(get(p, JOB), p), number, scratch)
            atomic_add(p, DONE, 1)
            idle = 0
        elif idle < SPINS:
            pause()
            idle += 1
        else:
            atomic_add(p, SLEEPERS, 1)
            ticket = atomic_get(p, TICKET)  # a job may have come before the line above
            if ticket & 0xFFFF >= (ticket >> 16) & 0xFFFF and atomic_get(p, STOP) == 0:
                sleep(p)
                keep_to(0, at(p, ALLOWED))  # awake: where it runs is the system's again
            idle = 0


# The workers' life, in Python

_workers: list[threading.Thread] = []
_arenas = None
changing = threading.RLock()  # whoever starts or stops workers: two at once would wait for good


def count():
    """Threads that a parallel call may use, the caller included."""
    return len(_workers) + 1


@kernel
def hold():
    """Take the pool as a job does, if it is free; meanwhile jobs run on their callers alone."""
    return atomic_replace(pool(), BUSY, 0, 1)


@contextlib.contextmanager
def _held():
    """The pool without a job, and no other Python thread that changes it."""
    with changing:
        while not hold():
            time.sleep(1e-4)
        try:
            yield
        finally:
            _pool[BUSY] = 0


def start(threads):
    """Give the pool threads - 1 workers; the caller of a kernel is the other thread."""
    with _held():
        _end_workers()
        _begin_workers(min(threads - 1, MOST_WORKERS))


def stop():
    """End all workers; kernels then run on the calling thread alone."""
    if _workers:
        with _held():
            _end_workers()


def _begin_workers(workers):
    global _arenas
    if workers <= 0:
        return
    _arenas = np.empty((workers, ARENA_BYTES + 64), np.uint8)
    _pool[SLEEPERS] = _pool[STOP] = 0
    if HAS_SEMAPHORE:
        _semaphore("sem_init", 0, 0)
    if hasattr(os, "sched_getaffinity"):
        _pool[ALLOWED : ALLOWED + MASK_WORDS] = _mask(os.sched_getaffinity(0))
    for slot in range(workers):
        _pool[ARENAS + slot] = (_arenas[slot].ctypes.data + 63) // 64 * 64  # with a cache line
        name = f"fastbp-{slot + 1}"
        _workers.append(threading.Thread(target=work, args=(slot,), name=name, daemon=True))
        _workers[slot].start()
        _pool[IDENTITIES + slot] = _workers[slot].native_id or 0
    _pool[WORKERS] = workers


def _mask(processors):
    """The words of a set of processors."""
    words = np.zeros(MASK_WORDS, np.uint64)
    for number in processors:
        if number < 64 * MASK_WORDS:
            words[number // 64] |= np.uint64(1 << number % 64)
    return words.view(np.int64)


def _end_workers():
    _pool[WORKERS] = 0
    _pool[STOP] = 1
    if HAS_SEMAPHORE:
        for _ in _workers:
            _semaphore("sem_post")
    for worker in _workers:
        worker.join()
    _workers.clear()


def _semaphore(name, *args):
    import ctypes

    address = ctypes.c_void_p(_pool.ctypes.data + 8 * SEMAPHORE)
    getattr(ctypes.CDLL(None), name)(address, *args)


def _forget_workers():
    """In the child of a fork there are no workers, and none of its jobs is running."""
    global changing
    changing = threading.RLock()  # a thread that is not here may have held it
    _workers.clear()
    _pool[WORKERS] = _pool[TICKET] = _pool[BUSY] = 0


atexit.register(stop)  # before the compiled code that they run is unloaded
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
