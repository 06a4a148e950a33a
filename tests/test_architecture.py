"""The rules of the house that no other tool enforces: imports, packaging, twins, size of a file."""

import ast
import importlib
import inspect
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The kernel folders that share one contract. The first is the specification.
TWINS = ("reference", "cpu", "cuda")
NOT_ON = {"cuda": {"expression_loss"}}  # expressions are compiled for the host

KERNELS_MAY_IMPORT = {"numpy", "numba", "llvmlite", "scipy"} | sys.stdlib_module_names
MAY_PRINT = ("fastbp/__main__.py", "fastbp/cli.py", "fastbp/demo/")
MODULE_LINES = 500


def sources(*folders):
    """Python files below the folders, relative to the root."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in files)


def parse(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def package_of(path):
    """Name of the package that a file belongs to, as installed: kernels/ is fastbp.kernels."""
    parts = path.parent.parts
    return ".".join(("fastbp", *parts) if parts[0] == "kernels" else parts)


def imports(path):
    """(line, absolute dotted name) of every import in a file, wherever it stands."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path).split(".")
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


def twin(name):
    return importlib.import_module(f"fastbp.kernels.{name}")


def kernels(name, like=None):
    """The public kernels of a twin, those another one has too, by name, as Python functions."""
    package = twin(name)
    names = set(package.__all__) - NOT_ON.get(like, set())
    functions = {kernel: getattr(package, kernel) for kernel in names}
    return {kernel: getattr(f, "py_func", f) for kernel, f in functions.items()}


def test_kernels_import_numbers_only():
    foreign = [
        f"{path}:{line} imports {name}"
        for path in sources("kernels")
        for line, name in imports(path)
        if name.split(".")[0] not in KERNELS_MAY_IMPORT and not within(name, "fastbp.kernels")
    ]
    assert foreign == []


def test_nobody_imports_bare_kernels():
    # A second copy under the name `kernels` would compile again and share no state with the first.
    bare = [
        f"{path}:{line} imports {name}"
        for path in sources("fastbp", "kernels", "tests", "bench", "examples", "docs", ".ci")
        for line, name in imports(path)
        if within(name, "kernels")
    ]
    assert bare == []


def test_listed_packages_are_the_folders_on_disk():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    config = pyproject["tool"]["setuptools"]
    on_disk = {
        package_of(path): path.parent.as_posix()
        for path in sources("fastbp", "kernels")
        if path.name == "__init__.py"
    }
    assert config["package-dir"] == on_disk
    assert sorted(config["packages"]) == sorted(on_disk)


def test_library_does_not_print():
    printing = [
        f"{path}:{node.lineno}"
        for path in sources("fastbp", "kernels")
        if not path.as_posix().startswith(MAY_PRINT)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
    ]
    assert printing == []


def test_modules_are_short():
    lengths = {
        path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in sources("fastbp", "kernels")
    }
    assert {path: n for path, n in lengths.items() if n > MODULE_LINES} == {}


@pytest.mark.parametrize("name", TWINS[1:])
def test_twins_have_the_same_kernels(name):
    expected = set(twin(TWINS[0]).__all__) - NOT_ON.get(name, set())
    assert sorted(twin(name).__all__) == sorted(expected)


@pytest.mark.parametrize("name", TWINS[1:])
def test_twins_define_a_kernel_in_the_same_module(name):
    def home(function):
        return function.__module__.rpartition(".")[2]

    specified = {kernel: home(function) for kernel, function in kernels(TWINS[0], name).items()}
    assert {kernel: home(function) for kernel, function in kernels(name).items()} == specified


@pytest.mark.parametrize("name", TWINS[1:])
def test_twins_have_the_same_parameters(name):
    def parameters(function):
        return list(inspect.signature(function).parameters)

    specified = {
        kernel: parameters(function) for kernel, function in kernels(TWINS[0], name).items()
    }
    assert {kernel: parameters(function) for kernel, function in kernels(name).items()} == specified


@pytest.mark.parametrize("name", TWINS)
def test_kernels_have_docstrings(name):
    silent = [kernel for kernel, function in kernels(name).items() if not inspect.getdoc(function)]
    assert silent == []
