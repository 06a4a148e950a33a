"""How Hypothesis runs: the same few examples by default, many new ones in `make fuzz`.

And no test follows the engines that were measured or forced on the machine where it runs, nor
finds the graphs that were compiled there.
"""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

os.environ.pop("FASTBP_ENGINE", None)
os.environ["FASTBP_CACHE_DIR"] = tempfile.mkdtemp(prefix="fastbp-tests-")
atexit.register(shutil.rmtree, os.environ["FASTBP_CACHE_DIR"], ignore_errors=True)

# No deadline: the first example compiles a kernel.
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=2000, deadline=None, derandomize=False)
settings.load_profile("default")  # before pytest reads --hypothesis-profile, which wins
