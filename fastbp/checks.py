"""Checks of what a user passes in. Nothing is copied or cast here: a message says how to do it.

Each error names the argument, what was expected, what came, and the way out.
"""

import math
from collections.abc import Collection, Iterable
from typing import Any, TypeGuard

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
CUDA_KINDS = (2, 13)  # of DLPack: memory of a GPU, memory that GPU and host share
INTEGERS = int, np.integer
NUMBERS = int, float, np.integer, np.floating
OTHER_MEANINGS = np.ma.MaskedArray, np.matrix  # arrays that are more than their numbers


class _Unlocked:
    """The memory of a read-only array for kernels, which never write to an input.

    Numba compiles a second machine code for every mix of read-only and writable arguments; through
    this view all of them share one.
    """

    def __init__(self, locked: Array) -> None:
        self.owner = locked
        address, _ = locked.__array_interface__["data"]
        self.__array_interface__ = {**locked.__array_interface__, "data": (address, False)}


def on_gpu(value: object) -> bool:
    """Whether an array lies on a GPU."""
    if isinstance(value, np.ndarray) or value is None:
        return False
    if hasattr(type(value), "__cuda_ndarray__"):
        return True  # Numba's own
    if hasattr(type(value), "__dlpack_device__"):
        device: tuple[int, int] = value.__dlpack_device__()  # type: ignore[attr-defined]
        return device[0] in CUDA_KINDS
    return hasattr(value, "__cuda_array_interface__")


def show(shape: Iterable[int | str]) -> str:
    """A shape as messages write it."""
    sizes = [str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _layout(value: Array) -> str:
    return "an F-ordered one" if value.flags.f_contiguous else "a strided view"


def check_plain(name: str, value: Array) -> None:
    """Raise TypeError for the kinds of array with another meaning than their numbers."""
    if isinstance(value, OTHER_MEANINGS):
        raise TypeError(
            f"{name}: expected a plain NumPy array, got {type(value).__name__}; "
            "fill the masked entries or pass np.asarray(...)"
        )


def fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Whether a shape is the wanted one; a letter stands for any size."""
    if shape == wanted:
        return True
    if len(shape) != len(wanted):
        return False
    if shape[1:] == wanted[1:] and type(wanted[0]) is str:  # of almost every other call
        return True
    return all(got == want or type(want) is str for got, want in zip(shape, wanted, strict=True))


def is_ready(
    value: object, shape: tuple[int | str, ...], dtype: np.dtype[Any] | None
) -> TypeGuard[Array]:
    """Whether kernels take a value as it is, to read and to write: so is almost every one."""
    return (
        type(value) is np.ndarray
        and (value.dtype in FLOATS if dtype is None else value.dtype == dtype)  # None == float64
        and value.flags.carray
        and fits(value.shape, shape)
    )


def check_array(
    name: str, value: object, shape: tuple[int | str, ...], dtype: np.dtype[Any] | None = None
) -> Array:
    """`value` itself, once it is an aligned C-ordered float array of this shape.

    A letter in `shape` stands for any size. `dtype` None allows float32 and float64.

    Raises
    ------
    TypeError
        If it is no NumPy array, or not of the dtype.
    ValueError
        If the shape or the layout in memory is wrong.
    """
    if not isinstance(value, np.ndarray):
        if on_gpu(value):
            raise TypeError(
                f"{name}: expected a NumPy array, got {type(value).__module__}."
                f"{type(value).__qualname__} on a GPU; nothing is moved in silence: copy it to the "
                "host, or pass all arrays on the GPU, to a network with device='cuda'"
            )
        raise TypeError(
            f"{name}: expected a NumPy array, got {type(value).__name__}; "
            f"pass np.asarray({name}, dtype=np.{dtype or 'float32'})"
        )
    if is_ready(value, shape, dtype):
        return value  # below, what is wrong is found and named
    check_plain(name, value)
    if dtype is None and value.dtype not in FLOATS:
        raise TypeError(
            f"{name}: expected float32 or float64, got {value.dtype}; "
            f"pass {name}.astype(np.float32) or {name}.astype(np.float64)"
        )
    if dtype is not None and value.dtype != dtype:
        raise TypeError(
            f"{name}: expected {dtype} like the other arrays, got {value.dtype}; "
            f"pass {name}.astype(np.{dtype})"
        )
    if not fits(value.shape, shape):
        raise ValueError(f"{name}: expected shape {show(shape)}, got {show(value.shape)}")
    if not value.flags.c_contiguous:
        raise ValueError(
            f"{name}: expected a C-contiguous array, got {_layout(value)}; "
            f"pass np.ascontiguousarray({name})"
        )
    if not value.flags.aligned:
        raise ValueError(f"{name}: expected aligned memory, got unaligned; pass {name}.copy()")
    return value


def as_input(
    name: str, value: object, shape: tuple[int | str, ...], dtype: np.dtype[Any] | None = None
) -> Array:
    """The checked array as kernels take it; it may be read-only."""
    if is_ready(value, shape, dtype):
        return value
    return unlocked(check_array(name, value, shape, dtype))


def unlocked(array: Array) -> Array:
    """A view of the same memory that counts as writable, for inputs of kernels."""
    return array if array.flags.writeable else np.asarray(_Unlocked(array))


def as_output(
    name: str, value: object, shape: tuple[int | str, ...], dtype: np.dtype[Any] | None = None
) -> Array:
    """The checked array, which must be writable."""
    array = check_array(name, value, shape, dtype)
    if not array.flags.writeable:
        raise ValueError(
            f"{name}: expected a writable array, got a read-only one; pass {name}.copy()"
        )
    return array


def check_finite(name: str, array: Array) -> None:
    """Raise ValueError with the first row that holds NaN or infinity."""
    rows = max(1, 2**20 // max(1, array[0].size if len(array) else 1))
    for start in range(0, len(array), rows):  # in blocks: the data may be a file larger than memory
        block = np.isfinite(array[start : start + rows])
        if not block.all():
            row = start + int(np.argmin(block.reshape(len(block), -1).all(axis=1)))
            raise ValueError(
                f"{name}: expected finite numbers, got NaN or infinity, first in row {row}; "
                "drop or fill such rows"
            )


def check_choice(name: str, value: object, known: Collection[str]) -> str:
    """`value` if it is one of the known names, else ValueError that lists them."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}; got {value!r}")
    return value


def check_number(
    name: str,
    value: object,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """`value` as a finite float within [low, high]; `above` and `below` leave out the ends."""
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    number = float(value)
    enough = low < number if above else low <= number
    small = number < high if below else number <= high
    if not (math.isfinite(number) and enough and small):
        lower = "" if low == -np.inf else f" {'>' if above else '>='} {low:g}"
        wanted = lower if high == np.inf else f"{lower} and {'<' if below else '<='} {high:g}"
        raise ValueError(f"{name}: expected a finite number{wanted}, got {number:g}")
    return number


def check_count(name: str, value: object, low: int = 1) -> int:
    """`value` as an int of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, INTEGERS):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"{name}: expected an integer >= {low}, got {value}")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """`value` as a bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def check_dtype(dtype: object) -> np.dtype[Any]:
    """float32 or float64 as a NumPy dtype."""
    try:
        found = None if dtype is None else np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None or found not in FLOATS:  # NumPy takes None for float64
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
    return found


def as_generator(rng: object, name: str = "rng") -> np.random.Generator:
    """A Generator from a Generator, a seed >= 0, or None (fresh entropy)."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    if isinstance(rng, INTEGERS) and not isinstance(rng, bool):
        return np.random.default_rng(check_count(name, rng, 0))
    raise TypeError(
        f"{name}: expected a numpy.random.Generator or an integer seed, got {type(rng).__name__}"
    )
