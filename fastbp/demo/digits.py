"""Handwritten digits: one network trained by the kernels and, step for step, by plain NumPy.

Both start from the same weights and see the same batches, so their loss curves must agree to
rounding. One thing can part them: a pre-activation so close to zero that rounding puts it on the
other side of relu's kink. The gradient then differs for good, not by rounding. Large batches, L2
and a falling learning rate keep what such an event can do far below the tolerance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits  # scikit-learn brings it

from .. import SGD, Dense, Sequential, get_num_threads, set_num_threads
from ..checks import Array
from . import DemoError
from .common import GREY, OURS, THEIRS, Page, cosine, figure, saved, warm_up, write

SPLIT = 4  # another split of the same data moves the accuracy by up to 0.01
BATCH = 512
LEARNING_RATE = 0.05
MOMENTUM = 0.9
L2 = 1e-3
LOSS = "softmax_cross_entropy"

ENOUGH = 0.97  # of the test digits
TOLERANCE = 1e-4  # relative, of every epoch's loss, float32


@dataclass
class Data:
    """Pixels (n, 64) in 0..1, labels (n,), to train on and to test with."""

    x: Array
    t: Array
    x_test: Array
    t_test: Array


@dataclass
class Run:
    """A network on one device, and its losses and seconds per step, an entry per epoch."""

    net: Sequential
    optimizer: SGD
    rng: np.random.Generator
    loss: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)


def load_data() -> Data:
    """The 1,797 digits of scikit-learn, a fifth of every class kept for the test."""
    digits = load_digits()
    x = (digits.data / 16).astype(np.float32)
    x_train, x_test, t, t_test = train_test_split(
        x, digits.target, test_size=0.2, stratify=digits.target, random_state=SPLIT
    )
    return Data(x_train, t, x_test, t_test)


def start(device: str, seed: int) -> Run:
    """An untrained 64-128-64-10 network; the same numbers for the same seed on every device."""
    rng = np.random.default_rng(seed)
    net = Sequential(
        Dense(64, 128, activation="relu", rng=rng),
        Dense(128, 64, activation="relu", rng=rng),
        Dense(64, 10, rng=rng),
        device=device,
    )
    return Run(net, SGD(LEARNING_RATE, momentum=MOMENTUM), rng)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the kernels and for NumPy's BLAS.

    So small a network gains little from more, and on a busy machine BLAS loses a lot to them: a
    step was seen to take 60 times as long.
    """
    before = get_num_threads()
    set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        set_num_threads(before)


def train_epoch(run: Run, data: Data, rate: float) -> None:
    """One pass over the training digits; Ctrl-C, which `fit` swallows, goes on upwards."""
    run.optimizer.learning_rate = rate
    history = run.net.fit(
        data.x,
        data.t,
        loss=LOSS,
        optimizer=run.optimizer,
        epochs=1,
        batch_size=BATCH,
        l2=L2,
        seed=run.rng,
    )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    run.loss += history.loss
    run.step += [seconds / -(-len(data.x) // BATCH) for seconds in history.seconds]


def train(runs: list[Run], data: Data, epochs: int) -> None:
    """Train all runs, epoch by epoch in turn, so that a disturbance of the machine hits all."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=epochs, loss=np.nan)
        for epoch in range(epochs):
            for run in runs if epoch % 2 else runs[::-1]:
                train_epoch(run, data, cosine(LEARNING_RATE, epoch, epochs))
            progress.update(bar, advance=1, loss=runs[0].loss[-1])


def relative_difference(ours: list[float], theirs: list[float]) -> Array:
    """|ours - theirs| / |theirs|, an entry per epoch."""
    reference = np.array(theirs)
    return np.abs(np.array(ours) - reference) / np.abs(reference)


def first_epoch(run: Run, data: Data) -> float:
    """Everything that the demo times, once."""
    train_epoch(run, data, LEARNING_RATE)
    return score(run, data)


def check_curves(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference of two loss curves.

    Raises
    ------
    DemoError
        If it is above `TOLERANCE`, or no number.
    """
    difference = relative_difference(ours, theirs)
    agrees = difference <= TOLERANCE  # False for NaN
    if not agrees.all():
        epoch = int(np.argmin(agrees))
        raise DemoError(
            f"the loss curves of fastbp and NumPy part in epoch {epoch + 1}: relative difference "
            f"{difference[epoch]:.1e}, allowed {TOLERANCE:.0e}; if only this --seed does it, "
            "rounding put a pre-activation on the other side of relu's kink"
        )
    return float(difference.max())


def check_accuracy(accuracy: float) -> None:
    """Raise DemoError if the share of test digits that are recognised is below `ENOUGH`."""
    if not accuracy >= ENOUGH:
        raise DemoError(
            f"the test accuracy {accuracy:.4f} is below {ENOUGH}; train longer (--epochs) or start "
            "from other weights (--seed)"
        )


def run(folder: Path, epochs: int, seed: int) -> None:
    """Train, compare, draw, save, check."""
    data = load_data()
    page = Page(
        "Handwritten digits",
        f"{len(data.x):,} scans of 8x8 pixels to learn from, {len(data.x_test)} to test with; "
        f"64-128-64-10,\nrelu, softmax cross-entropy, float32, batches of {BATCH}, {epochs} epochs",
    )
    spare = start("cpu", seed)
    ready = warm_up(lambda: first_epoch(spare, data))
    ours, theirs = start("cpu", seed), start("reference", seed)
    with one_thread():
        train([ours, theirs], data, epochs)

    accuracy = score(ours, data)
    step, numpy_step = np.median(ours.step), np.median(theirs.step)
    page.gap()
    page.table(
        ("", "fastbp", "NumPy"),
        [
            ("loss of the first epoch", f"{ours.loss[0]:.6f}", f"{theirs.loss[0]:.6f}"),
            ("loss of the last epoch", f"{ours.loss[-1]:.6f}", f"{theirs.loss[-1]:.6f}"),
            ("test accuracy", f"{accuracy:.4f}", f"{score(theirs, data):.4f}"),
            ("time per step", f"{step * 1e6:.0f} us", f"{numpy_step * 1e6:.0f} us"),
        ],
    )
    page.gap()
    write(draw_curves(ours.loss, theirs.loss), folder / "loss_curves.png")
    wrong = draw_misclassified(ours.net, data)
    write(wrong, folder / "misclassified.png")
    worst = check_curves(ours.loss, theirs.loss)
    network = saved(ours.net, folder / "digits.npz", data.x_test)
    count = round((1 - accuracy) * len(data.x_test))
    page.facts(
        {
            "Loss with L2": f"agree: worst relative difference {worst:.1e}, allowed {TOLERANCE:g}",
            "Speed": f"{numpy_step / step:.2f} times NumPy (one thread each, medians of epochs)",
            "Kernels": ready,
            "Saved": f"{network.name} loaded again predicts the same, bit for bit",
        }
    )
    page.gap()
    page.files(
        folder,
        {
            "loss_curves.png": "both curves and their difference",
            "misclassified.png": f"{count} of {len(data.x_test)} test digits",
            network.name: f"the network, {ours.net.parameters.size:,} parameters",
        },
    )
    check_accuracy(accuracy)


def score(run: Run, data: Data) -> float:
    """The share of the test digits that are recognised."""
    return run.net.evaluate(data.x_test, data.t_test, LOSS)["accuracy"]


def draw_curves(ours: list[float], theirs: list[float]) -> Any:
    """Both losses over the epochs, and below them their relative difference."""
    picture = figure(8, 6)
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    epochs = np.arange(1, len(ours) + 1)
    above.plot(epochs, theirs, color=THEIRS, linewidth=6, alpha=0.7, label="NumPy")
    above.plot(epochs, ours, color=OURS, linewidth=1.8, label="fastbp")
    above.set(yscale="log", ylabel="loss, L2 penalty included")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter("{x:g}")
    above.yaxis.set_minor_formatter(NullFormatter())
    above.legend(frameon=False)
    above.set_title("The same training, twice", loc="left", fontweight="bold")

    difference = relative_difference(ours, theirs)
    floor = np.finfo(np.float32).eps / 100  # equal curves have no logarithm
    below.plot(epochs, np.maximum(difference, floor), color=GREY, linewidth=1)
    below.axhline(TOLERANCE, color="black", linewidth=1, linestyle=(0, (4, 3)))
    below.annotate(
        "allowed", (1, TOLERANCE), (0, -4), textcoords="offset points", va="top", fontsize=9
    )
    below.set(yscale="log", xlabel="epoch", ylabel="relative difference", ylim=(None, 1e-3))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
    return picture


def draw_misclassified(net: Sequential, data: Data) -> Any:
    """Every test digit that the network gets wrong, the most confident errors first."""
    p = net.predict_proba(data.x_test, LOSS)
    guess, sure = p.argmax(axis=1), p.max(axis=1)
    wrong = np.flatnonzero(guess != data.t_test)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    if not len(wrong):
        picture = figure(6, 1)
        none = f"None of {len(data.x_test)} test digits is misclassified"
        picture.text(0.5, 0.5, none, ha="center", va="center", fontsize=13)
        return picture

    columns = min(5, len(wrong))
    rows = -(-len(wrong) // columns)
    # All digits in one coordinate system, a pixel being one unit: axes for each would be slow.
    across, down = 14, 13
    picture = figure(max(1.8 * columns, 6), 1.7 * rows + 0.6)
    picture.suptitle(
        f"{len(wrong)} of {len(data.x_test)} test digits are misclassified", fontweight="bold"
    )
    axes = picture.subplots()
    for place, i in enumerate(wrong):
        left, top = place % columns * across, place // columns * down
        box = (left, left + 8, top + 8, top)
        pixels = data.x_test[i].reshape(8, 8)
        axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=1, extent=box)
        axes.add_patch(Rectangle((left, top), 8, 8, fill=False, edgecolor="0.8"))
        words = f"a {data.t_test[i]}, taken for {guess[i]}\nwith probability {sure[i]:.2f}"
        axes.text(left + 4, top - 0.6, words, ha="center", va="bottom", fontsize=9)
    axes.set(xlim=(-3, columns * across - 3), ylim=(rows * down - 4, -4), aspect="equal")
    axes.set_axis_off()
    return picture
