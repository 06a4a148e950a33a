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

Without FMA instructions (x86 before 2013) the results are the same, but slow. The coefficients and
the split constants come from bench/minimax.py.
"""

import math
from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

SIN_MAX = {np.float32: 2.0**18, np.float64: 2.0**40}

# Minimax coefficients by bench/minimax.py, constant term first: float32, then float64. Each comment
# ends with the largest errors, relative to the function that the polynomial serves.
# fmt: off
# (expm1(r) - r) / r**2 for |r| <= ln(2)/2: 2**-26.1, 2**-55.5
_EXPM1_Q = (
    (0.49999997, 0.16666539, 0.04166774, 0.0083670495, 0.0013840144),
    (
        0.5000000000000006, 0.16666666666666588, 0.041666666666571685, 0.00833333333338899,
        0.0013888888933350154, 0.00019841269724115915, 2.4801503005444736e-05,
        2.755739895476078e-06, 2.7626981126665436e-07, 2.5057879778783396e-08,
    ),
)
# (expm1(2 r) / 2 - r - r**2) / r**3 for -ln(2)/8 <= r <= 3 ln(2)/8: 2**-26.0, 2**-55.1
_TANH_Q = (
    (0.66667324, 0.33329988, 0.13250695, 0.051256154),
    (
        0.6666666666666483, 0.3333333333329098, 0.1333333333465188, 0.044444444528836766,
        0.012698409775891605, 0.003174610461100383, 0.0007056401389583801, 0.0001396462298597762,
        2.9939163617331336e-05,
    ),
)
# (4 atanh(s) / s - 4) / s**2 in powers of s**2, for |s| <= 1/3: 2**-27.7, 2**-59.4
_LOG1P_Q = (
    (1.3333284, 0.80042875, 0.56006044, 0.5601362),
    (
        1.3333333333333262, 0.8000000000031182, 0.5714285709602199, 0.44444447921315755,
        0.3636348844123616, 0.3077310824180133, 0.2660208694294811, 0.2421116233321072,
        0.16684218086639108, 0.3403041438840034,
    ),
)
# -log(erfc(t)) / t - erf_slope for 0 <= t <= erf_max: 2**-27.8, 2**-55.4
_ERF_Q = (
    (
        -5.4117525e-08, 0.6366194, 0.10277783, -0.019153364, -0.0001592707, 0.0016653199,
        -0.0006315757, 0.000117192954, -9.1950715e-06,
    ),
    (
        -9.070394519668838e-18, 0.6366197723675909, 0.10277260330131728, -0.019128446993129804,
        -0.00020919485355917476, 0.0016962076675030241, -0.0005901324197041908,
        2.590446663279344e-05, 6.442055007939846e-05, -2.9575807511730074e-05,
        3.1698655404106376e-06, 3.1327522619135503e-06, -2.0370087506730646e-06,
        5.705099768329052e-07, -1.1641475395143837e-08, -6.576261611481716e-08,
        3.459493137106687e-08, -1.0776108210137864e-08, 2.361101187179456e-09,
        -3.761658813601434e-10, 4.3029075353596203e-11, -3.3652664384224043e-12,
        1.6153324499061428e-13, -3.59327240373363e-15,
    ),
)
# (sin(r) / r - 1) / r**2 in powers of r**2, for |r| <= 0.85 and 0.79: 2**-27.0, 2**-57.8
_SIN_Q = (
    (-0.16666648, 0.008331745, -0.00019461509),
    (
        -0.16666666666666627, 0.008333333333321128, -0.00019841269828771592,
        2.7557313329889286e-06, -2.5050701022167356e-08, 1.5893462554738764e-10,
    ),
)
# (cos(r) - 1 + r**2 / 2) / r**4 in powers of r**2, for the same r: 2**-31.7, 2**-63.8
_COS_Q = (
    (0.041666634, -0.0013886781, 2.4374356e-05),
    (
        0.04166666666666659, -0.0013888888888872167, 2.480158728827478e-05, -2.755731400736973e-07,
        2.0875676841480015e-09, -1.1357264473044364e-11,
    ),
)
# fmt: on

# What the formulas know about each type: name=(float32, float64).
_BOTH = {
    "zero": (0.0, 0.0),
    "half": (0.5, 0.5),
    "one": (1.0, 1.0),
    "inf": (math.inf, math.inf),
    "nan": (math.nan, math.nan),
    "sign_bit": (31, 63),
    "exponent_bit": (23, 52),
    "exponent_bias": (127, 1023),
    "exponent_mask": (-(2**23), -(2**52)),
    "ulp": (2.0**-23, 2.0**-52),
    # y + this has rint(y) in its lowest bits; minus this, it is rint(y) as a float.
    "round": (1.5 * 2**23, 1.5 * 2**52),
    # The same with n + 2 exponent_bias in the lowest bits: two halves of it build 2**n.
    "round_biased": (1.5 * 2**23 + 254, 1.5 * 2**52 + 2046),
    # Parts of ln(2) and pi/2, each cut to the type's precision toward zero: all positive, so that
    # a zero keeps its sign; n * part is exact inside an FMA (Cody & Waite 1980; Muller et al.,
    # Handbook of Floating-Point Arithmetic, 11.2).
    "ln2_hi": (0.6931471, 0.6931471805599453),
    "ln2_lo": (5.769999e-08, 2.3190468138462996e-17),
    "pio2_1": (1.5707963, 1.5707963267948966),
    "pio2_2": (7.5497894e-08, 6.123233995736765e-17),
    "pio2_3": (5.3903025e-15, 1.0828566739219139e-32),
    "one_over_ln2": (1 / math.log(2),) * 2,
    "one_over_pio2": (2 / math.pi,) * 2,
    "exp_min": (-104.0, -746.0),  # exp is 0 below
    "exp_max": (89.0, 710.0),  # exp is infinite above
    "expm1_min": (-20.0, -40.0),  # expm1 is -1 below
    "expm1_tiny": (2.0**-25, 2.0**-54),  # expm1(x) is x below
    "tanh_max": (10.0, 22.0),  # tanh is 1 above
    "tanh_near": (0.2599, 0.2599),  # just below 3 ln(2)/8, where n becomes 1
    "ln2_eighth": (math.log(2) / 8,) * 2,
    "erf_max": (3.95, 6.0),  # erf is 1 above
    "erf_slope": (2 / math.sqrt(math.pi),) * 2,
    "sin_max": (SIN_MAX[np.float32], SIN_MAX[np.float64]),
    "bits_of_3_4": (0x3F400000, 0x3FE8000000000000),
    "bits_of_4": (0x40800000, 0x4010000000000000),
    "normal_min": (2.0**-126, 2.0**-1022),
    "to_normal": (2.0**24, 2.0**54),  # times a subnormal number: a normal one
    "to_normal_bits": (24.0 * 2**23, 54.0 * 2**52),  # that exponent where it stays
    "expm1_q": _EXPM1_Q,
    "tanh_q": _TANH_Q,
    "log1p_q": _LOG1P_Q,
    "erf_q": _ERF_Q,
    "sin_q": _SIN_Q,
    "cos_q": _COS_Q,
}


def _constants(dtype, column):
    """One column of _BOTH. Its floats get dtype, since float32 * float64 computes in float64."""

    def cast(value):
        if isinstance(value, tuple):
            return tuple(map(cast, value))
        return dtype(value) if isinstance(value, float) else value

    fields = {name: cast(pair[column]) for name, pair in _BOTH.items()}
    return namedtuple("Constants", fields)(**fields)


_CONSTANTS = {types.float32: _constants(np.float32, 0), types.float64: _constants(np.float64, 1)}

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
            return template(_CONSTANTS[x]) if x in _CONSTANTS else None

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
