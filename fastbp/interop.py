"""Arrays that lie on a GPU, of any library, without a copy; and what a call refuses to mix.

In comes what speaks DLPack or has a `__cuda_array_interface__`: Numba, CuPy, PyTorch, JAX. Out come
Numba's device arrays, which have that interface, bound to the stream in use. Nothing here imports
CUDA until an array on a GPU is seen.
"""

from importlib import import_module
from typing import Any

import numpy as np

from .checks import FLOATS, fits, on_gpu, show


def as_gpu(
    name: str,
    value: Any,
    shape: tuple[int | str, ...],
    dtype: np.dtype[Any] | str | None = None,
    *,
    written: bool = False,
) -> Any:
    """Numba's view of an array on the GPU, checked as `checks.check_array` checks one of the host.

    dtype: None allows float32 and float64, "labels" every type of integers. `written`: it may not
    be read-only. Work on it waits for what its owner has launched before.

    Raises
    ------
    TypeError
        If it lies on the host, shares no memory, or has another dtype.
    ValueError
        If the shape or the layout in memory is wrong.
    """
    if not on_gpu(value):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{name}: expected an array on the GPU like the others, got {kind}; nothing is moved "
            f"in silence: pass numba.cuda.to_device({name}), or all arrays on the host"
        )
    array = view(name, value, written)
    if dtype == "labels" and array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer labels, got {array.dtype}; cast them")
    if dtype is None and array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}; cast it")
    if isinstance(dtype, np.dtype) and array.dtype != dtype:
        raise TypeError(
            f"{name}: expected {dtype} like the other arrays, got {array.dtype}; cast it"
        )
    if not fits(tuple(array.shape), shape):
        raise ValueError(f"{name}: expected shape {show(shape)}, got {show(array.shape)}")
    if not array.is_c_contiguous():
        raise ValueError(f"{name}: expected a C-contiguous array; copy it into one")
    launch = _launch()
    here, there = launch.current_device(), launch.device_of(array)
    if array is not value and array.size:  # Numba takes it to be here
        there = launch.device_at(launch.address_of(array))
    if there != here:
        raise ValueError(
            f"{name}: expected an array on GPU {here}, which is in use, got one on GPU {there}; "
            f"select it with numba.cuda.select_device({there}), or copy the array"
        )
    return array


def view(name: str, value: Any, written: bool = False) -> Any:
    """Numba's array over the memory of another library's."""
    if hasattr(type(value), "__cuda_ndarray__"):
        return value
    try:
        described, owner = describe(value, _launch().stream())
    except Exception as fault:
        raise TypeError(
            f"{name}: expected an array that shares its memory on the GPU, got "
            f"{type(value).__module__}.{type(value).__qualname__}, which does not: {fault}"
        ) from fault
    if written and described["data"][1]:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    return _target().host.from_cuda_array_interface(described, owner=owner, sync=False)


def describe(value: Any, stream: Any) -> tuple[dict[str, Any], Any]:
    """(a `__cuda_array_interface__`, whom to keep alive) of an array, in order for a stream."""
    if not hasattr(type(value), "__dlpack_device__"):
        found = value.__cuda_array_interface__
        _after(found.get("stream"), stream)
        return found, value
    memory = import_module("cuda.core.utils").StridedMemoryView.from_dlpack(
        value,
        stream_ptr=int(stream) or 1,  # in DLPack the default stream is 1
    )
    if memory.dtype is None:
        raise TypeError("its numbers are of a type that NumPy does not know")
    size = memory.dtype.itemsize
    strides = memory.strides and tuple(step * size for step in memory.strides)
    return {
        "version": 3, "shape": memory.shape, "strides": strides, "typestr": memory.dtype.str,
        "data": (memory.ptr, memory.readonly), "stream": None,
    }, memory  # fmt: skip


def _after(theirs: int | None, ours: Any) -> None:
    """Let our stream wait for what theirs has launched."""
    if theirs is None:
        return
    host = _target().host
    event = host.event(timing=False)
    event.record(host.external_stream(theirs))
    event.wait(ours)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], like: Any) -> Any:
    """A new array, where `like` lies; one on the GPU is bound to the stream in use."""
    if not on_gpu(like):
        return np.empty(shape, dtype)
    launch = _launch()
    return launch.allocate(shape, dtype).bind(launch.stream())


def home(array: Any) -> Any:
    """A copy on the host of what lies on the GPU: to say in an error which row is wrong."""
    return array.copy_to_host() if on_gpu(array) else array


def _launch() -> Any:
    return import_module(".kernels.cuda.launch", __package__)


def _target() -> Any:
    return import_module(".kernels.cuda.target", __package__)
