"""`compile`: a graph as an @njit function, written as a module that Numba caches on disk."""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from numba import types
from numba.np import numpy_support

from ...checks import check_choice, check_count
from ...engines import cache_folder
from ...kernels.cpu import jit
from ...parallel import start_threads
from ..evaluation import as_list, name_of, variables_of
from ..node import Node
from ..restating import afresh
from ..walk import topological
from . import emission, panels, regions
from .lowering import lowered
from .scheduling import schedule

HEADER = '''"""Written by fastbp.graph.compile; its name is a hash of its content.

kernels: {stamp}
"""

from math import inf, nan

import numba
import numpy as np

from fastbp.graph.compiler.runtime import add_up, array, keep, place, room
from fastbp.graph.compiler.runtime import separate, task_of, unlocked, words
from fastbp.kernels.cpu.activations import elu, gelu, gelu_tanh, leaky_relu, relu, silu
from fastbp.kernels.cpu.dense import dense_backward, dense_backward_add, dense_backward_work
from fastbp.kernels.cpu.dense import dense_forward, dense_forward_work
from fastbp.kernels.cpu.elementary import cos, erf, exp, expm1, log, log1p
from fastbp.kernels.cpu.elementary import sigmoid, sin, softplus, tanh
from fastbp.kernels.cpu.jit import OPTIONS
from fastbp.kernels.cpu.pointers import get
from fastbp.kernels.cpu.scalar import larger, plus, sign, smaller
from fastbp.kernels.cpu.threads import part, run

f32, f64 = np.float32, np.float64
'''
NAME = "compiled"


def compile(
    outputs: Node | Sequence[Node],
    inputs: Node | Sequence[Node],
    *,
    memory: str | int = "store",
    batch_size: int = 1024,
) -> Any:
    """A graph as a compiled function, which any @njit code can call.

    Element-wise expressions become loops without temporaries, reductions run in the loops that
    produce their terms, matrix products and dense layers call the library's kernels.

    Parameters
    ----------
    outputs : node or sequence of nodes
    inputs : variable or sequence of variables
        The arguments, in this order: at least all variables that the outputs need.
    memory : {"store", "recompute"} or int
        What becomes of an expression that several loops need: an array, unless it takes three
        operations or less, or computed again in each; with a number, arrays of so many bytes at
        most, those first that save most per byte.
    batch_size : int
        Rows for which bytes and operations are counted.

    Returns
    -------
    function
        Takes C-contiguous arrays of the variables' dtypes, and numbers for variables of shape ().
        Returns an array or a number, for a sequence of outputs a tuple. Attributes: `source`, its
        text; `path`, the module; `report`, what was stored and what is computed again.

    Raises
    ------
    ValueError
        If a variable that the outputs need is not among the inputs.

    Notes
    -----
    sin and cos are NaN beyond 2**18 in float32 and 2**40 in float64, where their vector code ends.
    Constants stand in the source: large arrays are better variables.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import graph
    >>> x = graph.variable("x", (None,))
    >>> f = graph.compile(graph.sum(graph.exp(x)), x)
    >>> f(np.zeros(3))
    3.0
    """
    arguments = as_list("inputs", inputs)
    text, plan = written(outputs, arguments, memory, batch_size)
    start_threads()
    module = load(text)
    function = getattr(module, NAME)
    if not function.signatures:
        function.compile(tuple(map(numba_type, arguments)))
        function.disable_compile()
    function.source, function.path = text, Path(str(module.__file__))
    function.report = regions.report(plan.shared, batch_size)
    return function


def written(
    outputs: Node | Sequence[Node],
    inputs: Sequence[Node],
    memory: str | int,
    batch_size: int,
    split: bool = True,
) -> tuple[str, regions.Plan]:
    """The text of a module, and the choices behind it; `split`: in panels where that pays."""
    wanted = as_list("outputs", outputs)
    check_inputs(wanted, inputs)
    check_count("batch_size", batch_size)
    if isinstance(memory, int) and not isinstance(memory, bool):
        check_count("memory", memory, 0)
    else:
        check_choice("memory", memory, ("store", "recompute"))
    wanted, inputs = afresh(wanted, inputs)
    simple = lowered(wanted)
    found = panels.in_panels(simple, memory, batch_size) if split else None
    if found is not None:
        simple = found.outputs
    plan = regions.plan(simple, memory, batch_size, [] if found is None else [found])
    writer = emission.Writer(plan, simple, schedule(plan))
    before = []
    if found is not None:
        before, writer.constants = found.lines, found.constants
        plan.shared.extend(found.shared)
    lines = emission.function_text(writer, simple, inputs, NAME, isinstance(outputs, Node))
    parts = [HEADER.format(stamp=stamp()), *emission.constant_lines(writer.constants), "", ""]
    return "\n".join([*parts, *before, "@numba.njit(cache=True, **OPTIONS)", *lines, ""]), plan


def check_inputs(outputs: Sequence[Node], inputs: Sequence[Node]) -> None:
    """Raise ValueError unless the inputs are variables, all that are needed, each once."""
    for x in inputs:
        if x.op != "variable":
            raise ValueError(f"inputs: expected variables, got {x!r}")
        if inputs.count(x) > 1:
            raise ValueError(f"inputs: {name_of(x)} is there twice")
    needed = variables_of(topological([*outputs, *inputs]))
    missing = [name for name, x in needed.items() if x not in inputs]
    if missing:
        raise ValueError(f"inputs: expected {', '.join(needed)}; {missing[0]} is missing")
    sized = any(None in x.shape for x in inputs)
    if not sized and any(n.op == "rows" or None in n.shape for n in topological(outputs)):
        raise ValueError("inputs: expected a variable that says how large the batch is, got none")


def numba_type(x: Node) -> Any:
    """Numba's type of an argument; read-only, to which writable arrays convert."""
    scalar = numpy_support.from_dtype(x.dtype)
    return types.Array(scalar, x.ndim, "C", readonly=True) if x.shape else scalar


def stamp() -> str:
    """A hash of the kernels' sources and of what else generated code calls."""
    own = Path(__file__).with_name("runtime.py").read_bytes()
    return hashlib.sha256(jit.source_stamp().encode() + own).hexdigest()


def load(text: str) -> ModuleType:
    """The module of a text: the file in the cache folder is its name's content, so it is kept."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    name = f"fastbp_graph_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    path = _file_of(text, f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def _file_of(text: str, name: str) -> Path:
    """The file of a text, in the cache folder or, where that cannot be written, a temporary one."""
    path = cache_folder() / "graph" / name
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_text(text, encoding="utf-8")
            part.replace(path)  # another process sees all of it or nothing
    except OSError:  # every process then compiles anew
        path = Path(tempfile.mkdtemp(prefix="fastbp-graph-")) / name
        path.write_text(text, encoding="utf-8")
    return path
