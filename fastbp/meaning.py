"""When a function gives the same expression again: by its code, and by all that it reads."""

import builtins
import dis
import math
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from . import graph

SCALARS = {bool, int, float, str, type(None)}
PURE = (abs, enumerate, float, int, len, max, min, pow, range, reversed, round, sum, tuple, zip)
SAFE = {id(one) for one in (graph, math, *PURE)}  # whose answers depend on arguments alone
# What brings in more than a function reads, or changes it.
EFFECTS = {dis.opmap[name] for name in ("IMPORT_NAME", "STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR")}


def meaning(function: object) -> tuple[Any, ...] | None:
    """A key that is equal where a function does the same with the same nodes; None: unknown.

    Known are functions that read numbers, fastbp.graph, math, and functions of that kind: all else
    may change from call to call.
    """
    key, seen, stack = list[Any](), dict[int, int](), [function]
    while stack:
        one = stack.pop()
        if type(one) in SCALARS:
            key.append((type(one), repr(one)))  # -0.0 equals 0.0, and True 1
        elif type(one) is tuple:
            key.append(len(one))
            stack += one
        elif id(one) in SAFE:
            key.append(id(one))
        elif id(one) in seen:
            key.append(seen[id(one)])
        elif isinstance(one, FunctionType) and not one.__dict__:
            seen[id(one)] = len(seen)
            codes = list(codes_of(one.__code__))
            if any(not EFFECTS.isdisjoint(code.co_code[::2]) for code in codes):
                return None
            key.append(one.__code__)
            stack += [one.__defaults__, tuple(sorted((one.__kwdefaults__ or {}).items()))]
            try:
                stack += [cell.cell_contents for cell in one.__closure__ or ()]
            except ValueError:  # a cell without a value yet
                return None
            names = [name for code in codes for name in code.co_names]  # attributes too
            stack += [one.__globals__.get(name, vars(builtins).get(name)) for name in names]
        else:
            return None
    return tuple(key)


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions within it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from codes_of(inner)
