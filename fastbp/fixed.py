"""What belongs to a network, as views of it and tables hold it: written into, but not replaced."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np


class Fixed:
    """A base of classes with such attributes: once set they refuse another object.

    If there is an attribute `owned`, they do so while it is true. `net.parameters *= 2` writes into
    the array and puts the same one back, so it goes on working.
    """

    _fixed: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:  # a type checker would take every name for an attribute

        def __setattr__(self, name: str, value: Any) -> None:
            """Set an attribute, or raise AttributeError for another object in a fixed place."""
            if name in self._fixed and vars(self).get("owned", name in vars(self)):
                old = getattr(self, name)
                if value is not old:
                    way = "make a new network of new layers"
                    if isinstance(old, np.ndarray):
                        way = f"write into it: {name}[...] = value"
                    raise AttributeError(
                        f"{type(self).__name__}.{name}: belongs to a network; {way}"
                    )
            object.__setattr__(self, name, value)
