"""Which part of a graph is done row by row: a batch can then be taken in panels of rows.

A node is free of the batch, has a row for each row of the batch that needs this row of its operands
alone, or is a total over rows. A graph splits if no row waits for a total. Then panels of rows go
through all that has rows, on any thread, while what they compute stays in its cache; the totals of
all panels are added, and what depends on totals is done at the end.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..node import Node
from ..table import OPERATIONS
from ..walk import topological
from .indexing import WHOLE, is_inline, parameter
from .lowering import NARROW

FREE, ROW, COLUMN, TOTAL, AFTER = "free", "row", "column", "total", "after"
VIEWS = ("transpose", "reshape", "index", "broadcast")  # which a kernel or a loop reads through
MOST_WEIGHTS = 2**16  # elements of the matrices and the totals: a thread's cache holds its own


class Split(NamedTuple):
    """A graph that is taken in panels.

    Attributes
    ----------
    given : list of nodes
        Free of the batch: variables, and what is computed before the panels.
    rows : list of nodes
        Outputs with a row for each row of the batch.
    totals : dict
        Nodes that are sums over all rows, each with its terms: the nodes whose sum it is.
    """

    given: list[Node]
    rows: list[Node]
    totals: dict[Node, list[Node]]

    @property
    def members(self) -> list[Node]:
        """The nodes that the panels compute."""
        return [*self.totals, *self.rows]

    @property
    def reads(self) -> list[Node]:
        """The nodes that must be complete before the panels."""
        return self.given

    @property
    def outputs(self) -> list[Node]:
        """The nodes that one panel computes."""
        return [*(term for terms in self.totals.values() for term in terms), *self.rows]


def split(outputs: Sequence[Node]) -> Split | None:
    """How a lowered graph is taken in panels; None if it cannot, or if that would gain nothing."""
    order = topological(outputs)
    kinds = kinds_of(order)
    if kinds is None or not any(_is_wide_product(node, kinds) for node in order):
        return None
    rows = list(dict.fromkeys(y for y in outputs if kinds[y] == ROW and y.op != "variable"))
    totals = _totals(order, outputs, kinds)
    found = Split([], rows, totals)
    found = found._replace(given=_given(found.outputs, kinds))
    kept = [*found.given, *found.members]
    if any(node.dtype.kind not in ("fi" if node.shape else "f") for node in kept):
        return None  # numbers travel as float64, and bool has no pointer
    size = sum(_size(node) for node in (*found.given, *found.totals))
    return found if size <= MOST_WEIGHTS else None


def kinds_of(order: Iterable[Node]) -> dict[Node, str] | None:
    """What each node of a lowered graph is; None where a row waits for others."""
    kinds: dict[Node, str] = {}
    for node in order:
        kind = _kind(node, [kinds[operand] for operand in node.operands])
        if kind is None:
            return None
        kinds[node] = kind
    return kinds


def _kind(node: Node, below: Sequence[str]) -> str | None:
    with_rows = node.shape[:1] == (None,) and None not in node.shape[1:]
    if not {ROW, COLUMN} & set(below):
        if None in node.shape:
            return ROW if with_rows and not {TOTAL, AFTER} & set(below) else None
        return AFTER if {TOTAL, AFTER} & set(below) else FREE
    if {TOTAL, AFTER} & set(below):
        return None
    if node.op == "matmul" and below == [COLUMN, ROW]:
        return TOTAL
    if COLUMN in below:
        return None
    if node.op == "sum" and 0 in parameter(node, "axes"):
        return TOTAL if None not in node.shape else None
    if node.op == "transpose" and node.ndim == 2:
        return COLUMN
    return ROW if with_rows and _keeps_rows(node, below) else None


def _keeps_rows(node: Node, below: Sequence[str]) -> bool:
    """Whether a row of a node needs this row alone of its operands with rows."""
    op, first = node.op, [i for i, kind in enumerate(below) if kind == ROW]
    if OPERATIONS[op].elementwise or op in ("broadcast", "concatenate", "pick", "unpick"):
        aligned = all(node.operands[i].ndim == node.ndim for i in first)
        if op == "concatenate":
            return parameter(node, "axis") != 0
        return aligned or op in ("pick", "unpick")
    if op in ("matmul", "dense"):
        return node.ndim == 2 and first == [0]
    if op in ("sum", "max"):
        return 0 not in parameter(node, "axes")
    if op == "argmax":
        return bool(parameter(node, "axis") != 0)
    if op in ("index", "place"):
        key = parameter(node, "key")
        return not key or key[0] == WHOLE
    if op == "transpose":
        return bool(parameter(node, "axes")[0] == 0)
    return op == "reshape" and node.operands[0].shape[:1] == (None,)


def _is_wide_product(node: Node, kinds: dict[Node, str]) -> bool:
    """Whether a node is a product of rows with a matrix that is worth a kernel."""
    if node.op not in ("matmul", "dense") or kinds[node] != ROW:
        return False
    return min(size or 0 for size in node.operands[1].shape) > NARROW


def _totals(
    order: Sequence[Node], outputs: Sequence[Node], kinds: dict[Node, str]
) -> dict[Node, list[Node]]:
    """Sums over rows, and sums of those that nobody else needs: a total with several terms."""
    uses = Counter(operand for node in order for operand in node.operands)
    uses.update(outputs)
    totals: dict[Node, list[Node]] = {}
    for node in order:
        if kinds[node] == TOTAL:
            totals[node] = [node]
        elif node.op == "add" and all(
            o in totals and uses[o] == 1 and o.shape == node.shape for o in node.operands
        ):
            a, b = node.operands
            totals[node] = totals.pop(a) + totals.pop(b)
    return totals


def _given(outputs: Iterable[Node], kinds: dict[Node, str]) -> list[Node]:
    """Variables and what is computed before: all that panels read, free of the batch or not."""
    stack, seen, found = list(outputs), set(), set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        view = node.op in ("constant", "rows") or (node.op in VIEWS and is_inline(node))
        computed = kinds[node] == FREE and not view
        if node.op == "variable" or computed:
            found.add(node)
        else:
            stack += node.operands
    return sorted(found, key=lambda node: node.number)


def _size(node: Node) -> int:
    """Elements of a node; of a row of it where it has rows."""
    size = 1
    for one in node.shape:
        size *= one or 1
    return size
