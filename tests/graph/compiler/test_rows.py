"""Losses of rows: which are taken together, how many rows at once, and which loops there are.

That the results are right is tested in tests/test_expressions.py.
"""

import re

import numpy as np
import pytest

from fastbp import expressions, graph
from fastbp.graph.compiler.lowering import lowered
from fastbp.graph.compiler.rows import ELEMENTS, ROWS, STACK, rows

SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")


def cross_entropy(y, t):
    return -graph.sum(t * graph.log(graph.softmax(y, axis=1)), axis=1)


def text(loss, m, dtype=SINGLE):
    """The lines of a loss, without the names of numbers."""
    found = expressions.loss(loss, m, dtype)
    names = {found.y: "y", found.t: "t", found.scale: "scale"}
    lines, _ = rows(names, *lowered([found.value, found.gradient]))
    return re.sub(r"v\d+", "v", "\n".join(lines))


def block(source):
    """Rows of a block; None where rows are taken one by one."""
    found = re.search(r"range\(0, n, (\d+)\)", source)
    return None if found is None else int(found[1])


def test_exponentials_of_all_rows_are_one_loop_and_logarithms_another():
    source = text(cross_entropy, 10)
    assert """
        for i in range(rows * m):
            v = where_1_flat[i]
            v = exp(v)
            exp_1_flat[i] = v
""" in source.replace("\n    ", "\n        ")
    assert """
        for i0 in range(rows):
            v = sum_2[i0, 0]
            v = log(v)
            log_1[i0, 0] = v
        for""" in source.replace("\n    ", "\n        ")
    assert (source.count("exp("), source.count("log(")) == (1, 1)


def test_no_loop_ends_at_a_number():
    for m in (10, 200):  # LLVM would unroll it before it looks for vectors
        assert re.findall(r"range\(\d+\)", text(cross_entropy, m)) == []


@pytest.mark.parametrize(
    ("m", "dtype", "wanted"),
    [
        (2, SINGLE, ROWS[1]),
        (32, SINGLE, ROWS[1]),
        (33, SINGLE, ELEMENTS // 33),
        (113, SINGLE, ROWS[0]),
        (114, SINGLE, None),
        (100, DOUBLE, 10),
    ],
)
def test_rows_of_a_block(m, dtype, wanted):
    assert block(text(cross_entropy, m, dtype)) == wanted


def test_arrays_of_a_block_fit_the_stack():
    def many(y, t):  # each is stored
        top = graph.max(y, axis=1, keepdims=True)
        return graph.sum(sum(graph.tanh(y / top - k) for k in range(8)) * t, axis=1)

    source = text(many, 20, DOUBLE)
    sizes = [int(size) for size in re.findall(r"room\(np.float64, (\d+)\)", source)]
    assert ROWS[0] <= block(source) < ROWS[1]
    assert STACK / 2 < 8 * sum(sizes) <= STACK


def test_rows_without_functions_go_one_by_one():
    assert block(text(lambda y, t: graph.sqrt(graph.sum((y - t) ** 2, axis=1)), 10)) is None


def test_a_part_of_a_row_has_a_loop_of_its_own_length():
    source = text(lambda y, t: graph.logsumexp(y[:, :3] * t[:, 1:], axis=1), 4)
    assert "for i in range(rows * 3):" in source
