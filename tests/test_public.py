"""What `import fastbp` gives: the names that its docstring lists, and nothing that takes long."""

import re
import subprocess
import sys
from operator import attrgetter

import pytest

import fastbp


def test_the_docstring_lists_the_public_names():
    lists = re.findall(r"^- (.*?):", fastbp.__doc__, re.MULTILINE)
    names = [name.strip("`") for names in lists for name in names.split(", ")]
    assert sorted(name for name in names if "." not in name) == sorted(fastbp.__all__)
    for name in names:
        attrgetter(name.removeprefix("fastbp."))(fastbp)


def test_the_gpu_is_loaded_when_it_is_named():
    code = """
import sys, fastbp
late = "fastbp.gpu", "fastbp.kernels.cuda", "numba_cuda"
before = [name for name in sys.modules if name.startswith(late)]
print(before, fastbp.gpu.using.__name__)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "[] using\n", ended.stderr


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'fastbp' has no attribute 'gpus'"):
        fastbp.gpus  # noqa: B018
