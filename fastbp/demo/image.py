"""A photograph as a network: from a pixel's place (x, y) to its colour (r, g, b).

The layers are sines, started as Sitzmann et al. (2020) do: "Implicit Neural Representations with
Periodic Activation Functions". Their factor omega inside of every sine is part of the weights here.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_sample_image

from .. import Adam, Dense, History, Sequential, get_num_threads
from ..checks import Array
from . import DemoError
from .common import Page, cosine, figure, saved, warm_up, write

WIDTH, HIDDEN = 256, 3  # of the sine layers after the first
OMEGA = 250.0  # the picture is 2 units wide and high; half of OMEGA is the highest frequency
BATCH = 512
LEARNING_RATE = 3e-3
LOSS = "squared_error"
ENOUGH = 18.0  # dB; a network that has learnt nothing but the mean colour reaches 11


def first_weights(rng: np.random.Generator, in_features: int, out_features: int) -> Array:
    """The frequencies (in_features, out_features) of the first layer."""
    return OMEGA * rng.uniform(-1, 1, (in_features, out_features)) / in_features


def sine_weights(rng: np.random.Generator, in_features: int, out_features: int) -> Array:
    """Weights (in_features, out_features) that keep a variance of one before every sine."""
    limit = np.sqrt(6 / in_features)
    return rng.uniform(-limit, limit, (in_features, out_features))


def colour_weights(rng: np.random.Generator, in_features: int, out_features: int) -> Array:
    """Weights (in_features, out_features) of the last layer, which has no sine: omega is 30."""
    return sine_weights(rng, in_features, out_features) / 30


def build(seed: int, width: int = WIDTH, hidden: int = HIDDEN) -> Sequential:
    """An untrained network from (x, y) to (r, g, b)."""
    rng = np.random.default_rng(seed)
    first = Dense(2, width, "sin", init=first_weights, rng=rng)
    inner = [Dense(width, width, "sin", init=sine_weights, rng=rng) for _ in range(hidden)]
    net = Sequential(first, *inner, Dense(width, 3, init=colour_weights, rng=rng))
    first.b[...] = rng.uniform(-np.pi, np.pi, width)  # else all waves would start in the middle
    return net


def pixels(image: Array) -> tuple[Array, Array]:
    """Places (n, 2) and colours (n, 3) of an image (height, width, 3) of bytes, all in [-1, 1]."""
    height, width, _ = image.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    places = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    colours = (image.reshape(-1, 3) / 127.5 - 1).astype(np.float32)
    return places, colours


def paint(net: Sequential, places: Array, shape: tuple[int, ...]) -> Array:
    """The image of bytes that the network has learnt."""
    colours = np.clip(net.predict(places), -1, 1)
    return np.rint((colours + 1) * 127.5).astype(np.uint8).reshape(shape)


def psnr(image: Array, original: Array) -> float:
    """Peak signal-to-noise ratio in dB of two images of bytes; infinite if they are equal."""
    error = np.mean((image.astype(np.float64) - original) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def train(net: Sequential, x: Array, t: Array, epochs: int, seed: int) -> History:
    """Adam with a falling learning rate; Ctrl-C, which `fit` swallows, goes on upwards."""
    optimizer = Adam(LEARNING_RATE)

    def slow_down(_: Sequential, history: History) -> None:
        optimizer.learning_rate = cosine(LEARNING_RATE, history.epochs, epochs)

    history = net.fit(
        x,
        t,
        loss=LOSS,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=BATCH,
        callbacks=[slow_down],
        progress=True,
        seed=seed,
    )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    return history


def run(folder: Path, epochs: int, seed: int) -> None:
    """Train, draw, save, check."""
    original = load_sample_image("china.jpg")
    height, width, _ = original.shape
    x, t = pixels(original)
    net = build(seed)
    sizes = "-".join(str(layer.in_features) for layer in net.layers)
    page = Page(
        "A photograph as a network",
        f"{len(x):,} pixels of china.jpg, {width}x{height}: from (x, y) to (r, g, b), float32;\n"
        f"{sizes}-3, sin, squared error, Adam, batches of {BATCH}, {epochs} epochs",
    )
    ready = warm_up(lambda: train_rows(build(seed), x, t))

    start = time.perf_counter()
    history = train(net, x, t, epochs, seed)
    seconds = time.perf_counter() - start

    painted = paint(net, x, original.shape)
    quality = psnr(painted, original)
    write(draw(original, painted, quality, net.parameters.size), folder / "china.png")
    network = saved(net, folder / "china.npz", x)
    steps = -(-len(x) // BATCH)
    page.gap()
    page.facts(
        {
            "PSNR": f"{quality:.2f} dB",
            "Loss": f"{history.loss[0]:.4f} after the first epoch, {history.loss[-1]:.4f} after "
            "the last",
            "Time": f"{seconds:.0f} s, {np.median(history.seconds) / steps * 1e3:.2f} ms per step, "
            f"{get_num_threads()} threads",
            "Kernels": ready,
            "Saved": f"{network.name} loaded again predicts the same, bit for bit",
        }
    )
    page.gap()
    page.files(
        folder,
        {
            "china.png": "the photograph and what the network learnt of it",
            network.name: f"the network, {net.parameters.size:,} parameters for {t.size:,} numbers",
        },
    )
    check_quality(quality)


def train_rows(net: Sequential, x: Array, t: Array) -> None:
    """One step and one prediction, which compile all kernels that the training needs."""
    net.train_step(x[:BATCH], t[:BATCH], LOSS, Adam())
    net.predict(x[:BATCH])


def check_quality(quality: float) -> None:
    """Raise DemoError if the picture is not recognisable, which one epoch suffices for."""
    if not quality >= ENOUGH:
        raise DemoError(
            f"the PSNR {quality:.2f} dB is below {ENOUGH:g} dB; train longer (--epochs) or start "
            "from other weights (--seed)"
        )


def draw(original: Array, painted: Array, quality: float, parameters: int) -> Any:
    """The original and what was learnt of it, side by side."""
    picture = figure(13, 4.85)
    picture.suptitle(f"{parameters:,} parameters, PSNR {quality:.2f} dB", fontweight="bold")
    titles = (f"Original: {original.size:,} numbers", "Learnt by the network")
    for axes, image, title in zip(picture.subplots(1, 2), (original, painted), titles, strict=True):
        axes.imshow(image)
        axes.set_title(title)
        axes.set_axis_off()
    return picture
