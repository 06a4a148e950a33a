"""Every kernel compiles to PTX and assembles for the GPUs that users have, with no GPU here."""

import importlib.util
import re
from pathlib import Path

import pytest

from fastbp.kernels import cuda as kernels
from fastbp.kernels.cuda import inside, launch, target

pytestmark = pytest.mark.offline

SHARED = 48 * 1024  # bytes that a kernel may have without asking the driver for more
REGISTERS = 65536  # of a multiprocessor


def load(name):
    path = Path(__file__).resolve().parents[2] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ptxas = load("ptxas")


# Kernels for another type of labels differ in one load: one architecture tells.
EVERYWHERE = [each for each in launch.KERNELS if not re.search(r"int(8|16|32)|uint", each.variant)]
ASSEMBLED = [(kernel, "sm_90a") for kernel in launch.KERNELS]
ASSEMBLED += [(kernel, each) for kernel in EVERYWHERE for each in ("sm_80", "sm_100")]


@pytest.mark.parametrize(
    ("kernel", "architecture"),
    ASSEMBLED,
    ids=lambda value: value if isinstance(value, str) else f"{value.name} {value.variant}".strip(),
)
def test_assembles_without_spills(kernel, architecture, record_property):
    report = ptxas.report(kernel, architecture)
    record_property("registers", report.registers)
    assert report.spills == 0
    assert report.shared <= SHARED
    assert not re.search(r"\b(atom|red)\.", report.ptx), "sums would not repeat"
    threads, blocks = kernel.bounds
    assert report.registers * threads * blocks <= REGISTERS


@pytest.mark.parametrize(
    ("name", "variant", "instructions"),
    [
        ("product_forward", "float32 128x128", ("ld.global.v4.f32", "ld.shared.v4.f32")),
        ("product_forward", "float64 64x64", ("ld.global.v2.f64", "ld.shared.v2.f64")),
        ("product_toward_weights", "float32 128x128", ("ld.global.v4.f32", "st.shared.v4.f32")),
        ("product_forward", "float32 128x128 tf32", ("mma.sync.aligned.m16n8k8",)),
        ("product_forward", "float32 128x128 bf16", ("mma.sync.aligned.m16n8k16",)),
        ("backward_sweep", "float32 64x64", ("ld.global.v4.f32", "ld.shared.v4.f32")),
    ],
)
def test_memory_moves_in_vectors_and_tensor_cores_multiply(name, variant, instructions):
    (kernel,) = (k for k in launch.KERNELS if (k.name, k.variant) == (name, variant))
    ptx = ptxas.compile_ptx(kernel.function, kernel.signature, "sm_90a")
    assert [each for each in instructions if each not in ptx] == []


def test_every_public_kernel_is_declared():
    assert len({(kernel.name, kernel.variant) for kernel in launch.KERNELS}) == len(launch.KERNELS)
    modules = {kernel.function.__module__.rpartition(".")[2] for kernel in launch.KERNELS}
    homes = {getattr(kernels, name).__module__.rpartition(".")[2] for name in kernels.__all__}
    assert homes - modules == {"dense", "network"}  # whose kernels are in products, sweep, narrow


def test_a_network_inside_of_a_kernel_assembles():
    from numba import float32, int64

    def predict_rows(table, parameters, x, y):
        room = target.host.local.array((2, 32), float32)
        i = target.host.grid(1)
        if i < x.shape[0]:
            inside.predict(table, parameters, x[i], room, y[i])

    signature = int64[:, ::1], float32[::1], float32[:, ::1], float32[:, ::1]
    ptx = ptxas.compile_ptx(predict_rows, signature, "sm_90a")
    assert ptxas.assemble(ptx, "sm_90a").spills == 0
