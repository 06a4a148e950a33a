"""Arrays of other libraries on the GPU go in without a copy, and nothing is moved in silence."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

import fastbp
from fastbp import functional, interop
from fastbp import gpu as gpu_module
from fastbp.checks import on_gpu
from fastbp.kernels import reference
from fastbp.kernels.cuda import launch, target

anywhere = pytest.mark.anywhere
rng = np.random.default_rng(0)
X, W, B, T = (rng.standard_normal(shape) for shape in ((5, 3), (3, 2), 2, (5, 2)))
S, LABELS = rng.random(5), np.arange(5) % 2
DY = rng.standard_normal((5, 2))
SATURATES = np.where(np.arange(15).reshape(5, 3) == 3, np.inf, X)  # tanh hides it from a loss
LOSSES = {
    "squared_error": T,
    "half_squared_error": T,
    "huber": T,
    "binary_cross_entropy": np.abs(np.tanh(T)),
    "softmax_cross_entropy": LABELS,
}


@pytest.fixture(autouse=True)
def the_host_computes_in_numpy(monkeypatch):
    """So that nothing is compiled for it."""
    monkeypatch.setattr(functional, "cpu", reference)


def gpu(array):
    return target.host.to_device(array)


def home(value):
    return value.copy_to_host() if on_gpu(value) else value


def both(function, *arrays, **options):
    """The results of a function on the GPU and on the host."""
    there = function(*(gpu(a) if isinstance(a, np.ndarray) else a for a in arrays), **options)
    assert all(on_gpu(one) for one in there if hasattr(one, "shape"))
    return zip(map(home, there), function(*arrays, **options), strict=True)


@pytest.mark.parametrize("f", ["tanh", "gelu"])
def test_a_layer_of_arrays_on_the_gpu(f, close):
    for actual, expected in both(functional.dense_forward, X, W, B, f):
        close(actual, expected)
    saved = functional.dense_forward(X, W, B, f)[1]
    for actual, expected in both(functional.dense_backward, DY, X, W, saved, f):
        close(actual, expected)
    dx, _, db = functional.dense_backward(
        *map(gpu, (DY, X, W, saved)), f, bias=False, need_dx=False
    )
    assert dx is None
    assert db is None


def test_a_layer_writes_where_it_is_told(close):
    y, dw = gpu(np.empty((5, 2))), gpu(np.empty((3, 2)))
    given, _ = functional.dense_forward(gpu(X), gpu(W), out=y)
    assert given is y
    close(home(y), X @ W)
    result = functional.dense_backward(gpu(DY), gpu(X), gpu(W), y, out=(None, dw))
    assert result[1] is dw
    close(home(dw), X.T @ DY)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_arrays_on_the_gpu(name, close):
    for actual, expected in both(getattr(functional, name), T, LOSSES[name], S):
        close(np.asarray(actual), expected)


def make(device):
    return fastbp.Sequential(
        fastbp.Dense(3, 5, activation="tanh", dtype="float64", rng=0),
        fastbp.Dense(5, 2, dtype="float64", rng=2),
        device=device,
    )


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("weights", [None, S], ids=["", "weights"])
def test_a_network_takes_and_returns_arrays_on_the_gpu(loss, weights, close):
    def run(device, place):
        net = make(device)
        x, t = place(X), place(LOSSES[loss])
        s = None if weights is None else place(weights)
        fit = {"loss": loss, "epochs": 2, "batch_size": 2, "seed": 0, "sample_weight": s}
        history = net.fit(x, t, validation_data=(x, t), **fit)
        value = net.train_step(x, t, loss, fastbp.SGD(0.1), sample_weight=s)
        first, dx = net.loss_and_gradients(x, t, loss, sample_weight=s)
        y, scores = net.predict(x), net.evaluate(x, t, sample_weight=s)
        assert on_gpu(dx) is on_gpu(y) is (place is gpu)
        proba = [] if loss == "squared_error" else [home(net.predict_proba(x))]
        columns = history.validation.values()
        return [history.loss, *columns, value, first, home(dx), home(y), *scores.values(), *proba]

    for actual, expected in zip(run("cuda", gpu), run("reference", lambda a: a), strict=True):
        close(np.asarray(actual), expected)


def test_one_hot_targets_have_an_accuracy(close):
    t = np.eye(2)[LABELS]
    t[0] = 0.3, 0.7

    def run(device, place):
        return make(device).evaluate(place(X), place(t), loss="softmax_cross_entropy")

    assert run("cuda", gpu)["accuracy"] == run("reference", lambda a: a)["accuracy"]


def test_data_on_the_gpu_are_not_uploaded(monkeypatch):
    x, t, uploads = gpu(X), gpu(LABELS), []
    copy = type(x).copy_to_device
    monkeypatch.setattr(
        type(x), "copy_to_device", lambda a, b, stream=0: uploads.append(b) or copy(a, b, stream)
    )
    net = make("cuda")
    net.fit(x, t, loss="softmax_cross_entropy", epochs=2, batch_size=2, seed=0)
    assert not any(np.shape(each) in (X.shape, LABELS.shape) for each in uploads)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.dense_forward(gpu(X), W), r"w: expected an array on the GPU .*numpy"),
        (lambda: functional.dense_forward(gpu(X), gpu(W), B), "b: .*pass numba.cuda.to_device"),
        (lambda: functional.dense_forward(X, gpu(W)), "w: expected a NumPy array, got .* on a GPU"),
        (lambda: functional.squared_error(gpu(T), T), "t: expected an array on the GPU like"),
        (lambda: functional.squared_error(T, gpu(T)), "t: expected a NumPy array"),
        (lambda: make("cuda").fit(gpu(X), T, loss="squared_error"), "t: expected an array on the"),
        (lambda: make("cuda").fit(X, gpu(T), loss="squared_error"), "t: expected a NumPy array"),
        (lambda: make("cpu").predict(gpu(X)), "x: expected a NumPy .* network with device='cuda'"),
        (lambda: functional.dense_forward(gpu(X), gpu(W.astype("f4"))), "x: expected float32"),
        (lambda: functional.softmax_cross_entropy(gpu(T), gpu(S)), "t: expected integer labels"),
        (lambda: functional.dense_forward(gpu(X.astype(int)), gpu(W.astype(int))), "float64, got"),
    ],
)
def test_a_mixture_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.dense_forward(gpu(X), gpu(W.T.copy())), r"x: expected shape \(n, 2\)"),
        (lambda: functional.dense_forward(gpu(X), gpu(np.zeros((3, 4)))[:, ::2]), "C-contiguous"),
        (lambda: same_memory(gpu(DY)), "out: expected memory of its own"),
        (lambda: functional.squared_error(gpu(T), gpu(T), gpu(-S)), "sample_weight: expected fin"),
        (
            lambda: functional.squared_error(gpu(T), gpu(T), gpu(S * 1e-320)),
            r"sample_weight: .* divide them by their largest",
        ),
        (
            lambda: make("cuda").evaluate(gpu(SATURATES), gpu(T), "squared_error"),
            "x: expected finite numbers, got NaN or infinity, first in row 1",
        ),
        (
            lambda: functional.softmax_cross_entropy(gpu(T), gpu(LABELS + 1)),
            r"t: expected labels in 0\.\.1, got 2 in row 1",
        ),
        (lambda: make("cuda").fit(gpu(X * np.inf), gpu(T), loss="huber"), "x: .*row 0"),
        (
            lambda: make("cuda").fit(gpu(X), gpu(-LABELS), loss="softmax_cross_entropy"),
            "t: expected labels",
        ),
        (
            lambda: functional.dense_forward(gpu(X), gpu(W), precision="tf32"),
            "precision: expected None for a network in float64",
        ),
    ],
)
def test_what_a_kernel_cannot_take_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def same_memory(dy):
    return functional.squared_error(dy, gpu(T), out=dy)


def test_a_tensor_of_another_gpu_is_refused(monkeypatch):
    x, w = gpu(X), gpu(W)
    monkeypatch.setattr(launch, "device_of", lambda array: int(array is x))
    with pytest.raises(ValueError, match=r"x: expected an array on GPU 0, .*select_device\(1\)"):
        functional.dense_forward(x, w)


def test_an_array_of_another_library_on_another_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(interop, "view", lambda name, value, written: gpu(X))
    monkeypatch.setattr(launch, "device_at", lambda address: 1)
    with pytest.raises(ValueError, match=r"x: expected an array on GPU 0, .*select_device\(1\)"):
        interop.as_gpu("x", Foreign(), ("n", 3))


# What describes memory: DLPack's structures (dmlc/dlpack, dlpack.h), on a GPU that need not be here


class Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("number", ctypes.c_int32)]


class Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
        ("owner", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]


class Foreign:
    """An array (3, 4) of float32 of another library, in DLPack."""

    def __init__(self, kind=2, strides=None):
        self.shape = (ctypes.c_int64 * 2)(3, 4)
        self.steps = (ctypes.c_int64 * 2)(*strides) if strides else None
        self.tensor = Tensor(
            0x7000, Device(kind, 0), 2, Type(2, 32, 1), self.shape, self.steps, 16, None, None
        )
        self.streams = []

    def __dlpack_device__(self):
        return self.tensor.device.kind, 0

    def __dlpack__(self, *, stream=None, **more):
        self.streams.append(stream)
        capsule = ctypes.pythonapi.PyCapsule_New
        capsule.restype, capsule.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return capsule(ctypes.addressof(self.tensor), b"dltensor", None)


@anywhere
@pytest.mark.parametrize(("kind", "expected"), [(1, False), (2, True), (3, False), (13, True)])
def test_dlpack_says_where_an_array_lies(kind, expected):
    assert on_gpu(Foreign(kind)) is expected


@anywhere
def test_what_has_no_interface_lies_on_the_host():
    assert not any(map(on_gpu, (None, 1.0, [1.0], np.ones(2), "x")))
    assert on_gpu(SimpleNamespace(__cuda_array_interface__={}))


@anywhere
@pytest.mark.skipif(target.host is None, reason="numba-cuda is not installed")
@pytest.mark.parametrize("stream", [0, 7])
def test_dlpack_is_described_without_a_copy_and_on_our_stream(stream):
    array = Foreign(strides=(8, 2))
    described, owner = interop.describe(array, stream)
    assert described["data"] == (0x7010, False)
    assert described["typestr"] == "<f4"
    assert (tuple(described["shape"]), described["strides"]) == ((3, 4), (32, 8))
    assert array.streams == [stream or 1]  # 1: DLPack's number for the default stream
    assert owner.ptr == 0x7010
    assert interop.describe(Foreign(), 0)[0]["strides"] is None


@anywhere
@pytest.mark.parametrize("theirs", [None, 5])
def test_our_stream_waits_for_theirs(theirs, monkeypatch):
    calls = []

    class Event:
        def record(self, stream):
            calls.append(("record", stream))

        def wait(self, stream):
            calls.append(("wait", stream))

    host = SimpleNamespace(event=lambda timing: Event(), external_stream=lambda s: f"stream {s}")
    monkeypatch.setattr(target, "host", host)
    interface = {"data": (0, False), "stream": theirs}
    array = SimpleNamespace(__cuda_array_interface__=interface)
    assert interop.describe(array, "ours") == (interface, array)
    assert calls == ([("record", "stream 5"), ("wait", "ours")] if theirs else [])


@anywhere
def test_a_tensor_that_shares_nothing_says_why():
    class Tracked:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, **more):
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    if target.host is None:
        pytest.skip("numba-cuda is not installed")
    with pytest.raises(TypeError, match=r"x: expected an array that shares .* use tensor\.detach"):
        interop.view("x", Tracked())


@anywhere
def test_streams_of_other_libraries_are_used(monkeypatch):
    class Stream:
        def __init__(self, address):
            self.address = address

        def __cuda_stream__(self):
            return 0, self.address

    monkeypatch.setattr(gpu_module, "host", SimpleNamespace(external_stream=lambda a: f"<{a}>"))
    for given, expected in ((7, "<7>"), (Stream(9), "<9>"), (Stream(0), 0), (0, 0)):
        with gpu_module.using(stream=given):
            assert launch.stream() == expected
    with gpu_module.using(precision="bf16"):
        assert (launch.stream(), launch.precision()) == (0, "bf16")


def test_results_are_on_the_stream_in_use():
    stream = target.host.stream()
    with launch.using(stream=stream):
        y, _ = functional.dense_forward(gpu(X), gpu(W))
    assert y.stream is stream
