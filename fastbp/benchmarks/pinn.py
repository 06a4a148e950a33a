"""A step of a physics-informed network: the loss holds u_xx + u_yy, its gradients a third order.

All contenders minimise mean((u_xx + u_yy - f)**2) for the same tanh network and points. The others
differentiate with each tool that they have for it; and by hand, with the forward Laplacian
(Li et al. 2023) written out for this very network, which is what fastbp derives by itself.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from .. import graph
from ..derivatives import dense_layers
from ..layers import Dense
from ..network import Sequential
from .limits import Limits
from .measure import Contender, Contenders, equal_threads, installed, provenance, race

OURS = "fastbp"
BY_HAND = "by hand"  # ends the names of contenders that differentiate by formulas of this file
NETS = [
    ((2, 64, 64, 1), 4096, "float32"),
    ((2, 64, 64, 1), 4096, "float64"),
    ((2, 64, 64, 1), 512, "float32"),
    ((2, 32, 32, 32, 1), 4096, "float32"),
]
CLOSE = {"float32": 2e-3, "float64": 1e-9}  # of the largest gradient: sums of thousands of terms
Problem = tuple[list[Any], Any, Any]  # parameters, points, f


def problem(sizes: tuple[int, ...], n: int, dtype: str) -> tuple[Sequential, Any, Any]:
    """A network, and points with the f of u = sin(pi x) sin(pi y)."""
    rng, last = np.random.default_rng(0), len(sizes) - 2
    layers = [
        Dense(k, m, activation="tanh" if i < last else "identity", dtype=dtype, rng=i)
        for i, (k, m) in enumerate(pairwise(sizes))
    ]
    for layer in layers:
        layer.b[:] = 0.1 * rng.normal(size=layer.b.shape)
    x = rng.uniform(size=(n, sizes[0])).astype(dtype)
    return Sequential(*layers), x, -2 * np.pi**2 * np.sin(np.pi * x).prod(axis=1)


def ours(net: Sequential, x: Any, f: Any) -> Callable[[], Any]:
    """fastbp's step: (loss, gradients)."""
    points = graph.variable("x", (None, x.shape[1]), x.dtype)
    right = graph.variable("f", (None,), x.dtype)
    residual = graph.laplacian(graph.network(net, points), points)[:, 0] - right
    step = net.objective(graph.mean(residual**2), [points, right])
    return lambda: (step(x, f), [g for layer in dense_layers(net) for g in (layer.dw, layer.db)])


def by_hand(parameters: list[Any], x: Any, tanh: Callable[[Any], Any]) -> Any:
    """u_xx + u_yy by the formulas of the forward Laplacian, in anybody's arrays."""
    (w, b), *rest = zip(parameters[::2], parameters[1::2], strict=True)
    t = tanh(x @ w + b)
    slope = 1 - t * t
    along = [slope * row for row in w]  # dt/dx, dt/dy
    second = -2 * t * sum(d * row for d, row in zip(along, w, strict=True))
    for w, b in rest[:-1]:
        t = tanh(t @ w + b)
        slope, z = 1 - t * t, [d @ w for d in along]
        along = [slope * d for d in z]
        second = slope * (second @ w) - 2 * t * sum(a * d for a, d in zip(along, z, strict=True))
    return (second @ rest[-1][0])[:, 0]


def jax_steps(net: Sequential, x: Any, f: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """JAX's, each compiled: by Hessians of points, jvp of jvp, jvp of grad, jets, and by hand."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import jet

    jax.config.update("jax_enable_x64", True)
    parameters = [jnp.array(p) for layer in dense_layers(net) for p in (layer.w, layer.b)]
    x, f = jnp.array(x), jnp.array(f)
    axes = [jnp.zeros_like(x).at[:, i].set(1) for i in range(x.shape[1])]

    def u(p: list[Any], y: Any) -> Any:
        for w, b in zip(p[:-2:2], p[1:-2:2], strict=True):
            y = jnp.tanh(y @ w + b)
        return (y @ p[-2] + p[-1])[..., 0]

    def hessians(p: list[Any]) -> Any:
        return jax.vmap(lambda point: jnp.trace(jax.hessian(u, 1)(p, point)))(x)

    def forward_forward(p: list[Any]) -> Any:
        def second(axis: Any) -> Any:
            return jax.jvp(lambda y: jax.jvp(lambda z: u(p, z), (y,), (axis,))[1], (x,), (axis,))[1]

        return sum(second(axis) for axis in axes)

    def forward_reverse(p: list[Any]) -> Any:
        slope = jax.grad(lambda y: u(p, y).sum())
        return sum(jax.jvp(slope, (x,), (a,))[1][:, i] for i, a in enumerate(axes))

    def jets(p: list[Any]) -> Any:
        zero = jnp.zeros_like(x)
        return sum(jet.jet(lambda y: u(p, y), (x,), ((a, zero),))[1][1] for a in axes)

    def mean_square(way: Callable[[Any], Any], p: list[Any]) -> Any:
        return jnp.mean((way(p) - f) ** 2)

    def ready(loss: Callable[[Any], Any]) -> Any:
        return jax.block_until_ready(loss(parameters))

    ways = {
        "JAX, hessian": hessians,
        "JAX, jvp of jvp": forward_forward,
        "JAX, jvp of grad": forward_reverse,
        "JAX, jet": jets,
        f"JAX, {BY_HAND}": lambda p: by_hand(p, x, jnp.tanh),
    }
    for name, way in ways.items():
        loss = jax.jit(jax.value_and_grad(partial(mean_square, way)))
        yield name, partial(ready, loss)


def torch_steps(net: Sequential, x: Any, f: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """PyTorch's: autograd three times; by hand, plain and compiled.

    torch.compile does not differentiate twice, so it takes part by hand alone.
    """
    import torch

    arrays = [p for layer in dense_layers(net) for p in (layer.w, layer.b)]
    parameters = [torch.tensor(p, requires_grad=True) for p in arrays]
    points, right = torch.tensor(x, requires_grad=True), torch.tensor(f)
    still = torch.tensor(x)

    def laplacian() -> Any:
        y = points
        for w, b in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            y = torch.tanh(y @ w + b)
        total = (y @ parameters[-2] + parameters[-1]).sum()
        (slope,) = torch.autograd.grad(total, points, create_graph=True)
        second = [
            torch.autograd.grad(slope[:, i].sum(), points, create_graph=True)[0][:, i]
            for i in range(x.shape[1])
        ]
        return sum(second)

    def written_out() -> Any:
        return by_hand(parameters, still, torch.tanh)

    def mean_square(way: Callable[[], Any]) -> Any:
        return ((way() - right) ** 2).mean()

    torch.compiler.reset()  # or it would try to serve all networks with one function
    compiled = torch.compile(lambda: mean_square(written_out))
    ways = {
        "PyTorch": lambda: mean_square(laplacian),
        f"PyTorch, {BY_HAND}": lambda: mean_square(written_out),
        f"torch.compile, {BY_HAND}": compiled,
    }

    def step(loss: Callable[[], Any]) -> Any:
        value = loss()
        return value.detach(), torch.autograd.grad(value, parameters[:-1])

    for name, way in ways.items():
        yield name, partial(step, way)


OTHERS = {"jax": jax_steps, "torch": torch_steps}


def contenders(sizes: tuple[int, ...], n: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The steps of all that are installed, by name."""
    net, x, f = problem(sizes, n, dtype)
    found = {OURS: ours(net, x, f)}
    for package, steps in OTHERS.items():
        if installed(package):
            found |= dict(steps(net, x, f))
    return found


def check(steps: dict[str, Callable[[], Any]], dtype: str) -> None:
    """Raise unless all give the same loss and the same gradients."""
    value, slopes = steps[OURS]()
    slopes = [np.array(slope) for slope in slopes]
    largest = max(np.abs(slope).max() for slope in slopes)
    for name, step in steps.items():
        other, found = step()
        pairs = zip(found, slopes, strict=False)  # that of the last bias, 0, may be left out
        errors = [np.abs(np.asarray(a) - b).max() / largest for a, b in pairs]
        errors.append(abs(float(other) - value) / value)
        if not max(errors) < CLOSE[dtype]:
            raise AssertionError(f"{name} is {max(errors):.1e} off; nothing was timed")


def operations(sizes: tuple[int, ...], n: int) -> float:
    """Multiplications and additions of the products that a step cannot do without.

    Between hidden layers go t, its d slopes and its second derivative, each a product forward, and
    two back, for w and for the layer below. The first layer's slopes are w itself, and the last
    layer gives the second derivative alone.

    Examples
    --------
    >>> from fastbp.benchmarks.pinn import operations
    >>> operations((2, 64, 64, 1), 4096) / (2 * 4096 * 64 * 64)
    12.1...
    """
    first, *hidden, last = (k * m for k, m in pairwise(sizes))
    return 2.0 * n * (2 * first + 3 * (sizes[0] + 2) * sum(hidden) + 3 * last)


def run(threads: int, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """All rows, as they are written to JSON."""
    rows = []
    with equal_threads(threads) as settling:
        for sizes, n, dtype in NETS:
            name = "-".join(map(str, sizes))
            report(f"{name}, {n} points, {dtype}: compiling")
            steps = contenders(sizes, n, dtype)
            check(steps, dtype)
            report(f"{name}, {n} points, {dtype}: measuring")
            turns: Contenders = {key: Contender(step) for key, step in steps.items()}
            limits = Limits(np.dtype(dtype), threads)
            turns["peak"] = limits.contenders["peak"]
            times = race(turns, rounds, 0.03, settling)
            del times["quartiles"]["peak"]
            facts = {"group": "table", "net": name, "batch": n, "dtype": dtype}
            facts |= {"flops": operations(sizes, n)}
            facts |= {"peak": limits.amounts["peak"] / times["seconds"].pop("peak")}
            rows.append(facts | times)
        origin = provenance(OTHERS)
    return {"benchmark": "pinn", "rounds": rounds, "provenance": origin, "rows": rows}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """How many times faster than the best that differentiates by itself, and than by hand.

    `of_peak` is what the products alone take of the peak; `bound by hand`, how many times faster
    than by hand they would be at the peak, and nothing else.
    """
    seconds = row["seconds"]
    least = row["flops"] / row["peak"]
    hand = {name: s for name, s in seconds.items() if name.endswith(BY_HAND)}
    others = {name: s for name, s in seconds.items() if name != OURS and name not in hand}
    result: dict[str, Any] = {"of_peak": least / seconds[OURS]}
    if others:
        best = min(others, key=others.__getitem__)
        result |= {"best": best, "ratio": others[best] / seconds[OURS]}
    if hand:
        best = min(hand, key=hand.__getitem__)
        result |= {"best by hand": best, "ratio by hand": hand[best] / seconds[OURS]}
        result |= {"bound by hand": hand[best] / least}
    return result
