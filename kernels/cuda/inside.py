"""A network inside of the user's own @cuda.jit kernels: one thread predicts one row.

    @cuda.jit
    def closed_loop(table, parameters, state, steps):
        room = cuda.local.array((2, 32), numba.float32)  # 32: the widest layer
        x, y = ...
        predict(table, parameters, x, room, y)

For many rows at once and for wide layers `network_forward` is faster: it shares what it reads.
"""

from ..codes import ACTIVATION, DENSE, KIND, B, K, M, W
from .activations import apply
from .target import device


@device
def predict(table, parameters, x, room, y):
    """y = the output of the network for one row, as network_forward computes it without training.

    table: (layers, 10), on the GPU, x: (k,), y: (m,), room: (2, widest layer) of this thread.
    """
    layers = table.shape[0]
    for p in range(table[0, K]):
        room[0, p] = x[p]
    side = 0
    for i in range(layers):
        if table[i, KIND] == DENSE:  # dropout does nothing when it predicts
            k, m, at_w, at_b = table[i, K], table[i, M], table[i, W], table[i, B]
            for j in range(m):
                z = parameters[at_b + j] if at_b >= 0 else parameters.dtype.type(0)
                for p in range(k):
                    z += room[side, p] * parameters[at_w + p * m + j]
                room[1 - side, j] = apply(table[i, ACTIVATION], z)
            side = 1 - side
    for j in range(table[layers - 1, M]):
        y[j] = room[side, j]
