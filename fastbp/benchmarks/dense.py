"""One dense layer, forward and backward, beside NumPy, PyTorch and JAX in one interleaved run."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import Array
from ..functional import absent, activation_code
from ..kernels import cpu, reference
from ..parallel import get_num_threads, start_threads
from .measure import Contenders, copy_rate, fma_peak, provenance, race

# (n, k, m): batch, inputs, outputs
SHAPES = [
    *[(512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (512, 1024, 1024)],
    *[(128, 768, 3072), (128, 3072, 768)],
    *[(128, 784, 512), (256, 256, 256), (200, 300, 100), (128, 256, 10)],
    *[(64, 64, 64), (32, 128, 128), (32, 784, 128)],
    *[(1, 256, 256), (1, 1024, 1024), (4, 512, 512), (8, 1024, 1024)],
]
Case = dict[str, Any]


def operands(n: int, k: int, m: int, dtype: np.dtype[Any]) -> Case:
    """x, w, b, dy of one layer, and its relu output y."""
    rng = np.random.default_rng(0)
    shapes = {"x": (n, k), "w": (k, m), "b": (m,), "dy": (n, m)}
    case: Case = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    case["w"] /= np.sqrt(k).astype(dtype)
    case["y"] = np.maximum(case["x"] @ case["w"] + case["b"], 0)
    return case


def twin_contenders(kernels: Any, case: Case) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward and backward of a twin, writing to the same arrays in every call."""
    x, w, b, dy, y = (case[name] for name in ("x", "w", "b", "dy", "y"))
    (n, k), m, relu = x.shape, w.shape[1], activation_code("relu")
    forward_work = np.empty(kernels.dense_forward_work(n, k, m), x.dtype)
    backward_work = np.empty(kernels.dense_backward_work(n, k, m), x.dtype)
    out, z = np.empty_like(y), absent(2, x.dtype)
    dw, db, dx = np.empty_like(w), np.empty_like(b), np.empty_like(x)

    def forward() -> Array:
        kernels.dense_forward(x, w, b, relu, forward_work, z, out)
        return out

    def backward() -> tuple[Array, ...]:
        kernels.dense_backward(dy, x, w, y, relu, backward_work, dw, db, dx)
        return dw, db, dx

    return forward, backward


def product_contenders(case: Case) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The bare matrix products of NumPy's BLAS: no bias, no activation, no gradient of either."""
    x, w, dy = case["x"], case["w"], case["dy"]
    y, dw, dx = np.empty_like(dy), np.empty_like(w), np.empty_like(x)
    return (
        lambda: np.matmul(x, w, out=y),
        lambda: (np.matmul(x.T, dy, out=dw), np.matmul(dy, w.T, out=dx)),
    )


def torch_contenders(case: Case) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """PyTorch, eager and compiled, with the backward pass written out: no autograd overhead."""
    import torch

    torch.set_num_threads(get_num_threads())
    x, w, b, dy, y = (torch.from_numpy(case[name]) for name in ("x", "w", "b", "dy", "y"))

    def forward(x: Any, w: Any, b: Any) -> Any:
        return torch.relu(torch.addmm(b, x, w))

    def backward(dy: Any, x: Any, w: Any, y: Any) -> Any:
        dz = dy * (y > 0)
        return x.T @ dz, dz.sum(0), dz @ w.T

    compiled = torch.compile(forward), torch.compile(backward)
    return {
        "PyTorch": (lambda: forward(x, w, b), lambda: backward(dy, x, w, y)),
        "torch.compile": (lambda: compiled[0](x, w, b), lambda: compiled[1](dy, x, w, y)),
        "PyTorch products": (lambda: torch.mm(x, w), lambda: (x.T @ dy, dy @ w.T)),
    }


def jax_contenders(case: Case) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """JAX under jit, with the backward pass written out."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x, w, b, dy, y = (jnp.asarray(case[name]) for name in ("x", "w", "b", "dy", "y"))
    forward = jax.jit(lambda x, w, b: jnp.maximum(x @ w + b, 0))

    @jax.jit
    def backward(dy: Any, x: Any, w: Any, y: Any) -> Any:
        dz = dy * (y > 0)
        return x.T @ dz, dz.sum(0), dz @ w.T

    return {
        "JAX": (
            lambda: forward(x, w, b).block_until_ready(),
            lambda: jax.block_until_ready(backward(dy, x, w, y)),
        )
    }


def contenders(case: Case) -> tuple[Contenders, Contenders]:
    """All that are installed, by name: forward and backward."""
    pairs = {
        "fastbp": twin_contenders(cpu, case),
        "NumPy": twin_contenders(reference, case),
        "NumPy products": product_contenders(case),
    }
    if importlib.util.find_spec("torch"):
        pairs |= torch_contenders(case)
    if importlib.util.find_spec("jax"):
        pairs |= jax_contenders(case)
    forward = {name: pair[0] for name, pair in pairs.items()}
    return forward, {name: pair[1] for name, pair in pairs.items()}


def check(case: Case, forward: Contenders, backward: Contenders) -> None:
    """Raise unless all contenders that compute the whole layer agree with NumPy in float64."""
    exact = {name: array.astype(np.float64) for name, array in case.items()}
    dz = exact["dy"] * (exact["y"] > 0)
    want = exact["y"], exact["x"].T @ dz, dz.sum(0), dz @ exact["w"].T
    for name in forward:
        if "products" in name:
            continue
        results: Any = forward[name](), *backward[name]()  # type: ignore[misc]
        for got, expected in zip(results, want, strict=True):
            apart = np.max(np.abs(np.asarray(got) - expected), initial=0.0)
            limit = 1e3 * np.finfo(case["x"].dtype).eps * max(1.0, np.max(np.abs(expected)))
            if not apart <= limit:
                raise AssertionError(f"{name} is off by {apart:g}; nothing was timed")


def run(
    shapes: list[tuple[int, int, int]], dtype: str, report: Callable[[str], None]
) -> dict[str, Any]:
    """All rows and the machine's limits, as they are written to JSON."""
    start_threads()
    real = np.dtype(dtype)
    burn, burnt = fma_peak(real)
    copy, copied = copy_rate(real)
    rows = []
    for n, k, m in shapes:
        report(f"{n} x {k} x {m}")
        case = operands(n, k, m, real)
        both = contenders(case)
        check(case, *both)
        for direction, names, products in zip(("forward", "backward"), both, (1, 2), strict=True):
            seconds = race(names | {"peak": burn})
            peak = burnt / seconds.pop("peak")
            flops = 2.0 * products * n * k * m
            rows.append(
                {"pass": direction, "shape": [n, k, m], "flops": flops, "peak": peak}
                | {"seconds": seconds}
            )
    rate = copied / race({"copy": copy})["copy"]
    installed = [name for name in ("torch", "jax") if importlib.util.find_spec(name)]
    return {
        "benchmark": "dense",
        "dtype": dtype,
        "copy_bytes_per_second": rate,
        "provenance": provenance(*installed),
        "rows": rows,
    }


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row: GF/s, share of the peak, ratios to the best other and to the BLAS."""
    seconds = row["seconds"]
    own = seconds["fastbp"]
    others = {name: s for name, s in seconds.items() if name != "fastbp" and "products" not in name}
    best = min(others, key=others.__getitem__)
    return {
        "gflops": row["flops"] / own / 1e9,
        "of_peak": row["flops"] / own / row["peak"],
        "best": best,
        "ratio": others[best] / own,
        "products": min(s for name, s in seconds.items() if "products" in name) / own,
    }
