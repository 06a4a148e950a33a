"""No CPU kernel touches memory outside of its arrays, at sizes around every edge.

Each array ends where a page without access begins, or begins where one ends: a read or a write
beyond it kills the process, so this runs in one of its own.
"""

import subprocess
import sys

import pytest

CODE = """
import ctypes, mmap, sys
import numpy as np
from fastbp.kernels import codes, cpu
from fastbp.kernels.cpu import engines

libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
kept = []

def guarded(shape, dtype, at_end):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-max(size, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    kept.append(memory)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (first, first + (pages + 1) * PAGE):
        if libc.mprotect(ctypes.c_void_p(page), PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    begin = PAGE + (pages * PAGE - size if at_end else 0)
    return np.frombuffer(memory, dtype, count=int(np.prod(shape)), offset=begin).reshape(shape)

rng = np.random.default_rng(0)
engines.choices[...] = {"tiles": 0, "blas": -1}[sys.argv[2]]

def filled(shape, dtype, at_end):
    array = guarded(shape, dtype, at_end)
    array[...] = rng.standard_normal(shape)
    return array

empty = lambda dtype: np.empty((0, 0), dtype)
for dtype in (np.float32, np.float64):
    for at_end in (True, False):
        for n, k, m in eval(sys.argv[1]):
            for code in (codes.RELU, codes.GELU):
                x, w, b, dy = (filled(s, dtype, at_end) for s in ((n, k), (k, m), (m,), (n, m)))
                y, z = (guarded((n, m), dtype, at_end) for _ in "yz")
                work = guarded((cpu.dense_forward_work(n, k, m),), dtype, at_end)
                cpu.dense_forward(x, w, b, code, work, z, y)
                work = guarded((cpu.dense_backward_work(n, k, m),), dtype, at_end)
                dw, db, dx = (guarded(s, dtype, at_end) for s in ((k, m), (m,), (n, k)))
                cpu.dense_backward(dy, x, w, z, code, work, dw, db, dx)
print("inside")
"""

SIZES = {
    "small": [(n, k, m) for n in (1, 2, 3, 7, 9, 15) for k in (1, 5, 33) for m in (1, 2, 17, 31)],
    "blocks": [
        (13, 63, 65),
        (65, 113, 97),
        (255, 31, 127),
        (257, 129, 33),
        (64, 513, 16),
        (23, 300, 225),
        (33, 70, 3),
        (65, 257, 10),
        (65, 65, 65),
    ],
}


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages need mprotect")
@pytest.mark.parametrize("engine", ["tiles", "blas"])
@pytest.mark.parametrize("sizes", SIZES)
def test_kernels_stay_inside_their_arrays(sizes, engine):
    ended = subprocess.run(
        [sys.executable, "-c", CODE, repr(SIZES[sizes]), engine],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.stdout == "inside\n", (ended.returncode, ended.stderr[-2000:])
