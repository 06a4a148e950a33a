"""The demonstrations at small scale: that they train, compare, draw, save and refuse."""

import re

import numpy as np
import pytest

import fastbp
from fastbp import demo
from fastbp.demo import common, digits, image

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def data():
    return digits.load_data()


@pytest.fixture(scope="module")
def runs(data):
    """The network on both devices after a few epochs."""
    runs = [digits.start("cpu", 0), digits.start("reference", 0)]
    with digits.one_thread():
        digits.train(runs, data, epochs=4)
    return runs


def is_picture(path):
    return path.read_bytes().startswith(PNG)


def interrupted_fit(*arguments, **options):
    return fastbp.History(stopped="interrupted")


def test_the_learning_rate_falls_from_start_to_nearly_zero():
    rates = [common.cosine(0.1, epoch, 100) for epoch in range(100)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-4


def test_split_keeps_every_class(data):
    assert data.x.shape == (1437, 64)
    assert data.x_test.shape == (360, 64)
    assert data.x.dtype == np.float32
    assert (data.x.min(), data.x.max()) == (0, 1)
    assert np.bincount(data.t_test).min() >= 34


def test_both_devices_start_from_the_same_numbers():
    ours, theirs = digits.start("cpu", 5), digits.start("reference", 5)
    assert ours.net.parameters.tobytes() == theirs.net.parameters.tobytes()
    assert ours.rng.random() == theirs.rng.random()


def test_both_devices_train_alike(runs):
    ours, theirs = runs
    assert ours.loss[-1] < 0.8 * ours.loss[0]
    assert len(ours.step) == len(theirs.step) == 4
    assert digits.check_curves(ours.loss, theirs.loss) < digits.TOLERANCE


def test_threads_are_restored():
    before = fastbp.get_num_threads()
    with digits.one_thread():
        assert fastbp.get_num_threads() == 1
    assert fastbp.get_num_threads() == before


@pytest.mark.parametrize("wrong", [0.7 * (1 + 3e-4), np.nan, np.inf])
def test_a_curve_that_differs_is_flagged(wrong):
    with pytest.raises(demo.DemoError, match="part in epoch 2"):
        digits.check_curves([1.0, wrong, 0.5], [1.0, 0.7, 0.5])


def test_a_curve_that_differs_by_rounding_is_not():
    worst = digits.check_curves([1.0, 0.7 * (1 + 3e-5)], [1.0, 0.7])
    assert worst == pytest.approx(3e-5)


@pytest.mark.parametrize("accuracy", [0.9694, np.nan])
def test_a_low_accuracy_is_flagged(accuracy):
    with pytest.raises(demo.DemoError, match=r"below 0\.97; train longer"):
        digits.check_accuracy(accuracy)


def test_accuracy_enough():
    digits.check_accuracy(0.97)


def test_curves_are_drawn(tmp_path):
    curve = [2.0, 1.0, 0.5]
    path = common.write(digits.draw_curves(curve, curve), tmp_path / "curves.png")
    assert is_picture(path)


def test_every_misclassified_digit_is_drawn(runs, data, tmp_path):
    net = runs[0].net
    wrong = np.flatnonzero(net.predict(data.x_test).argmax(axis=1) != data.t_test)[:7]
    few = digits.Data(data.x, data.t, data.x_test[wrong], data.t_test[wrong])
    picture = digits.draw_misclassified(net, few)
    (axes,) = picture.axes
    words = [text.get_text() for text in axes.texts]
    assert len(words) == len(axes.images) == len(wrong) == 7
    assert all(re.fullmatch(r"a \d, taken for \d\nwith probability [01]\.\d\d", w) for w in words)
    assert picture.get_suptitle() == "7 of 7 test digits are misclassified"
    assert is_picture(common.write(picture, tmp_path / "wrong.png"))


def test_no_misclassified_digit_is_said(runs, data, tmp_path):
    net = runs[0].net
    right = net.predict(data.x_test).argmax(axis=1)
    picture = digits.draw_misclassified(net, digits.Data(data.x, data.t, data.x_test, right))
    assert [text.get_text() for text in picture.texts] == [
        "None of 360 test digits is misclassified"
    ]
    assert is_picture(common.write(picture, tmp_path / "right.png"))


def test_a_saved_network_loads_again(runs, data, tmp_path):
    path = common.saved(runs[0].net, tmp_path / "digits", data.x_test)
    assert path == tmp_path / "digits.npz"
    assert np.array_equal(fastbp.load(path).parameters, runs[0].net.parameters)


def test_a_network_that_loads_otherwise_is_flagged(runs, data, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "load", lambda path: digits.start("cpu", 9).net)
    with pytest.raises(demo.DemoError, match="predicts something else"):
        common.saved(runs[0].net, tmp_path / "digits", data.x_test)


def test_ctrl_c_is_passed_on(data, monkeypatch):
    run, net = digits.start("cpu", 0), image.build(0, width=4, hidden=1)
    monkeypatch.setattr(fastbp.Sequential, "fit", interrupted_fit)
    with pytest.raises(KeyboardInterrupt):
        digits.train_epoch(run, data, 0.1)
    with pytest.raises(KeyboardInterrupt):
        image.train(net, *image.pixels(photograph()), epochs=1, seed=0)


def test_the_demonstration_of_digits_ends_well(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(digits, "ENOUGH", 0.9)
    demo.run("digits", tmp_path / "deep" / "digits", epochs=40)
    printed = capsys.readouterr().out
    assert "agree: worst relative difference" in printed
    assert "bit for bit" in printed
    assert str(tmp_path) in printed.replace("\n", "")
    assert len(printed.splitlines()) <= 25
    written = tmp_path / "deep" / "digits"
    assert sorted(path.name for path in written.iterdir()) == [
        "digits.npz",
        "loss_curves.png",
        "misclassified.png",
    ]


def test_too_little_training_is_said(tmp_path):
    with pytest.raises(demo.DemoError, match="test accuracy"):
        demo.run("digits", tmp_path, epochs=12)


def photograph():
    """A small image of smooth colours (12, 16, 3)."""
    y, x = np.mgrid[0:12, 0:16]
    return np.stack([16 * x, 20 * y, 8 * (x + y)], axis=2).astype(np.uint8)


def test_places_and_colours_lie_between_minus_one_and_one():
    places, colours = image.pixels(photograph())
    assert places.dtype == colours.dtype == np.float32
    assert places.shape == (192, 2)
    assert places[0].tolist() == [-1, -1]
    assert places[15].tolist() == [1, -1]  # the first row from left to right
    assert places[-1].tolist() == [1, 1]
    assert np.abs(colours).max() <= 1


def test_weights_start_within_their_limits():
    net = image.build(0)
    first, second, *_, last = net.layers
    assert 0.9 * image.OMEGA / 2 < np.abs(first.w).max() <= image.OMEGA / 2
    limit = np.sqrt(6 / image.WIDTH)
    assert 0.99 * limit < np.abs(second.w).max() <= limit
    assert np.abs(last.w).max() <= limit / 30
    x = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    assert net.predict(x).std() < 0.1


def test_psnr():
    black = np.zeros((2, 2, 3), np.uint8)
    assert image.psnr(black, black) == np.inf
    assert image.psnr(black, black + 255) == 0
    assert image.psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_an_image_is_learnt_and_painted(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "BATCH", 32)
    original = photograph()
    x, t = image.pixels(original)
    net = image.build(0, width=16, hidden=1)
    before = image.psnr(image.paint(net, x, original.shape), original)
    image.train(net, x, t, epochs=150, seed=0)
    painted = image.paint(net, x, original.shape)
    assert painted.dtype == np.uint8
    after = image.psnr(painted, original)
    assert after > before + 6
    picture = image.draw(original, painted, after, net.parameters.size)
    assert is_picture(common.write(picture, tmp_path / "china.png"))


def test_the_demonstration_of_the_image_ends_well(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image, "load_sample_image", lambda name: photograph())
    monkeypatch.setattr(image, "ENOUGH", 5.0)
    demo.run("image", tmp_path, epochs=2)
    printed = capsys.readouterr().out
    assert "PSNR" in printed
    assert "bit for bit" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["china.npz", "china.png"]


def test_a_low_quality_is_flagged():
    with pytest.raises(demo.DemoError, match=r"the PSNR 9\.00 dB is below"):
        image.check_quality(9.0)


@pytest.mark.parametrize("count", [0, 1])
def test_warm_up_says_where_the_kernels_came_from(count, monkeypatch):
    counts = iter([0, count])
    monkeypatch.setattr(common, "_compiled", lambda: next(counts))
    said = common.warm_up(lambda: None)
    assert ("compiling 1 of them" in said) == bool(count)
    assert ("all read from the cache" in said) == (not count)
