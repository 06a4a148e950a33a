"""fastbp: dense neural networks whose forward and backward passes are fused Numba kernels."""

from pathlib import Path

# `kernels/` lies beside this folder in the repository and inside it once installed. When Python
# runs in the repository root, the folder found here has no kernels of its own.
_here = Path(__file__).resolve().parent
if not (_here / "kernels").is_dir():
    __path__.append(str(_here.parent))

from . import functional, initializers  # noqa: E402  (needs the path set above)
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
    "initializers",
    "load",
    "set_engine",
    "set_num_threads",
    "warmup",
]
