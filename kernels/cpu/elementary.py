"""exp, expm1, log, log1p, tanh, sigmoid, softplus, erf, sin and cos that vectorise inside a kernel.

Each maps a float32 or float64 scalar to the same type, in any @njit code; outside njit it gives
NumPy's value. A plain loop over one becomes SIMD code, since nothing here calls, branches or
looks up a table. Arrays, activations and derivatives never live here.

The result is within 2 ulp of the exact value on the whole range, subnormal numbers included; the
tests hold it. NaN gives NaN, infinities give the limits, and where f(0) = 0 a zero keeps its sign.
One limit: sin and cos answer NaN beyond SIN_MAX, where their argument reduction ends.

All are compiled with fastmath off. Numba sets its fast-math flags on each instruction of the
function that it compiles, so a caller's flags do not reach these, not even after inlining:
"reassoc" would cancel the rounding constants and the two-part reductions below.

Without FMA instructions (x86 before 2013) the results are the same, but slow. The numbers that the
formulas take are in coefficients.py.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from .coefficients import CONSTANTS, SIN_MAX

__all__ = [
    "SIN_MAX",
    "cos",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sigmoid",
    "sin",
    "softplus",
    "tanh",
]

# error_model: no test for a zero divisor. forceinline: a call would stop the vectoriser.
_OPTIONS = {
    "fastmath": False,
    "error_model": "numpy",
    "forceinline": True,
    "no_cfunc_wrapper": True,
}


def _scalar(value=None):
    """Turn a template, `def f(c)` that returns `impl(x)`, into a function f(x) for njit code.

    Once per type of x, Numba compiles impl with c, the constants of that type. Python code that
    calls f(x) gets value(x).
    """

    def decorate(template):
        def f(x):
            return value(x)

        f.__name__, f.__qualname__, f.__doc__ = (template.__name__,) * 2 + (template.__doc__,)

        @overload(f, jit_options=_OPTIONS)
        def choose(x):
            return template(CONSTANTS[x]) if x in CONSTANTS else None

        return f

    return decorate


# The instructions that Python has no word for. No vector type appears: LLVM widens them.


@intrinsic
def _fma(typingctx, a, b, c):
    """a * b + c, rounded once."""
    return a(a, a, a), lambda context, builder, sig, args: builder.fma(*args)


@intrinsic
def _select(typingctx, condition, a, b):
    """a where the condition holds, else b, without a branch."""
    return a(types.boolean, a, a), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def _copysign(typingctx, x, sign):
    """|x| with the sign of the other."""

    def codegen(context, builder, sig, args):
        t = args[0].type
        signature = ir.FunctionType(t, (t, t))
        f = builder.module.declare_intrinsic("llvm.copysign", (t,), signature)
        return builder.call(f, args)

    return x(x, x), codegen


@intrinsic
def _polynomial(typingctx, x, coefficients):
    """coefficients[0] + coefficients[1] x + coefficients[2] x**2 + ..."""

    def evaluate(builder, x, c):
        # Horner, up to 8 terms. More are split into even and odd powers, which halves the chain
        # of dependent FMAs: 1.3 times the speed for the 24 terms of erf, none lost for 10.
        if len(c) > 8:
            xx = builder.fmul(x, x)
            even, odd = evaluate(builder, xx, c[::2]), evaluate(builder, xx, c[1::2])
            return builder.fma(x, odd, even)
        *rest, total = c
        for term in reversed(rest):
            total = builder.fma(x, total, term)
        return total

    def codegen(context, builder, sig, args):
        return evaluate(builder, args[0], cgutils.unpack_tuple(builder, args[1]))

    return x(x, coefficients), codegen


@intrinsic
def _bits(typingctx, x):
    """The bits of x as an integer, sign-extended to Numba's int64."""

    def codegen(context, builder, sig, args):
        i = builder.bitcast(args[0], ir.IntType(x.bitwidth))
        return builder.sext(i, ir.IntType(64)) if x.bitwidth < 64 else i

    return types.int64(x), codegen


def _narrow(builder, i, like):
    # LLVM then computes all of i in 32 bits, as long as no high bit was shifted down.
    return builder.trunc(i, ir.IntType(like.bitwidth)) if like.bitwidth < 64 else i


@intrinsic
def _from_bits(typingctx, i, like):
    """The float of the type of `like` with the lowest bits of i."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(_narrow(builder, args[0], like), args[1].type)

    return like(types.int64, like), codegen


@intrinsic
def _to_float(typingctx, i, like):
    """The value of i in the type of `like`."""

    def codegen(context, builder, sig, args):
        return builder.sitofp(_narrow(builder, args[0], like), args[1].type)

    return like(types.int64, like), codegen


@register_jitable(**_OPTIONS)
def _clamp(x, low, high):
    """x between low and high; NaN stays, since it compares false."""
    x = _select(x < low, low, x)
    return _select(x > high, high, x)


@_scalar()
def _reduced(c):
    """(bits of n, hi, lo) with x = n ln 2 + hi + lo and |hi + lo| <= ln(2)/2."""

    def impl(x):
        biased = _fma(x, c.one_over_ln2, c.round_biased)
        n = biased - c.round_biased
        return _bits(biased), _fma(-n, c.ln2_hi, x), -n * c.ln2_lo

    return impl


def _exp(c, refined):
    """e**x = 2**n e**r."""

    def impl(x):
        n_bits, hi, lo = _reduced(_clamp(x, c.exp_min, c.exp_max))
        r = hi + lo
        if refined:
            y = c.one + hi
            y += (hi - (y - c.one)) + _fma(r * r, _polynomial(r, c.expm1_q), lo)
        else:
            y = _fma(r, _fma(r, _polynomial(r, c.expm1_q), c.one), c.one)
        # 2**n in two factors: it overflows at the top, and a subnormal result is rounded once.
        half = n_bits >> 1
        y *= _from_bits(half << c.exponent_bit, x)
        return y * _from_bits((n_bits - half) << c.exponent_bit, x)

    return impl


@_scalar(np.exp)
def exp(c):
    """e**x."""
    return _exp(c, refined=False)


@_scalar()
def _refined_exp(c):
    """e**x within 0.8 ulp, where exp has 0.93; 20 % slower in float32, 5 % in float64."""
    return _exp(c, refined=True)


@_scalar()
def _half_expm1(c):
    """(e**x - 1) / 2 = h e**r - 1/2 with h = 2**(n - 1), for expm1_min <= x <= exp_max or NaN.

    r stays in two parts, hi + lo: h hi - 1/2 is nearly exact, and what is added to it is small.
    """

    def impl(x):
        n_bits, hi, lo = _reduced(x)
        r = hi + lo
        rest = _fma(r * r, _polynomial(r, c.expm1_q), lo)
        h = _from_bits((n_bits - c.exponent_bias - 1) << c.exponent_bit, x)
        return _fma(h, rest, _fma(h, hi, h - c.half))

    return impl


@_scalar(np.expm1)
def expm1(c):
    """e**x - 1."""

    def impl(x):
        y = _half_expm1(_clamp(x, c.expm1_min, c.exp_max))
        return _select(abs(x) < c.expm1_tiny, x, y + y)

    return impl


@_scalar()
def _log1p_correction(c):
    """d in log(1 + x) = x - d / 2, for -1/4 <= x <= 1.

    s = x / (2 + x) gives log(1 + x) = 2 atanh(s), and 2 s = x - (x**2 - s x**2) / 2.
    """

    def impl(x):
        s = x / (x + c.one + c.one)
        ss = s * s
        xx = x * x
        return _fma(-s, _fma(ss, _polynomial(ss, c.log1p_q), xx), xx)

    return impl


@_scalar(np.log)
def log(c):
    """log(x) = k ln 2 + log(1 + m) with 1 + m = x / 2**k in [3/4, 3/2)."""

    def impl(x):
        small = x < c.normal_min
        u = _select(small, x * c.to_normal, x)
        k_bits = (_bits(u) - c.bits_of_3_4) & c.exponent_mask  # as in log1p
        m = _from_bits(_bits(u) - k_bits, x) - c.one
        k = _to_float(k_bits, x) - _select(small, c.to_normal_bits, c.zero)
        y = _fma(-c.half, _log1p_correction(m), m)
        y = _fma(k, c.ulp * c.ln2_hi, _fma(k, c.ulp * c.ln2_lo, y))
        y = _select(u < c.inf, y, x)
        return _select(u > c.zero, y, _select(u == c.zero, -c.inf, c.nan))

    return impl


@_scalar(np.log1p)
def log1p(c):
    """log(1 + x) = k ln 2 + log(1 + m) with 1 + m = (1 + x) / 2**k in [3/4, 3/2)."""

    def impl(x):
        u = x + c.one
        # k stays where the exponent is: LLVM would not narrow a right shift to 32 bits.
        k_bits = (_bits(u) - c.bits_of_3_4) & c.exponent_mask
        m = _from_bits(_bits(x) - k_bits, x)  # x / 2**k
        m += _fma(_from_bits(c.bits_of_4 - k_bits, x), c.half * c.half, -c.one)  # 1 / 2**k - 1
        k = _to_float(k_bits, x)
        y = _fma(-c.half, _log1p_correction(m), m)
        y = _fma(k, c.ulp * c.ln2_hi, _fma(k, c.ulp * c.ln2_lo, y))
        y = _copysign(y, x)
        y = _select(u < c.inf, y, x)
        return _select(u > c.zero, y, _select(u == c.zero, -c.inf, c.nan))

    return impl


@_scalar(np.tanh)
def tanh(c):
    """g / (g + a) for x >= 0, with a = 2**-n and g = a (e**2x - 1) / 2.

    2 x = n ln 2 + 2 r, so g = (1 - a) / 2 + (e**2r - 1) / 2. Near 0, where n = 0 and a = 1, the
    quotient q is improved by q = g - q g, in which g is x plus something small.
    """

    def impl(x):
        t = abs(x)
        t = _select(t > c.tanh_max, c.tanh_max, t)
        biased = _fma(t - c.ln2_eighth, c.one_over_ln2 + c.one_over_ln2, c.round_biased)
        n = biased - c.round_biased
        hi = _fma(-n, c.half * c.ln2_hi, t)
        lo = -n * (c.half * c.ln2_lo)
        r = hi + lo
        rr = r * r
        rest = _fma(rr * r, _polynomial(r, c.tanh_q), _fma(r, r, lo))
        a = _from_bits((3 * c.exponent_bias - _bits(biased)) << c.exponent_bit, x)
        g = (_fma(-c.half, a, c.half) + hi) + rest
        q = g / (g + a)
        q = _select(t < c.tanh_near, t + _fma(-q, g, rest), q)
        return _copysign(q, x)

    return impl


@_scalar(lambda x: np.exp(-np.logaddexp(0, -x)))
def sigmoid(c):
    """1 / (1 + e**-x)."""

    def impl(x):
        e = exp(-abs(x))
        top = _select(x < c.zero, e, c.one)
        # The quotient q = top / (1 + e), improved by q = top - e q: 2.3 ulp become 1.7.
        return _fma(-e, top / (c.one + e), top)

    return impl


@_scalar(lambda x: np.logaddexp(0, x))
def softplus(c):
    """log(1 + e**x) = max(x, 0) + log(1 + e**-|x|)."""

    def impl(x):
        e = _refined_exp(-abs(x))  # with exp, 2.11 ulp near -0.4335
        return _fma(-c.half, _log1p_correction(e), _select(x < c.zero, c.zero, x)) + e

    return impl


@_scalar(lambda x: type(x)(math.erf(x)))
def erf(c):
    """1 - e**-y for x >= 0, with y = -log(erfc(x)), a polynomial in x."""

    def impl(x):
        t = abs(x)
        t = _select(t > c.erf_max, c.erf_max, t)
        y = _fma(t, c.erf_slope, t * _polynomial(t, c.erf_q))
        near_one = _half_expm1(-y)
        # Halving a subnormal y would round it.
        return _copysign(_select(t < c.expm1_tiny, y, near_one + near_one), x)

    return impl


def _sine(c, first_quadrant):
    """sin(x + first_quadrant pi/2), by |r| <= pi/4 and n with x = n pi/2 + r."""

    def impl(x):
        rounded = _fma(x, c.one_over_pio2, c.round)
        n = rounded - c.round
        r = _fma(-n, c.pio2_3, _fma(-n, c.pio2_2, _fma(-n, c.pio2_1, x)))
        rr = r * r
        sine = _copysign(_fma(r * rr, _polynomial(rr, c.sin_q), r), r)
        cosine = _fma(rr, _fma(rr, _polynomial(rr, c.cos_q), -c.half), c.one)
        quadrant = _bits(rounded) + first_quadrant
        y = _select((quadrant & 1) == 0, sine, cosine)
        y = _from_bits(_bits(y) ^ ((quadrant & 2) << (c.sign_bit - 1)), x)
        return _select(abs(x) <= c.sin_max, y, c.nan)

    return impl


@_scalar(np.sin)
def sin(c):
    """The sine of x; NaN beyond SIN_MAX."""
    return _sine(c, 0)


@_scalar(np.cos)
def cos(c):
    """The cosine of x; NaN beyond SIN_MAX."""
    return _sine(c, 1)
