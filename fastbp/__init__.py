"""fastbp: dense neural networks whose forward and backward passes are fused Numba kernels.

Layers

- `Sequential`: a network; its methods train, predict, derive, save.
- `Dense`, `Dropout`: its layers.
- `initializers`: what weights begin with.
- `Ensemble`: many small networks, trained side by side.
- `load`: a network that `Sequential.save` wrote.

Training

- `History`: what `Sequential.fit` did.
- `DivergenceError`: a loss that is not finite on finite data.
- `ClipNorm`, `ClipValue`: limits of the gradients.
- `Memory`: the bytes that a training takes, of `Sequential.memory`.

Losses

- `Huber`: the one with a number to set; the others have names, such as "squared_error".
- `functional`: losses and layers for NumPy arrays of your own.

Optimisers

- `SGD`, `Adam`, `AdamW`, `RMSprop`: they keep their state between calls.

Derivatives

- `graph`: expressions, differentiated any number of times, and compiled.
- `Sequential.jacobian`, `Sequential.laplacian`: of a network, by its inputs.
- `Sequential.objective`: a loss that contains derivatives.
- `gradcheck`, `GradcheckError`: gradients against finite differences.

Compiled use

- `Sequential.njit_predict`, `Sequential.njit_step`: for your own @njit code.
- `Sequential.low_level_callable`: for SciPy's integrators.

Engines

- `get_engine`, `set_engine`: register tiles or BLAS on the CPU.
- `get_num_threads`, `set_num_threads`: threads of the CPU kernels.
- `warmup`, `Warmup`: compile once, and measure which engine is faster.
- `fastbp.gpu`: how a GPU computes; loaded when it is first named.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

# `kernels/` lies beside this folder in the repository and inside it once installed. When Python
# runs in the repository root, the folder found here has no kernels of its own.
_here = Path(__file__).resolve().parent
if not (_here / "kernels").is_dir():
    __path__.append(str(_here.parent))

from . import functional, graph, initializers  # noqa: E402  (needs the path set above)
from .engines import get_engine, set_engine  # noqa: E402
from .ensemble import Ensemble  # noqa: E402
from .gradcheck import GradcheckError, gradcheck  # noqa: E402
from .layers import Dense, Dropout  # noqa: E402
from .losses import Huber  # noqa: E402
from .memory import Memory  # noqa: E402
from .network import Sequential  # noqa: E402
from .optimizers import SGD, Adam, AdamW, RMSprop  # noqa: E402
from .parallel import get_num_threads, set_num_threads  # noqa: E402
from .regularization import ClipNorm, ClipValue  # noqa: E402
from .storage import load  # noqa: E402
from .training import DivergenceError, History  # noqa: E402
from .warmup import Warmup, warmup  # noqa: E402

if TYPE_CHECKING:
    from . import gpu as gpu
else:

    def __getattr__(name):
        """`fastbp.gpu`, which takes a while to load."""
        if name == "gpu":
            return import_module(".gpu", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ClipNorm",
    "ClipValue",
    "Dense",
    "DivergenceError",
    "Dropout",
    "Ensemble",
    "GradcheckError",
    "History",
    "Huber",
    "Memory",
    "RMSprop",
    "Sequential",
    "Warmup",
    "functional",
    "get_engine",
    "get_num_threads",
    "gradcheck",
    "graph",
    "initializers",
    "load",
    "set_engine",
    "set_num_threads",
    "warmup",
]
