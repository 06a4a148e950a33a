"""The integers by which every twin knows an activation, a loss, an optimiser, and a whole network.

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

# From here on, the code of an activation or a loss is the address of a function that was compiled
# from an expression (cpu/expressions.py). Such an activation keeps f'(z) for the backward pass.
EXPRESSION = 2**12


def keeps_array(activation):
    """Whether the forward pass keeps an array besides y: z, or f'(z) of an expression."""
    return activation in KEEPS_Z or activation >= EXPRESSION


LEAKY_SLOPE = 0.01  # f'(z) of leaky_relu for z <= 0

# gelu_tanh(z) = z/2 (1 + tanh(GELU_SCALE (z + GELU_CUBIC z**3))), Hendrycks & Gimpel 2016
GELU_SCALE = 0.7978845608028654  # sqrt(2/pi)
GELU_CUBIC = 0.044715
GELU_EDGE = 20.0  # beyond, tanh is 1 to the last bit and its slope times z is 0
SQRT_HALF = 0.7071067811865476
INV_SQRT_2PI = 0.3989422804014327

# Losses, optimisers and clippings, where one kernel serves them all (network.py).
(
    SQUARED_ERROR,
    HALF_SQUARED_ERROR,
    HUBER,
    BINARY_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    SPARSE_SOFTMAX_CROSS_ENTROPY,
) = range(6)

LOSSES = {
    "squared_error": SQUARED_ERROR,
    "half_squared_error": HALF_SQUARED_ERROR,
    "huber": HUBER,
    "binary_cross_entropy": BINARY_CROSS_ENTROPY,
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "sparse_softmax_cross_entropy": SPARSE_SOFTMAX_CROSS_ENTROPY,
}

NO_CLIP, CLIP_NORM, CLIP_VALUE = range(3)
SGD, NESTEROV, ADAMW, RMSPROP = range(4)

# A network is a table of integers, a row per layer. Offsets count elements: those of w and b from
# the begin of the parameters, those of y and z of a row from the begin of the activations, which
# lie one layer after the other, n rows each. -1: there is none.
#
# Layers may share places for y and z. AGAIN of a layer then names the first one below it whose y
# and z the backward pass computes again before it comes to this layer: all up to this one, whose
# own y and z are still there. -1: nothing is computed again.
KIND, K, M, ACTIVATION, W, B, Y, Z, SEED, AGAIN = range(10)
COLUMNS = AGAIN + 1
DENSE, DROPOUT = range(2)

# What a step does: integers, and numbers. From FIRST on stand the optimiser's own numbers, after
# them each layer's dropout rate.
LOSS, CLIP, OPTIMIZER, STEP, WEIGHTS = range(5)
DELTA, L2, LIMIT, FIRST = range(4)
RATES = FIRST + 5

# Between the seeds of a dropout layer's masks, from one pass to the next; odd, so that no seed
# comes twice.
NEXT_SEED = 0xD1342543DE82EF95
