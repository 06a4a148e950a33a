"""What the table of operations holds for each of them; operations.py writes the rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

Shape = tuple[int | None, ...]
Slope = Callable[..., Any]

# Which operands an operation takes: a letter, its name in an error, and NumPy's kinds of dtype.
KINDS = {"b": "bool", "i": "int64", "f": "float32 or float64", "n": "numbers", "a": "any"}
ALLOWED = {"b": "b", "i": "i", "f": "f", "n": "if", "a": "bif"}


class Operation(NamedTuple):
    """A row of the table of operations.

    Attributes
    ----------
    shape : function
        (shapes, **parameters) -> the result's shape, or ValueError without the operation's name.
    value : function
        (*arrays, **parameters) -> array.
    slopes : tuple, function or str
        Per operand (g, y, *operands, **parameters) -> what a change of this operand adds to the
        gradient, g being that of the result y; None where no derivative flows. A function returns
        the slope of operand i. A text says why there is no derivative.
    takes : str
        A letter of KINDS per operand, the last one for all that follow.
    gives : str, optional
        The result's dtype; default: that of the operands.
    elementwise : bool
        Operands broadcast, and an element of the result needs one element of each.
    """

    shape: Callable[..., Shape]
    value: Callable[..., Any]
    slopes: tuple[Slope | None, ...] | Callable[[int], Slope] | str
    takes: str = "f"
    gives: str | None = None
    elementwise: bool = False

    def slope(self, i: int) -> Slope:
        """The slope in operand i; ValueError where no derivative flows."""
        if isinstance(self.slopes, str):
            raise ValueError(f"no derivative: {self.slopes}")
        found = self.slopes[i] if isinstance(self.slopes, tuple) else self.slopes(i)
        if found is None:
            raise ValueError(f"no derivative flows to operand {i}")
        return found


OPERATIONS: dict[str, Operation] = {}
