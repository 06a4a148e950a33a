"""The integers by which every twin knows an activation, and what each activation keeps.

A kernel takes the activation as a number: one compiled kernel serves them all, and one table of
shapes and codes describes a whole network.
"""

(
    IDENTITY,
    RELU,
    LEAKY_RELU,
    ELU,
    SIGMOID,
    TANH,
    SOFTPLUS,
    SILU,
    GELU,
    GELU_TANH,
    SIN,
) = range(11)

ACTIVATIONS = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "elu": ELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "softplus": SOFTPLUS,
    "silu": SILU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "sin": SIN,
}

# f'(z) follows from the output y for all others: only these keep z for the backward pass.
KEEPS_Z = frozenset({SILU, GELU, GELU_TANH, SIN})

LEAKY_SLOPE = 0.01  # f'(z) of leaky_relu for z < 0

# gelu_tanh(z) = z/2 (1 + tanh(GELU_SCALE (z + GELU_CUBIC z**3))), Hendrycks & Gimpel 2016
GELU_SCALE = 0.7978845608028654  # sqrt(2/pi)
GELU_CUBIC = 0.044715
GELU_EDGE = 20.0  # beyond, tanh is 1 to the last bit and its slope times z is 0
SQRT_HALF = 0.7071067811865476
INV_SQRT_2PI = 0.3989422804014327
