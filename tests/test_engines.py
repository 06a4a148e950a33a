"""Which engine runs a layer: forced, measured, read from disk; and what fails without harm."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import fastbp
from fastbp import engines
from fastbp.kernels.cpu import groups
from fastbp.kernels.cpu.engines import (
    BACKWARD,
    FORWARD,
    LAYER_SIZES,
    ROW_SIZES,
    choices,
    chooses_blas,
)
from fastbp.kernels.cpu.jit import kernel

runs_on_blas = kernel(chooses_blas)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads what was measured on this machine; the engine is afterwards as it was."""
    monkeypatch.setenv("FASTBP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTBP_ENGINE", raising=False)
    monkeypatch.setattr(engines, "_forced", None)
    fastbp.parallel.start_threads()
    yield
    choices[...] = engines.ALL_TILES
    engines._table = None


def table_of(*fast, seconds=1.0):
    """A table for the settings of now: each of `fast` is (direction, dtype, n, side), for BLAS."""
    rows = [
        engines.Row(direction, dtype, n, side, side, 1.0, 0.5 if layer in fast else 2.0)
        for direction in engines.DIRECTIONS
        for dtype in engines.DTYPES
        for n in (4, 256)
        for side in (32, 1024)
        if (layer := (direction, dtype, n, side))
    ]
    settings = engines.settings(fastbp.get_num_threads())
    return engines.Table(settings, "today", seconds, tuple(rows))


def chosen(direction, dtype, n, k, m):
    """What compiled code finds for a layer. The arrays have no memory of their own."""
    x = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), (n, k), (0, 0))
    w = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), (k, m), (0, 0))
    return "blas" if runs_on_blas(direction, x, w) else "tiles"


def reload():
    engines.load(fastbp.get_num_threads())


def test_without_a_table_everything_runs_on_the_tiles():
    reload()
    assert fastbp.get_engine() == "auto"
    assert engines.table() is None
    assert not choices.any()
    assert chosen(BACKWARD, np.float64, 4096, 4096, 4096) == "tiles"


@pytest.mark.parametrize("place", list(np.ndindex(2, 2)))
@pytest.mark.parametrize(("row", "n"), [(0, 0), (0, 1), (1, 3), (5, 32), (5, 63), (15, 10**6)])
@pytest.mark.parametrize(("column", "k", "m"), [(0, 0, 5), (0, 1, 1), (2, 7, 1), (20, 1024, 1024)])
def test_compiled_code_reads_the_bit_of_its_size(place, row, n, column, k, m):
    direction, double = place
    dtype = np.float64 if double else np.float32
    choices[...] = 0
    choices[direction, double, row] = 1 << column
    assert chosen(direction, dtype, n, k, m) == "blas"
    choices[...] = ~choices
    assert chosen(direction, dtype, n, k, m) == "tiles"


def test_the_table_decides_by_what_was_measured_nearest():
    words = engines.bits(
        table_of(("forward", "float32", 4, 1024), ("backward", "float64", 256, 32))
    )
    assert words.shape == (2, 2, ROW_SIZES)
    choices[...] = words
    assert chosen(FORWARD, np.float32, 4, 1024, 1024) == "blas"
    assert chosen(FORWARD, np.float32, 1, 4096, 4096) == "blas"
    assert chosen(FORWARD, np.float32, 16, 10, 10**5) == "blas"
    assert chosen(FORWARD, np.float32, 256, 1024, 1024) == "tiles"
    assert chosen(FORWARD, np.float32, 4, 32, 32) == "tiles"
    assert chosen(FORWARD, np.float64, 4, 1024, 1024) == "tiles"
    assert chosen(BACKWARD, np.float32, 4, 1024, 1024) == "tiles"
    assert chosen(BACKWARD, np.float64, 10**6, 3, 3) == "blas"
    assert LAYER_SIZES == 63  # the sign bit of a word stays free


def test_a_tie_stays_with_the_tiles():
    row = engines.Row("forward", "float32", 1, 1, 1, tiles=1.0, blas=0.99)
    assert row.faster == "tiles"
    assert replace(row, blas=0.9).faster == "blas"


def test_a_forced_engine_runs_and_the_results_agree():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((100, 70)), rng.standard_normal((70, 90)) / 8
    results = {}
    for engine in ("tiles", "blas"):
        fastbp.set_engine(engine)
        assert fastbp.get_engine() == engine
        assert chosen(FORWARD, np.float64, 100, 70, 90) == engine
        y, saved = fastbp.functional.dense_forward(x, w, activation="tanh")
        results[engine] = fastbp.functional.dense_backward(y, x, w, saved, "tanh")
    for tiles, blas in zip(*results.values(), strict=True):
        np.testing.assert_allclose(tiles, blas, rtol=1e-12, atol=1e-12)


def test_unknown_engine():
    with pytest.raises(ValueError, match="engine: expected one of auto, tiles, blas; got 'mkl'"):
        fastbp.set_engine("mkl")


@pytest.mark.parametrize(("engine", "word"), [("tiles", 0), ("blas", -1), ("auto", 0)])
def test_environment_variable(engine, word, tmp_path):
    code = (
        "import fastbp; from fastbp.kernels.cpu.engines import choices;"
        "fastbp.Sequential(fastbp.Dense(1, 1));"
        "print(fastbp.get_engine(), choices.min(), choices.max())"
    )
    ended = run(code, FASTBP_ENGINE=engine, FASTBP_CACHE_DIR=str(tmp_path))
    assert ended.stdout == f"{engine} {word} {word}\n", ended.stderr


def test_bad_environment_variable():
    ended = run("import fastbp; fastbp.Sequential(fastbp.Dense(1, 1))", FASTBP_ENGINE="mkl")
    assert "ValueError: FASTBP_ENGINE: expected auto, tiles or blas, got 'mkl'" in ended.stderr


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_saved_table_is_found_again_and_followed():
    table = table_of(("forward", "float32", 4, 32))
    path = engines.save(table)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    reload()
    assert engines.table() == table
    assert chosen(FORWARD, np.float32, 4, 32, 32) == "blas"
    fastbp.set_engine("tiles")
    assert chosen(FORWARD, np.float32, 4, 32, 32) == "tiles"
    assert engines.table() is None
    fastbp.set_engine("auto")
    assert chosen(FORWARD, np.float32, 4, 32, 32) == "blas"


def test_a_table_is_for_its_number_of_threads(monkeypatch):
    engines.save(table_of())
    threads = fastbp.get_num_threads()
    try:
        fastbp.set_num_threads(threads + 1)
        assert engines.table() is None
    finally:
        fastbp.set_num_threads(threads)
    assert engines.table() is not None
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # decides BLAS's own threads
    reload()
    assert engines.table() is None


@kernel
def rows_lie_along_the_vectors(n, x, table):
    return groups.takes_narrow(n, x, table)


def test_a_narrow_network_keeps_to_the_engine_that_is_chosen():
    net, x = fastbp.Sequential(fastbp.Dense(5, 7), fastbp.Dense(7, 3)), np.empty((77, 5), "f4")
    arguments = len(x), x, net.plans[0].table
    answers = {}
    for engine in ("tiles", "blas"):
        fastbp.set_engine(engine)
        answers[engine] = rows_lie_along_the_vectors(*arguments)
    assert answers == {"tiles": True, "blas": False}


def damage(content, **changes):
    return json.dumps(json.loads(content) | changes)


@pytest.mark.parametrize(
    "damaged",
    [
        lambda content: "",
        lambda content: content[:100],
        lambda content: "[]",
        lambda content: "{}",
        lambda content: "\x00\xff",
        lambda content: damage(content, rows=[]),
        lambda content: damage(content, rows=[{"n": 1}]),
        lambda content: damage(content, seconds=None),
        lambda content: damage(content, settings={}),
        lambda content: content.replace('"tiles": 1.0', '"tiles": -1.0'),
        lambda content: content.replace('"tiles": 1.0', '"tiles": NaN'),
        lambda content: content.replace('"tiles": 1.0', '"tiles": "fast"'),
        lambda content: content.replace('"n": 4', '"n": 0'),
    ],
)
def test_a_damaged_file_costs_one_line(damaged):
    path = engines.save(table_of(("forward", "float32", 4, 32)))
    path.write_text(damaged(path.read_text()))
    with pytest.warns(RuntimeWarning, match="`fastbp warmup` measures it again") as warned:
        reload()
    assert len(warned) == 1
    assert str(path) in str(warned[0].message)
    assert "\n" not in str(warned[0].message)
    assert not choices.any()


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTBP_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="set FASTBP_CACHE_DIR to a writable") as warned:
        assert engines.save(table_of()) is None
    reload()  # there is no file to be damaged: no second warning
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)


def test_a_write_that_fails_leaves_the_old_file(monkeypatch):
    path = engines.save(table_of())
    before = path.read_bytes()
    monkeypatch.setattr(engines.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.warns(RuntimeWarning, match="full"):
        engines.save(table_of(seconds=2.0))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"FASTBP_CACHE_DIR": "/a"}, "/a"),
        ({"FASTBP_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}, "/b/fastbp"),
        ({"FASTBP_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/fastbp"),
    ],
)
def test_cache_folder(environment, folder, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert engines.cache_folder().as_posix() == folder


def test_a_table_holds_for_the_kernels_it_was_measured_with(monkeypatch):
    engines.save(table_of())
    assert engines.read(engines.settings(fastbp.get_num_threads())) == table_of()
    monkeypatch.setattr(engines, "source_stamp", lambda: "f" * 64)
    assert engines.read(engines.settings(fastbp.get_num_threads())) is None


def test_measure_times_both_engines_and_follows_the_result(monkeypatch):
    monkeypatch.setattr(engines, "TURN", 1e-5)
    monkeypatch.setattr(engines, "REST", 0.0)
    seen = []
    table = engines.measure(
        fastbp.get_num_threads(), lambda *step: seen.append(step), rows=(2,), sides=(3,), rounds=3
    )
    assert seen == [("float32 2 x 3 x 3", 0, 2), ("float64 2 x 3 x 3", 1, 2)]
    assert len(table.rows) == 4
    assert all(row.tiles > 0 and row.blas > 0 for row in table.rows)
    assert engines.table() is table
    np.testing.assert_array_equal(choices, engines.bits(table))
    assert engines.read(table.settings) is None  # nothing is kept unless it is saved


def test_an_interrupted_measurement_leaves_the_engine(monkeypatch):
    def interrupt(*_):
        choices[...] = -1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engines.measure(1, interrupt)
    assert not choices.any()
