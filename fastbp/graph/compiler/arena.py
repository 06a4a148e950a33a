"""One piece of memory for all arrays between the steps of a compiled graph.

A page of fresh memory costs a fault, 0.4 ms for a megabyte, measured: a step with 30 arrays of its
own spent two thirds of its time on them. One array is kept by the allocator from call to call, and
places whose arrays nobody reads any more are used again.
"""

from collections import Counter

from ..node import Node
from ..shapes import elements
from ..table import Shape

APART = (
    80  # elements between arrays: at equal distances of 4 KB they would share the cache's places
)


def size_text(counts: Counter[int]) -> str:
    """Elements as text: the sum of c n**p, by p."""
    terms = [" * ".join(["n"] * p + [str(c)]) for p, c in sorted(counts.items()) if c]
    return " + ".join(reversed(terms)) or "0"


def elements_of(shape: Shape) -> Counter[int]:
    """Elements of a shape: c n**p, as {p: c}."""
    count, power = elements(shape)
    return Counter({power: count})


class Arena:
    """Which part of memory each array has, by type."""

    def __init__(self, rows: int | None = None) -> None:
        self.most = rows  # of a panel: all places are constants then; None: `n` is any number
        self.ends: dict[str, Counter[int]] = {}
        self.free: dict[tuple[str, int, int], list[Counter[int]]] = {}
        self.taken: dict[Node, tuple[tuple[str, int, int], Counter[int]]] = {}

    def take(self, node: Node) -> str:
        """A place for an array, as text: the flat part of memory."""
        dtype, size = node.dtype.name, elements_of(node.shape)
        key = (dtype, *elements(node.shape))
        places = self.free.setdefault(key, [])
        if places:
            begin = places.pop()
        else:
            end = self.ends.setdefault(dtype, Counter())
            begin = Counter(end)
            end.update(size)
            end[0] += APART
        self.taken[node] = key, begin
        if self.most is None:
            return f"memory_{dtype}[{size_text(begin)} : {size_text(begin + size)}]"
        place = self.count(begin)
        return f"memory_{dtype}[{place} : {place} + {size_text(size)}]"

    def give(self, node: Node) -> None:
        """The place of an array, for others."""
        key, begin = self.taken.pop(node)
        self.free[key].append(begin)

    def count(self, size: Counter[int]) -> int:
        """Elements for the most rows that there may be."""
        return sum(c * (self.most or 0) ** p for p, c in size.items())

    def lines(self) -> list[str]:
        """Lines that make the memory."""
        return [
            f"memory_{dtype} = np.empty({size_text(end)}, np.{dtype})"
            for dtype, end in self.ends.items()
        ]
