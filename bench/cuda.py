"""Measure the CUDA kernels beside PyTorch: one command, one run, on a machine with a GPU.

    python bench/cuda.py                      # all, in 8 minutes; writes bench/results/cuda.json
    python bench/cuda.py --only step adam     # some of it, printed and not written
    NUMBA_ENABLE_CUDASIM=1 python bench/cuda.py --dry    # tiny sizes, no GPU: does it run at all?

The results of all contenders are compared first. Then all take turns, timed with CUDA events, on
random data. `% of ceiling` relates to what this card reached in this run: the product of two
matrices for wide layers, copying memory where a layer is narrow. Rows where we lose stay in.

The results are written after every row. A row, or one contender of it, that fails says why and
leaves the others alone; the exit status is then 1. What takes long comes last, and is left out when
the minutes are over. It takes numba, numba-cuda and, for the others, torch; no network.
"""

import argparse
import json
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

# This folder would give NVIDIA's package `cuda` the name of this file; the repository's root has
# fastbp, installed or not.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import fastbp  # noqa: E402
from bench.beside import MINUTES, Bench, torch_network, torch_step  # noqa: E402
from fastbp.benchmarks.measure import provenance  # noqa: E402
from fastbp.kernels import codes, cuda  # noqa: E402
from fastbp.kernels.cuda import target  # noqa: E402
from fastbp.kernels.cuda.graphs import Recorder  # noqa: E402
from fastbp.kernels.cuda.launch import using  # noqa: E402
from fastbp.losses import LOSSES  # noqa: E402
from fastbp.plan import Plan  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "cuda.json"
LAYERS = [*((65536, m, m) for m in (32, 64, 128, 256)), (4096, 4096, 4096), (8192, 8192, 8192)]
NETS = [((4, 64, 64, 2), 64), ((784, 512, 512, 10), 512), ((1024,) * 4, 4096)]
FITS = [((64, 128, 10), 2**15, 128)]  # sizes, rows, rows of a batch
PARAMETERS = 2**26
COPIED = 2**30  # bytes
PRODUCT = 8192
PRECISIONS = ("float32", "tf32", "bf16")
NARROW = 256  # up to here memory is what limits a layer
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
STEPS = 64  # of one recorded epoch
if "--dry" in sys.argv:
    LAYERS, NETS, FITS = [(5, 5, 5), (5, 17, 9)], [((3, 5, 2), 6)], [((3, 5, 2), 8, 4)]
    PARAMETERS, COPIED, PRODUCT, NARROW, STEPS = 100, 2**10, 32, 8, 2


def why_not(dry):
    """One sentence that says what this machine lacks; empty if it lacks nothing."""
    if dry:
        return "" if target.SIMULATED else "--dry runs in the simulator: set NUMBA_ENABLE_CUDASIM=1"
    if target.SIMULATED:
        return "the simulator measures nothing: unset NUMBA_ENABLE_CUDASIM, or add --dry"
    return target.why_not() and f"bench/cuda.py needs an NVIDIA GPU: {target.why_not()}"


def ceilings(bench):
    """Bytes per second of a copy (read and written), and FLOP per second of a product."""
    found = {}
    if bench.torch is None:
        return found
    try:
        _, source = bench.random(COPIED // 4)
        room = bench.torch.empty_like(source)
        copy = {"copy": lambda: lambda: room.copy_(source)}
        found["copy"] = 2 * COPIED / bench.race("ceiling", copy)["copy"]
        (_, a), (_, b) = bench.random(PRODUCT, PRODUCT), bench.random(PRODUCT, PRODUCT)
        for precision in PRECISIONS:
            bench.use(precision)
            left, right = (a.bfloat16(), b.bfloat16()) if precision == "bf16" else (a, b)
            ways = {"product": lambda x=left, y=right: lambda: x @ y}
            found[precision] = 2 * PRODUCT**3 / bench.race("ceiling", ways)["product"]
    except Exception as fault:
        bench.fails("ceilings", fault)
    return found


def compare(name, ours, theirs, precision):
    """Raise if our result is not theirs, relative to its largest number."""
    ours, theirs = ours.copy_to_host(), theirs.detach().float().cpu().numpy()
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not error < TOLERANCE[precision]:
        raise ArithmeticError(f"{name} in {precision} errs by {error:.1e}, relative to PyTorch's")


def layer(bench, n, k, m, precision, what):
    """One pass of relu(x @ w + b): forward, or backward for dw, db and dx."""
    (gx, x), (gw, w) = bench.random(n, k), bench.random(k, m, scale=k**-0.5)
    (gb, b), (gdy, dy) = bench.random(m), bench.random(n, m, scale=n**-0.5)
    bench.use(precision)
    y, none, work = bench.empty(n, m), bench.empty(0, 0), cuda.dense_backward_work(n, k, m)
    out = [bench.empty(*shape) for shape in ((max(work, 1),), (k, m), (m,), (n, k))]

    def cast(tensor):
        return tensor.bfloat16() if precision == "bf16" else tensor

    def their_forward():
        return (cast(x) @ cast(w) + b).relu()

    def their_backward():
        dz = dy * (kept > 0)
        return cast(x).T @ cast(dz), dz.sum(0), cast(dz) @ cast(w).T

    def forward():
        with using(precision=precision):
            cuda.dense_forward(gx, gw, gb, codes.RELU, none, none, y)

    def backward():
        with using(precision=precision):
            cuda.dense_backward(gdy, gx, gw, y, codes.RELU, *out)

    forward()
    if bench.torch is not None:
        kept = their_forward()
        compare("dense_forward", y, kept, precision)
        y = bench.ours(kept.float().contiguous())
        backward()
        for ours, theirs in zip(out[1:], their_backward(), strict=True):
            compare("dense_backward", ours, theirs, precision)
    ours, theirs, times = (
        (forward, their_forward, 1) if what == "forward" else (backward, their_backward, 2)
    )
    ways = {"fastbp": lambda: ours} | bench.others(theirs)
    return {
        "flops": times * 2 * n * k * m, "bytes": times * 4 * (n * k + k * m + n * m),
        "narrow": max(k, m) <= NARROW, "seconds": bench.race(what, ways),
    }  # fmt: skip


def dense_layers(sizes):
    """Layers with relu between them."""
    return [
        fastbp.Dense(k, m, activation="relu" if i < len(sizes) - 2 else "identity", rng=i)
        for i, (k, m) in enumerate(pairwise(sizes))
    ]


def step(bench, sizes, n):
    """Forward, softmax cross-entropy, backward and gradient descent of a network in float32.

    fastbp: a step of an epoch, recorded as a CUDA graph; fastbp, alone: one call of network_step.
    """
    bench.use("float32")
    layers = dense_layers(sizes)
    net, plan = fastbp.Sequential(*layers, device="reference"), Plan(layers, sizes[0])
    plan.set_loss(LOSSES["softmax_cross_entropy"], "sparse_softmax_cross_entropy", 0.0)
    plan.set_update(fastbp.SGD(0.01), None)
    (gx, x), (gt, t), none = bench.random(n, sizes[0]), bench.labels(n, sizes[-1]), bench.empty(0)
    work = bench.empty(max(cuda.network_work(n, plan.table), 1))
    described = plan.table, plan.recipe, plan.numbers
    room = bench.empty(net.parameters.size), target.host.to_device(net.parameters), none, none

    def alone():
        return cuda.network_step(gx, gt, none, *described, work, *room)

    def recorded():
        """STEPS steps on the same rows, by an order that names them again and again."""
        stream, recorder = target.host.stream(), Recorder()
        order = target.host.to_device(np.arange(n * STEPS) % n)
        many = [
            target.host.to_device(np.zeros((n * STEPS, *a.shape[1:]), a.dtype)) for a in (gx, gt)
        ]
        batch, sums = [bench.empty(n, sizes[0]), target.host.device_array(n, gt.dtype)], np.zeros(3)
        many[0][:n].copy_to_device(gx)
        many[1][:n].copy_to_device(gt)

        def epoch():
            with using(stream=stream, recorder=recorder):
                cuda.network_epoch(
                    *(*many, none, order, 0, STEPS, *described, *batch, none, work, *room, sums)
                )

        return epoch

    ways = {"fastbp": recorded, "fastbp, alone": lambda: alone}
    first = alone()
    if bench.torch is not None:
        theirs = torch_step(bench, torch_network(bench, layers), x, t)
        expected = float(theirs().detach())
        if abs(first - expected) > 1e-4 * abs(expected):
            raise ArithmeticError(f"network_step: a loss of {first}, PyTorch's is {expected}")
        model = torch_network(bench, layers)
        ways |= bench.others(theirs, lambda: torch_step(bench, bench.compiled(model), x, t))
    products = 3 * sum(k * m for k, m in pairwise(sizes)) - sizes[0] * sizes[1]
    return {
        "flops": 2 * n * products, "bytes": 0, "narrow": False,
        "seconds": bench.race("step", ways, {"fastbp": STEPS}),
    }  # fmt: skip


def fit(bench, sizes, rows, batch):
    """An epoch of Adam over shuffled batches, data on the GPU, as one writes it on both sides."""
    (gx, x), (gt, t) = bench.random(rows, sizes[0]), bench.labels(rows, sizes[-1])
    net, optimizer = fastbp.Sequential(*dense_layers(sizes), device="cuda"), fastbp.Adam(1e-3)
    settings = {"loss": "softmax_cross_entropy", "optimizer": optimizer, "batch_size": batch}
    epochs = 1 if bench.dry else 10

    def ours():
        net.fit(gx, gt, epochs=epochs, seed=0, **settings)

    def theirs():
        torch, model = bench.torch, torch_network(bench, dense_layers(sizes))
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)

        def train():
            order = torch.randperm(rows, device=bench.device)
            for begin in range(0, rows, batch):
                chosen = order[begin : begin + batch]
                adam.zero_grad()
                torch.nn.functional.cross_entropy(model(x[chosen]), t[chosen]).backward()
                adam.step()

        return train

    ways = {"fastbp": lambda: ours} | ({"eager": theirs} if bench.torch is not None else {})
    products = 3 * sum(k * m for k, m in pairwise(sizes)) - sizes[0] * sizes[1]
    return {
        "flops": 2 * rows * products, "bytes": 0, "narrow": False,
        "seconds": bench.race("fit", ways, {"fastbp": epochs}),
    }  # fmt: skip


def adam(bench, size):
    """A step of Adam over flat parameters: 4 arrays read, 3 written."""
    (p, parameter), (g, gradient) = bench.random(size), bench.random(size)
    m, v = (target.host.to_device(np.full(size, start, np.float32)) for start in (0.1, 0.01))

    def ours():
        cuda.adam(g, 1e-3, 0.9, 0.999, 1e-8, 10, p, m, v)

    def theirs():
        own = bench.torch.nn.Parameter(parameter.clone())
        own.grad = gradient
        return bench.torch.optim.Adam([own], lr=1e-3, fused=not bench.dry).step

    ways = {"fastbp": lambda: ours} | ({"fused Adam": theirs} if bench.torch is not None else {})
    seconds = bench.race("adam", ways)
    return {"flops": 0, "bytes": 28 * size, "narrow": True, "seconds": seconds}


def rows_of(what):
    """(name, precision, function of a bench) of every row, those that take long last."""
    if what == "adam":
        yield f"{PARAMETERS} parameters", "float32", partial(adam, size=PARAMETERS)
    for sizes, n in NETS if what == "step" else []:
        name = f"{'-'.join(map(str, sizes))}, batch {n}"
        yield name, "float32", partial(step, sizes=sizes, n=n)
    for sizes, rows, batch in FITS if what == "fit" else []:
        name = f"{'-'.join(map(str, sizes))}, {rows} rows, batch {batch}"
        yield name, "float32", partial(fit, sizes=sizes, rows=rows, batch=batch)
    for n, k, m in LAYERS if what in ("forward", "backward") else []:
        for precision in PRECISIONS if max(k, m) > NARROW else PRECISIONS[:1]:
            row = partial(layer, n=n, k=k, m=m, precision=precision, what=what)
            yield f"{n} x {k} x {m}", precision, row


def line(row, found):
    """A row of the table: our time, share of the ceiling, and times faster than each other."""
    seconds = dict(row["seconds"])
    name = f"{row['what']:9}{row['shape']:38}{row['precision']:9}"
    mine = seconds.pop("fastbp", None)
    if mine is None:
        return f"{name} fastbp failed"
    ceiling = found.get("copy" if row["narrow"] else row["precision"])
    reached = (row["bytes"] if row["narrow"] else row["flops"]) / mine
    share = f"{100 * reached / ceiling:5.1f} % of ceiling" if ceiling else "  - % of ceiling"
    ratios = ", ".join(f"{other} {taken / mine:.2f}" for other, taken in seconds.items())
    return f"{name}{1e6 * mine:12.1f} us {share}, times faster: {ratios or '-'}"


MEASURED = ("step", "adam", "fit", "forward", "backward")


def write(bench, found, rows, path):
    """All that is known so far."""
    name = "" if bench.dry or bench.torch is None else bench.torch.cuda.get_device_name()
    origin = provenance(["numba_cuda", "torch"]) | {"gpu": name}
    results = {"benchmark": "cuda", "provenance": origin, "ceilings": found, "rows": rows}
    text = json.dumps(results | {"failed": bench.failed}, indent=1)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--dry", action="store_true", help="tiny sizes in the simulator")
    parser.add_argument("--write", type=Path, help="where to, also a part or a dry run")
    arguments = parser.parse_args()
    reason = why_not(arguments.dry)
    if reason:
        sys.exit(reason)
    whole = not arguments.dry and len(arguments.only) == len(MEASURED)
    path = arguments.write or (RESULTS if whole else None)
    bench, rows = Bench(arguments.dry), []
    found = ceilings(bench)
    print(", ".join(f"{name} {rate / 1e9:.0f} G/s" for name, rate in found.items()), flush=True)
    for what in arguments.only:
        for name, precision, measure in rows_of(what):
            about = {"what": what, "shape": name, "precision": precision}
            try:
                if bench.left() < 0:
                    raise TimeoutError(f"{MINUTES} minutes are over")
                rows.append(about | measure(bench))
                print(line(rows[-1], found), flush=True)
            except Exception as fault:
                bench.fails(f"{what} {name} {precision}", fault)
            bench.clear()
            if path:
                write(bench, found, rows, path)
    if path:
        print(f"written to {path}")
    sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
