"""Who computes one dense layer: fastbp, NumPy, PyTorch, JAX, and the bare products of two BLAS.

Each contender is three functions of no arguments, by pass: forward gives y; backward dw, db, dx;
both all four. Backward passes are written out with the gradient that the package itself has for
the activation, so that nobody pays for an autograd graph.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..functional import absent
from ..kernels import codes, cpu, reference
from .measure import Contender, installed, use_threads

Case = dict[str, Any]
Passes = dict[str, Callable[[], Any]]
PACKAGES = ("torch", "jax")
ONE_THREAD = "fastbp, 1 thread"


def contenders(
    case: Case, threads: int, without: tuple[str, ...] = ()
) -> dict[str, dict[str, Contender]]:
    """All that are installed, by name and pass, but those named in `without`."""
    ours = twin_passes(cpu, case)
    passes = {"fastbp": ours}
    if threads > 1:
        passes[ONE_THREAD] = ours
    passes |= {"NumPy": twin_passes(reference, case), "NumPy products": product_passes(case)}
    if installed("torch"):
        passes |= torch_passes(case, compiled="torch.compile" not in without)
    if installed("jax"):
        passes["JAX"] = jax_passes(case)
    prepare = {"fastbp": use_threads(threads), ONE_THREAD: use_threads(1)}
    return {
        name: {
            direction: Contender(call, prepare[name]) if name in prepare else Contender(call)
            for direction, call in calls.items()
        }
        for name, calls in passes.items()
        if name not in without
    }


def twin_passes(kernels: Any, case: Case) -> Passes:
    """A twin of the kernels, writing to the same arrays in every call."""
    x, w, b, dy, saved = (case[name] for name in ("x", "w", "b", "dy", "saved"))
    (n, k), m, code = x.shape, w.shape[1], codes.ACTIVATIONS[case["activation"]]
    forward_work = np.empty(kernels.dense_forward_work(n, k, m), x.dtype)
    backward_work = np.empty(kernels.dense_backward_work(n, k, m), x.dtype)
    y, dw, db, dx = np.empty_like(dy), np.empty_like(w), np.empty_like(b), np.empty_like(x)
    z = np.empty_like(dy) if code in codes.KEEPS_Z else absent(2, x.dtype)
    kept = z if z.size else y

    def forward() -> Any:
        kernels.dense_forward(x, w, b, code, forward_work, z, y)
        return (y,)

    def backward(saved: Any = saved) -> Any:
        kernels.dense_backward(dy, x, w, saved, code, backward_work, dw, db, dx)
        return dw, db, dx

    return {
        "forward": forward,
        "backward": backward,
        "both": lambda: forward() + backward(kept),
    }


def product_passes(case: Case) -> Passes:
    """The bare matrix products of NumPy's BLAS: no bias, no activation, no gradient of either."""
    x, w, dy = case["x"], case["w"], case["dy"]
    y, dw, dx = np.empty_like(dy), np.empty_like(w), np.empty_like(x)

    def forward() -> Any:
        return (np.matmul(x, w, out=y),)

    def backward() -> Any:
        return np.matmul(x.T, dy, out=dw), np.matmul(dy, w.T, out=dx)

    return {
        "forward": forward,
        "backward": backward,
        "both": lambda: forward() + backward(),
    }


def _layer(case: Case, product: Any, rules: Any) -> tuple[Any, Any, Any]:
    """The three passes as functions of arrays, for a package with operators on arrays."""
    activate, gradient = rules[case["activation"]]
    keeps_z = codes.ACTIVATIONS[case["activation"]] in codes.KEEPS_Z

    def forward(x: Any, w: Any, b: Any) -> Any:
        return (activate(product(b, x, w)),)

    def backward(dy: Any, x: Any, w: Any, saved: Any) -> Any:
        dz = gradient(dy, saved)
        return x.T @ dz, dz.sum(0), dz @ w.T

    def both(dy: Any, x: Any, w: Any, b: Any) -> Any:
        z = product(b, x, w)
        y = activate(z)
        return (y, *backward(dy, x, w, z if keeps_z else y))

    return forward, backward, both


def _on_operands(layer: Any, operands: Case, wait: Any = lambda results: results) -> Passes:
    """The three passes of `_layer` as functions of no arguments."""
    x, w, b, dy, saved = (operands[name] for name in ("x", "w", "b", "dy", "saved"))
    forward, backward, both = layer
    return {
        "forward": lambda: wait(forward(x, w, b)),
        "backward": lambda: wait(backward(dy, x, w, saved)),
        "both": lambda: wait(both(dy, x, w, b)),
    }


def torch_passes(case: Case, compiled: bool) -> dict[str, Passes]:
    """PyTorch, eager and compiled for the one shape, and its bare products."""
    import torch

    operands = {
        name: torch.from_numpy(array) for name, array in case.items() if name != "activation"
    }
    x, w, dy = operands["x"], operands["w"], operands["dy"]
    y, dw, dx = torch.empty_like(dy), torch.empty_like(w), torch.empty_like(x)
    layer = _layer(case, torch.addmm, torch_rules())
    products = (
        lambda: (torch.mm(x, w, out=y),),
        lambda: (torch.mm(x.T, dy, out=dw), torch.mm(dy, w.T, out=dx)),
        lambda: (
            torch.mm(x, w, out=y),
            torch.mm(x.T, dy, out=dw),
            torch.mm(dy, w.T, out=dx),
        ),
    )
    passes = {
        "PyTorch": _on_operands(layer, operands),
        "PyTorch products": dict(zip(("forward", "backward", "both"), products, strict=True)),
    }
    if compiled:
        torch.compiler.reset()  # after eight shapes of one function it would fall back to eager
        compiled_layer = [torch.compile(function, dynamic=False) for function in layer]
        passes["torch.compile"] = _on_operands(compiled_layer, operands)
    return passes


def torch_rules() -> dict[str, tuple[Any, Any]]:
    """By activation: y from z, and dz from dy and what is kept; the calls of PyTorch's autograd."""
    import torch
    from torch.nn import functional as f

    aten = torch.ops.aten
    slope = codes.LEAKY_SLOPE
    return {
        "identity": (lambda z: z, lambda dy, y: dy),
        "relu": (torch.relu, lambda dy, y: aten.threshold_backward(dy, y, 0)),
        "leaky_relu": (
            partial(f.leaky_relu, negative_slope=slope),
            lambda dy, y: aten.leaky_relu_backward(dy, y, slope, True),
        ),
        "elu": (f.elu, lambda dy, y: aten.elu_backward(dy, 1, 1, 1, True, y)),
        "sigmoid": (torch.sigmoid, aten.sigmoid_backward),
        "tanh": (torch.tanh, aten.tanh_backward),
        "softplus": (f.softplus, lambda dy, y: dy * -torch.expm1(-y)),
        "silu": (f.silu, aten.silu_backward),
        "gelu": (f.gelu, aten.gelu_backward),
        "gelu_tanh": (
            partial(f.gelu, approximate="tanh"),
            partial(aten.gelu_backward, approximate="tanh"),
        ),
        "sin": (torch.sin, lambda dy, z: dy * torch.cos(z)),
    }


def jax_passes(case: Case) -> Passes:
    """JAX under jit."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    operands = {name: jnp.asarray(array) for name, array in case.items() if name != "activation"}
    layer = _layer(case, lambda b, x, w: x @ w + b, jax_rules())
    return _on_operands([jax.jit(function) for function in layer], operands, jax.block_until_ready)


def jax_rules() -> dict[str, tuple[Any, Any]]:
    """As `torch_rules`; where z is kept, JAX differentiates its own formula."""
    import jax
    import jax.numpy as jnp

    def differentiated(formula: Any) -> tuple[Any, Any]:
        return formula, lambda dy, z: jax.vjp(formula, z)[1](dy)[0]

    slope = codes.LEAKY_SLOPE
    return {
        "identity": (lambda z: z, lambda dy, y: dy),
        "relu": (jax.nn.relu, lambda dy, y: jnp.where(y > 0, dy, 0)),
        "leaky_relu": (
            partial(jax.nn.leaky_relu, negative_slope=slope),
            lambda dy, y: jnp.where(y > 0, dy, slope * dy),
        ),
        "elu": (jax.nn.elu, lambda dy, y: jnp.where(y > 0, dy, dy * (y + 1))),
        "sigmoid": (jax.nn.sigmoid, lambda dy, y: dy * y * (1 - y)),
        "tanh": (jnp.tanh, lambda dy, y: dy * (1 - y * y)),
        "softplus": (jax.nn.softplus, lambda dy, y: dy * -jnp.expm1(-y)),
        "silu": differentiated(jax.nn.silu),
        "gelu": differentiated(partial(jax.nn.gelu, approximate=False)),
        "gelu_tanh": differentiated(partial(jax.nn.gelu, approximate=True)),
        "sin": differentiated(jnp.sin),
    }
