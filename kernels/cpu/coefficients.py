"""The numbers that elementary.py computes with, for float32 and float64.

Minimax coefficients and split constants come from bench/minimax.py.
"""

import math
from collections import namedtuple

import numpy as np
from numba import types

SIN_MAX = {np.float32: 2.0**18, np.float64: 2.0**40}

# Coefficients, constant term first: float32, then float64. Each comment ends with the
# largest errors, relative to the function that the polynomial serves.
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


CONSTANTS = {types.float32: _constants(np.float32, 0), types.float64: _constants(np.float64, 1)}
