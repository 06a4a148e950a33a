"""bench/cuda.py says in one sentence what a machine lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastbp.kernels.cuda import target

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.anywhere
@pytest.mark.skipif(not target.why_not() and not target.SIMULATED, reason="here it would measure")
def test_it_does_not_measure_without_a_gpu():
    command = [sys.executable, str(ROOT / "bench" / "cuda.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "PyTorch" in done.stderr or "GPU" in done.stderr or "simulator" in done.stderr
