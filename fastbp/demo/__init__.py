"""What `fastbp demo` shows: tasks that train a network, check the result, and draw it.

A task needs the extra `demo` (scikit-learn for the data, matplotlib for the pictures), which is
imported only when the task runs.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

from ..checks import check_choice, check_count


class DemoError(RuntimeError):
    """The demonstration cannot run here, or it did not show what it promises."""


@dataclass(frozen=True)
class Task:
    """A demonstration: its line of help and its epochs. The module of its name has `run`."""

    help: str
    epochs: int


TASKS = {
    "digits": Task("recognise handwritten digits, beside plain NumPy", 300),
    "image": Task("learn the pixels of a photograph", 20),
}


def run(task: str, output: Path, epochs: int | None = None, seed: int = 0) -> None:
    """Run a task; its pictures and its network are written to the folder `output`.

    Parameters
    ----------
    task : str
        A name of `TASKS`.
    output : Path
        Made where it is missing.
    epochs : int, optional
        Default: what the task needs to be fully trained.
    seed : int
        Of the start values and the order of the batches.

    Raises
    ------
    DemoError
        If the extra is missing, or a check of the result fails.
    ValueError
        For wrong arguments.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from fastbp import demo
    >>> demo.run("letters", Path("fastbp-demo"))
    Traceback (most recent call last):
        ...
    ValueError: task: expected one of digits, image; got 'letters'
    """
    check_choice("task", task, TASKS)
    epochs = TASKS[task].epochs if epochs is None else check_count("epochs", epochs)
    seed = check_count("seed", seed, 0)
    check_extra()
    if output.exists() and not output.is_dir():
        raise ValueError(f"output: expected a folder, got the file {output}")
    output.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f".{task}", __name__).run(output.resolve(), epochs, seed)


def check_extra() -> None:
    """Raise DemoError, with the way out, where scikit-learn or matplotlib is missing."""
    for module, name in {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}.items():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as fault:
            if fault.name != module:  # it is there, but something that it needs is not
                raise
            raise DemoError(
                f'the demo needs {name}, which is not installed: pip install "fastbp[demo]"'
            ) from None
