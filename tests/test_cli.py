"""The command `fastbp`: what it prints, and how it ends when a user or the machine is at fault."""

import argparse
import subprocess
import sys

import pytest

import fastbp
from fastbp import cli, demo


def fails_with(fault):
    def run(*arguments):
        raise fault

    return run


def sentence(capsys):
    """The one line on standard error; nothing else was printed."""
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_without_arguments_it_prints_help(capsys):
    assert cli.main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: fastbp")
    assert all(name in printed for name in cli.COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fastbp {fastbp.__version__}\n"


def test_help_of_the_demo_names_its_tasks_and_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", "--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())  # its lines are as long as the terminal's
    assert all(f"{task.epochs} for {name}" in printed for name, task in demo.TASKS.items())
    assert "fastbp-demo" in printed


@pytest.mark.parametrize(
    "arguments", [["train"], ["demo", "--task", "letters"], ["demo", "--epochs", "many"]]
)
def test_wrong_words_end_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: fastbp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--epochs", "0", "fastbp: epochs: expected an integer >= 1, got 0"),
        ("--seed", "-1", "fastbp: seed: expected an integer >= 0, got -1"),
    ],
)
def test_wrong_numbers_end_with_a_sentence(option, value, text, capsys):
    assert cli.main(["demo", option, value]) == 2
    assert sentence(capsys) == text


def test_output_that_is_a_file(tmp_path, capsys):
    path = tmp_path / "taken"
    path.touch()
    assert cli.main(["demo", "--output", str(path)]) == 2
    assert sentence(capsys) == f"fastbp: output: expected a folder, got the file {path}"


@pytest.mark.parametrize(
    ("module", "name"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")]
)
def test_missing_extra_is_named(module, name, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["demo", "--output", str(tmp_path / "new")]) == 1
    assert sentence(capsys) == (
        f'fastbp: the demo needs {name}, which is not installed: pip install "fastbp[demo]"'
    )
    assert not (tmp_path / "new").exists()


def test_a_broken_extra_is_not_called_missing(monkeypatch, tmp_path):
    fault = ModuleNotFoundError("No module named 'gone'", name="gone")
    monkeypatch.setattr(demo.importlib, "import_module", fails_with(fault))
    with pytest.raises(ModuleNotFoundError, match="gone"):
        demo.check_extra()


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (ValueError("x: wrong"), 2, "x: wrong"),
        (demo.DemoError("the curves part"), 1, "the curves part"),
        (fastbp.DivergenceError("training diverged"), 1, "training diverged"),
        (PermissionError(13, "Permission denied", "there"), 1, "Permission denied: 'there'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(fault, code, text, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", fails_with(fault))
    assert cli.main(["demo"]) == code
    assert sentence(capsys).endswith(text)


def test_a_long_sentence_is_not_wrapped(monkeypatch, capsys):
    text = "word " * 60 + "[not markup]"
    monkeypatch.setattr(demo, "run", fails_with(ValueError(text)))
    assert cli.main(["demo"]) == 2
    assert sentence(capsys) == f"fastbp: {text}"


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(demo, "run", fails_with(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["demo"])


def test_the_demo_gets_its_arguments(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(demo, "run", lambda *arguments: calls.append(arguments))
    words = ["demo", "--task", "image", "--output", str(tmp_path), "--epochs", "3", "--seed", "7"]
    assert cli.main(words) == 0
    assert calls == [("image", tmp_path, 3, 7)]


def test_a_subcommand_is_an_entry_of_the_table(monkeypatch, capsys):
    def add_arguments(parser: argparse.ArgumentParser):
        parser.add_argument("--twice", action="store_true")

    seen = []
    monkeypatch.setitem(cli.COMMANDS, "info", cli.Command("say it", add_arguments, seen.append))
    assert cli.main(["info", "--twice"]) == 0
    assert seen[0].twice is True


def test_as_a_module():
    command = [sys.executable, "-m", "fastbp", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == f"fastbp {fastbp.__version__}\n"
