"""Saved networks: what comes back, what survives a failure, and files that are no network."""

import copy
import io
import json
import os
import pickle
import re
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import storage

X = np.random.default_rng(3).standard_normal((5, 3))
T = np.random.default_rng(4).random((5, 2))


def make(dtype="float64", rate=0.5, **options):
    net = fastbp.Sequential(
        fastbp.Dense(3, 4, activation="gelu", dtype=dtype, rng=0),
        fastbp.Dropout(rate, rng=1),
        fastbp.Dense(4, 2, bias=False, dtype=dtype, rng=2),
        **options,
    )
    net.parameters[...] = np.linspace(-1, 1, net.parameters.size)
    return net


def header_of(path):
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file["header"]))


NO_ENTRY = object()


def rewrite(path, parameters=None, **changes):
    """The saved file with another header; NO_ENTRY takes an entry out."""
    header = header_of(path) | changes
    header = {key: value for key, value in header.items() if value is not NO_ENTRY}
    with np.load(path) as file:
        parameters = file["parameters"] if parameters is None else parameters
    np.savez(path, header=np.array(json.dumps(header)), parameters=parameters)


# Round trips


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_comes_back(tmp_path, dtype):
    net = make(dtype)
    x, t = X.astype(dtype), T.astype(dtype)
    net.fit(x, t, loss="huber", epochs=2, seed=0)
    copy = fastbp.load(net.save(tmp_path / "net.npz"))

    assert repr(copy) == repr(net)
    assert copy.dtype == net.dtype
    assert copy.loss == net.loss
    np.testing.assert_array_equal(copy.parameters, net.parameters)
    np.testing.assert_array_equal(copy.predict(x), net.predict(x))
    assert copy.history is None
    copy.parameters[...] = 7
    assert (copy.layers[0].w == 7).all()


def test_training_goes_on_with_the_same_masks(tmp_path):
    net = make()
    net.fit(X, T, loss="squared_error", epochs=2, seed=0)
    copy = fastbp.load(net.save(tmp_path / "net"))
    assert (copy.layers[1].passes, copy.layers[1].seed) == (2, net.layers[1].seed)
    history = net.fit(X, T, loss="squared_error", epochs=3, seed=1)
    assert copy.fit(X, T, loss="squared_error", epochs=3, seed=1).loss == history.loss
    np.testing.assert_array_equal(copy.parameters, net.parameters)


@pytest.mark.parametrize(
    "loss", [None, "squared_error", fastbp.Huber(0.25), "softmax_cross_entropy"]
)
def test_the_loss_of_the_last_fit_comes_back(tmp_path, loss):
    net = make()
    if loss is not None:
        net.fit(X, T, loss=loss, epochs=0)
    copy = fastbp.load(net.save(tmp_path / "net"))
    assert copy.loss == net.loss
    if loss == "softmax_cross_entropy":
        np.testing.assert_array_equal(copy.predict_proba(X), net.predict_proba(X))


@pytest.mark.parametrize(("device", "other"), [("cpu", "reference"), ("reference", "cpu")])
def test_another_device(tmp_path, device, other):
    net = make(device=device)
    copy = fastbp.load(net.save(tmp_path / "net"), device=other)
    assert copy.device == other
    np.testing.assert_allclose(copy.predict(X), net.predict(X), rtol=1e-12)
    assert fastbp.load(tmp_path / "net.npz").device == "cpu"


def test_save_and_load_do_not_touch_the_network(tmp_path):
    net = make()
    net.fit(X, T, loss="huber", epochs=1, seed=0)
    before = net.parameters.tobytes(), net.history, net.loss, net.layers[1].passes
    fastbp.load(net.save(tmp_path / "net"))
    assert (net.parameters.tobytes(), net.history, net.loss, net.layers[1].passes) == before


# The file


@pytest.mark.parametrize(
    ("name", "written"),
    [("net", "net.npz"), ("net.npz", "net.npz"), ("net.v1", "net.v1.npz"), ("ne t.", "ne t..npz")],
)
def test_the_suffix(tmp_path, name, written):
    path = make().save(str(tmp_path / name))
    assert path == tmp_path / written
    assert [file.name for file in tmp_path.iterdir()] == [written]


def test_what_lies_in_the_file(tmp_path):
    net = make()
    path = net.save(tmp_path / "net")
    with np.load(path, allow_pickle=False) as file:  # so there is no pickle inside
        assert sorted(file.files) == ["header", "parameters"]
        np.testing.assert_array_equal(file["parameters"], net.parameters)
    header = header_of(path)
    assert header["format"] == storage.FORMAT
    assert [layer["kind"] for layer in header["layers"]] == ["dense", "dropout", "dense"]


class DiskFullError(OSError):
    pass


@pytest.mark.parametrize("error", [DiskFullError, KeyboardInterrupt])
def test_a_failing_save_keeps_the_old_file(tmp_path, monkeypatch, error):
    net = make()
    path = net.save(tmp_path / "net")
    old = path.read_bytes()

    def half_of_it(file, **arrays):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", half_of_it)
    net.parameters[...] = 0
    with pytest.raises(error):
        net.save(tmp_path / "net")
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["net.npz"]


def test_the_new_file_takes_its_place_in_one_move(tmp_path, monkeypatch):
    # Until that move the old file is whole: another process may read it at any time.
    net = make()
    path = net.save(tmp_path / "net")
    old, moves = path.read_bytes(), []

    def fails(source, target):
        moves.append((Path(source).read_bytes() != old, Path(target)))
        assert path.read_bytes() == old
        raise DiskFullError

    monkeypatch.setattr(os, "replace", fails)
    net.parameters[...] = 0
    with pytest.raises(DiskFullError):
        net.save(tmp_path / "net")
    assert moves == [(True, path)]
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["net.npz"]


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fails(file, **arrays):
        raise DiskFullError

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(DiskFullError):
        make().save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_save_replaces_the_old_file(tmp_path):
    net = make()
    net.save(tmp_path / "net")
    net.parameters[...] = 3
    path = net.save(tmp_path / "net")
    assert (fastbp.load(path).parameters == 3).all()
    assert [file.name for file in tmp_path.iterdir()] == ["net.npz"]


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: .* found no folder .*missing; make"):
        make().save(tmp_path / "missing" / "net")


def test_threads_may_save_to_one_path(tmp_path, monkeypatch):
    # Each waits with its file half written until the other has come as far.
    write, both = np.savez, threading.Barrier(2, timeout=10)

    def slowly(file, **arrays):
        both.wait()
        write(file, **arrays)
        both.wait()

    monkeypatch.setattr(np, "savez", slowly)
    net = make()
    with ThreadPoolExecutor(2) as pool:
        saves = [pool.submit(net.save, tmp_path / "net") for _ in range(2)]
        (path,) = {save.result() for save in saves}
    np.testing.assert_array_equal(fastbp.load(path).parameters, net.parameters)
    assert [file.name for file in tmp_path.iterdir()] == ["net.npz"]


@pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")
def test_the_mode_of_the_file(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    path = make().save(tmp_path / "net")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o600)
    assert make().save(path).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")
def test_a_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    net, path = make(), make().save(tmp_path / "far" / "net")
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    net.parameters[...] = 3
    assert net.save(link) == link
    assert link.is_symlink()
    assert (fastbp.load(path).parameters == 3).all()


# Files that are no network


def test_no_file(tmp_path):
    text = f"path: expected a saved network, found no file {tmp_path / 'net.npz'}"
    with pytest.raises(FileNotFoundError, match=re.escape(text)):
        fastbp.load(tmp_path / "net.npz")
    with pytest.raises(FileNotFoundError, match="path: expected a saved network, found no file"):
        fastbp.load(tmp_path)


def test_unknown_device_lists_the_known_ones(tmp_path):
    path = make().save(tmp_path / "net")
    text = "device: expected one of cpu, reference, cuda; got 'tpu'"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        fastbp.load(path, device="tpu")


def damaged(path, reason=""):
    """The text that names the file, says why, and the way out."""
    start = f"path: expected a network saved by fastbp, but {path} is damaged or something else ("
    return f"^{re.escape(start)}.*{reason}.*" + re.escape("); restore it from a copy") + "$"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, share):
    path = make().save(tmp_path / "net")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=damaged(path)):
        fastbp.load(path)


def loaded(path):
    """The network, or the text of the error."""
    try:
        return fastbp.load(path)
    except ValueError as fault:
        return str(fault)


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path):
    net = make()
    path = net.save(tmp_path / "net")
    whole = bytearray(path.read_bytes())
    refused = 0
    for at in range(0, len(whole), 5):
        whole[at] ^= 0xFF
        path.write_bytes(whole)
        whole[at] ^= 0xFF
        outcome = loaded(path)
        if isinstance(outcome, str):
            assert re.search(damaged(path), outcome, re.DOTALL), outcome
            refused += 1
        else:  # a byte such as the file's date
            np.testing.assert_array_equal(outcome.parameters, net.parameters)
            assert repr(outcome) == repr(net)
    assert refused > len(whole) / 5 / 2


def test_a_file_without_permission_is_not_called_damaged(tmp_path, monkeypatch):
    path = make().save(tmp_path / "net")

    def forbidden(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(PermissionError, match="Permission denied"):
        fastbp.load(path)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def archive(name, text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(name, text)
    return file.getvalue()


FOREIGN = {
    "text": b"a letter to grandmother\n" * 100,
    "one byte": b"P",
    "npy": npy(np.ones(3)),
    "pickle": npy(np.array([{}], object)),
    "other npz": npz(x=np.ones(3)),
    "no header": npz(parameters=np.ones(3)),
    "no json": npz(header=np.array("{"), parameters=np.ones(3)),
    "json of a number": npz(header=np.array("3"), parameters=np.ones(3)),
    "json of a list": npz(header=np.array("[]"), parameters=np.ones(3)),
    "empty json": npz(header=np.array("{}"), parameters=np.ones(3)),
    "zip": archive("header.txt", "hello"),
    "zip of a text": archive("header.npy", "hello"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file(tmp_path, kind):
    path = tmp_path / "net.npz"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(ValueError, match=damaged(path)):
        fastbp.load(path)
    assert path.read_bytes() == FOREIGN[kind]


def test_a_newer_format(tmp_path):
    path = make().save(tmp_path / "net")
    rewrite(path, format=storage.FORMAT + 1)
    with pytest.raises(ValueError, match=damaged(path, "format 2 is newer than this library's 1")):
        fastbp.load(path)


def test_parameters_that_were_changed(tmp_path):
    net = make()
    path = net.save(tmp_path / "net")
    parameters = net.parameters.copy()
    parameters[3] += 1e-16
    parameters[0] = 7
    rewrite(path, parameters=parameters)
    reason = "the parameters do not match their checksum"
    with pytest.raises(ValueError, match=damaged(path, reason)):
        fastbp.load(path)


DENSE = {"kind": "dense", "in_features": 3, "out_features": 4, "activation": "relu", "bias": True}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layers": [{"kind": "lstm"}]}, "unknown kind of layer 'lstm'"),
        ({"layers": [DENSE | {"activation": "swish"}]}, "activation: expected one of identity"),
        ({"layers": [DENSE | {"groups": 2}]}, "unexpected keyword argument 'groups'"),
        ({"layers": [DENSE | {"in_features": 0}]}, "in_features: expected an integer >= 1, got 0"),
        ({"layers": [DENSE]}, "could not broadcast"),  # 16 parameters, the file has 24
        ({"layers": [DENSE, DENSE]}, "expected in_features=4, the width of the layer below"),
        ({"layers": "dense"}, ""),
        ({"layers": [3]}, ""),
        ({"layers": NO_ENTRY}, "layers"),
        ({"layers": []}, "layers: expected at least one Dense layer, got none"),
        ({"dtype": "int8"}, "dtype: expected float32 or float64, got 'int8'"),
        ({"loss": {"name": "mse", "parameters": []}}, "loss: expected one of squared_error"),
        ({"loss": {"name": "huber", "parameters": [-1]}}, "delta: expected a finite number > 0"),
        ({"sha256": NO_ENTRY}, "sha256"),
        ({"format": "one"}, ""),
        ({"format": NO_ENTRY}, "format"),
    ],
)
def test_a_header_that_makes_no_network(tmp_path, changes, reason):
    path = make().save(tmp_path / "net")
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=damaged(path, reason)):
        fastbp.load(path)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_networks_of_their_own(copier):
    net = fastbp.Sequential(
        fastbp.Dense(3, 4, activation="tanh", rng=0),
        fastbp.Dropout(0.5, rng=1),
        fastbp.Dense(4, 2, rng=2),
    )
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((9, 3)).astype(np.float32), np.arange(9) % 2
    net.fit(x, t, loss="softmax_cross_entropy", epochs=1, seed=0)
    twin = copier(net)
    np.testing.assert_array_equal(twin.parameters, net.parameters)
    np.testing.assert_array_equal(twin.gradients, net.gradients)
    twin.parameters[:] = 0
    assert not twin.layers[0].w.any()
    assert net.layers[0].w.any()
    twin = copier(net)
    for each in (net, twin):  # the masks go on alike
        each.fit(x, t, loss="softmax_cross_entropy", epochs=2, seed=1)
    np.testing.assert_array_equal(twin.parameters, net.parameters)
