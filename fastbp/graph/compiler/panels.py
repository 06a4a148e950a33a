"""A graph taken in panels of rows: the source of what a panel computes, and of the tasks around it.

The batch is cut into groups of rows by its size alone, so that sums have the same bits for every
number of threads. A task takes a group, panel by panel: what lies between the steps of a panel
stays in one piece of memory that fits a thread's cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...kernels.cpu.dense import dense_backward_work, dense_forward_work
from ...kernels.cpu.threads import ARENA_BYTES
from ..node import Node
from ..rewriting import rebuilt
from ..table import Shape
from . import regions
from .arena import Arena
from .emission import Writer, sizes
from .loops import indented
from .lowering import narrowed
from .scheduling import schedule
from .splitting import Split, split

CACHE = 2**19  # bytes of a panel's arrays: half of an L2 cache; the kernels have theirs
ROWS = 28, 252  # of a panel: two of the highest tiles, at least; at most
GROUPS, GROUP_ROWS = 16, 64  # at most so many groups, of at least so many rows
LINE = 64  # bytes of a cache line
WORK = {"dense_forward": dense_forward_work, "dense_backward": dense_backward_work}
FEW = (1, 8)  # rows for which kernels need other scratch


class PanelWriter(Writer):
    """Names, and the text of what one panel computes: arrays are given to it, sums are added to."""

    backward = "dense_backward_add"
    batch = "rows"

    def __init__(self, plan: regions.Plan, cut: Split, rows: int) -> None:
        super().__init__(plan, cut.outputs, schedule(plan))
        self.arena, self.most = Arena(rows), rows
        self.scratch: dict[str, int] = {}  # elements that kernels need, by type
        self.added = {term for terms in cut.totals.values() for term in terms}
        for total, terms in cut.totals.items():
            self.names |= dict.fromkeys(terms, self.names[terms[0]])
            self.names[total] = self.names[terms[0]]

    def __call__(self, node: Node) -> str:
        """The name of an array for a kernel."""
        return super().__call__(node) if node.op == "constant" else self.names[node]

    def read(self, node: Node, at: Any) -> str:
        """One element; numbers that are sums lie in arrays."""
        return (
            f"{self.names[node]}[0]"
            if node in self.added and not node.shape
            else super().read(node, at)
        )

    def make(self, node: Node) -> list[str]:
        """The line that makes an array, but for those that are given."""
        return [] if node in self.outputs else super().make(node)

    def made(self, root: Node) -> list[str]:
        """The line that makes an array, if it is one."""
        return [] if root in self.outputs else super().made(root)

    def panels(self, job: regions.Given) -> list[str]:
        """Nothing: what is given is there."""
        return []

    def work(self, kernel: str, rows: str, shape: Shape, node: Node) -> list[str]:
        """The scratch of a kernel: one piece serves all."""
        dtype = node.dtype.name
        need = max(WORK[kernel](n, *shape) for n in (*FEW, self.most))
        self.scratch[dtype] = max(need, self.scratch.get(dtype, 0))
        return [f"work = work_{dtype}"]

    def write(self) -> list[str]:
        """The lines of all steps."""
        lines = super().write()
        return lines[len(self.arena.ends) :]  # the memory is given


@dataclass
class Panels:
    """A graph in panels, for the function around them.

    Attributes
    ----------
    cut : Split
    outputs : list of nodes
        Of the whole graph, narrow products written out.
    shared : list
        What the plan of a panel says of shared expressions.
    lines : list of str
        The functions `panel` and `group`.
    constants : dict
    places : dict
        Where each total begins, among the sums of its type.
    totals : dict
        Elements of all sums, by type.
    room : int
        Bytes of scratch of a task.
    """

    cut: Split
    outputs: list[Node]
    shared: list[regions.Shared]
    lines: list[str]
    constants: dict[str, Any]
    places: dict[Node, int]
    totals: dict[str, int]
    room: int

    @property
    def members(self) -> list[Node]:
        """The nodes that the panels compute."""
        return self.cut.members

    @property
    def reads(self) -> list[Node]:
        """The nodes that must be complete before."""
        return self.cut.given

    def call(self, name: Any) -> list[str]:
        """The lines of the function around that run all panels; `name` is its writer."""
        arrays, scalars = operands(self.cut)
        made = [line for node in self.cut.rows for line in name.make(node)]
        sums = [f"sums_{dtype}" for dtype in self.totals]
        passed = [*(name(node) for node in arrays), *sums, *(name(y) for y in self.cut.rows)]
        lines = [
            *made,
            f"groups = max(1, min({GROUPS}, n // {GROUP_ROWS}))",
            *(f"sums_{t} = np.empty((groups, {size}), np.{t})" for t, size in self.totals.items()),
            f"scratch = np.empty({self.room}, np.uint8)",
        ]
        if scalars:
            numbers = ", ".join(f"f64({name.read(node, ())})" for node in scalars)
            lines.append(f"numbers = np.array(({numbers},))")
            passed.append("numbers")
        lines += [
            f"job = np.empty({len(passed) + 2}, np.intp)",
            "job[0], job[1] = n, groups",
            *(f"job[{i}] = place({text})" for i, text in enumerate(passed, 2)),
            "run(task_of(group), words(job), groups, words(scratch), groups > 1)",
            *(f"keep({text})" for text in ("scratch", "job", *passed)),
            *(f"add_up({text})" for text in sums),
        ]
        for total, begin in self.places.items():
            own = f"sums_{total.dtype}[0, {begin}"
            if total.shape:
                copied = ".copy()" if total in name.outputs else ""
                end = f" : {begin + count(total.shape)}]"
                lines.append(f"{name(total)} = {own}{end}.reshape({sizes(total.shape)}){copied}")
            else:
                lines.append(f"{name(total)} = {own}]")
        return lines


def operands(cut: Split) -> tuple[list[Node], list[Node]]:
    """What a panel is given: arrays, and numbers."""
    return [node for node in cut.given if node.shape], [n for n in cut.given if not n.shape]


def count(shape: Shape) -> int:
    """Elements of a shape, or of one row of it."""
    size = 1
    for one in shape:
        size *= 1 if one is None else one
    return size


def in_panels(outputs: Sequence[Node], memory: str | int, n: int) -> Panels | None:
    """How a lowered graph is taken in panels, and the source; None where it is not."""
    thin = rebuilt(outputs, {}, narrowed)
    cut = split(thin)
    if cut is None:
        return None
    plan = regions.plan(cut.outputs, memory, n, [regions.Given(node) for node in cut.given])
    draft = PanelWriter(plan, cut, 1)
    draft.write()
    ends = draft.arena.ends.items()
    row = sum(end[1] * element(dtype) for dtype, end in ends)
    rows = min(max(CACHE // max(row, 1), ROWS[0]), ROWS[1])
    writer = PanelWriter(plan, cut, rows)
    body = writer.write()
    places, totals = sums_of(cut)
    scratch, room = scratch_lines(writer)
    if room > ARENA_BYTES:
        return None
    lines = [*panel_lines(writer, cut, body), *group_lines(writer, cut, places, totals, scratch)]
    return Panels(cut, thin, plan.shared, lines, writer.constants, places, totals, room)


def element(dtype: str) -> int:
    """Bytes of an element."""
    return 1 if dtype == "bool" else int(dtype[-2:]) // 8


def sums_of(cut: Split) -> tuple[dict[Node, int], dict[str, int]]:
    """Where each total begins among the sums of its type, on a cache line; elements of all."""
    places, ends = {}, dict[str, int]()
    for total in cut.totals:
        dtype = total.dtype.name
        places[total] = ends.get(dtype, 0)
        ends[dtype] = places[total] + -(-count(total.shape) // LINE) * LINE
    return places, ends


def scratch_lines(writer: PanelWriter) -> tuple[list[str], int]:
    """Lines that cut a task's scratch into pieces, and its bytes."""
    pieces = {f"memory_{t}": (t, writer.arena.count(end)) for t, end in writer.arena.ends.items()}
    pieces |= {f"work_{t}": (t, size) for t, size in writer.scratch.items()}
    lines, begin = [], 0
    for name, (dtype, size) in pieces.items():
        lines.append(f"{name} = room(scratch, {begin}, {zero(dtype)}, {size})")
        begin += -(-size * element(dtype) // LINE) * LINE
    return lines, begin + LINE


def zero(dtype: str) -> str:
    """A zero of a type in generated code."""
    return {"float32": "f32(0.0)", "float64": "0.0", "int64": "0", "bool": "False"}[dtype]


def given_names(writer: PanelWriter, cut: Split) -> list[str]:
    """The parameters of `panel` beside n, rows and memory."""
    arrays, scalars = operands(cut)
    heads = [terms[0] for terms in cut.totals.values()]
    return [writer.names[node] for node in (*arrays, *heads, *cut.rows, *scalars)]


def panel_lines(writer: PanelWriter, cut: Split, body: Sequence[str]) -> list[str]:
    """The function `panel`."""
    memory = [f"memory_{dtype}" for dtype in writer.arena.ends]
    work = [f"work_{dtype}" for dtype in writer.scratch]
    parameters = ", ".join(["n", "rows", *given_names(writer, cut), *memory, *work])
    return [
        "@separate",
        f"def panel({parameters}):",
        '    """Some rows of the batch."""',
        *indented(body),
        "",
        "",
    ]


def group_lines(
    writer: PanelWriter,
    cut: Split,
    places: dict[Node, int],
    totals: dict[str, int],
    scratch: Sequence[str],
) -> list[str]:
    """The function `group`: a task."""
    arrays, scalars = operands(cut)
    names, word = writer.names, 2
    lines, passed = list[str](), dict[Node, str]()
    for node in arrays:
        passed[node] = operand(node, word)
        if None not in node.shape:
            lines.append(f"{names[node]} = {passed[node]}")
            passed[node] = names[node]
        word += 1
    at = {dtype: word + i for i, dtype in enumerate(totals)}
    word += len(totals)
    for total, terms in cut.totals.items():
        dtype, name = total.dtype.name, names[terms[0]]
        begin = f"number * {totals[dtype]} + {places[total]}"
        shape = sizes(total.shape or (1,))
        lines += [
            f"{name} = array(get(job, {at[dtype]}), {zero(dtype)}, {begin}, {shape})",
            f"{name}[:] = 0",
        ]
        passed[terms[0]] = name
    for node in cut.rows:
        passed[node] = operand(node, word)
        word += 1
    if scalars:
        lines.append(f"numbers = array(get(job, {word}), 0.0, 0, ({len(scalars)},))")
    for i, node in enumerate(scalars):
        passed[node] = f"{'f32' if node.dtype.itemsize == 4 else 'f64'}(numbers[{i}])"
    heads = [terms[0] for terms in cut.totals.values()]
    given = [passed[node] for node in (*arrays, *heads, *cut.rows, *scalars)]
    given += [line.split(" = ")[0] for line in scratch]
    return [
        "@numba.njit(**OPTIONS)",
        "def group(job, number, scratch):",
        '    """The task of one group of rows, panel by panel; what it sums is its own."""',
        *indented(
            [
                "rows, groups = get(job, 0), get(job, 1)",
                "first, last = part(rows, groups, number, 1)",
                *lines,
                *scratch,
                f"count = (last - first + {writer.most} - 1) // {writer.most}",
                "for i in range(count):",
                "    begin, end = part(last - first, count, i, 2)",
                "    begin, n = first + begin, end - begin",
                f"    panel(n, rows, {', '.join(given)})",
            ]
        ),
        "",
        "",
    ]


def operand(node: Node, word: int) -> str:
    """An array, or the rows of a panel of it, from a word of the job."""
    begin = f"begin * {count(node.shape)}" if None in node.shape else "0"
    return f"array(get(job, {word}), {zero(node.dtype.name)}, {begin}, {sizes(node.shape)})"
