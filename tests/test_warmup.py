"""`fastbp warmup` and `fastbp info`, and the functions behind them."""

import json
import os
import subprocess
import sys

import pytest

import fastbp
from fastbp import cli, engines, info
from fastbp.kernels import cpu

# What the API does not call: parts of other kernels, and sums of gradients over parts of a batch.
# And what waits for an expression, which is compiled with it.
NOT_WARMED = {
    "expression_loss",
    *("activate", "activation_gradient", "dense_backward_add"),
    *("adam", "adamw", "l2_penalty", "rmsprop", "sgd"),
    *("network_forward", "network_step"),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTBP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "_forced", None)
    monkeypatch.delenv("FASTBP_ENGINE", raising=False)
    engines.load(fastbp.get_num_threads())
    yield
    engines.set_engine("tiles")


@pytest.fixture
def small_measurement(monkeypatch):
    small = {"rows": (2,), "sides": (3,), "rounds": 3}
    monkeypatch.setattr(engines.measure, "__kwdefaults__", small)


def test_a_second_process_only_loads():
    code = (
        "import fastbp; done = fastbp.warmup(measure=False); print(done.compiled, done.loaded > 30)"
    )
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
        )
    assert ended.stdout == "0 True\n", ended.stderr


@pytest.mark.parametrize("name", sorted(set(cpu.__all__) - NOT_WARMED))
def test_every_kernel_is_warmed_for_both_types(name):
    fastbp.warmup(measure=False)
    signatures = str(getattr(cpu, name).signatures)
    if not name.endswith("_work") and name != "shuffle":  # whole numbers have no float type
        assert "float32" in signatures
        assert "float64" in signatures
    assert signatures != "[]"


def test_a_training_step_after_a_warm_up_compiles_nothing():
    # With the types of real data: what the tiny networks of the warm-up stand for.
    code = """
import numpy as np, fastbp
from fastbp.warmup import cache_counts
fastbp.warmup(["float32"], measure=False)
before = cache_counts()
net = fastbp.Sequential(
    fastbp.Dense(3, 4, activation="gelu"), fastbp.Dropout(0.1), fastbp.Dense(4, 2, bias=False)
)
x, t, s = np.ones((5, 3), np.float32), np.array([0, 1, 0, 1, 1]), np.ones(5, np.float32)
net.fit(x, t, loss="softmax_cross_entropy", epochs=1, l2=0.1, clip=1.0, sample_weight=s)
net.evaluate(x, t), net.predict_proba(x), net.predict(x), net.predict(x)
net.train_step(x, t, "softmax_cross_entropy", fastbp.SGD(0.1))
print(cache_counts() == before)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout == "True\n", ended.stderr


def test_wrong_dtype():
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got 'float16'"):
        fastbp.warmup(["float16"], measure=False)


def test_warmup_measures_and_keeps_the_table(small_measurement):
    seen = []
    done = fastbp.warmup(["float64"], progress=lambda *step: seen.append(step))
    assert done.table == engines.table() == engines.read(done.table.settings)
    assert done.table_path == engines.path_of(done.table.settings)
    assert seen[0][0] == "layers float64"
    assert seen[-1] == ("float64 2 x 3 x 3", 1, 2)


def test_the_command_warmup(small_measurement, capsys):
    assert cli.main(["warmup"]) == 0
    printed = capsys.readouterr().out
    assert "kernels compiled" in printed
    assert "loaded from the cache" in printed
    assert f"cache: {fastbp.warmup(measure=False).folder}" in printed
    assert "of 4 layers" in printed
    assert f"written {engines.path_of(engines.table().settings)}" in printed


def test_the_command_warmup_without_measuring(capsys):
    assert cli.main(["warmup", "--no-measure"]) == 0
    assert "engines" not in capsys.readouterr().out
    assert not engines.cache_folder().exists()


def test_info_before_and_after_a_measurement(small_measurement, capsys):
    assert cli.main(["info"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"fastbp {fastbp.__version__}" in printed
    assert "nothing was measured here; `fastbp warmup` measures it" in printed
    assert "tiles / BLAS" not in printed

    fastbp.warmup(["float32"])
    assert cli.main(["info"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "auto: the faster one, as measured on" in printed
    assert "2 x 3 x 3" in printed

    fastbp.set_engine("blas")
    assert cli.main(["info"]) == 0
    assert "blas: forced" in " ".join(capsys.readouterr().out.split())


def test_info_as_json(small_measurement, capsys):
    fastbp.warmup(["float32"])
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["versions"]) == {"python", "fastbp", "numpy", "numba", "llvmlite", "scipy"}
    assert found["threads"] == fastbp.get_num_threads()
    assert found["vector_bits"] in (128, 256, 512)
    assert found["vector_bits_forced"] is bool(os.environ.get("FASTBP_SIMD"))
    assert found["kernel_cache"]["files"] > 0
    assert found["engine"] == "auto"
    assert [row["n"] for row in found["engines"]["layers"]] == [2] * 4


def test_info_without_a_kernel_cache(monkeypatch):
    monkeypatch.setattr(info, "kernel_folder", lambda: None)
    found = info.collect()
    assert found["kernel_cache"] == {"path": None, "writable": False, "files": 0}
    assert "every process compiles anew" in info._facts(found)["kernel cache"]
