"""bench/cuda.py says in one sentence what a machine lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastbp.kernels.cuda import target

from .test_offline import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.anywhere
@pytest.mark.skipif(not target.why_not() and not target.SIMULATED, reason="here it would measure")
def test_it_does_not_measure_without_a_gpu():
    command = [sys.executable, str(ROOT / "bench" / "cuda.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "GPU" in done.stderr or "simulator" in done.stderr


@pytest.mark.skipif(not target.SIMULATED, reason="a dry run is one in the simulator")
def test_a_dry_run_walks_through_every_row(tmp_path):
    file = tmp_path / "cuda.json"
    command = [sys.executable, str(ROOT / "bench" / "cuda.py"), "--dry", "--write", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(file.read_text())
    assert [row["what"] for row in results["rows"]] == [
        *("step", "adam", "fit"), *["forward"] * 4, *["backward"] * 4
    ]  # fmt: skip
    assert all(row["seconds"]["fastbp"] > 0 for row in results["rows"])
    assert results["failed"] == []


@pytest.mark.anywhere
def test_what_fails_is_named_and_leaves_the_others(tmp_path, monkeypatch, capsys):
    bench, file = load("cuda"), tmp_path / "cuda.json"

    def fast(bench):
        ways = {"fastbp": lambda: lambda: None, "eager": lambda: 1 / 0}
        seconds = bench.race("fast", ways)
        return {"flops": 1, "bytes": 1, "narrow": True, "seconds": seconds}

    def bad(bench):
        raise MemoryError("out of memory on the GPU: 7 bytes")

    rows = [("good", "float32", fast), ("bad", "float32", bad), ("last", "float32", fast)]
    monkeypatch.setattr(bench, "why_not", lambda dry: "")
    monkeypatch.setattr(bench, "ceilings", lambda bench: {})
    monkeypatch.setattr(bench, "rows_of", lambda what: rows)
    monkeypatch.setattr(bench.Bench, "try_torch", lambda self: None)
    arguments = ["cuda.py", "--dry", "--only", "step", "--write", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    interval = sys.getswitchinterval()
    try:
        with pytest.raises(SystemExit) as stop:
            bench.main()
    finally:
        sys.setswitchinterval(interval)
        if affinity:
            os.sched_setaffinity(0, affinity)
    assert stop.value.code == 1
    results = json.loads(file.read_text())
    assert [row["shape"] for row in results["rows"]] == ["good", "last"]
    assert [list(row["seconds"]) for row in results["rows"]] == [["fastbp"]] * 2
    division, memory = "ZeroDivisionError: division by zero", "MemoryError: out of memory on the"
    assert results["failed"][0] == f"fast, eager: {division}"
    assert results["failed"][1].startswith(f"step bad float32: {memory}")
    assert "FAILED step bad float32" in capsys.readouterr().out
