"""Measure the CUDA kernels beside PyTorch: one command, one run, on a machine with a GPU.

    python bench/cuda.py                      # all, in 8 minutes; writes bench/results/cuda.json
    python bench/cuda.py --only step adam     # some of it, printed and not written
    NUMBA_ENABLE_CUDASIM=1 python bench/cuda.py --dry    # tiny sizes, no GPU: does it run at all?

First the results of all contenders are compared. Then all take turns, timed with CUDA events, on
random data. `% of ceiling` relates to what this card reached in this run: the product of two
matrices for wide layers, copying memory where a layer is narrow. Rows where we lose stay in.
It takes numba, numba-cuda and torch, and no network.
"""

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

# This folder would give NVIDIA's package `cuda` the name of this file; the repository's root has
# fastbp, installed or not.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import fastbp  # noqa: E402
from fastbp.benchmarks.measure import installed, provenance  # noqa: E402
from fastbp.kernels import codes, cuda  # noqa: E402
from fastbp.kernels.cuda import target  # noqa: E402
from fastbp.kernels.cuda.launch import using  # noqa: E402
from fastbp.losses import LOSSES  # noqa: E402
from fastbp.plan import Plan  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "cuda.json"
LAYERS = [(8192, 8192, 8192), (4096, 4096, 4096), *((65536, m, m) for m in (32, 64, 128, 256))]
NETS = [((4, 64, 64, 2), 64), ((784, 512, 512, 10), 512), ((1024,) * 4, 4096)]
PARAMETERS = 2**26
COPIED = 2**30  # bytes
PRODUCT = 8192
PRECISIONS = ("float32", "tf32", "bf16")
NARROW = 256  # up to here memory is what limits a layer
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
ROUNDS, BUDGET = 7, 0.03  # turns of each contender, seconds of one
if "--dry" in sys.argv:
    LAYERS, NETS, PARAMETERS = [(9, 5, 5), (17, 18, 19)], [((3, 5, 2), 6)], 100
    COPIED, PRODUCT, NARROW, ROUNDS, BUDGET = 2**10, 32, 8, 1, 1e-3


def why_not(dry):
    """One sentence that says what this machine lacks; empty if it lacks nothing."""
    if not installed("torch"):
        return "bench/cuda.py measures beside PyTorch, which is not installed"
    if dry:
        return "" if target.SIMULATED else "--dry runs in the simulator: set NUMBA_ENABLE_CUDASIM=1"
    if target.SIMULATED:
        return "the simulator measures nothing: unset NUMBA_ENABLE_CUDASIM, or add --dry"
    import torch

    if target.why_not():
        return f"bench/cuda.py needs an NVIDIA GPU: {target.why_not()}"
    return "" if torch.cuda.is_available() else "this PyTorch was built without CUDA"


class Bench:
    """PyTorch and our kernels on one device; a dry run has both on the CPU."""

    def __init__(self, dry):
        import torch

        self.torch, self.dry = torch, dry
        self.device = "cpu" if dry else "cuda"
        torch.manual_seed(0)

    def random(self, *shape, scale=1.0):
        """A tensor of normal numbers: zeros would draw less power, and run faster."""
        return scale * self.torch.randn(*shape, device=self.device)

    def ours(self, tensor):
        """The memory of a tensor as our kernels take it."""
        tensor = tensor.detach()
        if self.dry:
            return target.host.to_device(tensor.numpy())
        return target.host.as_cuda_array(tensor)

    def empty(self, *shape):
        return target.host.device_array(shape, np.float32)

    def use(self, precision):
        """PyTorch's products of float32 in this precision; bf16 is cast where it is used."""
        self.torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"

    def compiled(self, function):
        """torch.compile, anew: after eight shapes of one function it would give up in silence."""
        if self.dry:
            return function
        self.torch._dynamo.reset()
        return self.torch.compile(function)

    def graphed(self, function):
        """The launches of a function, recorded once."""
        if self.dry:
            return function
        side = self.torch.cuda.Stream()
        side.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(side):
            for _ in range(3):
                function()
        self.torch.cuda.current_stream().wait_stream(side)
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            function()
        return graph.replay

    def seconds(self, function, calls):
        """Seconds of one call, by events on the GPU's own clock."""
        if self.dry:
            start = time.perf_counter()
            for _ in range(calls):
                function()
            return (time.perf_counter() - start) / calls
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls

    def race(self, contenders):
        """The median seconds of a call of each, all taking turns."""
        calls, times = {}, {name: [] for name in contenders}
        for name, function in contenders.items():
            self.seconds(function, 3)  # compiles, and warms up
            calls[name] = max(1, min(2000, round(BUDGET / self.seconds(function, 3))))
        for _ in range(ROUNDS):
            for name, function in contenders.items():
                times[name].append(self.seconds(function, calls[name]))
        return {name: statistics.median(taken) for name, taken in times.items()}


def ceilings(bench):
    """Bytes per second of a copy (read and written), and FLOP per second of a product."""
    source = bench.random(COPIED // 4)
    room = bench.torch.empty_like(source)
    found = {"copy": 2 * COPIED / bench.race({"copy": lambda: room.copy_(source)})["copy"]}
    a, b = bench.random(PRODUCT, PRODUCT), bench.random(PRODUCT, PRODUCT)
    for precision in PRECISIONS:
        bench.use(precision)
        left, right = (a.bfloat16(), b.bfloat16()) if precision == "bf16" else (a, b)
        seconds = bench.race({"product": lambda x=left, y=right: x @ y})["product"]
        found[precision] = 2 * PRODUCT**3 / seconds
    return found


def compare(name, ours, theirs, precision):
    """Stop if our result is not theirs, relative to its largest number."""
    ours, theirs = ours.copy_to_host(), theirs.detach().float().cpu().numpy()
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not error < TOLERANCE[precision]:
        sys.exit(f"{name} in {precision} errs by {error:.1e}, relative to PyTorch's: not measured")


def layer_rows(bench):
    """relu(x @ w + b), and dw, db, dx of it."""
    for shape in LAYERS:
        for precision in PRECISIONS if max(shape[1:]) > NARROW else PRECISIONS[:1]:
            with using(precision=precision):
                yield from layer(bench, *shape, precision)


def layer(bench, n, k, m, precision):
    """The rows of both passes; every product in this precision, on both sides."""
    x, w = bench.random(n, k), bench.random(k, m, scale=k**-0.5)
    b, dy = bench.random(m), bench.random(n, m, scale=n**-0.5)
    bench.use(precision)

    def cast(tensor):
        return tensor.bfloat16() if precision == "bf16" else tensor

    def forward():
        return (cast(x) @ cast(w) + b).relu()

    kept = forward()

    def backward():
        dz = dy * (kept > 0)
        return cast(x).T @ cast(dz), dz.sum(0), cast(dz) @ cast(w).T

    gx, gw, gb, gdy, saved = map(bench.ours, (x, w, b, dy, kept))
    y, none, work = bench.empty(n, m), bench.empty(0, 0), cuda.dense_backward_work(n, k, m)
    out = [bench.empty(*shape) for shape in ((work,), (k, m), (m,), (n, k))]

    def our_forward():
        cuda.dense_forward(gx, gw, gb, codes.RELU, none, none, y)

    def our_backward():
        cuda.dense_backward(gdy, gx, gw, saved, codes.RELU, *out)

    our_forward()
    compare("dense_forward", y, kept, precision)
    our_backward()
    for ours, theirs in zip(out[1:], backward(), strict=True):
        compare("dense_backward", ours, theirs, precision)
    about = {"shape": f"{n} x {k} x {m}", "precision": precision, "narrow": max(k, m) <= NARROW}
    flops, bytes_moved = 2 * n * k * m, 4 * (n * k + k * m + n * m)
    for times, what, theirs, ours in (
        (1, "forward", forward, our_forward), (2, "backward", backward, our_backward),
    ):  # fmt: skip
        yield about | {
            "what": what, "flops": times * flops, "bytes": times * bytes_moved,
            "seconds": bench.race(contenders(bench, theirs, bench.compiled(theirs), ours)),
        }  # fmt: skip


def contenders(bench, theirs, compiled, ours):
    """Ours, and PyTorch in three ways."""
    graphed = bench.graphed(theirs)
    return {"fastbp": ours, "eager": theirs, "torch.compile": compiled, "CUDA graph": graphed}


def step_rows(bench):
    """Forward, softmax cross-entropy, backward and gradient descent of a network in float32."""
    bench.use("float32")
    for sizes, n in NETS:
        yield step(bench, sizes, n)


def step(bench, sizes, n):
    """The row of one network."""
    torch = bench.torch
    x, t = bench.random(n, sizes[0]), torch.randint(sizes[-1], (n,), device=bench.device)
    layers = [
        fastbp.Dense(k, m, activation="relu" if i < len(sizes) - 2 else "identity", rng=i)
        for i, (k, m) in enumerate(pairwise(sizes))
    ]
    net, plan = fastbp.Sequential(*layers, device="reference"), Plan(layers, sizes[0])
    plan.set_loss(LOSSES["softmax_cross_entropy"], "sparse_softmax_cross_entropy", 0.0)
    plan.set_update(fastbp.SGD(0.01), None)
    gx, gt, none = bench.ours(x), bench.ours(t), bench.empty(0)
    work, gradients = (
        bench.empty(cuda.network_work(n, plan.table)),
        bench.empty(net.parameters.size),
    )
    room = work, gradients, target.host.to_device(net.parameters), none, none

    def ours():
        return cuda.network_step(gx, gt, none, plan.table, plan.recipe, plan.numbers, *room)

    model = torch_network(bench, layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def steps_of(model):
        def theirs():
            optimizer.zero_grad(set_to_none=False)
            loss = torch.nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        return theirs

    first, expected = ours(), float(steps_of(model)().detach())
    if abs(first - expected) > 1e-4 * abs(expected):
        sys.exit(f"network_step: a loss of {first}, PyTorch's is {expected}: not measured")
    both = steps_of(model), steps_of(bench.compiled(model))
    products = 3 * sum(k * m for k, m in pairwise(sizes)) - sizes[0] * sizes[1]
    return {
        "what": "step", "shape": f"{'-'.join(map(str, sizes))}, batch {n}", "precision": "float32",
        "flops": 2 * n * products, "bytes": 0, "narrow": False,
        "seconds": bench.race(contenders(bench, *both, ours)),
    }  # fmt: skip


def torch_network(bench, layers):
    """The same layers, with the same numbers, in PyTorch."""
    torch, parts = bench.torch, []
    for layer in layers:
        linear = torch.nn.Linear(layer.in_features, layer.out_features)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.w.T.copy()))
            linear.bias.copy_(torch.from_numpy(layer.b.copy()))
        parts += [linear] + [torch.nn.ReLU()] * (layer.activation == "relu")
    return torch.nn.Sequential(*parts).to(bench.device)


def adam_rows(bench):
    """A step of Adam over flat parameters: 4 arrays read, 3 written."""
    torch, size = bench.torch, PARAMETERS
    p, g = torch.nn.Parameter(bench.random(size)), bench.random(size)
    p.grad = g
    optimizer = torch.optim.Adam([p], lr=1e-3, fused=not bench.dry)
    arrays = [bench.ours(a) for a in (p.clone(), bench.random(size) * 0, bench.random(size) ** 2)]
    gradients = bench.ours(g)

    def ours():
        cuda.adam(gradients, 1e-3, 0.9, 0.999, 1e-8, 10, *arrays)

    seconds = bench.race({"fastbp": ours, "fused Adam": optimizer.step})
    yield {
        "what": "adam", "shape": f"{size} parameters", "precision": "float32", "flops": 0,
        "bytes": 28 * size, "narrow": True, "seconds": seconds,
    }  # fmt: skip


def line(row, found):
    """A row of the table: our time, share of the ceiling, and times faster than each other."""
    seconds = dict(row["seconds"])
    mine = seconds.pop("fastbp")
    by_memory, by_products = row["bytes"] / found["copy"], row["flops"] / found[row["precision"]]
    share = 100 * (by_memory if row["narrow"] else by_products) / mine
    ratios = ", ".join(f"{name} {taken / mine:.2f}" for name, taken in seconds.items())
    name = f"{row['what']:9}{row['shape']:34}{row['precision']:9}"
    return f"{name}{1e6 * mine:12.1f} us {share:5.1f} % of ceiling, times faster: {ratios}"


MEASURED = {"layers": layer_rows, "step": step_rows, "adam": adam_rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--dry", action="store_true", help="tiny sizes in the simulator")
    arguments = parser.parse_args()
    reason = why_not(arguments.dry)
    if reason:
        sys.exit(reason)
    bench, rows = Bench(arguments.dry), []
    found = ceilings(bench)
    print(f"copy {found['copy'] / 1e9:.0f} GB/s", end="")
    print("".join(f", {name} {found[name] / 1e12:.1f} TFLOP/s" for name in PRECISIONS))
    for what in arguments.only:
        for row in MEASURED[what](bench):
            rows.append(row)
            print(line(row, found), flush=True)
    if arguments.dry or len(arguments.only) < len(MEASURED):
        return
    name = bench.torch.cuda.get_device_name()
    origin = provenance(["numba_cuda", "torch"]) | {"gpu": name}
    results = {"benchmark": "cuda", "provenance": origin, "ceilings": found, "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
