"""The examples do what they say, on short runs."""

import importlib.util
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pole_is_balanced(capsys):
    lengths = example("cart_pole").main()
    assert np.mean(lengths[:3]) < 60
    assert lengths[-1] >= 0.95 * 500
    assert "became" in capsys.readouterr().out


def test_the_learned_ode_stays_near_the_truth(capsys):
    assert example("learned_ode").main(steps=3000) < 0.5
    assert "largest error" in capsys.readouterr().out


def test_poisson_is_solved(tmp_path, capsys):
    assert example("poisson").main(iterations=300, picture=tmp_path / "u.png") < 0.005
    assert "largest error of u" in capsys.readouterr().out
    assert (tmp_path / "u.png").stat().st_size > 10_000


def test_burgers_is_learnt(tmp_path, capsys):
    burgers = example("burgers")
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    start = burgers.solution(x, np.full(5, 1e-9))
    np.testing.assert_allclose(start, -np.sin(np.pi * x), atol=1e-3)
    error = burgers.main(steps=100, iterations=100, count=256, picture=tmp_path / "u.png")
    assert error < 0.5
    assert "in the mean" in capsys.readouterr().out
    assert (tmp_path / "u.png").stat().st_size > 10_000
