"""The scalar functions inside kernels: ulp by ulp, special values, and what LLVM makes of them."""

import math
import os
import re
import subprocess
import sys
from functools import cache

import llvmlite.binding as llvm
import mpmath as mp
import numba
import numpy as np
import pytest

from fastbp.kernels.cpu import elementary

# What the library's kernels are compiled with.
HOUSE = {"fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"}, "error_model": "numpy"}
MAX_ULP = 2.0

with_every_function = pytest.mark.parametrize(
    "name", ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "erf", "sin", "cos"]
)
with_both_types = pytest.mark.parametrize(
    "dtype", [np.float32, np.float64], ids=["float32", "float64"]
)

# The exact values. For float32, float64 is exact enough; for float64, 40 digits are.
IN_FLOAT64 = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(-abs(x)), 1) / (1 + np.exp(-abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sin": np.sin,
    "cos": np.cos,
}
IN_40_DIGITS = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "log": mp.log,
    "log1p": mp.log1p,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "erf": mp.erf,
    "sin": mp.sin,
    "cos": mp.cos,
}


def loop_over(f):
    def loop(x, y):
        for i in range(y.size):
            y[i] = f(x[i])

    return numba.njit(**HOUSE)(loop)


@cache
def compiled(name, dtype):
    """The loop over one function in a kernel with the library's options."""
    loop = loop_over(getattr(elementary, name))
    array = numba.from_dtype(np.dtype(dtype))[::1]
    loop.compile((array, array))
    return loop


def values(name, x):
    y = np.full_like(x, 0.123)
    compiled(name, x.dtype.type)(x, y)
    return y


def ulps(name, x):
    """How far the results are from the exact values, in units of the last place of the exact."""
    info = np.finfo(x.dtype)
    top, lowest = int(info.maxexp), int(info.minexp) - info.nmant  # infinity stands for 2**top
    y = values(name, x)
    if x.dtype == np.float32:
        with np.errstate(over="ignore", under="ignore"):
            exact = np.clip(IN_FLOAT64[name](x.astype(np.float64)), -(2.0**top), 2.0**top)
        unit = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - info.nmant - 1, lowest))
        return abs(np.clip(y.astype(np.float64), -(2.0**top), 2.0**top) - exact) / unit
    errors, limit = [], mp.mpf(2) ** top
    with mp.workdps(40):
        for xi, yi in zip(x.tolist(), y.tolist(), strict=True):
            exact = max(-limit, min(limit, IN_40_DIGITS[name](mp.mpf(xi))))
            unit = mp.ldexp(1, max(mp.frexp(exact)[1] - info.nmant - 1, lowest))
            errors.append(float(abs(max(-limit, min(limit, mp.mpf(yi))) - exact) / unit))
    return np.array(errors)


def assert_accurate(name, x):
    error = ulps(name, x)
    worst = np.argmax(np.where(np.isnan(error), np.inf, error))
    assert error[worst] <= MAX_ULP, f"{name}({x[worst]!r}) is off by {error[worst]:.2f} ulp"


def both_signs(x):
    return np.concatenate([x, -x])


def within_domain(name, x):
    if name in ("sin", "cos"):
        return x[abs(x) <= elementary.SIN_MAX[x.dtype.type]]
    return x[x > {"log": 0, "log1p": -1}.get(name, -np.inf)]


def neighbours(centres, dtype, count=4):
    """Each centre and the floats on its two sides."""
    centres = np.asarray(centres, dtype)
    steps = np.arange(-count, count + 1)
    return (centres[:, None] + steps * np.spacing(centres)[:, None]).astype(dtype).ravel()


def multiples_of_half_pi(dtype):
    """For each exponent, the floats that lie nearest to a multiple of pi/2: convergents p/q."""
    bits, limit = np.finfo(dtype).nmant + 1, elementary.SIN_MAX[dtype]
    found = []
    with mp.workdps(80):
        for exponent in range(-bits, 1):
            rest = mp.ldexp(mp.pi / 2, -exponent)
            p, before = 1, 0
            while True:
                p, before = int(mp.floor(rest)) * p + before, p
                if p >= 2**bits or p * 2.0**exponent > limit:
                    break
                found.append(p * 2.0**exponent)
                rest = 1 / (rest - mp.floor(rest))
    return np.array(found, dtype)


def hard_points(dtype):
    """Where a reduction changes its integer, a range ends, or two formulas meet."""
    halves = np.arange(1, 60) * math.log(2) / 4
    limits = (2.0**-12, 2.0**-25, 2.0**-54, 0.25, 0.26, 0.5, 0.625, 0.8125, 1, 3.95, 6, 9.01, 10)
    edges = (16.6, 17.4, 19.06, 22, 36.7, 40, 87.33, 88.02, 88.7228, 103.28, 103.97, 104, 708.39)
    huge = (709.436, 709.7827, 744.44, 745.133, 746, 1e4, 1e5)
    turns = 2.0 ** np.arange(-20, 30) * 0.75
    logarithms = np.concatenate([turns, abs(turns - 1), [np.finfo(dtype).tiny]])
    x = np.concatenate([neighbours(halves, dtype), neighbours(limits + edges + huge, dtype)])
    return both_signs(np.concatenate([x, neighbours(logarithms, dtype)]))


@with_every_function
def test_float32_over_all_exponents(name):
    bits = np.arange(0, 2**32, 4093, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    assert_accurate(name, within_domain(name, x[np.isfinite(x)]))


@with_every_function
def test_float32_where_the_function_bends(name):
    x = np.linspace(-20, 20, 1_500_001, dtype=np.float32)
    assert_accurate(name, within_domain(name, x))


@with_every_function
def test_float64_at_random(name):
    rng = np.random.default_rng(12)
    size = 700
    x = [rng.uniform(-s, s, size) for s in (0.3, 1, 3, 40)]
    x.append(rng.uniform(-746, 710, size))
    exponents = np.arange(-1074, 10)
    x.append(both_signs(np.ldexp(rng.uniform(1, 2, exponents.size), exponents)))
    if name in ("log", "log1p"):
        x.append(np.ldexp(rng.uniform(1, 2, size), rng.integers(-1074, 1023, size)))
        near_one = np.ldexp(rng.uniform(1, 2, size), rng.integers(-52, 0, size))
        x.append(near_one - 1 if name == "log1p" else 1 - near_one / 4)
    if name in ("sin", "cos"):
        x += [both_signs(rng.uniform(0, s, size)) for s in (1e3, 1e5, 1e9, 1e12)]
    assert_accurate(name, within_domain(name, np.concatenate(x)))


@with_every_function
@with_both_types
def test_hard_points(name, dtype):
    assert_accurate(name, within_domain(name, hard_points(dtype)))


@pytest.mark.parametrize("name", ["sin", "cos"])
@with_both_types
def test_next_to_multiples_of_half_pi(name, dtype):
    x = both_signs(multiples_of_half_pi(dtype))
    assert x.size > 300
    assert np.abs(np.cos(x[: x.size // 2].astype(np.float64))).min() < 2.0 ** -np.finfo(dtype).nmant
    assert_accurate(name, x)
    assert abs(values(name, x)).max() <= 1


@with_both_types
def test_sine_ends_in_nan_not_in_garbage(dtype):
    limit = dtype(elementary.SIN_MAX[dtype])
    assert limit >= (1e5 if dtype == np.float32 else 1e9)
    inside = np.linspace(limit / 2, limit, 999, dtype=dtype)
    for name in ("sin", "cos"):
        assert_accurate(name, inside)
        beyond = np.array([np.nextafter(limit, dtype(np.inf)), 4 * limit, np.finfo(dtype).max])
        assert np.isnan(values(name, both_signs(beyond))).all()


nan, inf = math.nan, math.inf
SPECIAL = {
    "exp": {nan: nan, inf: inf, -inf: 0.0, 0.0: 1.0, 1e4: inf, -1e4: 0.0},
    "expm1": {nan: nan, inf: inf, -inf: -1.0, 0.0: 0.0, 1e4: inf, -1e4: -1.0},
    "log": {nan: nan, inf: inf, -inf: nan, 0.0: -inf, 1.0: 0.0, -1e-30: nan},
    "log1p": {nan: nan, inf: inf, -inf: nan, 0.0: 0.0, -1.0: -inf, -1.5: nan, -1e4: nan},
    "tanh": {nan: nan, inf: 1.0, -inf: -1.0, 0.0: 0.0, 1e4: 1.0, -1e4: -1.0},
    "sigmoid": {nan: nan, inf: 1.0, -inf: 0.0, 0.0: 0.5, 1e4: 1.0, -1e4: 0.0},
    "softplus": {nan: nan, inf: inf, -inf: 0.0, 1e4: 1e4, -1e4: 0.0},
    "erf": {nan: nan, inf: 1.0, -inf: -1.0, 0.0: 0.0, 1e4: 1.0, -1e4: -1.0},
    "sin": {nan: nan, inf: nan, -inf: nan, 0.0: 0.0},
    "cos": {nan: nan, inf: nan, -inf: nan, 0.0: 1.0},
}


@with_every_function
@with_both_types
def test_special_values(name, dtype):
    x = np.array(list(SPECIAL[name]), dtype)
    expected = np.array(list(SPECIAL[name].values()), dtype)
    # Each value in the vector part of the loop and in its scalar rest.
    np.testing.assert_array_equal(values(name, np.repeat(x, 67)), np.repeat(expected, 67))
    for i in range(x.size):
        np.testing.assert_array_equal(values(name, x[i : i + 1]), expected[i : i + 1])


@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "erf", "sin"])
@with_both_types
def test_zero_keeps_its_sign(name, dtype):
    y = values(name, both_signs(np.zeros(67, dtype)))
    assert not y.any()
    assert np.array_equal(np.signbit(y), np.repeat([False, True], 67))


@with_both_types
def test_negative_tails_are_not_zero(dtype):
    x = np.array([-80, -87, -100 if dtype == np.float32 else -740], dtype)
    for name in ("exp", "sigmoid", "softplus"):
        assert_accurate(name, x)
        assert values(name, x).min() > 0


# What LLVM makes of them


def x86_features():
    try:
        return llvm.get_host_cpu_features()
    except RuntimeError:
        return {}


needs_avx2 = pytest.mark.skipif(
    not (x86_features().get("avx2") and x86_features().get("fma")),
    reason="reads x86 assembly, and expects AVX2 with FMA",
)


def packed_and_called(loop):
    """(number of FMAs in 256 or 512 bits, mathematical functions called) in the assembly."""
    (asm,) = loop.inspect_asm().values()
    packed = re.findall(r"\tvfn?m(?:add|sub)\d+p[sd]\t.*%[yz]mm", asm)
    symbols = re.findall(r"\t(?:call|movabs|jmp)q?\t\$?([a-z]\w+)", asm)
    return len(packed), {f for f in symbols if not f.startswith("numba")}


@needs_avx2
@with_every_function
@with_both_types
def test_loop_vectorises_and_calls_nothing(name, dtype):
    packed, called = packed_and_called(compiled(name, dtype))
    assert packed >= 5
    assert called == set()


@needs_avx2
def test_libm_would_be_seen():
    loop = loop_over(math.exp)
    loop.compile((numba.float32[::1], numba.float32[::1]))
    assert packed_and_called(loop) == (0, {"expf"})


FLAG = re.compile(r"= (?:tail call|call|f[a-z]+) (?:fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)")


@with_every_function
@with_both_types
def test_callers_flags_stay_outside(name, dtype):
    (ir,) = compiled(name, dtype).inspect_llvm().values()
    assert "@llvm.fma." in ir
    assert FLAG.findall(ir) == []


def test_callers_flags_would_be_seen():
    loop = loop_over(numba.njit(lambda x: x * x - x))
    loop.compile((numba.float32[::1], numba.float32[::1]))
    (ir,) = loop.inspect_llvm().values()
    assert FLAG.findall(ir)


def all_functions(x, y):
    for i in range(x.size):
        y[0, i] = elementary.exp(x[i])
        y[1, i] = elementary.expm1(x[i])
        y[2, i] = elementary.log(x[i])
        y[3, i] = elementary.log1p(x[i])
        y[4, i] = elementary.tanh(x[i])
        y[5, i] = elementary.sigmoid(x[i])
        y[6, i] = elementary.softplus(x[i])
        y[7, i] = elementary.erf(x[i])
        y[8, i] = elementary.sin(x[i])
        y[9, i] = elementary.cos(x[i])


@pytest.mark.parametrize("fastmath", [False, True])
@with_both_types
def test_same_bits_whatever_the_caller_compiles_with(fastmath, dtype):
    x = np.linspace(-0.99, 60, 1003, dtype=dtype)
    y = np.empty((10, x.size), dtype)
    numba.njit(fastmath=fastmath)(all_functions)(x, y)
    for name, row in zip(IN_FLOAT64, y, strict=True):
        np.testing.assert_array_equal(row, values(name, x), err_msg=name)


# What Python and Numba see


@with_every_function
@with_both_types
def test_python_gets_numpys_value(name, dtype):
    x = dtype(0.7)
    y = getattr(elementary, name)(x)
    assert isinstance(y, dtype)
    assert y == pytest.approx(values(name, np.array([x]))[0], rel=float(8 * np.finfo(dtype).eps))


def test_other_types_are_refused():
    with pytest.raises(numba.TypingError):
        numba.njit(lambda: elementary.exp(1))()


CALLER = """
import numba
import numpy as np
from fastbp.kernels.cpu import elementary

@numba.njit(cache=True)
def total(x):
    s = x.dtype.type(0)
    for i in range(x.size):
        s += elementary.tanh(x[i])
    return s

assert total(np.zeros(3, np.float32)) == 0
print(sum(total.stats.cache_hits.values()), sum(total.stats.cache_misses.values()))
"""


def test_callers_can_be_cached_on_disk(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "import caller"]
    for hits_and_misses in ("0 1", "1 0"):
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.stdout.strip() == hits_and_misses, run.stderr
