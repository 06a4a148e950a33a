"""Functions behind addresses: who binds them, and when."""

import json
import os
import signal
import subprocess
import sys

import pytest
from numba import types

from fastbp.kernels.cpu import binding

USER = """
import json, sys
import numba
import numpy as np
from fastbp.kernels import codes, cpu
from fastbp.kernels.cpu import binding

@numba.njit(cache=True)
def layer(x, w, b):
    y = np.empty((len(x), w.shape[1]))
    work = np.empty(cpu.dense_forward_work(len(x), *w.shape))
    cpu.dense_forward(x, w, b, codes.IDENTITY, work, y[:0], y)
    return y

def bound():
    return [bool(double) for single, double in binding._words[:len(binding.functions)]]

x, w, b = np.arange(60.0).reshape(20, 3), np.ones((3, 4)), np.ones(4)
before = bound()
right = np.array_equal(layer(x, w, b), x @ w + b)
hits = sum(layer.stats.cache_hits.values())
modules = [f.dispatcher.py_func.__module__.rpartition(".")[2] for f in binding.functions]
print(json.dumps({"hits": hits, "right": right, "before": before, "after": bound(),
                  "modules": modules}))
"""


LAYER = """
import json
import numpy as np
import fastbp
from fastbp.kernels.cpu import binding

def bound():
    return {f.dispatcher.py_func.__name__: f.group
            for f, words in zip(binding.functions, binding._words, strict=False) if words.any()}

x, w = np.ones((16, 8), np.float32), np.ones((8, 4), np.float32)
y, saved = fastbp.functional.dense_forward(x, w, activation="relu")
fastbp.functional.dense_backward(y, x, w, saved, activation="relu")
layer, dispatchers = bound(), [f.dispatcher for f in binding.functions]
signatures = [len(d.signatures) for d in dispatchers]
fastbp.set_engine("blas")
fastbp.functional.dense_forward(x, w, activation="relu")
print(json.dumps([layer, max(signatures), bound()]))
"""


def test_a_layer_compiles_each_function_once_and_no_other_engine():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", LAYER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    layer, most, with_blas = json.loads(done.stdout)
    assert set(layer.values()) == {""}  # nothing that waits for a first call
    assert most == 1
    assert {"activate_memory", "gradient_memory", "forward_block", "backward_rows"} <= set(layer)
    # Each register tile and each activation stands in one of these; a layer compiles no more.
    assert len(layer) == 12
    assert {with_blas[name] for name in set(with_blas) - set(layer)} == {"_blas"}


def test_code_of_a_user_binds_what_it_launches(tmp_path):
    file = tmp_path / "user.py"
    file.write_text(USER, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def run():
        command = [sys.executable, "-W", "error", str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    compiled, cached = run(), run()
    assert compiled["right"]
    assert cached["right"]
    assert not any(compiled["before"])
    assert not any(cached["before"])
    # Compiled: what a dense layer needs. From the user's cache: all, by the first call that ran.
    dense = [module not in ("narrow", "groups", "network") for module in compiled["modules"]]
    assert (compiled["hits"], compiled["after"]) == (0, dense)
    assert (cached["hits"], cached["after"]) == (1, [True] * len(dense))


WORKSPACE = """
import fastbp
from fastbp.kernels.cpu import binding

fastbp.Sequential(fastbp.Dense(2, 1)).workspace(4)
assert all(single and not double for single, double in binding._words[:len(binding.functions)])
"""


def test_a_workspace_binds_all_that_the_code_of_a_user_may_call():
    command = [sys.executable, "-W", "error", "-c", WORKSPACE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_waits_for_the_binding(monkeypatch):
    waiting = {types.float32: [0, 1]}
    interrupts = [KeyboardInterrupt]

    def bind(real, count, group):
        if interrupts:
            raise interrupts.pop()
        waiting[real].clear()

    monkeypatch.setattr(binding, "_waiting", waiting)
    monkeypatch.setattr(binding, "bind", bind)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored here
    try:
        with pytest.raises(KeyboardInterrupt):
            binding._bind_late(types.float32)
    finally:
        signal.signal(signal.SIGINT, before)
    assert waiting == {types.float32: []}


def test_what_could_not_be_bound_waits_on(monkeypatch):
    class Refusing:
        def compile(self, arguments):
            raise MemoryError(arguments)

    function = binding.Addressed(0, Refusing(), lambda real: (real,))
    waiting = {types.float64: [function]}
    monkeypatch.setattr(binding, "_waiting", waiting)
    with pytest.raises(MemoryError, match="float64"):
        binding.bind(types.float64, 1)
    assert waiting == {types.float64: [function]}
