"""Runs the examples in the docstrings of kernels/ under the name by which they are installed.

`pytest --doctest-modules kernels` would import a second copy of them, as `kernels`.
"""

import doctest
import importlib
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
MODULES = sorted(
    ".".join(("fastbp.kernels", *path.relative_to(KERNELS).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in KERNELS.rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, optionflags=flags).failed == 0
