"""A network inside of a kernel that is not ours."""

import numpy as np
import pytest

import fastbp
from fastbp.kernels.cuda import target
from fastbp.kernels.cuda.inside import predict
from fastbp.plan import Plan

WIDEST = 9

if target.cuda is not None:
    from numba import cuda

    def predict_rows(table, parameters, x, y):
        room = cuda.local.array((2, WIDEST), x.dtype)
        i = cuda.grid(1)
        if i < x.shape[0]:
            predict(table, parameters, x[i], room, y[i])


@pytest.mark.filterwarnings("ignore:Grid size")  # Numba wants 128 blocks
@pytest.mark.parametrize("bias", [True, False])
def test_a_thread_predicts_what_the_network_predicts(activation, bias, dtype, close):
    layers = [
        fastbp.Dense(3, WIDEST, activation=activation, bias=bias, dtype=dtype.name, rng=0),
        fastbp.Dropout(0.5, rng=1),
        fastbp.Dense(WIDEST, 2, dtype=dtype.name, rng=2),
    ]
    net, plan = fastbp.Sequential(*layers, device="reference"), Plan(layers, 3)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    y = cuda.to_device(np.full((5, 2), np.nan, dtype))
    arguments = (cuda.to_device(a) for a in (plan.table, net.parameters, x))
    cuda.jit(predict_rows)[2, 4](*arguments, y)
    close(y.copy_to_host(), net.predict(x))
