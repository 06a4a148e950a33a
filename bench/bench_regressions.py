"""fastbp and NumPy under pytest-benchmark, to compare one commit with another: `make compare`.

The contenders are those of `fastbp bench`, checked before they are timed. Figures to publish come
from there, where all take turns; here they run one after the other.
"""

import numpy as np
import pytest

from fastbp.benchmarks import dense, dense_contenders, measure, step, step_contenders

NAMES = ("fastbp", "NumPy")
pytestmark = pytest.mark.benchmark(warmup=True, warmup_iterations=3, min_rounds=5, max_time=0.4)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Where others use the machine, threads that wait for each other measure the neighbours."""
    with measure.equal_threads(1):
        yield


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", dense.PASSES)
@pytest.mark.parametrize("shape", dense.SELECTIONS["main"], ids=str)
def bench_dense(benchmark, shape, direction, name):
    case = dense.operands(*shape, np.dtype(np.float32))
    candidates = {
        "fastbp": dense_contenders.twin_passes(dense_contenders.cpu, case),
        "NumPy": dense_contenders.twin_passes(dense_contenders.reference, case),
    }
    one = {direction: measure.Contender(candidates[name][direction])}
    dense.check(case, {name: one})
    benchmark.group = f"dense {direction}, {shape}"
    benchmark(one[direction].call)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("net", step.NETS, ids=lambda net: f"{net}, batch {net.batch}")
def bench_step(benchmark, net, name):
    start = step_contenders.problem(net)
    candidates = step_contenders.contenders(start, (name,))
    step.check(start, candidates)
    benchmark.group = f"training step, {net}, batch {net.batch}"
    benchmark(candidates[name])
