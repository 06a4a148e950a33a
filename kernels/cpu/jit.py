"""How every CPU kernel is compiled and cached: the one place for Numba's options.

`kernel` makes a dispatcher with a disk cache: Python and any @njit code call it. `inline` makes a
small function that only kernels call; it is compiled into them and needs no cache of its own, and
no wrappers: Python runs it as it stands.
`spliced` is `inline` for a function that holds tiles, which Numba would optimise once for each
level of calls above it, or that hands on arrays: each of them is seven words of a call.
"""

import hashlib
import os
import warnings
from functools import cache
from pathlib import Path

import numba
from numba.core import caching
from numba.extending import register_jitable

OPTIONS = {
    # No "nnan" and no "ninf": a NaN must stay visible. No "reassoc": log(s) - (z - peak) would
    # become log(s) + peak - z, which is 0 for large z; long sums have it alone, by scalar.plus.
    "fastmath": {"nsz", "arcp", "contract", "afn"},
    "error_model": "numpy",  # a division by zero gives inf, and no branch in the loop
    "nogil": True,
}

inline = register_jitable(**OPTIONS, no_cfunc_wrapper=True)
spliced = numba.njit(**OPTIONS, inline="always")


@cache
def source_stamp():
    """One hash over all kernel sources and the vector width that was asked for.

    Numba's own stamp covers only the file of the function, but a kernel inlines formulas from
    other files: after a change there the cache would go on serving the old machine code.
    """
    digest = hashlib.sha256(os.environ.get("FASTBP_SIMD", "").encode())
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Stamped:
    def get_source_stamp(self):
        return source_stamp()


class _UserProvided(_Stamped, caching.UserProvidedCacheLocator):
    pass


class _InTree(_Stamped, caching.InTreeCacheLocator):
    pass


class _UserWide(_Stamped, caching.UserWideCacheLocator):
    pass


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = (_UserProvided, _InTree, _UserWide)

    def get_filename_base(self, fullname, abiflags):
        """A file of its own for each forced width: they would overwrite one another."""
        return super().get_filename_base(fullname, abiflags) + os.environ.get("FASTBP_SIMD", "")


class _Files(caching.IndexDataCacheFile):
    """An index whose entries name their data by what they are for.

    Numba numbers them: two processes that fill a cache at once both write number 1, and from then
    on the index of one leads to the machine code of the other, for other types.
    """

    def save(self, key, data):
        number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8])
        name = self._data_name(number)
        self._save_data(name, data)  # before the index leads there
        self._save_index(self._load_index() | {key: name})


class _KernelCache(caching.Cache):
    _impl_class = _KernelCacheImpl

    def __init__(self, function):
        super().__init__(function)
        locator, base = self._impl.locator, self._impl.filename_base
        self._cache_file = _Files(self._cache_path, base, locator.get_source_stamp())


@cache
def _warn_uncached():
    warnings.warn(
        "fastbp: no cache folder is writable, so every process compiles its kernels anew; "
        "set NUMBA_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )


def kernel(function, **more):
    """A Numba dispatcher with the library's options, and some more, and its disk cache."""
    dispatcher = numba.njit(**OPTIONS, **more)(function)
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError:  # numba: "no locator available"
        _warn_uncached()
    return dispatcher
