"""How a kernel is launched: its types and threads, the checks of a launch, memory, the stream.

A launch refuses what would be slow or wrong in silence: Numba copies an array of the host to the
GPU and back, and a size beyond 32 bits would wrap.
"""

import inspect
import math
import warnings
from contextlib import contextmanager
from copy import copy
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import types

from .blocks import PRECISIONS
from .target import SIMULATED, host, require

REALS: dict[np.dtype[Any], Any] = {
    np.dtype(np.float32): types.float32,
    np.dtype(np.float64): types.float64,
}
KERNELS: list["Kernel"] = []  # every kernel of the library: the offline tests compile them all
MOST = 2**31 - 1  # of an extent or a grid: indices are 32 bits wide
GRID = (MOST, 65535, 65535)  # blocks along x, y and z


class Kernel:
    """A function on the device: one signature, the bounds of its launches, and its launch."""

    def __init__(self, function, signature, threads, blocks, variant):
        self.function, self.signature = function, signature
        self.threads, self.bounds = threads, (threads, blocks)
        self.name, self.variant = function.__name__, variant
        parameters = inspect.signature(function).parameters
        self.operands = [  # (name, what it is in Numba, NumPy's type of an array's elements)
            (
                f"{self.name}: {name}",
                of,
                np.dtype(str(of.dtype)) if isinstance(of, types.Array) else None,
            )
            for name, of in zip(parameters, signature, strict=True)
        ]
        self._dispatcher = None
        KERNELS.append(self)

    def dispatcher(self):
        """Numba's own, compiled at the first launch: that takes a GPU."""
        if self._dispatcher is None:
            require()
            # No link-time optimisation: what runs is the PTX that the offline tests assemble.
            options = {} if SIMULATED else {"launch_bounds": self.bounds, "lto": False}
            self._dispatcher = host.jit(types.void(*self.signature), **options)(self.function)
        return self._dispatcher

    def __call__(self, grid, *arguments, shared=0):
        """Run on a grid of blocks, on the stream in use; `shared`: bytes of shared memory."""
        check_grid(self.name, grid, self.threads, self.threads)
        here = current_device()
        arguments = [
            check_array(name, argument, dtype, of.ndim, here) if dtype else cast(of, argument)
            for (name, of, dtype), argument in zip(self.operands, arguments, strict=True)
        ]
        configuration = grid, self.threads, stream(), shared
        if SIMULATED:  # whose kernels remember their last configuration
            run = copy(self.dispatcher())[configuration]
        else:
            run = configured(self, *configuration)
        if _kept is not None:
            _kept.append((run, arguments))
        if _kept is None or not SIMULATED:
            run(*arguments)


@lru_cache(maxsize=1024)
def configured(kernel, *configuration):
    """A kernel ready to be launched. Numba warns of grids below 128 blocks: ours are meant so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kernel.dispatcher()[configuration]


def kernel(*signature, threads, blocks=1, variant=""):
    """A kernel with these argument types and at most so many threads in a block.

    blocks: so many have room on a multiprocessor at the same time, which limits the registers.
    """
    return lambda function: Kernel(function, signature, threads, blocks, variant)


def variants(make, keys):
    """{(float type, *sizes): make(its Numba type, *sizes)}: kernels, named after their key."""
    kernels = {(dtype, *sizes): make(REALS[dtype], *sizes) for dtype, *sizes in keys}
    for key, each in kernels.items():
        each.variant = " ".join(map(str, filter(None, key)))
    return kernels


def for_reals(make):
    """{float type: make(its Numba type)}: a kernel for float32 and one for float64."""
    return {dtype: each for (dtype,), each in variants(make, [(dtype,) for dtype in REALS]).items()}


def check_grid(name, grid, threads, most):
    """A grid of no blocks, of too many, or with blocks that the kernel was not compiled for."""
    grid = grid if isinstance(grid, tuple) else (grid,)
    for axis, blocks, limit in zip("xyz", grid, GRID, strict=False):
        if not 1 <= blocks <= limit:
            raise ValueError(
                f"{name}: expected 1 to {limit} blocks along {axis}, got {blocks}; "
                "split the batch into smaller ones"
            )
    if not 1 <= math.prod(np.atleast_1d(threads).tolist()) <= most:
        raise ValueError(f"{name}: expected 1 to {most} threads in a block, got {threads}")


def cast(of, number):
    """A number as a kernel of one signature takes it."""
    if SIMULATED:
        return of(number)
    return (bool if of == types.boolean else float if isinstance(of, types.Float) else int)(number)


def check_array(name, array, dtype, axes, here):
    """The array, if a kernel on GPU `here` may take it; the kernel itself would not look."""
    if not hasattr(array, "__cuda_ndarray__" if SIMULATED else "__cuda_array_interface__"):
        raise TypeError(
            f"{name}: expected an array on the GPU, got {type(array).__module__}."
            f"{type(array).__qualname__}; move it with numba.cuda.to_device"
        )
    if max(array.shape, default=0) > MOST:
        raise ValueError(
            f"{name}: expected at most {MOST} elements along an axis (indices have 32 bits), "
            f"got shape {tuple(array.shape)}"
        )
    if array.dtype != dtype or len(array.shape) != axes:
        raise TypeError(
            f"{name}: expected {dtype} with {axes} axes, got {array.dtype} of shape "
            f"{tuple(array.shape)}; all arrays of a call have one float type"
        )
    if not is_contiguous(array):
        raise ValueError(f"{name}: expected a C-contiguous array; copy it into one")
    there = device_of(array)
    if there != here:
        raise ValueError(
            f"{name}: expected an array on GPU {here}, which is in use, got one on GPU {there}; "
            f"select it with numba.cuda.select_device({there}), or copy the array"
        )
    return array


def is_contiguous(array):
    """Whether an array is C-contiguous: one of Numba's, or what another library says of its own."""
    if hasattr(array, "is_c_contiguous"):
        return array.is_c_contiguous()
    return array.__cuda_array_interface__.get("strides") is None


def current_device():
    """The number of the GPU in use."""
    return 0 if SIMULATED else host.get_current_device().id


def device_of(array):
    """The number of the GPU that holds an array; an empty one is wherever it is needed."""
    if SIMULATED or array.size == 0:
        return current_device()
    if hasattr(array, "gpu_data"):
        return array.gpu_data.context.device.id
    return device_at(address_of(array))


def device_at(address):
    """The number of the GPU whose memory an address is in."""
    driver = host.cudadrv.driver.binding
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    error, ordinal = driver.cuPointerGetAttribute(attribute, address)
    return current_device() if int(error) else ordinal


def address_of(array):
    """The address of the first element."""
    if SIMULATED:
        return array._ary.ctypes.data
    return array.__cuda_array_interface__["data"][0]


def on_16_bytes(array):
    """Whether rows of an array begin on 16 bytes, four elements at a time."""
    return array.size > 0 and array.shape[array.ndim - 1] % 4 == 0 and address_of(array) % 16 == 0


def allocate(shape, dtype):
    """An array on the GPU, not initialised; a MemoryError says how much was asked for and free."""
    require()
    try:
        return host.device_array(shape, dtype)
    except (MemoryError, host.cudadrv.driver.CudaAPIError) as error:
        if isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error):
            wanted = math.prod(np.atleast_1d(shape).tolist()) * np.dtype(dtype).itemsize
            raise MemoryError(
                f"out of memory on the GPU: {wanted} bytes were asked for an array of shape "
                f"{shape}, {free_bytes()} are free; use smaller batches, or free other arrays"
            ) from error
        raise


@cache
def _nothing_on(number, dtype):
    return allocate((0, 0), dtype)


def nothing(like):
    """The operand (0, 0) that stands for one that is left out."""
    return _nothing_on(current_device(), like.dtype)


def read(array, begin, end):
    """Some numbers of an array on the GPU, on the host; waits for them."""
    values = array[begin:end].copy_to_host(stream=stream())
    synchronize()
    return values


def free_bytes():
    """Bytes that the GPU in use has left."""
    return 2**40 if SIMULATED else host.current_context().get_memory_info().free


class Plain:
    """What repeats steps by launching them again; graphs.Recorder records them."""

    def run(self, key, launches):
        """Do what `launches()` launches."""
        launches()


_using = [(0, "float32", Plain())]  # (stream, precision, recorder), the innermost last
_kept: list[Any] | None = None  # launches and their arguments while they are recorded


@contextmanager
def using(stream=None, precision=None, recorder=None):
    """How the launches inside of `with` run.

    stream: one of Numba's, or what records a graph. precision: of the products of wide layers in
    float32: "float32" exact, "tf32" or "bf16" on tensor cores, which round the operands to 10 or 7
    bits of mantissa and sum in float32. Nothing else is rounded. recorder: what repeats the steps
    of an epoch.
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    outer = _using[-1]
    stream = outer[0] if stream is None else stream
    _using.append((stream, precision or outer[1], recorder or outer[2]))
    try:
        yield
    finally:
        _using.pop()


@cache
def stream_of(number, purpose):
    """A stream of GPU `number` for a purpose, the same every time."""
    return host.stream()


def stream():
    """The stream in use."""
    return _using[-1][0]


def precision():
    """The precision in use."""
    return _using[-1][1]


def recorder():
    """What repeats the steps of an epoch."""
    return _using[-1][2]


@contextmanager
def recording():
    """Launches inside of `with` are kept with their arguments; the simulator runs none of them."""
    global _kept
    _kept = kept = []
    try:
        yield kept
    finally:
        _kept = None


def synchronize():
    """Wait for the stream in use."""
    if stream():
        stream().synchronize()
    else:
        host.synchronize()
