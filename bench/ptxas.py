"""Compile every CUDA kernel and assemble it for GPUs that need not be here: registers and spills.

    python bench/ptxas.py            # a table of all kernels
    python bench/ptxas.py --write    # into docs/cuda.md

It takes the extra `cuda`, and neither a GPU nor a driver. It says nothing about speed.
"""

import re
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

# This folder would give NVIDIA's package `cuda` the name of cuda.py; the root has fastbp.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from fastbp.kernels import cuda as kernels  # noqa: E402
from fastbp.kernels.cuda import launch, target  # noqa: E402

assert kernels  # importing it declares every kernel

# What users have: A100, H100 and H200 with their own instructions, B200.
ARCHITECTURES = {"sm_80": (8, 0), "sm_90a": (9, 0, "a"), "sm_100": (10, 0)}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "cuda.md"
MARK = "<!-- ptxas:{} -->"

Report = namedtuple("Report", "registers stack spills shared ptx")


def compile_ptx(function, signature, architecture, **options):
    """The PTX of a kernel for an architecture; Numba asks for one when it calls a function."""
    from numba import types
    from numba.cuda import dispatcher

    capability = ARCHITECTURES[architecture]
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    return target.host.compile_ptx(
        function, types.void(*signature), cc=capability, device=False, **options
    )[0]


def assemble(ptx, architecture):
    """What the assembler says about the PTX of one kernel."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=architecture, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()

    def numbers(pattern, text=log):
        return [int(number) for number in re.findall(pattern, text)]

    return Report(
        registers=max(numbers(r"Used (\d+) registers")),
        stack=sum(numbers(r"(\d+) bytes stack frame")),
        spills=sum(numbers(r"(\d+) bytes spill")),
        shared=sum(numbers(r"\.shared .*?\[(\d+)\];", ptx)),
        ptx=ptx,
    )


def report(kernel, architecture):
    """Registers, stack, spills and shared memory in bytes, PTX of a kernel."""
    options = {"launch_bounds": kernel.bounds}
    return assemble(
        compile_ptx(kernel.function, kernel.signature, architecture, **options), architecture
    )


def table():
    """A row per kernel, the largest of the types of labels: threads, shared memory, registers."""
    yield f"| kernel | threads | shared, bytes | {' | '.join(ARCHITECTURES)} |"
    yield "|---|--:|--:|" + "--:|" * len(ARCHITECTURES)
    rows = {}
    for kernel in launch.KERNELS:
        variant = [word for word in kernel.variant.split() if "int" not in word]
        rows.setdefault((" ".join([kernel.name, *variant]), kernel.threads), []).append(kernel)
    for (name, threads), kernels_of_row in rows.items():
        reports = [
            [report(kernel, architecture) for kernel in kernels_of_row]
            for architecture in ARCHITECTURES
        ]
        shared = max(each.shared for each in reports[0])
        registers = [
            f"{max(each.registers for each in row)}"
            + ", spilled" * any(each.spills for each in row)
            for row in reports
        ]
        yield f"| {name} | {threads} | {shared} | {' | '.join(registers)} |"


if __name__ == "__main__":
    if target.missing:
        sys.exit(target.why_not())
    rows = "\n".join(table())
    if "--write" in sys.argv:
        begin, end = MARK.format("begin"), MARK.format("end")
        before, rest = PAGE.read_text(encoding="utf-8").split(begin)
        after = rest.split(end)[1]
        PAGE.write_text(f"{before}{begin}\n{rows}\n{end}{after}", encoding="utf-8")
    else:
        print(rows)
