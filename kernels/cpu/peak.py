"""The machine's own limits: multiply-adds that touch nothing but registers, and how fast a word
goes from one thread to another.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .binding import launcher
from .jit import inline, kernel
from .pointers import (
    address,
    at,
    atomic_get,
    atomic_put,
    element,
    get,
    new_job,
    number_of,
    pointer_to,
    put,
)
from .simd import INT, LANE, constant, vectors_of
from .threads import run, task

TURNS, OUT = 0, 1
BURNT = 24  # independent sums: enough to hide the latency of a multiply-add


@intrinsic
def burn_registers(typingctx, target, turns, seed):
    """BURNT multiply-adds of whole vectors, `turns` times; target[0] = something of them."""

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        target, turns, seed = args
        factor = v.splat(seed)
        before, loop = builder.block, builder.append_basic_block("burn")
        done = builder.append_basic_block("burnt")
        builder.branch(loop)
        builder.position_at_end(loop)
        turn = builder.phi(INT)
        sums = [builder.phi(v.type) for _ in range(BURNT)]
        next_turn = builder.add(turn, constant(1))
        results = [v.multiply_add(x, factor, factor) for x in sums]
        turn.add_incoming(constant(0), before)
        turn.add_incoming(next_turn, loop)
        for i, (x, result) in enumerate(zip(sums, results)):
            x.add_incoming(ir.Constant(v.type, [0.1 * i] * v.lanes), before)
            x.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, done)
        builder.position_at_end(done)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        builder.store(builder.extract_element(total, ir.Constant(LANE, 0)), target)
        return context.get_dummy_value()

    return types.void(target, types.intp, target.dtype), codegen


@launcher
def burn(turns, out):
    """BURNT multiply-adds of whole vectors, `turns` times, once for each element of out (size,)."""
    job = new_job()
    put(job, TURNS, turns)
    put(job, OUT, number_of(address(out, 0)))
    scratch = address(out, 0)
    run(burn_once(scratch), job, out.size, scratch, True)


@task
def burn_once(job, number, scratch):
    """One element of out."""
    store(at(pointer_to(get(job, OUT), scratch), number), get(job, TURNS))


@inline
def store(target, turns):
    burn_registers(target, turns, element(target))


@kernel
def bounce(word, side, rounds):
    """Hand a word to the thread that calls this with the other side, and wait until it comes back.

    word: (1,) integers, zero at first; side: 0, which begins, or 1.
    """
    place = address(word, 0)
    for turn in range(rounds):
        while atomic_get(place, 0) != 2 * turn + side:
            pass
        atomic_put(place, 0, 2 * turn + side + 1)
