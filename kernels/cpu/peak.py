"""The machine's own limit: multiplications and additions that touch nothing but registers."""

from .jit import inline, kernel
from .pointers import address, at, element, get, new_job, number_of, pointer_to, put
from .simd import burn_registers
from .threads import run, task

TURNS, OUT = 0, 1


@kernel
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
