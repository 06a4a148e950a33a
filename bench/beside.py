"""PyTorch beside fastbp on one GPU: the same data, turns taken, failures that stay their own."""

import gc
import os
import statistics
import sys
import time
import traceback

import numpy as np

from fastbp.benchmarks.measure import installed
from fastbp.kernels.cuda import target

ROUNDS, BUDGET = 7, 0.03  # turns of each contender, seconds of one
MINUTES, COMPILING = 8, 0.5  # of the run; the share of it that torch.compile leaves to others


def last_line(fault):
    """What the last line of a traceback says."""
    return traceback.format_exception_only(fault)[-1].strip().splitlines()[-1]


class Bench:
    """Our kernels and PyTorch, if it is there, on one device; a dry run has both on the CPU."""

    def __init__(self, dry):
        if dry:  # the simulator hands the interpreter from thread to thread: often, on one core
            sys.setswitchinterval(1e-5)
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        self.dry, self.torch, self.failed = dry, None, []
        self.device = "cpu" if dry else "cuda"
        self.end = time.monotonic() + 60 * MINUTES
        self.rng = np.random.default_rng(0)
        if installed("torch"):
            self.try_torch()
        else:
            print("PyTorch is not installed: nothing to compare with")

    def try_torch(self):
        """PyTorch, if it finds the device."""
        try:
            import torch

            torch.manual_seed(0)
            torch.zeros(1, device=self.device)
            self.torch = torch
        except Exception as fault:
            self.fails("PyTorch", fault)

    def fails(self, what, fault):
        """Keep in mind that something failed, and say why."""
        self.failed.append(f"{what}: {last_line(fault)}")
        print(f"FAILED {self.failed[-1]}", flush=True)

    def clear(self):
        """Give back the memory of the last row."""
        gc.collect()
        if self.torch is not None and not self.dry:
            self.torch.cuda.empty_cache()

    def left(self):
        """Share of the time that is left."""
        return (self.end - time.monotonic()) / (60 * MINUTES)

    def random(self, *shape, scale=1.0):
        """(ours, PyTorch's view) of normal numbers: zeros would draw less power, and run faster."""
        if self.torch is None:
            numbers = scale * self.rng.standard_normal(shape, np.float32)
            return target.host.to_device(numbers.astype(np.float32)), None
        tensor = scale * self.torch.randn(*shape, device=self.device)
        return self.ours(tensor), tensor

    def labels(self, n, classes):
        """(ours, PyTorch's view) of labels."""
        labels = self.rng.integers(0, classes, n)
        if self.torch is None:
            return target.host.to_device(labels), None
        tensor = self.torch.from_numpy(labels).to(self.device)
        return self.ours(tensor), tensor

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
        if self.torch is not None:
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

    def others(self, function, compile_of=None):
        """PyTorch in three ways, each made when its turn comes."""
        if self.torch is None:
            return {}
        ways = {"eager": lambda: function, "CUDA graph": lambda: self.graphed(function)}
        if self.left() > COMPILING:
            ways["torch.compile"] = compile_of or (lambda: self.compiled(function))
        return ways

    def seconds(self, function, calls):
        """Seconds of one call, by events on the GPU's own clock."""
        if self.dry:
            start = time.perf_counter()
            for _ in range(calls):
                function()
            return (time.perf_counter() - start) / calls
        begin, end = target.host.event(), target.host.event()
        begin.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls

    def race(self, what, ways, per_call=1):
        """The median seconds of each contender, all taking turns; one that fails is left out.

        ways: functions that make what is timed. per_call: steps in one call, by name.
        """
        timed, times, calls = {}, {}, {}
        for name, make in ways.items():
            try:
                timed[name] = make()
                self.seconds(timed[name], 1 if self.dry else 3)  # compiles, and warms up
                taken = BUDGET if self.dry else self.seconds(timed[name], 3)
                calls[name], times[name] = max(1, min(2000, round(BUDGET / taken))), []
            except Exception as fault:
                timed.pop(name, None)
                self.fails(f"{what}, {name}", fault)
        for _ in range(1 if self.dry else ROUNDS):
            for name, function in timed.items():
                times[name].append(self.seconds(function, calls[name]))
        steps = per_call if isinstance(per_call, dict) else dict.fromkeys(times, per_call)
        return {name: statistics.median(all_) / steps.get(name, 1) for name, all_ in times.items()}


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


def torch_step(bench, model, x, t):
    """A step of gradient descent in PyTorch."""
    optimizer = bench.torch.optim.SGD(model.parameters(), lr=0.01)

    def theirs():
        optimizer.zero_grad(set_to_none=False)
        loss = bench.torch.nn.functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    return theirs
