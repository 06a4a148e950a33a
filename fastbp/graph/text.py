"""Nodes as text: a line for each shared expression, infix where Python has an operator."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .evaluation import name_of
from .node import Node
from .walk import topological

WIDTH = 90  # characters after which an expression gets a name and a line of its own

# op: (text, how tightly it binds, how tightly its left and right operand must bind)
INFIX = {
    "less": ("<", 1, 2, 2),
    "less_equal": ("<=", 1, 2, 2),
    "add": ("+", 2, 2, 2),
    "subtract": ("-", 2, 2, 3),
    "multiply": ("*", 3, 3, 4),
    "divide": ("/", 3, 3, 4),
    "matmul": ("@", 3, 3, 4),
    "power": ("**", 5, 6, 5),
}
NEGATIVE, ATOM = 4, 9
SHOWN = 6  # elements of a constant


def value_text(value: Any) -> str:
    """A constant in one line."""
    if value.ndim == 0:
        return str(value[()])
    if value.size <= SHOWN:
        return np.array2string(value, separator=", ").replace("\n", "")
    return f"constant{list(value.shape)}"


def title(node: Node) -> str:
    """A node's own name: that of a variable, else that of the operation."""
    return name_of(node) if node.op == "variable" else node.op


def key_text(key: Sequence[Any]) -> str:
    """An index as Python writes it."""

    def entry(part: Any) -> str:
        if not isinstance(part, tuple):
            return str(part)
        kind, *rest = part
        if kind == "take":
            return str(rest)
        begin, end, step = ("" if r is None else str(r) for r in rest)
        return f"{begin}:{end}" + (f":{step}" if step else "")

    return ", ".join(map(entry, key))


def expression(node: Node, texts: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """A node as text from the texts of its operands, and how tightly it binds."""

    def tight(i: int, least: int) -> str:
        text, binds = texts[i]
        return text if binds >= least else f"({text})"

    if node.op == "constant":
        text = value_text(node.parameters[0][1])
        return text, ATOM if text[0] != "-" else NEGATIVE
    if node.op in ("variable", "rows"):
        return title(node), ATOM
    if node.op in INFIX:
        sign, binds, left, right = INFIX[node.op]
        return f"{tight(0, left)} {sign} {tight(1, right)}", binds
    if node.op == "negative":
        return f"-{tight(0, NEGATIVE)}", NEGATIVE
    parameters = dict(node.parameters)
    if node.op == "index":
        return f"{tight(0, ATOM)}[{key_text(parameters['key'])}]", ATOM
    if node.op == "transpose" and parameters["axes"] == tuple(reversed(range(node.ndim))):
        return f"{tight(0, ATOM)}.T", ATOM
    if not parameters.get("keepdims", True):
        del parameters["keepdims"]
    words = [text for text, _ in texts] + [f"{k}={_word(k, v)}" for k, v in parameters.items()]
    return f"{node.op}({', '.join(words)})", ATOM


def _word(name: str, value: Any) -> str:
    return f"[{key_text(value)}]" if name == "key" else str(value)


def listing(outputs: Iterable[Node]) -> str:
    """The outputs as lines of text, before them what they share.

    Examples
    --------
    >>> from fastbp import graph
    >>> from fastbp.graph.text import listing
    >>> x = graph.variable("x")
    >>> e = graph.exp(-x)
    >>> print(listing([e * (1 - e)]))
    a1 = exp(-x)
    a1 * (1.0 - a1)
    """
    wanted = list(outputs)
    order = topological(wanted)
    uses = Counter(operand for node in order for operand in node.operands)
    uses.update(wanted)
    texts: dict[Node, tuple[str, int]] = {}
    lines: list[str] = []
    for node in order:
        text, binds = expression(node, [texts[operand] for operand in node.operands])
        shared = uses[node] > 1 and node.operands
        if (shared or len(text) > WIDTH) and not (node in wanted and uses[node] == 1):
            lines.append(f"a{len(lines) + 1} = {text}")
            text, binds = f"a{len(lines)}", ATOM
        texts[node] = text, binds
    return "\n".join([*lines, *(texts[node][0] for node in wanted)])
