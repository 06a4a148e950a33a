"""What the benchmarks share: the networks, the two contenders, and what a result file says.

A benchmark first compares the two contenders' results, then times one of them. Both run in the
same process, each on one thread unless FASTBP_BENCH_THREADS says otherwise: where others use the
machine, threads that wait for each other measure the neighbours (a BLAS product was seen to take
300 times as long on two).
"""

import os
import platform

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import fastbp
from fastbp.kernels import cpu, reference

NETS = {
    "4-64-64-2": 64,
    "16-64-64-4": 1,
    "784-128-10": (32, 128),
    "784-512-512-10": 128,
    "256-256-256-256-10": 256,
    "1024-1024-1024-1024": 512,
}
CASES = [
    (tuple(map(int, net.split("-"))), n)
    for net, sizes in NETS.items()
    for n in (sizes if isinstance(sizes, tuple) else (sizes,))
]
THREADS = int(os.environ.get("FASTBP_BENCH_THREADS", "1"))
CONTENDERS = {"NumPy": "reference", "fastbp": "cpu"}
DTYPE = np.float32
TOLERANCE = 2e-4  # relative to the largest element: float32 sums of up to 1024 products


def label(case):
    sizes, n = case
    return f"{'-'.join(map(str, sizes))}, batch {n}"


@pytest.fixture(scope="session", autouse=True)
def equal_threads():
    """As many threads for the kernels as for NumPy's BLAS."""
    before = fastbp.get_num_threads()
    fastbp.set_num_threads(THREADS)
    with threadpool_limits(THREADS, user_api="blas"):
        yield
    fastbp.set_num_threads(before)


@pytest.fixture(params=CASES, ids=label)
def case(request):
    """(sizes of the layers, rows of the batch)."""
    return request.param


@pytest.fixture
def case_name(case):
    return label(case)


@pytest.fixture(params=CONTENDERS)
def contender(request):
    return request.param


@pytest.fixture
def device(contender):
    """What `Sequential` calls the contender."""
    return CONTENDERS[contender]


@pytest.fixture
def kernels(device):
    return {"cpu": cpu, "reference": reference}[device]


@pytest.fixture
def agree():
    """agree(a, b): equal up to the rounding of float32."""

    def check(ours, theirs):
        for a, b in zip(ours, theirs, strict=True):
            scale = max(float(np.abs(b).max(initial=0)), 1e-6)
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * scale)

    return check


@pytest.fixture
def measured(benchmark, case, contender):
    """The benchmark, grouped by its case, with the facts that a number needs to mean something."""
    sizes, n = case
    benchmark.extra_info.update(
        net="-".join(map(str, sizes)),
        batch=n,
        contender=contender,
        dtype=np.dtype(DTYPE).name,
        threads=threads()[contender],
    )
    return benchmark


def threads():
    """What each contender really runs on."""
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {"fastbp": fastbp.get_num_threads(), "NumPy": max(blas, default=1)}


def pytest_benchmark_update_machine_info(config, machine_info):
    """The processor and the versions; nothing that names the machine or its owner."""
    processor = {key: machine_info["cpu"].get(key) for key in ("brand_raw", "arch", "count")}
    system = machine_info["system"]
    machine_info.clear()
    machine_info.update(
        cpu=processor,
        system=system,
        versions={
            "fastbp": fastbp.__version__,
            "numba": numba.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """The statistics without the thousands of single times behind them."""
    output_json.pop("commit_info", None)
    output_json["cases"] = len(CASES)
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)
