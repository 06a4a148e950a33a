"""Runs one kernel as a user would, and checks that it is the copy which should be imported.

usage: python - FOLDER < .ci/use_kernels.py

FOLDER is where fastbp.kernels is expected. Python reads the script from stdin so that sys.path
starts with the current folder, as it does at the prompt.
"""

import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import fastbp.functional
import fastbp.kernels

expected = Path(sys.argv[1]).resolve()
found = Path(fastbp.kernels.__file__).resolve().parent
if found != expected:
    sys.exit(f"fastbp.kernels was imported from {found}, expected {expected}")

rng = np.random.default_rng(0)
x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in [(5, 7), (7, 3), (3,)])
y, _ = fastbp.functional.dense_forward(x, w, b, "tanh")
np.testing.assert_allclose(y, np.tanh(x @ w + b), rtol=1e-5, atol=1e-6)

# Inside of the repository the metadata may be those of the checkout, which do list these folders.
if not (Path.cwd() / "kernels").is_dir():
    installed = {file.parts[0] for file in metadata.files("fastbp") or ()}
    if foreign := installed & {"bench", "kernels", "tests"}:
        sys.exit(f"fastbp must not install the top-level packages {sorted(foreign)}")
