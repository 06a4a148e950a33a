"""The networks of docs/worked_examples.md, whose every number was worked out without fastbp.

The page lists the steps between. Its numbers are rounded to 12 digits after the point, which is
what the tests allow.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from fastbp import SGD, Dense, Sequential
from fastbp.functional import (
    binary_cross_entropy,
    dense_backward,
    dense_forward,
    softmax_cross_entropy,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "worked_examples.md"


def array(*rows):
    return np.array(rows, dtype=np.float64)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def network(device, activations, weights, biases):
    layers = [
        Dense(*w.shape, activation=activation, init="zeros", dtype="float64")
        for activation, w in zip(activations, weights, strict=True)
    ]
    for layer, w, b in zip(layers, weights, biases, strict=True):
        layer.w[...], layer.b[...] = w, b
    return Sequential(*layers, device=device)


def delta(dy, saved, activation):
    """dz = dy * f'(z): dw = x.T @ dz shows it when x is the identity matrix."""
    n, m = dy.shape
    _, dz, _ = dense_backward(dy, np.eye(n), np.zeros((n, m)), saved, activation)
    return dz


@pytest.fixture(params=["cpu", "reference"])
def device(request):
    return request.param


class TestTwoLayers:
    """(a) 2-3-3, relu, softmax cross-entropy, L2 with reg = 1/10, labels 0 and 2."""

    x = array([1, 2], [2, -1])
    t = np.array([0, 2])
    one_hot = array([1, 0, 0], [0, 0, 1])
    w1, b1 = array([1, -1, 1], [1, 1, -1]), array(0, 1, -1)
    w2, b2 = array([1, 0, -1], [-1, 1, 1], [0, -1, 1]), array(0, -1, 1)

    h = array([3, 2, 0], [1, 0, 2])
    z2 = array([1, 1, 0], [1, -3, 2])
    p = array(
        [0.422318798252, 0.422318798252, 0.155362403497],
        [0.267623154150, 0.004901689050, 0.727475156800],
    )
    dz2 = array(
        [-0.288840600874, 0.211159399126, 0.077681201748],
        [0.133811577075, 0.002450844525, -0.136262421600],
    )
    data_dw2 = array(
        [-0.732710225548, 0.635929041902, 0.096781183646],
        [-0.577681201748, 0.422318798252, 0.155362403497],
        [0.267623154150, 0.004901689050, -0.272524843200],
    )
    dw2 = array(
        [-0.532710225548, 0.635929041902, -0.103218816354],
        [-0.777681201748, 0.622318798252, 0.355362403497],
        [0.267623154150, -0.195098310950, -0.072524843200],
    )
    db2 = array(-0.155029023799, 0.213610243651, -0.058581219851)
    dh = array(
        [-0.366521802623, 0.577681201748, -0.133478197377],
        [0.270073998675, -0.267623154150, -0.138713266125],
    )
    dz1 = array([-0.366521802623, 0.577681201748, 0], [0.270073998675, 0, -0.138713266125])
    dw1 = array(
        [0.373626194727, 0.377681201748, -0.077426532249],
        [-0.803117603920, 1.355362403497, -0.061286733875],
    )
    db1 = array(-0.096447803948, 0.577681201748, -0.138713266125)
    dx = array([-0.944203004371, 0.211159399126], [0.131360732550, 0.408787264799])

    def net(self, device):
        return network(device, ("relu", "identity"), (self.w1, self.w2), (self.b1, self.b2))

    def test_forward_step_by_step(self):
        """z1 = (3 2 -2; 1 -2 2), so h = (3 2 0; 1 0 2), and z2 = h @ w2 + b2 = (1 1 0; 1 -3 2)."""
        h, _ = dense_forward(self.x, self.w1, self.b1, "relu")
        np.testing.assert_array_equal(h, self.h)
        z2, _ = dense_forward(h, self.w2, self.b2)
        np.testing.assert_array_equal(z2, self.z2)

    def test_probabilities(self, device):
        """The softmax of z2: (e e 1) / (2e + 1) = 0.422318798252 0.422318798252 0.155362403497,
        and (e e^-3 e^2) / (e + e^-3 + e^2) = 0.267623154150 0.004901689050 0.727475156800.
        """
        close(self.net(device).predict_proba(self.x, loss="softmax_cross_entropy"), self.p)

    def test_backward_step_by_step(self):
        """The mean of ln(2e + 1) - 1 = 0.861994804058 and ln(e + e^-3 + e^2) - 2 = 0.318175429247
        is 0.590085116653. dz2 = (p - t) / 2 = (-0.288840600874 0.211159399126 0.077681201748;
        0.133811577075 0.002450844525 -0.136262421600). dz1 has zeros where z1 < 0:
        (-0.366521802623 0.577681201748 0; 0.270073998675 0 -0.138713266125).
        """
        loss, dz2 = softmax_cross_entropy(self.z2, self.t)
        close(loss, 0.590085116653)
        close(loss, (0.861994804058 + 0.318175429247) / 2)
        close(dz2, self.dz2)
        dh, dw2, db2 = dense_backward(dz2, self.h, self.w2, self.z2)
        close(dh, self.dh)
        close(dw2, self.data_dw2)
        close(db2, self.db2)
        close(delta(dh, self.h, "relu"), self.dz1)

    @pytest.mark.parametrize("targets", ["t", "one_hot"])
    def test_loss_and_gradients(self, device, targets):
        """loss = 0.590085116653 + (6 + 7) / 10 = 1.890085116653;
        dw2[0] = -0.532710225548 0.635929041902 -0.103218816354, that is
        -0.732710225548 0.635929041902 0.096781183646 and 2 reg w2[0] = 0.2 0 -0.2;
        dw1[0] = 0.373626194727 0.377681201748 -0.077426532249,
        db1 = -0.096447803948 0.577681201748 -0.138713266125.
        """
        net = self.net(device)
        t = getattr(self, targets)
        loss, dx = net.loss_and_gradients(self.x, t, loss="softmax_cross_entropy", l2=0.1)
        close(loss, 1.890085116653)
        first, second = net.layers
        close(first.dw, self.dw1)
        close(first.db, self.db1)
        close(second.dw, self.dw2)
        close(second.db, self.db2)
        close(dx, self.dx)

    def test_sample_weights(self, device):
        """Weights 1 and 3: (0.861994804058 + 3 * 0.318175429247) / 4 = 0.454130272950;
        dw2[0] = -0.232543535699 0.320415365476 -0.087871829777,
        dw1[0] = 0.626961094713 0.288840600874 -0.416139798374.
        """
        net = self.net(device)
        loss, _ = net.loss_and_gradients(
            self.x, self.t, loss="softmax_cross_entropy", sample_weight=array(1, 3)
        )
        close(loss, 0.454130272950)
        first, second = net.layers
        close(
            second.dw,
            array(
                [-0.232543535699, 0.320415365476, -0.087871829777],
                [-0.288840600874, 0.211159399126, 0.077681201748],
                [0.401434731225, 0.007352533575, -0.408787264799],
            ),
        )
        close(second.db, array(0.056297065175, 0.109255966350, -0.165553031525))
        close(
            first.dw,
            array(
                [0.626961094713, 0.288840600874, -0.416139798374],
                [-0.771632800635, 0.577681201748, 0.208069899187],
            ),
        )


class TestFourLayers:
    """(b) 2-2-2-2-2, sigmoids; -sum(t ln a + (1 - t) ln(1 - a)), averaged over the rows."""

    x, t = array([1, 1], [-1, 2]), array([1, 0], [0, 1])
    activations = ("sigmoid", "sigmoid", "sigmoid", "identity")  # the last sigmoid is the loss's
    weights = (
        array([1, -1], [1 / 2, 1]),
        array([2, -1], [-1, 1]),
        array([1, 1], [-2, 1]),
        array([1, -2], [1, 1]),
    )
    biases = (array(0, 1 / 2), array(0, 1 / 2), array(1 / 2, -1), array(-1, 0))

    a = (  # outputs of the layers, a row per sample
        array([0.817574476194, 0.622459331202], [0.5, 0.970687769249]),
        array([0.733546182434, 0.575636223765], [0.507327533040, 0.725256563563]),
        array([0.520556839319, 0.576685683225], [0.390982168280, 0.557885315189]),
        array([0.524291491738, 0.385935907389], [0.487219655300, 0.444213476204]),
    )

    # The first row alone: its deltas are the bias gradients.
    one_db = (
        array(-0.041321384981, 0.049799677798),
        array(-0.065142241563, 0.146767933522),
        array(-0.311367873723, -0.021915225022),
        array(-0.475708508262, 0.385935907389),
    )
    one_dw = (
        array([-0.041321384981, 0.049799677798], [-0.041321384981, 0.049799677798]),
        array([-0.053258634024, 0.119993716372], [-0.040548396116, 0.091357069742]),
        array([-0.228402715102, -0.016075829652], [-0.179234627032, -0.012615197375]),
        array([-0.247633317498, 0.200901576130], [-0.274334286103, 0.222563712434]),
    )
    one_dx = array([-0.091121062779, 0.029138985308])

    # Both rows.
    deltas = (
        array([-0.020660692490, 0.024899838899], [0.042117253425, -0.003499883783]),
        array([-0.032571120781, 0.073383966761], [0.045463325531, -0.077542362639]),
        array([-0.155683936861, -0.010957612511], [0.190348352050, -0.008455984726]),
        array([-0.237854254131, 0.192967953695], [0.243609827650, -0.277893261898]),
    )
    two_db = (
        array(0.021456560935, 0.021399955116),
        array(0.012892204750, -0.004158395878),
        array(0.034664415189, -0.019413597237),
        array(0.005755573519, -0.084925308203),
    )
    two_dw = (
        array([-0.062777945916, 0.028399722682], [0.063573814361, 0.017900071333]),
        array([-0.003897654246, 0.021225676866], [0.023856495985, -0.029590888141]),
        array([-0.017632397687, -0.012327868696], [0.048434078172, -0.012440357111]),
        array([-0.028569560120, -0.008200522022], [-0.001260797570, -0.043750713786]),
    )
    two_dx = array([-0.045560531389, 0.014569492654], [0.045617137208, 0.017558742930])

    def net(self, device):
        return network(device, self.activations, self.weights, self.biases)

    def test_outputs_of_every_layer(self):
        """First row: a1 = 0.817574476194 0.622459331202, a2 = 0.733546182434 0.575636223765,
        a3 = 0.520556839319 0.576685683225, a4 = 0.524291491738 0.385935907389. Second row:
        z1 = 0 7/2, a1 = 1/2 0.970687769249, to a4 = 0.487219655300 0.444213476204.
        """
        a = self.x
        for w, b, expected in zip(self.weights, self.biases, self.a, strict=True):
            a, _ = dense_forward(a, w, b, "sigmoid")
            close(a, expected)

    def test_one_row(self, device):
        """loss = -ln(0.524291491738) - ln(1 - 0.385935907389) = 1.133363438310;
        delta4 = a4 - t = -0.475708508262 0.385935907389,
        delta3 = -0.311367873723 -0.021915225022, delta2 = -0.065142241563 0.146767933522,
        delta1 = -0.041321384981 0.049799677798, dw4[0] = -0.247633317498 0.200901576130.
        """
        net = self.net(device)
        loss, dx = net.loss_and_gradients(self.x[:1], self.t[:1], loss="binary_cross_entropy")
        close(loss, 1.133363438310)
        close(dx, self.one_dx)
        for layer, dw, db in zip(net.layers, self.one_dw, self.one_db, strict=True):
            close(layer.dw, dw)
            close(layer.db, db)

    def test_delta_recursion(self):
        """n = 2: delta4 = (a4 - t) / 2 = (-0.237854254131 0.192967953695;
        0.243609827650 -0.277893261898), then delta = (delta_above @ w_above.T) * a * (1 - a), to
        delta1 = (-0.020660692490 0.024899838899; 0.042117253425 -0.003499883783).
        """
        z4, _ = dense_forward(self.a[2], self.weights[3], self.biases[3])
        _, above = binary_cross_entropy(z4, self.t)
        close(above, self.deltas[3])
        for below in (2, 1, 0):
            dy, _, _ = dense_backward(above, self.a[below], self.weights[below + 1], self.a[below])
            above = delta(dy, self.a[below], "sigmoid")
            close(above, self.deltas[below])

    def test_two_rows(self, device):
        """loss = (1.133363438310 + 1.479357733316) / 2 = 1.306360585813;
        dw1 = (-0.062777945916 0.028399722682; 0.063573814361 0.017900071333),
        db1 = 0.021456560935 0.021399955116, dw4[0] = -0.028569560120 -0.008200522022,
        db4 = 0.005755573519 -0.084925308203.
        """
        net = self.net(device)
        loss, dx = net.loss_and_gradients(self.x, self.t, loss="binary_cross_entropy")
        close(loss, 1.306360585813)
        close(dx, self.two_dx)
        for layer, dw, db in zip(net.layers, self.two_dw, self.two_db, strict=True):
            close(layer.dw, dw)
            close(layer.db, db)


class TestLogisticNeuron:
    """(c) x = (2, -4), w = (1, 1/2), b = ln 3, t = 1: z = ln 3, a = 3/4."""

    x, t = array([2, -4]), array([1])
    w, b = array([1], [1 / 2]), np.log(array(3))

    def net(self, device, activation):
        return network(device, (activation,), (self.w,), (self.b,))

    def test_gradients(self, device):
        """loss = -ln(3/4) = 0.287682072452; dz = 3/4 - 1 = -1/4, dw = -1/2 1, db = -1/4,
        dx = -1/4 -1/8.
        """
        net = self.net(device, "identity")
        close(net.predict_proba(self.x, loss="binary_cross_entropy"), 3 / 4)
        loss, dx = net.loss_and_gradients(self.x, self.t, loss="binary_cross_entropy")
        close(loss, 0.287682072452)
        close(net.layers[0].dw, array([-1 / 2], [1]))
        close(net.layers[0].db, -1 / 4)
        close(dx, array([-1 / 4, -1 / 8]))

    def test_one_step(self, device):
        """Rate 1/10: w = 21/20 2/5, b = ln 3 + 1/40 = 1.123612288668, then z = 1.623612288668,
        a = 0.835292706264 and the loss falls from 0.287682072452 to 0.179973069134.
        """
        net = self.net(device, "identity")
        before = net.train_step(
            self.x, self.t, loss="binary_cross_entropy", optimizer=SGD(learning_rate=0.1)
        )
        close(before, 0.287682072452)
        close(net.layers[0].w, array([21 / 20], [2 / 5]))
        close(net.layers[0].b, 1.123612288668)
        close(net.predict(self.x), 1.623612288668)
        close(net.predict_proba(self.x, loss="binary_cross_entropy"), 0.835292706264)
        after, _ = net.loss_and_gradients(self.x, self.t, loss="binary_cross_entropy")
        close(after, 0.179973069134)

    def test_half_squared_error_keeps_the_slope(self, device):
        """loss = 1/32, dz = (a - t) a (1 - a) = -3/64, dw = -3/32 3/16, db = -3/64."""
        net = self.net(device, "sigmoid")
        loss, _ = net.loss_and_gradients(self.x, self.t, loss="half_squared_error")
        close(loss, 1 / 32)
        close(net.layers[0].dw, array([-3 / 32], [3 / 16]))
        close(net.layers[0].db, -3 / 64)


class TestScalarChain:
    """(d) sin(sin(sin(w))) at w = 1/2, as three layers of weight 1 without bias."""

    one = array([1])

    def derivative(self, w):
        """The values u1, u2, u3 and the gradients du2, du1, du0."""
        inputs, kept, u = [], [], array([w])
        for _ in range(3):
            inputs.append(u)
            u, z = dense_forward(u, self.one, activation="sin")
            kept.append(z)
        values = [*(x.item() for x in inputs[1:]), u.item()]
        gradients, du = [], self.one
        for x, z in zip(reversed(inputs), reversed(kept), strict=True):
            du, _, _ = dense_backward(du, x, self.one, z, "sin", bias=False)
            gradients.append(du.item())
        return values, gradients

    def test_values_and_gradients(self):
        """u1 u2 u3 = 0.479425538604 0.461269555033 0.445085336847; times cos u2 = 0.895488159008,
        cos u1 = 0.887260050718 and cos u0 = 0.877582561890 the gradient is 0.895488159008, then
        0.794530869379, then 0.697266435850.
        """
        values, gradients = self.derivative(0.5)
        close(values, [0.479425538604, 0.461269555033, 0.445085336847])
        close(gradients, [0.895488159008, 0.794530869379, 0.697266435850])

    def test_second_derivative(self):
        """-0.380918389989 - 0.318119732422 - 0.269849185829 = -0.968887308240, here as the central
        difference of the derivative: its error is h^2 / 6 times the fourth derivative, 6.4.
        """
        h = 1e-5
        above, below = self.derivative(0.5 + h)[1][-1], self.derivative(0.5 - h)[1][-1]
        np.testing.assert_allclose((above - below) / (2 * h), -0.968887308240, rtol=0, atol=2e-10)


def test_page_shows_every_number_of_the_tests():
    """Each number with 12 digits in this file, docstrings included, stands on the page."""
    numbers = set(re.findall(r"\d+\.\d{12}", Path(__file__).read_text(encoding="utf-8")))
    missing = {number for number in numbers if number not in PAGE.read_text(encoding="utf-8")}
    assert len(numbers) > 100
    assert not missing
