"""What is missing, and what a launch refuses: errors that say the argument and the way out."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import fastbp
from fastbp.kernels import codes, cuda
from fastbp.kernels.cuda import launch, target

anywhere = pytest.mark.anywhere


@anywhere
def test_import_is_quiet_and_leaves_cuda_alone():
    code = "import sys, fastbp; sys.exit('numba.cuda' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@anywhere
@pytest.mark.parametrize(
    ("missing", "available", "message"),
    [
        ("numba-cuda is not installed", False, r'pip install "fastbp\[cuda\]" for CUDA 13'),
        ("", False, "there is no NVIDIA GPU with a working driver; nvidia-smi"),
    ],
)
def test_asking_for_cuda_says_what_is_missing(missing, available, message, monkeypatch):
    monkeypatch.setattr(target, "missing", missing)
    monkeypatch.setattr(target, "SIMULATED", False)
    monkeypatch.setattr(target, "host", SimpleNamespace(is_available=lambda: available))
    for ask in (target.require, lambda: fastbp.Sequential(fastbp.Dense(2, 1), device="cuda")):
        with pytest.raises(ValueError, match=f"device: 'cuda' cannot be used here: .*{message}"):
            ask()


@anywhere
@pytest.mark.skipif(target.cuda is None, reason="numba-cuda is not installed")
def test_numpy_without_row_stack_is_mended():
    code = (
        "import fastbp, numpy as np; vars(np).pop('row_stack', None)\n"
        "from fastbp.kernels.cuda import target; assert vars(np)['row_stack'] is np.vstack"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def device(*shape, dtype=np.float32):
    return target.host.to_device(np.zeros(shape, dtype))


def test_an_array_of_the_host_is_refused():
    y = np.zeros(3, np.float32)
    message = r"activate: y: expected an array on the GPU, got numpy\.ndarray; .*to_device"
    with pytest.raises(TypeError, match=message):
        cuda.activate(codes.RELU, y)


def test_arrays_of_another_gpu_are_refused(monkeypatch):
    gradients, parameters = device(3), device(3)
    monkeypatch.setattr(launch, "device_of", lambda array: int(array is parameters))
    message = r"sgd: parameters: expected an array on GPU 0, which is in use, got one on GPU 1; "
    with pytest.raises(ValueError, match=message + r"select it with numba\.cuda\.select_device"):
        cuda.sgd(gradients, 0.1, 0.0, False, parameters, parameters[:0])


@anywhere
@pytest.mark.parametrize(
    ("grid", "threads", "message"),
    [
        (0, 32, "sum: expected 1 to 2147483647 blocks along x, got 0; split the batch"),
        ((1, 65536), 32, "sum: expected 1 to 65535 blocks along y, got 65536; split the batch"),
        (1, 65, "sum: expected 1 to 64 threads in a block, got 65"),
        (1, 0, "sum: expected 1 to 64 threads in a block, got 0"),
    ],
)
def test_a_grid_or_a_block_of_the_wrong_size_is_refused(grid, threads, message):
    with pytest.raises(ValueError, match=message):
        launch.check_grid("sum", grid, threads, 64)


@anywhere
@pytest.mark.parametrize("shape", [(2**31,), (2, 2**31), (2**31, 1)], ids=str)
def test_extents_beyond_32_bits_are_refused(shape):
    array = SimpleNamespace(shape=shape, __cuda_array_interface__={}, __cuda_ndarray__=True)
    message = r"sum: a: expected at most 2147483647 elements along an axis .* got shape"
    with pytest.raises(ValueError, match=message):
        launch.check_array("sum: a", array, np.dtype(np.float32), len(shape), 0)


def test_another_type_or_layout_is_refused():
    parameters, velocity = device(3), device(0)
    for gradients, error, message in (
        (device(3, dtype=np.float64), TypeError, "expected float32 with 1 axes, got float64 of"),
        (device(3, 1), TypeError, r"expected float32 with 1 axes, got float32 of shape \(3, 1\)"),
        (device(6)[::2], ValueError, "expected a C-contiguous array; copy it into one"),
    ):
        with pytest.raises(error, match=f"sgd: gradients: {message}"):
            cuda.sgd(gradients, 0.1, 0.0, False, parameters, velocity)


@anywhere
@pytest.mark.parametrize(("strides", "expected"), [(None, True), ((8, 4), False)])
def test_an_array_of_another_library_says_its_layout(strides, expected):
    array = SimpleNamespace(__cuda_array_interface__={"strides": strides})
    assert launch.is_contiguous(array) is expected


def test_out_of_memory_says_how_much(monkeypatch):
    if target.SIMULATED:

        def full(shape, dtype):
            raise MemoryError

        monkeypatch.setattr(target.host, "device_array", full)
    size = 2**60
    message = rf"out of memory on the GPU: {4 * size} bytes were asked for .* bytes? are free"
    with pytest.raises(MemoryError, match=message.replace("bytes?", r"\d+")):
        launch.allocate(size, np.float32)


@anywhere
def test_small_grids_are_launched_in_silence():
    class Dispatcher:
        def __getitem__(self, configuration):
            warnings.warn("Grid size 1 will likely result in GPU under-utilization", stacklevel=1)
            return configuration

    kernel = type("Kernel", (), {"dispatcher": lambda self: Dispatcher()})()
    assert launch.configured(kernel, 1, 32, 0, 0) == (1, 32, 0, 0)
    assert launch.configured(kernel, 1, 32, 0, 0) == (1, 32, 0, 0)


def test_launches_go_to_the_stream_in_use():
    stream, y = target.host.stream(), device(5)
    with launch.using(stream=stream):
        assert launch.stream() is stream
        cuda.activate(codes.SIGMOID, y)
        assert launch.read(y, 4, 5).tolist() == [0.5]
    assert launch.stream() == 0


@anywhere
def test_a_precision_that_does_not_exist_is_refused():
    message = "precision: expected one of float32, tf32, bf16, got 'fp8'"
    with pytest.raises(ValueError, match=message), launch.using(precision="fp8"):
        pass
    assert launch.precision() == "float32"
