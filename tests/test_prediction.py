"""What `predict` keeps from one call to the next, and what it looks at again."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastbp

RNG = np.random.default_rng(0)


def network(dtype="float64", activation="tanh", k=3):
    layers = (
        fastbp.Dense(k, 8, activation=activation, dtype=dtype, rng=1),
        fastbp.Dropout(0.5, rng=0),
        fastbp.Dense(8, 2, dtype=dtype, rng=2),
    )
    return fastbp.Sequential(*layers)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "activation", ["relu", "gelu", lambda z: z * z], ids=["relu", "gelu", "z2"]
)
def test_batches_of_any_size_one_after_the_other(dtype, activation):
    net = network(dtype, activation)
    for n in (1, 5, 1, 0, 600, 2, 5000, 600):
        x = RNG.standard_normal((n, 3)).astype(dtype)
        y = network(dtype, activation).predict(x)
        assert y.shape == (n, 2)
        np.testing.assert_array_equal(net.predict(x), y)
        np.testing.assert_array_equal(net.predict(read_only(x)), y)


def test_the_parameters_of_now_count():
    net, x = network(), RNG.standard_normal((4, 3))
    before = net.predict(x)
    net.parameters *= 2
    after = net.predict(x)
    assert not np.allclose(before, after)
    net._operands.as_it_was, net._operands.words = False, None
    np.testing.assert_array_equal(net.predict(x), after)


def test_a_network_that_moves():
    net, x = network(), RNG.standard_normal((4, 3))
    before = net.predict(x)
    for device in ("reference", "cpu", "reference"):
        for _ in range(2):
            np.testing.assert_allclose(net.to(device).predict(x), before, rtol=1e-12)


WRONG = {
    "another dtype": lambda x: x.astype("f4"),
    "too few columns": lambda x: x[:, :2].copy(),
    "a vector": lambda x: x[:, 0].copy(),
    "a number": lambda x: np.float64(3),
    "every other column": lambda x: np.repeat(x, 2, 1)[:, ::2],
    "order of columns": lambda x: np.asfortranarray(x),
    "a list": lambda x: x.tolist(),
    "nothing": lambda x: None,
    "masked": lambda x: np.ma.masked_array(x),
    "text": lambda x: "x",
    "integers": lambda x: np.ones((4, 3), np.int64),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_no_batch_is_refused_as_in_a_first_call(change):
    x, faults = RNG.standard_normal((4, 3)), []
    # Kernels for both dtypes are there: what comes must not pass for another network's batch.
    network("float32").predict(x.astype("f4"))
    for kept in (False, True):
        net = network()
        net.parameters[:] = 0.5  # finite numbers in float32, too
        if kept:
            net.predict(x)
        with pytest.raises((TypeError, ValueError)) as fault:
            net.predict(change(x))
        faults.append((fault.type, str(fault.value)))
    assert faults[0] == faults[1]


def test_threads_that_predict_with_one_network():
    net = network("float32")
    batches = [RNG.standard_normal((n, 3)).astype("f4") for n in (1, 2, 40, 700)] * 50
    expected = [network("float32").predict(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for y, wanted in zip(pool.map(net.predict, batches), expected, strict=True):
            np.testing.assert_array_equal(y, wanted)


def test_threads_whose_first_predictions_compile():
    # Another type was compiled before, as in a process that has used both.
    code = """
import sys, threading
import numpy as np, fastbp

sys.setswitchinterval(1e-6)
ready, failed = threading.Barrier(8), []

def predict(dtype):
    net, x = fastbp.Sequential(fastbp.Dense(2, 1, dtype=dtype)), np.ones((3, 2), dtype)
    if dtype == "float32":
        ready.wait()
    try:
        net.predict(x)
    except Exception as fault:
        failed.append(fault)

predict("float64")
threads = [threading.Thread(target=predict, args=("float32",)) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failed)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout == "[]\n", ended.stderr
