"""Networks as files: a NumPy .npz with the layers as JSON text and the parameters, no pickle."""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from . import expressions, losses
from .backends import BACKENDS
from .checks import Array, check_choice
from .layers import Dense, Dropout

if TYPE_CHECKING:
    from .network import Sequential

FORMAT = 1


def save(net: "Sequential", path: str | os.PathLike[str]) -> Path:
    """Write the network to a `.npz` file; an older file is replaced only when the new one is whole.

    Parameters
    ----------
    path : path
        The suffix .npz is added where it is missing. An older file keeps its mode, and a link
        points to where it did.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    OSError
        If the folder is missing or cannot be written.

    Examples
    --------
    >>> import tempfile, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(2, 1, rng=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     copy = fastbp.load(net.save(f"{folder}/net"))
    >>> (copy.parameters == net.parameters).all()
    np.True_
    """
    target = Path(path)
    if target.suffix != ".npz":
        target = target.with_name(target.name + ".npz")
    header, place = _header(net), Path(os.path.realpath(target))
    if not place.parent.is_dir():
        raise FileNotFoundError(
            f"path: expected a file in a folder that exists, found no folder {place.parent}; "
            "make it first"
        )
    # A name that no other thread or process has; not by tempfile, which ignores the umask.
    partial = place.with_name(f"{place.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(partial, "xb") as file:
            if place.exists():
                shutil.copymode(place, partial)
            np.savez(file, header=np.array(json.dumps(header)), parameters=net.parameters)
        os.replace(partial, place)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _header(net: "Sequential") -> dict[str, Any]:
    """All that makes the network besides its parameters."""
    return {
        "format": FORMAT,
        "dtype": str(net.dtype),
        "loss": net.loss and net.loss.config(),
        "layers": [{"kind": layer.kind, **layer.config()} for layer in net.layers],
        "sha256": hashlib.sha256(net.parameters.tobytes()).hexdigest(),
    }


def reduce(net: "Sequential") -> tuple[Any, ...]:
    """What pickle and copy.deepcopy make a copy of a network from, its history left out."""
    place = net.device, net.precision
    return _revive, (_header(net), place, net.parameters.copy(), net.gradients.copy())


def _revive(
    header: dict[str, Any], place: tuple[str, str | None], parameters: Array, gradients: Array
) -> "Sequential":
    net = _build(header).to(*place)
    net.parameters[...], net.gradients[...] = parameters, gradients
    return net


def load(path: str | os.PathLike[str], device: str = "cpu") -> "Sequential":
    """The network that `Sequential.save` wrote.

    Parameters
    ----------
    path : path
        A `.npz` file.
    device : {"cpu", "reference", "cuda"}
        Where its kernels shall run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or no network of this library.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.load("missing.npz")
    Traceback (most recent call last):
        ...
    FileNotFoundError: path: expected a saved network, found no file missing.npz
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: expected a saved network, found no file {path}")
    check_choice("device", device, BACKENDS)
    with open(path, "rb") as opened:  # np.load leaves a file open that it cannot read
        try:
            net = _read(opened)
        except Exception as fault:  # NumPy, zipfile and json raise all kinds for foreign bytes
            raise ValueError(
                f"path: expected a network saved by fastbp, but {path} is damaged or something "
                f"else ({fault}); restore it from a copy"
            ) from fault
    return net.to(device)


def _read(opened: IO[bytes]) -> "Sequential":
    with np.load(opened, allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        parameters = file["parameters"]
    if header["format"] > FORMAT:
        raise ValueError(f"format {header['format']} is newer than this library's {FORMAT}")
    if hashlib.sha256(parameters.tobytes()).hexdigest() != header["sha256"]:
        raise ValueError("the parameters do not match their checksum")
    net = _build(header)
    net.parameters[...] = parameters
    return net


def _build(header: dict[str, Any]) -> "Sequential":
    from .network import Sequential

    layers: list[Any] = []
    for entry in header["layers"]:
        kind = entry["kind"]
        config = {name: value for name, value in entry.items() if name != "kind"}
        if kind == Dense.kind:
            if not isinstance(config["activation"], str):
                dtype = np.dtype(header["dtype"])
                config["activation"] = expressions.read_activation(config["activation"], dtype)
            layers.append(Dense(**config, init="zeros", dtype=header["dtype"]))
        elif kind == Dropout.kind:
            layer = Dropout(config["rate"], rng=0)
            layer.seed, layer.passes = config["seed"], config["passes"]
            layers.append(layer)
        else:
            raise ValueError(f"unknown kind of layer {kind!r}")
    net = Sequential(*layers)
    if header["loss"]:
        net.loss = losses.read(header["loss"], net.out_features, net.dtype)
    return net
