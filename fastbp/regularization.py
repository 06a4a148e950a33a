"""Gradient clipping as a user asks for it (Pascanu et al. 2013)."""

from dataclasses import dataclass
from types import ModuleType

from .checks import Array, check_number
from .kernels import codes


@dataclass(frozen=True)
class ClipNorm:
    """Scale all gradients together so that their Euclidean norm is at most `max_norm`.

    g *= min(1, max_norm / norm), with norm = sqrt(sum(g**2)) over the gradients of all parameters,
    the L2 penalty's included; their direction stays (docs/optimisers.md).

    Parameters
    ----------
    max_norm : float
        max_norm > 0.

    Raises
    ------
    TypeError, ValueError
        If max_norm is no finite number > 0.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.ClipNorm(1.0)
    ClipNorm(max_norm=1.0)
    """

    max_norm: float

    def __post_init__(self) -> None:
        check_number("max_norm", self.max_norm, 0, above=True)

    def recipe(self) -> tuple[int, float]:
        """The kernels' code, and the limit."""
        return codes.CLIP_NORM, self.max_norm

    def apply(self, kernels: ModuleType, gradients: Array) -> None:
        """Clip the flat gradients in place."""
        kernels.clip_by_global_norm(float(self.max_norm), gradients)


@dataclass(frozen=True)
class ClipValue:
    """Limit every gradient to [-limit, limit].

    g = min(max(g, -limit), limit), each by itself: their direction may change
    (docs/optimisers.md).

    Parameters
    ----------
    limit : float
        limit > 0.

    Raises
    ------
    TypeError, ValueError
        If limit is no finite number > 0.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.ClipValue(0.5)
    ClipValue(limit=0.5)
    """

    limit: float

    def __post_init__(self) -> None:
        check_number("limit", self.limit, 0, above=True)

    def recipe(self) -> tuple[int, float]:
        """The kernels' code, and the limit."""
        return codes.CLIP_VALUE, self.limit

    def apply(self, kernels: ModuleType, gradients: Array) -> None:
        """Clip the flat gradients in place."""
        kernels.clip_by_value(float(self.limit), gradients)


Clip = ClipNorm | ClipValue


def resolve(clip: float | Clip | None) -> Clip | None:
    """The clipping asked for; a bare number is a global norm."""
    if clip is None or isinstance(clip, Clip):
        return clip
    return ClipNorm(check_number("clip", clip, 0, above=True))
